//! Texts as vectors and labels, files as types: MiniLM and Magika for real, others as small graphs.

use std::f32::consts::FRAC_1_SQRT_2;

use gpu_inference::{
    Cancel, Classification, Content, Embedding, FileEnds, InputLimits, Params, Prepared, Task,
    decode,
};
use serde_json::json;

use crate::support::{
    classification, embedding, models_folder, pipeline, run_one, sample, small, text, wav, with,
};

#[test]
fn a_paraphrase_is_near_and_another_subject_is_far() {
    let mut pipeline = pipeline("minilm-l6-v2-int8");
    let mut embed = |words: &str| embedding(run_one(&mut pipeline, text(words)));
    let cat = embed("A cat sits on the mat.");
    let paraphrase = embed("The kitten is sitting on a rug.");
    let unrelated = embed("Quarterly revenue rose by eight percent.");
    assert_eq!((cat.values.len(), cat.tokens, cat.truncated), (384, Some(9), false));
    assert!((cosine(&cat, &cat) - 1.0).abs() < 1e-5);
    let (near, far) = (cosine(&cat, &paraphrase), cosine(&cat, &unrelated));
    assert!(near > 0.5 && far < 0.2, "{near} {far}");
    let long = embed(&"word ".repeat(5_000));
    assert_eq!((long.tokens, long.truncated), (Some(256), true));
}

#[test]
fn a_text_s_vector_does_not_depend_on_the_company_in_the_batch() {
    let mut pipeline = pipeline("minilm-l6-v2-int8");
    let long = "a much longer text about other things, ".repeat(8);
    let texts = ["Hello.", &long, "A text of middling length about a dog.", "Hi"];
    let batch: Vec<Prepared> = texts.iter().map(|words| text(words)).collect();
    let together = pipeline.run(&batch, &Cancel::new()).unwrap();
    for (words, together) in texts.iter().zip(together) {
        let (alone, together) =
            (embedding(run_one(&mut pipeline, text(words))), embedding(together));
        let off = alone.values.iter().zip(&together.values).map(|(a, b)| (a - b).abs());
        assert!(off.fold(0.0, f32::max) < 1e-5, "{words}");
        assert_eq!(alone.tokens, together.tokens);
    }
}

#[test]
fn prefixes_padding_and_weights_beside_the_graph_are_the_model_s_own() {
    let mut pipeline = small("sentences-small");
    let params = |role: &str| with(Task::TextEmbed, &json!({"as": role}));
    let read = |words: &str, role: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, words).unwrap();
        decode(Task::TextEmbed, &path, &params(role), &InputLimits::default()).unwrap()
    };
    // Means over begin, the prefix, ":", the words and end; padding counts 1000 and would drown them.
    let batch = [read("up", "query"), read("up down down", "passage"), text("down")];
    let found = pipeline.run(&batch, &Cancel::new()).unwrap();
    let found: Vec<Embedding> = found.into_iter().map(embedding).collect();
    let expected = [
        [FRAC_1_SQRT_2, 0.0, FRAC_1_SQRT_2, 0.0],
        [0.0, 0.408_2, 0.408_2, 0.816_5],
        [FRAC_1_SQRT_2, 0.0, 0.0, FRAC_1_SQRT_2],
    ];
    for (found, expected) in found.iter().zip(expected) {
        let close = found.values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(close, "{:?} for {expected:?}", found.values);
    }
    assert_eq!((found[0].tokens, found[1].tokens), (Some(5), Some(7)));
}

#[test]
fn four_kinds_of_files_are_told_apart_in_one_batch() {
    let python = b"import sys\n\ndef main():\n    for line in sys.stdin:\n        print(line.strip())\n\nif __name__ == '__main__':\n    main()\n";
    let rust = include_bytes!("text.rs");
    let png = std::fs::read(sample("page.png")).unwrap();
    let tone: Vec<i16> = (0..16_000_i16).map(|n| n.wrapping_mul(37)).collect();
    let files = [python.to_vec(), rust.to_vec(), png, wav(16_000, &tone)];
    let batch: Vec<Prepared> = files.map(|file| Content::Bytes(file.into()).into()).into();
    let found = pipeline("magika-v3-3").run(&batch, &Cancel::new()).unwrap();
    let found: Vec<Classification> = found.into_iter().map(classification).collect();
    let labels: Vec<&str> = found.iter().map(|found| found.label.as_str()).collect();
    assert_eq!(labels, ["python", "rust", "png", "wav"]);
    assert_eq!(found[2].media_type.as_deref(), Some("image/png"));
    for found in &found {
        assert_eq!(found.labels.len(), 5);
        assert!(found.labels[0].score > 0.9, "{found:?}");
    }
}

#[test]
fn what_is_too_short_or_odd_for_the_model_is_text_or_unknown() {
    let mut pipeline = pipeline("magika-v3-3");
    let mut label = |bytes: &[u8]| {
        let found = classification(run_one(&mut pipeline, file(bytes)));
        (found.label, found.labels.len())
    };
    assert_eq!(label(b""), ("empty".to_owned(), 0));
    assert_eq!(label(b"hi"), ("txt".to_owned(), 0));
    assert_eq!(label(b"\xff\xfe"), ("unknown".to_owned(), 0));
    // White space does not count.
    assert_eq!(label(&[b' '; 5_000]), ("txt".to_owned(), 0));
}

#[test]
fn texts_are_labelled_by_the_model_s_own_configuration() {
    let label = |model: &str, words: &str| {
        classification(run_one(&mut small(model), file(words.as_bytes())))
    };
    let one = label("classifier-one", "good good bad");
    assert_eq!((one.label.as_str(), one.truncated), ("POSITIVE", false));
    // Logits 2 and 4: softmax gives 0.881, sigmoid 0.982.
    assert!((one.labels[0].score - 0.880_8).abs() < 1e-3, "{one:?}");
    let any = label("classifier-any", "good good bad");
    assert!((any.labels[0].score - 0.982).abs() < 1e-3, "{any:?}");
    assert!(label("classifier-one", "bad bad good good good good good").truncated);
    // A batch: the shorter text's padding would make it negative.
    let batch = ["good", "bad bad bad bad"].map(|words| file(words.as_bytes()));
    let found = small("classifier-one").run(&batch, &Cancel::new()).unwrap();
    let labels: Vec<String> = found.into_iter().map(|found| classification(found).label).collect();
    assert_eq!(labels, ["POSITIVE", "NEGATIVE"]);
}

#[test]
fn a_text_classifier_takes_texts_in_any_encoding_and_says_what_is_none() {
    let mut classifier = small("classifier-one");
    let utf_16: Vec<u8> = "\u{feff}bad bad".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(classification(run_one(&mut classifier, file(&utf_16))).label, "NEGATIVE");
    let long = "good ".repeat(500_000);
    let found = classification(run_one(&mut classifier, on_disk(long.as_bytes())));
    assert_eq!((found.label.as_str(), found.truncated), ("POSITIVE", true));
    for (bytes, code) in [
        (&b"\0\x01\x02\x03\xff"[..], "input.wrong_kind"),
        (b" \n", "input.no_text"),
        (b"", "input.no_text"),
    ] {
        let error = classifier.run(&[file(bytes)], &Cancel::new()).unwrap_err();
        assert_eq!(error.code(), code);
        assert!(!error.hint().is_empty());
    }
}

#[test]
fn of_a_file_beyond_any_limit_the_ends_are_read_and_say_what_it_is() {
    let mut bytes = b"PK\x03\x04".to_vec();
    let entry = std::fs::read(sample("page.png")).unwrap();
    bytes.extend(entry.iter().cycle().take(3 << 20));
    bytes.extend_from_slice(&std::fs::read(sample("page.png")).unwrap()[..200]);
    let whole = FileEnds::from(bytes.clone());
    let mut magika = pipeline("magika-v3-3");
    let whole = classification(run_one(&mut magika, Content::Bytes(whole).into()));
    let ends = classification(run_one(&mut magika, on_disk(&bytes)));
    assert_eq!(ends, whole);
}

/// A small file of these bytes.
fn file(bytes: &[u8]) -> Prepared {
    Content::Bytes(bytes.to_vec().into()).into()
}

/// The same, read with a limit that is far below its size.
fn on_disk(bytes: &[u8]) -> Prepared {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let limits = InputLimits { file_bytes_max: 10, ..InputLimits::default() };
    decode(Task::TextClassify, file.path(), &Params::default(), &limits).unwrap()
}

#[test]
fn a_job_says_how_many_labels_it_wants() {
    let params = with(Task::TextClassify, &json!({"top": 2}));
    let path = models_folder().join("magika-v3-3/config.min.json");
    let input = decode(Task::TextClassify, &path, &params, &InputLimits::default()).unwrap();
    let found = classification(run_one(&mut pipeline("magika-v3-3"), input));
    assert_eq!((found.label.as_str(), found.labels.len()), ("json", 2));
}

/// Of vectors of length 1.
fn cosine(a: &Embedding, b: &Embedding) -> f32 {
    a.values.iter().zip(&b.values).map(|(a, b)| a * b).sum()
}
