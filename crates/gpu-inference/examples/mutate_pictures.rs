//! Decodes damaged copies of pictures until one crashes a decoder or takes too long: a fuzzer without a nightly compiler.
//!
//! Usage: mutate_pictures SEED COUNT FILE…. It prints what was found, with the seed that shows it again, and ends with 1 then.

use std::path::Path;
use std::time::{Duration, Instant};

use gpu_inference::{Decoder, InputLimits, Params, Task};

/// Longest time for one file in a debug build.
const TIME_MAX: Duration = Duration::from_secs(20);
/// Most changes of a copy.
const CHANGES_MAX: u64 = 8;
/// Half of the changes are among the first bytes, where headers are.
const HEADER_BYTES: u64 = 512;

#[expect(clippy::print_stdout, reason = "an example of its own")]
fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = || -> u64 {
        let value = arguments.next().and_then(|value| value.parse().ok());
        value.expect("usage: mutate_pictures SEED COUNT FILE…")
    };
    let (seed, count) = (number(), number());
    let files: Vec<String> = arguments.collect();
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("copy");
    let mut found = 0;
    for at in seed..seed + count {
        let mut random = Random(at.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let file = &files[usize::try_from(random.below(files.len() as u64)).expect("an index")];
        let mut bytes = std::fs::read(file).expect("a file");
        damage(&mut bytes, &mut random);
        std::fs::write(&copy, &bytes).expect("a copy");
        if let Some(problem) = problem(&copy) {
            println!("{file}: seed {at}: {problem}");
            found += 1;
        }
    }
    println!("{count} copies from seed {seed}: {found} problems");
    std::process::exit(i32::from(found > 0));
}

fn problem(path: &Path) -> Option<String> {
    let limits = InputLimits { image_pixels_max: 4_000_000, ..InputLimits::default() };
    let decoder = Decoder { limits, ..Decoder::default() };
    let began = Instant::now();
    let told = decoder.bytes_max(Task::VisionOcr, path, &Params::default());
    let decoded = decoder.decode(Task::VisionOcr, path, &Params::default());
    match decoded {
        Err(error) if error.code() == "input.crash" => Some(error.to_string()),
        Ok(prepared) if prepared.bytes() > told => {
            Some(format!("{} bytes, where {told} were told", prepared.bytes()))
        }
        _ if began.elapsed() > TIME_MAX => Some(format!("it took {:?}", began.elapsed())),
        _ => None,
    }
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(CHANGES_MAX) {
        let length = bytes.len() as u64;
        let within = if random.below(2) == 0 { length.min(HEADER_BYTES) } else { length };
        let at = usize::try_from(random.below(within.max(1))).expect("an index");
        let value = u8::try_from(random.below(256)).expect("a byte");
        match random.below(10) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), value),
            2..=4 if at < bytes.len() => bytes[at] ^= 1 << (value % 8),
            5 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][usize::from(value % 5)],
            _ if at < bytes.len() => bytes[at] = value,
            _ => {}
        }
    }
}

/// Xorshift: good enough, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}
