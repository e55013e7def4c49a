//! What EC2's error codes mean for a start or launch (EC2 API Reference, "Error codes for the Amazon EC2 API"). Only the code
//! decides; the message is kept as the cause, since it often names zones that have capacity.

use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_core::offering::RefusalClass;

/// The class of a start's or launch's error, with a hint where AWS's message says too little; `None` for errors that any call
/// may meet.
pub(super) fn class(code: &str) -> Option<(PortErrorClass, Option<&'static str>)> {
    let refused = |class, hint| Some((PortErrorClass::Refused(class), hint));
    // Some codes have several parts, e.g. `InvalidInstanceID.NotFound`: the last one tells.
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
            Some((PortErrorClass::Conflict, Some("the next reconcile sees its new state")))
        }
        // The order was carried out before, and its box was terminated since; the next order has another token.
        "IdempotentInstanceTerminated" => Some((PortErrorClass::Conflict, None)),
        "IdempotentParameterMismatch" => Some((
            PortErrorClass::Conflict,
            Some(
                "types or subnets were changed during a launch: the next launch uses the new ones",
            ),
        )),
        "OperationNotPermitted" => Some((
            PortErrorClass::Denied,
            Some("the instance is protected: turn its stop and termination protection off"),
        )),
        "UnsupportedOperation" => Some((
            PortErrorClass::Other,
            Some(
                "only a spot box with a persistent request can be stopped; `gpuctl doctor` shows which is not",
            ),
        )),
        "NotFound" | "Malformed" => Some((
            PortErrorClass::NotFound,
            Some("check its id, and whether account and region are the right ones"),
        )),
        "PendingVerification" | "Blocked" => Some((
            PortErrorClass::Denied,
            Some("AWS is verifying this account or has blocked it: see the AWS Support Center"),
        )),
        _ => None,
    }
}

/// The error that the ledger stores with the run: classified by its code, with AWS's message as the cause.
pub(super) fn refusal(what: String, code: &str, message: &str) -> PortError {
    let (class, hint) = class(code).unwrap_or((PortErrorClass::Other, None));
    let failed = PortError::new(class, what).because(format!("{code}: {message}"));
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p9_quotas_and_capacity_are_told_apart_and_the_message_is_kept() {
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
            let cause = error.cause.expect("a cause").to_string();
            assert!(cause.contains(code) && cause.contains("us-east-1b"), "{cause}");
        }
    }
}
