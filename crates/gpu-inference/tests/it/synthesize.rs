//! Text to speech, judged by ear: what is said is written down again by `voice.transcribe`.

use gpu_inference::{
    Basis, Cancel, InputLimits, ModelError, Output, Params, Pipeline, Prepared, Task, TaskResult,
    WarningCode, decode,
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
    assert_eq!(rejected("👍🎉", "{}").code(), "input.nothing_to_say");
}

#[test]
fn what_is_between_brackets_tags_and_signs_is_said() {
    let mut piper = pipeline(PIPER);
    let mut ear = pipeline("moonshine-tiny-en");
    for (text, expected) in [
        ("See the page [[Main Page]] for the details.", "see the page main page for the details"),
        ("<speak>Hello <break time=\"1s\"/> my <b>old</b> friend</speak>", "hello my old friend"),
        ("\u{1b}[31mHe\u{200b}llo my\u{1b}[0m 👍 old 🎉 friend", "hello my old friend"),
        ("**Hello**, my _old_ friend", "hello my old friend"),
    ] {
        let output = run_one(&mut piper, said(text, STILL));
        assert_eq!(heard_by(&mut ear, &output), expected, "{text}");
    }
}

#[test]
fn a_text_in_other_letters_than_the_voice_s_is_refused_and_a_word_of_them_is_left_out_with_a_warning()
 {
    let mut piper = pipeline(PIPER);
    for text in ["これは日本語の文章です。", "Привет, мир, hello", "مرحبا بالعالم"]
    {
        let error = piper.run(&[said(text, STILL)], &Cancel::new()).unwrap_err();
        assert_eq!(error.code(), "input.unreadable_text");
        assert!(error.hint().contains("--model"), "{}", error.hint());
    }
    let output = run_one(&mut piper, said("The capital of Japan is Tokyo (東京).", STILL));
    assert_eq!(codes(&output), [WarningCode::SpeechScript]);
    let Some(Basis::Text(basis)) = output.remarks.basis else { panic!("{:?}", output.remarks) };
    assert_eq!((basis.letters, basis.said), (26, 24));
    let mut kokoro = pipeline("kokoro-ja-int8");
    let error = kokoro.run(&[said("Привет, мир", "{}")], &Cancel::new()).unwrap_err();
    assert_eq!(error.code(), "input.unreadable_text");
}

#[test]
fn kana_without_punctuation_take_as_long_as_those_with_it() {
    let mut kokoro = pipeline("kokoro-ja-int8");
    let clause = "にほんごのながいぶんしょうをよみあげるためのてすとです";
    let mut seconds = |text: &str| {
        let output = run_one(&mut kokoro, said(text, r#"{"voice": "jf_alpha"}"#));
        assert!(codes(&output).is_empty(), "{:?}", output.remarks);
        recording(&output, 24_000).len() / 24_000
    };
    // Five times, of which espeak-ng alone would say 2.8: with pauses it is some 20 s, without 17.
    let found = seconds(&clause.repeat(5));
    assert!((14..=21).contains(&found), "{found}");
}

#[test]
fn a_sentence_without_an_end_is_said_in_parts_and_whole() {
    let mut piper = pipeline(PIPER);
    let fast = r#"{"noise": 0, "noise_w": 0, "speed": 4}"#;
    let output = run_one(&mut piper, said(&"very ".repeat(400), fast));
    let Some(Basis::Text(basis)) = output.remarks.basis else { panic!("{:?}", output.remarks) };
    assert_eq!((basis.letters, basis.said), (1_600, 1_600));
    assert!(recording(&output, 22_050).len() > 20 * 22_050);
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
fn heard(output: &Output) -> String {
    heard_by(&mut pipeline("moonshine-tiny-en"), output)
}

fn codes(output: &Output) -> Vec<WarningCode> {
    output.remarks.warnings.iter().map(|warning| warning.code).collect()
}

fn heard_by(ear: &mut Pipeline, output: &Output) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &output.files[0].bytes).unwrap();
    let input = prepare(Task::VoiceTranscribe, file.path());
    let text = transcript(run_one(ear, input)).text;
    let plain = |word: &str| word.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    // "text-to-speech" is the same words.
    let text = text.to_lowercase().replace('-', " ");
    text.split_whitespace().map(plain).collect::<Vec<_>>().join(" ")
}
