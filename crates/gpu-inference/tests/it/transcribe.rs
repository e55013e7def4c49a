//! Speech to text on the two recordings that come with the model.

use std::time::Duration;

use gpu_inference::{
    Cancel, Content, Device, InputLimits, Params, Pipeline, RunError, Task, decode,
};

use crate::support::{contract, graph, pipeline, prepare, run_one, sample, transcript, wav};

const MODEL: &str = "moonshine-tiny-en";

#[test]
fn a_short_recording_is_read_exactly() {
    let mut pipeline = pipeline(MODEL);
    assert_eq!((pipeline.device(), pipeline.batch_max()), (Device::Cpu, 1));
    let found = transcribe(&mut pipeline, "beckett.wav");
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
    let found = transcribe(&mut pipeline(MODEL), "two_cities.wav");
    assert_eq!(words(&found.text).join(" "), expected);
    assert_eq!(found.audio.as_millis(), 44_374);
    assert_near(found.segments[0].start, 1.2);
    assert_near(found.segments.last().unwrap().end, 41.75);
    for pair in found.segments.windows(2) {
        assert!(pair[0].start < pair[0].end && pair[0].end <= pair[1].start, "{pair:?}");
    }
}

#[test]
fn two_speakers_get_two_labels_and_a_lone_one_gets_one() {
    let (beckett, cities) = (samples("beckett.wav"), samples("two_cities.wav"));
    // Ten seconds of each, twice in turn, with half a second between them.
    let silence = vec![0.0; 8_000];
    let turns =
        [&beckett[..160_000.min(beckett.len())], &silence, &cities[16_000..200_000], &silence];
    let both = [turns.concat(), turns.concat()].concat();
    let change_seconds = (turns[0].len() + silence.len()) as f64 / 16_000.0;
    let mut pipeline = pipeline(MODEL);
    for asked in ["true", "2"] {
        let found = with_speakers(&mut pipeline, &both, asked);
        let turn = turns.concat().len() as f64 / 16_000.0;
        for segment in &found.segments {
            let within = segment.start.as_secs_f64() % turn;
            let expected = usize::from(within + 0.2 > change_seconds);
            assert_eq!(segment.speaker, Some(expected), "{asked}: {segment:?}");
        }
        assert!(found.segments.iter().any(|segment| segment.speaker == Some(1)), "{found:?}");
    }
    let alone = with_speakers(&mut pipeline, &cities, "true");
    assert!(alone.segments.iter().all(|segment| segment.speaker == Some(0)), "{alone:?}");
    let found = transcribe(&mut pipeline, "beckett.wav");
    assert!(found.segments.iter().all(|segment| segment.speaker.is_none()));
}

#[test]
fn silence_is_an_empty_transcript_and_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("silence.wav");
    std::fs::write(&path, wav(16_000, &[0; 48_000])).unwrap();
    let input = prepare(Task::VoiceTranscribe, &path);
    let found = transcript(run_one(&mut pipeline(MODEL), input));
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

fn transcribe(pipeline: &mut Pipeline, name: &str) -> gpu_inference::Transcript {
    transcript(run_one(pipeline, prepare(Task::VoiceTranscribe, &sample(name))))
}

fn samples(name: &str) -> Vec<f32> {
    let prepared = prepare(Task::VoiceTranscribe, &sample(name));
    let Content::Audio(audio) = prepared.content() else { panic!("not a recording") };
    audio.samples().to_vec()
}

fn with_speakers(
    pipeline: &mut Pipeline,
    samples: &[f32],
    asked: &str,
) -> gpu_inference::Transcript {
    let file = tempfile::NamedTempFile::new().unwrap();
    #[expect(clippy::cast_possible_truncation, reason = "16-bit samples")]
    let pcm: Vec<i16> = samples.iter().map(|sample| (sample * 32_767.0) as i16).collect();
    std::fs::write(file.path(), wav(16_000, &pcm)).unwrap();
    let given = serde_json::from_str(&format!("{{\"speakers\": {asked}}}")).unwrap();
    let params = Params::read(Task::VoiceTranscribe, &given).unwrap();
    let limits = InputLimits::default();
    let input = decode(Task::VoiceTranscribe, file.path(), &params, &limits).unwrap();
    transcript(run_one(pipeline, input))
}

fn words(text: &str) -> Vec<String> {
    let letters = |word: &str| word.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    text.to_lowercase().split_whitespace().map(letters).collect()
}

fn assert_near(found: Duration, expected_seconds: f64) {
    let difference = (found.as_secs_f64() - expected_seconds).abs();
    assert!(difference < 0.1, "{found:?} for {expected_seconds} s");
}

#[test]
fn whisper_s_graphs_get_their_prompt_and_give_their_text_token_by_token() {
    // The small decoder writes the tokens 3 to 6 after any prompt, then ends.
    let tokenizer = r#"{"model": {"vocab": {"One": 3, "Ġtwo": 4, "Ġthree": 5, "Ġfour": 6}}, "added_tokens": [
        {"id": 50257, "content": "<|endoftext|>"}, {"id": 50258, "content": "<|startoftranscript|>"},
        {"id": 50259, "content": "<|en|>"}, {"id": 50261, "content": "<|de|>"}, {"id": 50358, "content": "<|translate|>"},
        {"id": 50359, "content": "<|transcribe|>"}, {"id": 50363, "content": "<|notimestamps|>"}]}"#;
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    std::fs::write(file.path(), tokenizer).unwrap();
    let (encoder, decoder) =
        (graph("voice/whisper-encoder.onnx"), graph("voice/whisper-decoder.onnx"));
    let files =
        [("decoder", decoder.as_path()), ("encoder", &encoder), ("vocabulary", file.path())];
    let mut whisper = contract("whisper", Task::VoiceTranscribe, &files).unwrap();
    let found = transcribe(&mut whisper, "beckett.wav");
    assert_eq!(found.text, "One two three four");
    let asked = |given: &str| {
        let params = Params::read(Task::VoiceTranscribe, &serde_json::from_str(given).unwrap());
        let limits = InputLimits::default();
        decode(Task::VoiceTranscribe, &sample("beckett.wav"), &params.unwrap(), &limits).unwrap()
    };
    let german = asked(r#"{"language": "de"}"#);
    assert_eq!(transcript(run_one(&mut whisper, german.clone())).text, found.text);
    let cancel = Cancel::new();
    for given in [r#"{"language": "xx"}"#, r#"{"speakers": true}"#] {
        let error = whisper.run(&[asked(given)], &cancel).unwrap_err();
        assert_eq!(error.code(), "input.param", "{error}");
    }
    let error = pipeline(MODEL).run(&[german], &cancel).unwrap_err();
    assert!(error.to_string().contains("param language: it knows one language"), "{error}");
}
