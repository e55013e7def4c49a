//! Quiet hours of a pool with a queue.

use gpuctl_core::observation::HoldWants;

use super::SATURDAYS;
use super::world::{Case, busy, case, running, stopped};

pub(crate) fn cases() -> Vec<Case> {
    let quiet = "[[pool.gpu.quiet]]\nzone = \"UTC\"\nweekdays = \"sat\"\nbegin = \"08:00\"\nend = \"18:00\"";
    vec![
        case("quiet hours: the queue starts nothing", quiet, vec![stopped()]).waiting(3, 900),
        case("quiet hours: a box with work goes on", quiet, vec![busy(running(900))])
            .waiting(3, 900),
        case("quiet hours: a hold starts its box", quiet, vec![stopped()]).waiting(3, 900).hold(
            HoldWants::Running,
            3_000,
            None,
        ),
        case(
            "quiet hours: a schedule starts its box all the same",
            &format!("{quiet}\n{SATURDAYS}"),
            vec![stopped()],
        )
        .waiting(3, 900),
    ]
}
