//! What starts a box before the pool's `max_wait` does: many jobs, or one with less patience.

use gpuctl_core::observation::SeenQueue;

use super::world::{Case, case, stopped};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case(
            "demand: start_depth starts early",
            "max_wait = \"10m\"\nstart_depth = 10",
            vec![stopped()],
        )
        .waiting(10, 5),
        case(
            "demand: start_depth never starves a lone job",
            "max_wait = \"10m\"\nstart_depth = 10",
            vec![stopped()],
        )
        .waiting(1, 500),
        case(
            "demand: a job with less patience starts a box sooner",
            "max_wait = \"10m\"",
            vec![stopped()],
        )
        .waiting(3, 60)
        .urgent(120),
        case("demand: it can still wait for a while", "max_wait = \"10m\"", vec![stopped()])
            .waiting(3, 60)
            .urgent(240),
        case(
            "demand: a job with more patience than the pool's waits no longer",
            "max_wait = \"10m\"",
            vec![stopped()],
        )
        .waiting(3, 470)
        .urgent(36_000),
        case(
            "demand: a job without patience needs a box at once, also where its count is seen once",
            "max_wait = \"10m\"",
            vec![stopped()],
        )
        .queue(SeenQueue { visible: 1, ..SeenQueue::default() })
        .urgent(0),
        case(
            "demand: a job that no longer waits starts nothing",
            "max_wait = \"10m\"",
            vec![stopped()],
        )
        .urgent(-60),
    ]
}
