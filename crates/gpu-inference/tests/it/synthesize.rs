//! Text to speech, judged by ear: what is said is written down again by `voice.transcribe`.

use gpu_inference::{
    Answer, Cancel, InputLimits, Params, Pipeline, Prepared, RunError, Task, decode,
};

use crate::support::{answer, pipeline, prepare, recording, transcript};

const PIPER: &str = "piper-en-us-joe";
const STILL: &str = r#"{"noise": 0, "noise_w": 0}"#;

#[test]
fn what_piper_says_is_heard_word_for_word() {
    let text = "Hello world, this is a test of the text to speech pipeline. The answer is 42.";
    let output = answer(pipeline(PIPER).as_mut(), said(text, STILL));
    let Answer::Sound(sound) = &output.answer else { panic!("{:?}", output.answer) };
    assert_eq!(sound.rate_hz, 22_050);
    let expected = "hello world this is a test of the text to speech pipeline the answer is 42";
    assert_eq!(heard(&output), expected);
}

#[test]
fn without_noise_the_same_text_is_the_same_sound_and_speed_shortens_it() {
    let mut piper = pipeline(PIPER);
    let mut say = |params: &str| recording(&answer(piper.as_mut(), said("Again.", params)), 22_050);
    let still = say(STILL);
    assert_eq!(say(STILL), still);
    assert_ne!(say("{}"), still);
    let fast = say(r#"{"noise": 0, "noise_w": 0, "speed": 2}"#);
    assert!(fast.len() < still.len() * 2 / 3, "{} {}", fast.len(), still.len());
}

#[test]
fn a_wish_that_the_voice_cannot_mind_and_a_text_without_words_are_refused() {
    let mut piper = pipeline(PIPER);
    let mut refused = |text: &str, params: &str| {
        piper.run(&[said(text, params)], &Cancel::new()).unwrap_err()
    };
    let error = refused("Hello.", r#"{"voice": "eve"}"#);
    assert_eq!(error.code(), "input.param");
    assert!(error.to_string().contains("the model has one voice"), "{error}");
    assert_eq!(refused("…!?", "{}").code(), "input.nothing_to_say");
    let endless = "very ".repeat(1_500);
    let error = refused(&endless, "{}");
    assert!(matches!(error, RunError::SentenceTooLong { .. }), "{error}");
    assert_eq!(error.code(), "input.sentence_too_long");
}

/// A text as a job's input.
fn said(text: &str, params: &str) -> Prepared {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let params = Params::read(Task::VoiceSynthesize, &serde_json::from_str(params).unwrap());
    decode(Task::VoiceSynthesize, file.path(), &params.unwrap(), &InputLimits::default()).unwrap()
}

/// What the recogniser hears, in lower case and without punctuation.
fn heard(output: &gpu_inference::Output) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &output.files[0].bytes).unwrap();
    let input = prepare(Task::VoiceTranscribe, file.path());
    let text = transcript(answer(pipeline("moonshine-tiny-en").as_mut(), input)).text;
    let plain = |word: &str| word.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    text.to_lowercase().split_whitespace().map(plain).collect::<Vec<_>>().join(" ")
}
