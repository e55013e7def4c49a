//! What reading a trace and computing each bound take, and the bounds themselves, on the traces of `data/demand` in the shared folder.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and ends at the first error"
)]

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use gpuctl_sim::bounds::{always_on, clairvoyant_same_start, prewarm, wait_limit};
use gpuctl_sim::trace::Demand;

const BOOT_MS: i64 = 120_000;
const WAIT_MS: i64 = 600_000;
/// How often each figure is measured; the least counts.
const ROUNDS: usize = 21;

fn main() {
    let shared = std::env::var_os("GPUCTL_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let folder = shared.join("data/demand");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("no traces: {} is not there", folder.display());
        return;
    };
    println!(
        "box hours with a boot of {BOOT_MS} ms and a wait of {WAIT_MS} ms; microseconds to compute"
    );
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        let (demand, read_us) = measured(|| Demand::read(black_box(&bytes)).unwrap());
        let demand = black_box(demand);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        println!("{name}: {} jobs, read in {read_us:.0}", demand.jobs().len());
        let show = |what, (box_ms, us): (i64, f64)| {
            println!("  {what:<24} {:>8.1} h {us:>8.1} us", box_ms as f64 / 3.6e6);
        };
        show("always on", measured(|| always_on(&demand).box_ms));
        show("clairvoyant, same start", measured(|| clairvoyant_same_start(&demand, BOOT_MS)));
        show("prewarm", measured(|| prewarm(&demand, BOOT_MS)));
        show("wait limit", measured(|| wait_limit(&demand, BOOT_MS, WAIT_MS)));
    }
}

fn measured<T>(mut compute: impl FnMut() -> T) -> (T, f64) {
    let runs = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        let found = compute();
        (found, began.elapsed().as_secs_f64() * 1e6)
    });
    runs.min_by(|one, other| one.1.total_cmp(&other.1)).unwrap()
}
