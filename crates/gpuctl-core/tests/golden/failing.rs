//! Boxes that fail or may soon: boot loops, workers that take no jobs, boxes that a user keeps up to look at them, and those that EC2
//! recommends to replace.

use gpuctl_core::observation::{BoxState, HoldWants, Run, SeenQueue};

use super::SATURDAYS;
use super::world::{
    Case, Worker, a_box, ago, busy, case, failed, faulty, idle, kept, recommended, run, running,
    spot, stopped, without_service,
};

pub(crate) fn cases() -> Vec<Case> {
    [boot_loops(), faults(), kept_up(), to_replace()].into_iter().flatten().collect()
}

fn boot_loops() -> Vec<Case> {
    let loop_of = |count: i64| (0..count).map(|n| failed(1, 300 + n * 900)).collect::<Vec<_>>();
    let two = || vec![stopped(), a_box(2, BoxState::Stopped, 9_000)];
    vec![
        case("boot loop: the wait grows beyond minutes", "", vec![stopped()])
            .waiting(1, 9_000)
            .runs(loop_of(12)),
        case("boot loop: a user who asks for a box gets one at once", "", vec![stopped()])
            .waiting(1, 9_000)
            .runs((0..12).map(|n| failed(1, 900 + n * 900)).collect())
            .hold(HoldWants::Running, 3_000, None),
        case("boot loop: a success of another box does not reset it", "boxes_max = 2", two())
            .waiting(1, 9_000)
            .runs([vec![run(2, 220)], loop_of(9)].concat()),
        case(
            "boot loop: a box that fails waits while the others start",
            "boxes_max = 2\njobs_per_box = 1",
            two(),
        )
        .waiting(2, 9_000)
        .runs([vec![run(2, 220)], loop_of(9)].concat()),
        case("boot loop: one broken box keeps no other down", "boxes_max = 3\njobs_per_box = 1", {
            vec![stopped(), a_box(2, BoxState::Running, 9_000), a_box(3, BoxState::Stopped, 900)]
        })
        .waiting(3, 9_000)
        .runs(loop_of(9)),
        case("boot loop: where every box fails all wait", "boxes_max = 2\njobs_per_box = 1", two())
            .waiting(2, 9_000)
            .runs((0..12).map(|n| failed(1 + n % 2, 300 + i64::from(n) * 900)).collect()),
        case("boot loop: of two boxes the one that ended last counts", "boxes_max = 2", two())
            .waiting(1, 9_000)
            .runs(vec![
                failed(1, 300),
                Run { stopped_at: Some(ago(40)), jobs: Some(9), ..run(2, 9_000) },
            ]),
        case("boot loop: workers that name a fault and end count, too", "", vec![stopped()])
            .waiting(1, 9_000)
            .runs(
                (0..10)
                    .map(|n| Run {
                        stop: None,
                        jobs: Some(0),
                        error: Some("models missing".to_owned()),
                        ..run(1, 300 + n * 900)
                    })
                    .collect(),
            ),
    ]
}

fn faults() -> Vec<Case> {
    vec![
        case("fault: the worker takes no jobs, and says why", "", vec![faulty(600, running(900))])
            .waiting(1, 500),
        case(
            "fault: another box does the jobs",
            "boxes_max = 2",
            vec![faulty(600, running(900)), a_box(2, BoxState::Stopped, 9_000)],
        )
        .waiting(1, 500),
        case("fault: where a service is down no other box is started", "boxes_max = 3", {
            vec![
                without_service(600, running(900)),
                without_service(500, a_box(2, BoxState::Running, 900)),
                a_box(3, BoxState::Stopped, 9_000),
            ]
        })
        .waiting(9, 500),
        case(
            "fault: a service that one box alone cannot reach is that box's fault",
            "boxes_max = 3",
            {
                vec![
                    without_service(600, running(900)),
                    faulty(500, a_box(2, BoxState::Running, 900)),
                    a_box(3, BoxState::Stopped, 9_000),
                ]
            },
        )
        .waiting(9, 500),
        case("fault: after its time the box is stopped", "", vec![faulty(4_501, running(4_600))])
            .waiting(1, 500),
        case("fault: a schedule starts no second box", SATURDAYS, {
            vec![faulty(600, running(900)), a_box(2, BoxState::Stopped, 9_000)]
        }),
        case("fault: an idle box stops all the same", "idle_stop = \"5m\"", {
            vec![faulty(400, running(900))]
        })
        .queue(SeenQueue { empty_since: Some(ago(400)), ..SeenQueue::default() }),
    ]
}

fn kept_up() -> Vec<Case> {
    let silent = || Worker { leases: 1, idle_seconds: 0, heard_seconds: 180 }.on(running(900));
    let idle = || idle(900, spot("a", running(900)));
    let empty = || SeenQueue { empty_since: Some(ago(900)), ..SeenQueue::default() };
    vec![
        case("keep-until: an idle box stays up", "", vec![kept(7_200, idle())]).queue(empty()),
        case("keep-until: also its own worker leaves it up", "", vec![kept(7_200, idle())])
            .queue(empty())
            .by_worker(),
        case("keep-until: more than 12 h ahead it does not count", "", vec![kept(43_201, idle())])
            .queue(empty()),
        case("keep-until: it delays a stop that a user holds", "", vec![kept(7_200, idle())]).hold(
            HoldWants::Stopped,
            3_000,
            None,
        ),
        case("keep-until: a silent box stays up", "", vec![kept(7_200, silent())]).waiting(1, 9),
        case(
            "keep-until: lifetime_max ends it",
            "lifetime_max = \"10m\"",
            vec![kept(7_200, idle())],
        )
        .queue(empty()),
        case("hold: a failing box stays up to be looked at", "", vec![silent()])
            .waiting(1, 9)
            .hold(HoldWants::Running, 3_000, None),
        case(
            "hold: a silent box that it keeps up does no jobs: another starts",
            "boxes_max = 2",
            vec![silent(), a_box(2, BoxState::Stopped, 9_000)],
        )
        .waiting(1, 9_000)
        .hold(HoldWants::Running, 3_000, None),
        case("hold: nor does one that hangs in its boot", "boxes_max = 2", {
            vec![a_box(1, BoxState::Pending, 3_000), a_box(2, BoxState::Stopped, 9_000)]
        })
        .waiting(1, 9_000)
        .hold(HoldWants::Running, 3_000, None),
    ]
}

fn to_replace() -> Vec<Case> {
    let idle = |seconds| vec![recommended(idle(seconds, running(900)))];
    let empty = |seconds| SeenQueue { empty_since: Some(ago(seconds)), ..SeenQueue::default() };
    vec![
        case(
            "P13 a box that EC2 recommends to replace stops once idle",
            "idle_stop = \"5m\"",
            idle(20),
        )
        .queue(empty(20)),
        case("P13 its jobs are not interrupted", "", vec![recommended(busy(running(900)))])
            .waiting(1, 60),
        case("P13 nor does it stop where the schedule keeps a box", SATURDAYS, idle(900))
            .queue(empty(900)),
    ]
}
