//! Each warning has an input that raises it, and a healthy one that does not.

use std::path::Path;

use gpu_inference::{InputLimits, Params, Task, WarningCode, decode};

use crate::support::wav;

/// A file that raises the warning, and one as it should be.
struct Pair {
    task: Task,
    raises: Vec<u8>,
    healthy: Vec<u8>,
}

/// For each code, so that none can be added without its pair.
fn pair(code: WarningCode) -> Pair {
    match code {
        WarningCode::AudioQuiet => of_recordings(wav(16_000, &tone(60)), wav(16_000, &tone(600))),
        WarningCode::AudioSilent => of_recordings(wav(16_000, &tone(3)), wav(16_000, &tone(60))),
    }
}

#[test]
fn each_warning_is_raised_by_what_it_is_about_and_not_by_a_healthy_input() {
    for code in WarningCode::ALL {
        let Pair { task, raises, healthy } = pair(code);
        assert!(raised(task, &raises).contains(&code), "{code:?} is not raised");
        assert!(!raised(task, &healthy).contains(&code), "{code:?} is raised by a healthy input");
    }
}

fn of_recordings(raises: Vec<u8>, healthy: Vec<u8>) -> Pair {
    Pair { task: Task::VoiceTranscribe, raises, healthy }
}

/// The codes of what decoding a file says.
fn raised(task: Task, bytes: &[u8]) -> Vec<WarningCode> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    codes(task, file.path())
}

fn codes(task: Task, path: &Path) -> Vec<WarningCode> {
    let prepared = decode(task, path, &Params::default(), &InputLimits::default()).unwrap();
    prepared.remarks().warnings.iter().map(|warning| warning.code).collect()
}

/// A second of a square wave.
fn tone(height: i16) -> Vec<i16> {
    (0..16_000).map(|at| if at / 20 % 2 == 0 { height } else { -height }).collect()
}
