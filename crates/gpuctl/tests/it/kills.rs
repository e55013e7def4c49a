//! Kills of the real worker at each stage of a job, by SIGKILL and SIGTERM: one result for each job, the poison in the dead letters
//! with its reason, its neighbours unharmed, and no process left.
//!
//! Three workers drain one queue. Their debug logs say which stage each job has reached; a worker is signalled as soon as one reaches the
//! stage that is next in a shuffled deck, and is started again once it has ended. One message in a hundred is poison: four kinds that no
//! worker can read, and two whose worker is killed whenever it reaches a stage with them.
//!
//! `load` makes the jobs, `place` says where they run, `workers` follows the processes, `killer` chooses whom to signal, `journal` notes
//! what was seen, `checks` compares it with the ledger.

mod checks;
mod journal;
mod killer;
mod load;
mod place;
mod workers;

use std::sync::atomic::AtomicBool;
use std::thread::scope;
use std::time::{Duration, Instant};

use checks::Checked;
use journal::Journal;
use killer::Killer;
use load::{Crashers, Feeder, Kind};
use place::Place;
use workers::Workers;

use crate::random::Random;

/// How much there is to do, and how fast it is disturbed: `KILLS_JOBS` and `KILLS` (a minute) in the environment come first.
struct Size {
    /// Messages, with the poison.
    jobs: usize,
    kills_a_minute: u64,
}

impl Size {
    fn of(jobs: usize, kills_a_minute: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let wanted = number("KILLS_JOBS").and_then(|jobs| usize::try_from(jobs).ok());
        Self {
            jobs: wanted.unwrap_or(jobs),
            kills_a_minute: number("KILLS").unwrap_or(kills_a_minute),
        }
    }

    /// A slow and busy machine does one job a second.
    fn time_max(&self) -> Duration {
        Duration::from_secs(300 + self.jobs as u64)
    }
}

#[test]
fn a_small_graph_on_this_machine() {
    let place = place::local::Local::new();
    let kinds = load::small_graphs(place.sandbox());
    run(&place, &kinds, &Size::of(800, 200));
}

#[test]
#[ignore = "takes minutes: scripts/test.sh --kills"]
fn real_models_on_this_machine() {
    run(&place::local::Local::new(), &load::real_models(), &Size::of(18, 20));
}

/// Over SQS, DynamoDB and S3 of an emulator.
#[cfg(feature = "aws")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/test.sh --kills"]
async fn a_small_graph_on_emulated_aws() {
    let place = place::aws::Aws::new().await;
    let kinds = load::small_graphs(place.sandbox());
    tokio::task::block_in_place(|| run(&place, &kinds, &Size::of(120, 60)));
}

/// Sends the jobs, kills until all are over, and checks what became of them.
fn run(place: &dyn Place, kinds: &[Kind], size: &Size) {
    let mut random = Random::from_environment("KILLS_SEED", 20_261_130);
    let (crashers, over) = (Crashers::default(), AtomicBool::new(false));
    let mut killer = Killer::new(&mut random, size.kills_a_minute, crashers.clone());
    let mut journal = Journal::default();
    let (began, feeder) = (Instant::now(), Feeder { place, kinds, crashers, over: &over });
    let sent = scope(|threads| {
        let feeding = threads.spawn(|| feeder.feed(size.jobs));
        let mut workers = Workers::start(place, &mut killer, &mut journal, &over);
        workers.follow(began + size.time_max(), || feeding.is_finished());
        drop(workers);
        feeding.join().unwrap()
    });
    println!("{} jobs in {} s: {}", size.jobs, began.elapsed().as_secs(), killer.summary());
    Checked { place, kinds, sent: &sent, journal: &journal }.check();
    killer.check();
}
