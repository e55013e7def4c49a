//! Holds that end with their queue.

use gpuctl_core::observation::HoldWants;

use super::world::{Case, ago, busy, case, idle, running, stopped};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case(
            "until-empty: a hold starts a box for what waits",
            "max_wait = \"10m\"",
            vec![stopped()],
        )
        .waiting(9, 60)
        .hold(HoldWants::Running, 3_000, None)
        .until_empty(),
        case(
            "until-empty: a hold keeps a busy box although the queue is empty",
            "",
            vec![busy(running(900))],
        )
        .hold(HoldWants::Running, 3_000, None)
        .until_empty(),
        case(
            "until-empty: with the queue empty and the box idle the hold has ended",
            "",
            vec![idle(90, running(900))],
        )
        .hold(HoldWants::Running, 3_000, None)
        .until_empty(),
        case("until-empty: without counts the hold goes on", "", vec![idle(90, running(900))])
            .with(|seen| seen.queue.as_mut().unwrap().at = ago(180))
            .hold(HoldWants::Running, 3_000, None)
            .until_empty(),
    ]
}
