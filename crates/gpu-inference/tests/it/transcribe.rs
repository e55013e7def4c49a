//! Speech to text on the two recordings that come with the model.

use std::time::Duration;

use gpu_inference::{Cancel, Device, Pipeline, RunError, Task};

use crate::support::{answer, pipeline, prepare, sample, transcript, wav};

const MODEL: &str = "moonshine-tiny-en";

#[test]
fn a_short_recording_is_read_exactly() {
    let mut pipeline = pipeline(MODEL);
    assert_eq!((pipeline.device(), pipeline.batch_max()), (Device::Cpu, 1));
    let found = transcribe(pipeline.as_mut(), "beckett.wav");
    let expected = "Ever tried, ever failed, no matter, try again, fail again, fail better.";
    assert_eq!(found.text, expected);
    assert_eq!(found.audio.as_millis(), 9_963);
    assert_eq!(found.segments.len(), 1);
    assert_near(found.segments[0].start, 0.35);
    assert_near(found.segments[0].end, 8.9);
}

#[test]
fn a_long_recording_at_48_khz_is_read_word_for_word() {
    // The book has "the season" twice; what the reader says is nearer to "a": PocketSphinx 5.1.1 too, free to choose
    // between the two words in that place, chooses "a" both times.
    let expected = "it was the best of times it was the worst of times it was the age of wisdom it was the age of \
        foolishness it was the epoch of belief it was the epoch of incredulity it was a season of light it was a \
        season of darkness it was the spring of hope it was the winter of despair we had everything before us we had \
        nothing before us we were all going direct to heaven we were all going direct the other way in short the \
        period was so far like the present period that some of its noisiest authorities insisted on its being \
        received for good or for evil in the superlative degree of comparison only";
    let found = transcribe(pipeline(MODEL).as_mut(), "two_cities.wav");
    assert_eq!(words(&found.text).join(" "), expected);
    assert_eq!(found.audio.as_millis(), 44_374);
    assert_near(found.segments[0].start, 1.2);
    assert_near(found.segments.last().unwrap().end, 41.75);
    for pair in found.segments.windows(2) {
        assert!(pair[0].start < pair[0].end && pair[0].end <= pair[1].start, "{pair:?}");
    }
}

#[test]
fn silence_is_an_empty_transcript_and_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("silence.wav");
    std::fs::write(&path, wav(16_000, &[0; 48_000])).unwrap();
    let input = prepare(Task::VoiceTranscribe, &path);
    let found = transcript(answer(pipeline(MODEL).as_mut(), input));
    assert_eq!((found.text.as_str(), found.segments.len()), ("", 0));
    assert_eq!(found.audio, Duration::from_secs(3));
}

#[test]
fn a_cancelled_run_stops_and_a_picture_is_no_recording() {
    let mut pipeline = pipeline(MODEL);
    let input = prepare(Task::VoiceTranscribe, &sample("beckett.wav"));
    let cancel = Cancel::new();
    cancel.clone().cancel();
    assert!(matches!(pipeline.run(&[input], &cancel), Err(RunError::Cancelled)));
    let picture = prepare(Task::VisionOcr, &sample("page.png"));
    let error = pipeline.run(&[picture], &Cancel::new()).unwrap_err();
    assert!(matches!(error, RunError::WrongInput { index: 0, .. }), "{error}");
}

fn transcribe(pipeline: &mut dyn Pipeline, name: &str) -> gpu_inference::Transcript {
    transcript(answer(pipeline, prepare(Task::VoiceTranscribe, &sample(name))))
}

fn words(text: &str) -> Vec<String> {
    let letters = |word: &str| word.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    text.to_lowercase().split_whitespace().map(letters).collect()
}

fn assert_near(found: Duration, expected_seconds: f64) {
    let difference = (found.as_secs_f64() - expected_seconds).abs();
    assert!(difference < 0.1, "{found:?} for {expected_seconds} s");
}
