//! The stable codes of errors, and the exit codes that go with them.

/// The exit codes; 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The operation failed.
    Failed = 1,
    /// The command line or the configuration is invalid.
    Usage = 2,
    /// `plan --exit-code`: there is something to do.
    ChangesPending = 3,
    /// A start or stop is outranked by another rule, or cannot happen (the hold is set); or a permission is missing.
    NotCarriedOut = 4,
    /// `--wait` timed out; the operation continues.
    TimedOut = 5,
    /// A budget, or a limit that was given, does not allow the cost.
    OverBudget = 6,
    /// Ctrl-C while waiting; the operation continues.
    Interrupted = 130,
}

/// Declares `Code` with each code's text, exit code and meaning.
macro_rules! codes {
    ($($name:ident $text:literal $exit:ident $meaning:literal)+) => {
        /// What failed, for programs: `code` in the JSON of an error. A code is never renamed or reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code { $(#[doc = $meaning] $name,)+ }

        impl Code {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)+];

            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            pub(crate) fn exit(self) -> Exit {
                match self { $(Self::$name => Exit::$exit,)+ }
            }

            pub(crate) fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

codes! {
    UsageUnknownArgument "usage.unknown_argument" Usage "An argument or flag does not exist."
    UsageUnknownCommand "usage.unknown_command" Usage "A command does not exist."
    UsageInvalidValue "usage.invalid_value" Usage "The value of an argument is invalid."
    UsageMissingArgument "usage.missing_argument" Usage "A required argument or value is missing."
    UsageMissingCommand "usage.missing_command" Usage "No command was given."
    UsageConflict "usage.conflict" Usage "Two arguments cannot be used together."
    UsageTooManyValues "usage.too_many_values" Usage "An argument was given too often or with too many values."
    UsageOther "usage.other" Usage "The command line is invalid for another reason."
    UsageNotConfirmed "usage.not_confirmed" Usage "The command needs a confirmation or --yes."
    UsageNoAws "usage.no_aws" Usage "The command needs AWS: the configuration or this build of gpuctl has none."
    ConfigUnreadable "config.unreadable" Usage "The configuration file cannot be read."
    ConfigInvalid "config.invalid" Usage "The configuration file has errors; `causes` lists all of them."
    ConfigOfOtherUser "config.of_other_user" Usage "The configuration file that was found could have been written by another user."
    PoolUnknown "pool.unknown" Usage "The configuration has no such pool."
    PoolNoQueue "pool.no_queue" Usage "The pool has no queue, or no pool has one."
    PoolAmbiguous "pool.ambiguous" Usage "Several pools have a queue; name one."
    PoolNoSchedule "pool.no_schedule" Usage "The pool has no schedule."
    PoolNothingToRun "pool.nothing_to_run" NotCarriedOut "The pool has nothing to run on this machine."
    PoolUnread "pool.unread" Failed "The pool could not be read."
    HoldInvalid "hold.invalid" Usage "A hold's time is invalid: in the past, or longer than allowed."
    HoldOverBudget "hold.over_budget" OverBudget "The pool's budget forbids the start."
    StartOutranked "start.outranked" NotCarriedOut "Another rule outranks the start; the hold is set."
    StartImpossible "start.impossible" NotCarriedOut "No box of the pool can start now; the hold is set."
    StopOutranked "stop.outranked" NotCarriedOut "Another rule outranks the stop; the hold is set."
    WaitTimedOut "wait.timed_out" TimedOut "`--wait` timed out; the operation continues."
    BoxUnknown "box.unknown" Failed "There is no such box, or no log of it."
    BoxNotStarted "box.not_started" Failed "A box ended before it was ready."
    JobUnknown "job.unknown" Failed "There is no such job."
    JobAmbiguous "job.ambiguous" Usage "The given part of an id matches several jobs."
    PriorityUnserved "priority.unserved" Usage "The pool has no queue for jobs of this priority."
    DeadlinePassed "deadline.passed" Usage "The deadline of a job is in the past."
    JobEnded "job.ended" Failed "A job that was to be cancelled has already ended."
    TaskUnknown "task.unknown" Usage "There is no such task."
    ParamUnknown "input.param_unknown" Usage "The task has no such param."
    ParamInvalid "input.param" Usage "The value of a param is invalid for the task."
    ParamMissing "input.param_missing" Usage "The task requires a param that was not given."
    ModelUnknown "model.unknown" Usage "No manifest and no `[model.NAME]` of the configuration has this model."
    ModelTask "model.task" Usage "The model does another task."
    InputMissing "input.missing" Usage "An input file cannot be read."
    InputArchived "input.archived" Usage "An input is in a storage class that must be restored first."
    InputKeyTooLong "input.key_too_long" Usage "The key of an input in S3 is longer than S3's limit."
    InputFolder "input.folder" Usage "An input is a folder."
    InputOutside "input.outside" Usage "An input is outside `input_roots`."
    InputTooLarge "input.too_large" Usage "An input is larger than allowed."
    InputElsewhere "input.elsewhere" Usage "An input is where the worker cannot read it."
    PeriodInFuture "period.in_future" Usage "The reported period is in the future."
    PriceUnknown "price.unknown" Usage "No price is known for an instance type and region."
    TraceMissing "trace.missing" Usage "No trace was given, or more than one."
    TraceInvalid "trace.invalid" Usage "A trace, an availability or a price history is invalid."
    HistoryEmpty "history.empty" Failed "No job in the period has a result."
    PolicyUnknown "policy.unknown" Usage "There is no such simulated policy."
    PolicyInvalid "policy.invalid" Usage "The simulated policy is invalid."
    FaultUnknown "fault.unknown" Usage "There is no such kind of fault."
    ControllerRunning "controller.running" Failed "Another `gpuctl run` is running on this state folder."
    HttpOpen "http.open" Usage "The HTTP API would be open to other machines, and no key is in force."
    HttpUnavailable "http.unavailable" Failed "The HTTP API cannot listen on its address."
    FunctionUnnamed "function.unnamed" Usage "No Lambda function is configured or named."
    StackInvalid "stack.invalid" Usage "A parameter, template or file of a stack cannot be used."
    StackBlocked "stack.blocked" Failed "Something in the account or region stands in the way; nothing was changed."
    StackGated "stack.gated" NotCarriedOut "A change would replace a resource or lose data, and was not allowed by name."
    StackBusy "stack.busy" NotCarriedOut "The stack's queue has jobs."
    StackFailed "stack.failed" Failed "CloudFormation did not make, change or delete a stack."
    WaitInterrupted "wait.interrupted" Interrupted "Interrupted while waiting; the operation continues."
    WorkerMissing "worker.missing" Failed "gpu-worker cannot be run."
    WorkerFailed "worker.failed" Failed "gpu-worker failed; its error is on standard error."
    WorkerUnreadable "worker.unreadable" Failed "The output of gpu-worker cannot be read."
    FileUnreadable "file.unreadable" Failed "A file cannot be read."
    FileUnwritable "file.unwritable" Failed "A file cannot be written."
    JobNotSent "job.not_sent" Failed "Jobs could not be sent to their queue."
    BackendRefused "backend.refused" Failed "EC2 has no capacity for a start."
    BackendConflict "backend.conflict" Failed "A box or message is in another state than the call needs."
    BackendLeaseLost "backend.lease_lost" Failed "A lease ran out."
    BackendFull "backend.full" Failed "The disk, or the queue file, is full."
    BackendUnavailable "backend.unavailable" Failed "The backend cannot be reached now; try again."
    BackendThrottled "backend.throttled" Failed "AWS throttles the calls; try again later."
    BackendDenied "backend.denied" NotCarriedOut "A permission or valid credentials are missing."
    BackendNotFound "backend.not_found" Failed "A resource of the backend does not exist."
    BackendCorrupt "backend.corrupt" Failed "Stored data cannot be read."
    BackendTooNew "backend.too_new" Failed "Stored data was written by a newer version of gpuctl."
    BackendOther "backend.other" Failed "The backend failed for another reason."
    Internal "internal" Failed "An error of gpuctl itself."
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_of_one_form() {
        let texts: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        let is_plain =
            |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.');
        assert!(texts.iter().all(|text| is_plain(text)), "{texts:?}");
    }
}
