//! What a job costs besides its inference: from submission until the result can be read, on a warm worker, one job at a time.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and ends at the first error"
)]

mod common;

use common::{Bench, sample};

const JOBS: usize = 300;
const WARM_UP: usize = 20;

#[tokio::main]
async fn main() {
    let bench = Bench::start().await;
    // A second of silence: decoding and inference are next to nothing, what is left is the way there and back.
    let folder = tempfile::tempdir().unwrap();
    let silence = folder.path().join("silence.wav");
    let beckett = std::fs::read(sample("beckett.wav")).unwrap();
    std::fs::write(&silence, silent(&beckett[..44])).unwrap();
    let mut overheads_ms = Vec::new();
    for n in 0..WARM_UP + JOBS {
        let (result, took) = bench.run("voice.transcribe", &[&silence]).await.remove(0);
        assert!(result.outcome.is_ok(), "{:?}", result.outcome);
        if n >= WARM_UP {
            overheads_ms.push(
                took.as_secs_f64() * 1e3
                    - result.inference.num_microseconds().unwrap() as f64 / 1e3,
            );
        }
    }
    overheads_ms.sort_by(f64::total_cmp);
    let rank = |percent: usize| overheads_ms[(JOBS * percent).div_ceil(100) - 1];
    println!(
        "overhead of a job, submit to result minus inference, {JOBS} jobs one at a time: p50 {:.1} ms, p99 {:.1} ms",
        rank(50),
        rank(99)
    );
}

/// The header of a 16 kHz recording, with one second of silence.
fn silent(header: &[u8]) -> Vec<u8> {
    let bytes: u32 = 32_000;
    let mut wav = header.to_vec();
    wav[4..8].copy_from_slice(&(bytes + 36).to_le_bytes());
    wav[40..44].copy_from_slice(&bytes.to_le_bytes());
    wav.resize(44 + bytes as usize, 0);
    wav
}
