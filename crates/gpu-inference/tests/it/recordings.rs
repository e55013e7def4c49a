//! Other people's recordings: the test files of mutagen, a library for their tags, which `scripts/fetch-models.py` puts beside the samples.
//!
//! None may bring a decoder down, and where ffmpeg finds sound, an empty success is wrong. The lengths below are ffmpeg's (9.0.2).

use std::collections::BTreeMap;
use std::path::Path;

use gpu_inference::{Content, InputLimits, Params, Task, decode, ffmpeg_version};

use crate::support::samples_folder;

/// By how much a length may differ: encoders' delay and padding, which ffmpeg trims or not.
const SECONDS_OFF_MAX: f64 = 0.2;

/// Name, what is expected here, and ffmpeg's length.
const FILES: &str = include_str!("recordings.txt");

#[test]
fn the_test_files_of_mutagen_are_read_or_refused_with_the_right_word() {
    let expected: BTreeMap<&str, (&str, &str)> = FILES.lines().filter_map(row).collect();
    let mut differ = Vec::new();
    for entry in std::fs::read_dir(samples_folder("mutagen-1.48.1")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let (here, by_ffmpeg) = expected.get(name).copied().unwrap_or(("not listed", "0"));
        let found = outcome(&path);
        // What is not read here is converted where ffmpeg is installed.
        let is_converted = here == "input.unsupported" && ffmpeg_version().is_some();
        let has_sound = by_ffmpeg.parse::<f64>().unwrap() > 0.02;
        let is_refused = !has_sound && found.starts_with("input.");
        let is_right =
            is_as(&found, here) || (is_converted && (is_refused || is_as(&found, by_ffmpeg)));
        if !is_right {
            differ.push(format!("{name} {found} (and not {here}; ffmpeg: {by_ffmpeg})"));
        }
    }
    differ.sort();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

fn row(line: &str) -> Option<(&str, (&str, &str))> {
    let mut words = line.split_whitespace();
    Some((words.next()?, (words.next()?, words.next()?)))
}

/// The length in seconds, or the code of the error.
fn outcome(path: &Path) -> String {
    match decode(Task::VoiceTranscribe, path, &Params::default(), &InputLimits::default()) {
        Ok(prepared) => {
            let Content::Audio(audio) = prepared.content() else { panic!("not a recording") };
            format!("{:.2}", audio.duration().as_secs_f64())
        }
        Err(error) => {
            println!("{error}");
            error.code().to_owned()
        }
    }
}

fn is_as(found: &str, wanted: &str) -> bool {
    match (found.parse::<f64>(), wanted.parse::<f64>()) {
        (Ok(found), Ok(wanted)) => (found - wanted).abs() < SECONDS_OFF_MAX,
        _ => found == wanted,
    }
}
