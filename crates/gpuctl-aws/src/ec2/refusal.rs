//! What EC2's error codes mean for a start (`facts/aws.md` 9.5). It looks at codes, never at words, but keeps the words:
//! they often name zones that have capacity.

use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_core::offering::RefusalClass;

/// The class of a start's or launch's error, with a hint where AWS's own words have none; `None` for what any call may meet.
pub(super) fn class(code: &str) -> Option<(PortErrorClass, Option<&'static str>)> {
    let refused = |class, hint| Some((PortErrorClass::Refused(class), hint));
    // EC2's codes have dots of their own, as `InvalidInstanceID.NotFound`: the last part has the meaning.
    match code.rsplit('.').next().unwrap_or(code) {
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientCapacityOnHost"
        | "InsufficientCapacity"
        | "InsufficientFreeAddressesInSubnet"
        | "UnfulfillableCapacity"
        | "SpotMaxPriceTooLow" => refused(RefusalClass::Capacity, None),
        "MaxSpotInstanceCountExceeded" => refused(
            RefusalClass::Quota,
            Some(
                "raise the quota \"All G and VT Spot Instance Requests\" (Service Quotas, in vCPUs)",
            ),
        ),
        "VcpuLimitExceeded" | "InstanceLimitExceeded" => refused(
            RefusalClass::Quota,
            Some(
                "raise the quota \"Running On-Demand G and VT instances\" (Service Quotas, in vCPUs)",
            ),
        ),
        "MaxSpotFleetRequestCountExceeded" | "ResourceCountExceeded" | "VolumeLimitExceeded" => {
            refused(RefusalClass::Quota, Some("raise the quota that it names (Service Quotas)"))
        }
        "Unsupported" | "InvalidAvailabilityZone" => refused(RefusalClass::NotOffered, None),
        "IncorrectInstanceState" | "IncorrectSpotRequestState" => {
            Some((PortErrorClass::Conflict, Some("the next look sees it as it is now")))
        }
        // The order was given before, and what came of it is gone: the next one has another token.
        "IdempotentInstanceTerminated" => Some((PortErrorClass::Conflict, None)),
        "IdempotentParameterMismatch" => Some((
            PortErrorClass::Conflict,
            Some(
                "types or subnets were changed while a launch was under way: the next launch takes them",
            ),
        )),
        "OperationNotPermitted" => Some((
            PortErrorClass::Denied,
            Some("the instance is protected: switch its stop and termination protection off"),
        )),
        "UnsupportedOperation" => Some((
            PortErrorClass::Other,
            Some(
                "only a spot box with a persistent request can be stopped; `gpuctl doctor` shows which is not",
            ),
        )),
        "NotFound" | "Malformed" => Some((
            PortErrorClass::NotFound,
            Some("look at its id, and whether account and region are the right ones"),
        )),
        "PendingVerification" | "Blocked" => Some((
            PortErrorClass::Denied,
            Some("AWS looks into this account: see its support centre"),
        )),
        _ => None,
    }
}

/// A refusal as the ledger will keep it: class by code, AWS's words as the cause.
pub(super) fn refusal(what: String, code: &str, words: &str) -> PortError {
    let (class, hint) = class(code).unwrap_or((PortErrorClass::Other, None));
    let failed = PortError::new(class, what).because(format!("{code}: {words}"));
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p9_quotas_and_capacity_are_told_apart_and_the_words_are_kept() {
        for (code, expected) in [
            ("InsufficientInstanceCapacity", PortErrorClass::Refused(RefusalClass::Capacity)),
            ("SpotMaxPriceTooLow", PortErrorClass::Refused(RefusalClass::Capacity)),
            ("MaxSpotInstanceCountExceeded", PortErrorClass::Refused(RefusalClass::Quota)),
            ("VcpuLimitExceeded", PortErrorClass::Refused(RefusalClass::Quota)),
            ("Unsupported", PortErrorClass::Refused(RefusalClass::NotOffered)),
            ("IncorrectSpotRequestState", PortErrorClass::Conflict),
            ("OperationNotPermitted", PortErrorClass::Denied),
            ("InvalidInstanceID.NotFound", PortErrorClass::NotFound),
            ("SomethingNew", PortErrorClass::Other),
        ] {
            let error = refusal("box i-1 was not started".into(), code, "choose us-east-1b");
            assert_eq!(error.class, expected, "{code}");
            let cause = error.cause.expect("the words").to_string();
            assert!(cause.contains(code) && cause.contains("us-east-1b"), "{cause}");
        }
    }
}
