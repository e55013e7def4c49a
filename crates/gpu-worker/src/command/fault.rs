//! Whose fault it is that a command has no result, and what to do about it.

use gpuctl_control::job::JobFailure;
use gpuctl_control::ports::PortError;
use gpuctl_control::text::with_causes;
use gpuctl_worker::{BoxFault, Fault};

use super::snapshot::SnapshotError;

/// Whose fault it is that files cannot be packed or restored.
pub(super) fn snapshot_fault(what: &str, error: &SnapshotError) -> Fault {
    let failure = |code: &str, hint: &str| {
        Fault::Input(JobFailure {
            code: code.to_owned(),
            message: format!("{what} cannot be kept: {error}"),
            hint: Some(hint.to_owned()),
        })
    };
    match error {
        SnapshotError::TooLarge { .. } | SnapshotError::TooMany => failure(
            "command.full",
            "delete what it does not need, or raise `checkpoint_mib_max` or `output_mib_max` of the command",
        ),
        SnapshotError::Damaged(_) => Fault::Input(JobFailure {
            code: "command.checkpoint".to_owned(),
            message: format!("{what} cannot be used: {error}"),
            hint: Some("`gpuctl retry` begins it anew".to_owned()),
        }),
        SnapshotError::Disk(error) => disk(error),
        SnapshotError::Store(error) => unreachable_files(error),
        SnapshotError::Changing | SnapshotError::Unfinished => {
            disk(&std::io::Error::other(error.to_string()))
        }
    }
}

/// Why there is no result of a program that has ended well: never the box's fault, for which it would be run again.
pub(super) fn output_failure(error: &SnapshotError) -> Fault {
    if matches!(error, SnapshotError::TooLarge { .. } | SnapshotError::TooMany) {
        return snapshot_fault("its output", error);
    }
    let is_full = matches!(error, SnapshotError::Disk(cause) if cause.kind() == std::io::ErrorKind::StorageFull);
    let hint = if is_full {
        "the box needs room for the output folder twice: a larger disk, or less output; `gpuctl retry` runs it again"
    } else {
        "see that the output folder stays, that the worker may read all in it, and that names are UTF-8; `gpuctl retry` runs it again"
    };
    Fault::Input(JobFailure {
        code: "command.output".to_owned(),
        message: format!("it ended well, but its output cannot be kept: {error}"),
        hint: Some(hint.to_owned()),
    })
}

pub(super) fn disk(error: &std::io::Error) -> Fault {
    Fault::Box(BoxFault {
        code: "command.disk".to_owned(),
        message: format!("the folder in which commands run cannot be used: {error}"),
        hint: Some("free some disk, and check the owner of the state folder".to_owned()),
    })
}

pub(super) fn unreachable_files(error: &PortError) -> Fault {
    Fault::Box(BoxFault {
        code: "files.unreachable".to_owned(),
        message: format!("the job's checkpoint cannot be fetched: {}", with_causes(error)),
        hint: error.hint.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_has_ended_well_is_not_run_again_for_its_output() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        for (error, expected) in [
            (SnapshotError::TooMany, "command.full"),
            (SnapshotError::TooLarge { mib: 2, mib_max: 1 }, "command.full"),
            (SnapshotError::Changing, "command.output"),
            (SnapshotError::Unfinished, "command.output"),
            (SnapshotError::Disk(full), "command.output"),
            (SnapshotError::Disk(std::io::Error::other("no UTF-8")), "command.output"),
        ] {
            let Fault::Input(failure) = output_failure(&error) else {
                panic!("{error} is not the job's own error");
            };
            assert_eq!(failure.code, expected, "{error}");
        }
    }
}
