//! Text to speech, judged by ear: what is said is written down again by `voice.transcribe`.

use gpu_inference::{
    Cancel, InputLimits, ModelError, Params, Prepared, RunError, Task, TaskResult, decode,
};

use crate::support::{contract, graph, pipeline, prepare, recording, run_one, transcript};

const PIPER: &str = "piper-en-us-joe";
const STILL: &str = r#"{"noise": 0, "noise_w": 0}"#;

#[test]
fn what_piper_says_is_heard_word_for_word() {
    let text = "Hello world, this is a test of the text to speech pipeline. The answer is 42.";
    let output = run_one(&mut pipeline(PIPER), said(text, STILL));
    let TaskResult::Sound(sound) = &output.result else { panic!("{:?}", output.result) };
    assert_eq!(sound.rate_hz, 22_050);
    let expected = "hello world this is a test of the text to speech pipeline the answer is 42";
    assert_eq!(heard(&output), expected);
}

#[test]
fn kokoro_speaks_english_with_a_japanese_voice_and_japanese_in_kana() {
    let mut kokoro = pipeline("kokoro-ja-int8");
    let text = "Hello world, this is a test of the text to speech pipeline.";
    let english = r#"{"language": "en-us"}"#;
    let output = run_one(&mut kokoro, said(text, english));
    let heard = heard(&output);
    let missing: Vec<&str> =
        ["hello", "world", "this", "is", "a", "test", "of", "speech", "pipeline"]
            .into_iter()
            .filter(|word| !heard.split(' ').any(|heard| heard == *word))
            .collect();
    // The voice has an accent: "the text to" is heard as other words at times.
    assert!(missing.is_empty(), "{missing:?} not in {heard}");
    assert_eq!(run_one(&mut kokoro, said(text, english)).files, output.files);
    let japanese = run_one(&mut kokoro, said("こんにちは。", r#"{"voice": "jm_kumo"}"#));
    assert!(recording(&japanese, 24_000).len() > 12_000);
    let mut rejected =
        |text: &str, params: &str| kokoro.run(&[said(text, params)], &Cancel::new()).unwrap_err();
    assert_eq!(rejected("東京", "{}").code(), "input.unreadable_text");
    let error = rejected("Hello.", r#"{"voice": "jf_nobody"}"#);
    assert!(error.to_string().contains("one of jf_alpha, "), "{error}");
    assert_eq!(rejected("Hello.", r#"{"noise": 0}"#).code(), "input.param");
    assert_eq!(rejected("Hello.", r#"{"language": "xx"}"#).code(), "phonemes.failed");
}

#[test]
fn without_noise_the_same_text_is_the_same_sound_and_speed_shortens_it() {
    let mut piper = pipeline(PIPER);
    let mut say = |params: &str| recording(&run_one(&mut piper, said("Again.", params)), 22_050);
    let still = say(STILL);
    assert_eq!(say(STILL), still);
    assert_ne!(say("{}"), still);
    let fast = say(r#"{"noise": 0, "noise_w": 0, "speed": 2}"#);
    assert!(fast.len() < still.len() * 2 / 3, "{} {}", fast.len(), still.len());
}

#[test]
fn a_wish_that_the_voice_cannot_mind_and_a_text_without_words_are_refused() {
    let mut piper = pipeline(PIPER);
    let mut rejected =
        |text: &str, params: &str| piper.run(&[said(text, params)], &Cancel::new()).unwrap_err();
    let error = rejected("Hello.", r#"{"voice": "eve"}"#);
    assert_eq!(error.code(), "input.param");
    assert!(error.to_string().contains("it has one voice"), "{error}");
    assert_eq!(rejected("…!?", "{}").code(), "input.nothing_to_say");
    let endless = "very ".repeat(1_500);
    let error = rejected(&endless, "{}");
    assert!(matches!(error, RunError::SentenceTooLong { .. }), "{error}");
    assert_eq!(error.code(), "input.sentence_too_long");
}

#[test]
fn melo_s_graph_gets_a_lexicon_s_symbols_and_the_wishes_of_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let (config, lexicon) = (folder.path().join("config.json"), folder.path().join("lexicon.txt"));
    let symbols = r#"["_", "hh", "ah", "l", "ow", "."]"#;
    let data = r#"{"sampling_rate": 44100, "add_blank": false, "spk2id": {"EN-US": 0}}"#;
    std::fs::write(&config, format!("{{\"data\": {data}, \"symbols\": {symbols}}}")).unwrap();
    std::fs::write(&lexicon, "hello hh ah l ow 7 7 7 8\nl ah l 7 7\n").unwrap();
    let speak = graph("voice/melo.onnx");
    let files = [("config", config.as_path()), ("lexicon", &lexicon), ("speak", &speak)];
    let mut melo = contract("melo-tts", Task::VoiceSynthesize, &files).unwrap();
    let mut say = |text: &str, params: &str| -> Vec<f32> {
        let sound = recording(&run_one(&mut melo, said(text, params)), 44_100);
        // One sample of each symbol, as hundredths.
        sound.iter().step_by(64).map(|sample| (sample * 100.0).round()).collect()
    };
    assert_eq!(say("Hello.", "{}"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0]);
    assert_eq!(say("LL", "{}"), [0.0, 2.0, 3.0, 2.0, 3.0, 0.0]);
    assert_eq!(say("Hello.", r#"{"speed": 0.5, "voice": "EN-US"}"#).len(), 14);
    let mut rejected = |text: &str, params: &str| {
        melo.run(&[said(text, params)], &Cancel::new()).unwrap_err().code()
    };
    assert_eq!(rejected("Hello.", r#"{"voice": "FR"}"#), "input.param");
    assert_eq!(rejected("xyz", "{}"), "input.nothing_to_say");
    std::fs::write(&lexicon, "hello hh zz 7 7\n").unwrap();
    let files = [("config", config.as_path()), ("lexicon", &lexicon), ("speak", &speak)];
    let error = contract("melo-tts", Task::VoiceSynthesize, &files).err().unwrap();
    assert!(
        matches!(&error, ModelError::Interface { problem, .. } if problem.contains("zz")),
        "{error}"
    );
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
    let text = transcript(run_one(&mut pipeline("moonshine-tiny-en"), input)).text;
    let plain = |word: &str| word.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    // "text-to-speech" is the same words.
    let text = text.to_lowercase().replace('-', " ");
    text.split_whitespace().map(plain).collect::<Vec<_>>().join(" ")
}
