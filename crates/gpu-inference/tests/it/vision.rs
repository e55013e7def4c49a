//! Faces, masks and vectors: real models on a photograph, and small graphs of the models that cannot be fetched here.

use gpu_inference::{
    Content, Detections, InputLimits, Output, Params, Prepared, Segments, Task, TaskResult, decode,
};
use image::{GrayImage, Rgb, RgbImage};
use serde_json::{Value, json};

use crate::support::{
    classification, embedding, prepare, rejection, run_one, sample, small, text, with,
};

#[test]
fn the_face_on_the_photograph_is_found_with_its_landmarks() {
    let mut pipeline = crate::support::pipeline("centerface");
    let found = detections(run_one(&mut pipeline, photograph()));
    assert_eq!((found.width, found.height, found.objects.len()), (512, 512, 1), "{found:?}");
    let face = &found.objects[0];
    assert!(face.label == "face" && face.score > 0.9, "{face:?}");
    near(&face.edges, &[181.5, 58.2, 269.9, 177.8], 1.0);
    let points: Vec<f32> = face.points.iter().flatten().copied().collect();
    let expected = [203.2, 101.7, 247.0, 104.5, 223.3, 125.1, 203.4, 142.3, 241.3, 144.4];
    near(&points, &expected, 1.0);
}

#[test]
fn a_face_is_found_beside_pictures_of_other_sizes_and_none_where_none_is() {
    let mut pipeline = crate::support::pipeline("centerface");
    let Content::Picture(whole) = photograph().content().clone() else { panic!("no picture") };
    let larger =
        image::imageops::resize(whole.rgb(), 2_048, 2_048, image::imageops::FilterType::Triangle);
    let batch = [photograph(), picture(larger), picture(RgbImage::new(500, 40)), photograph()];
    let found = pipeline.run(&batch, &gpu_inference::Cancel::new()).unwrap();
    let mut found = found.into_iter().map(detections);
    let first = found.next().unwrap();
    let larger = found.next().unwrap();
    assert_eq!(larger.objects.len(), 1, "{larger:?}");
    let scaled: Vec<f32> = larger.objects[0].edges.iter().map(|edge| edge / 4.0).collect();
    near(&scaled, &first.objects[0].edges, 4.0);
    assert!(found.next().unwrap().objects.is_empty());
    assert_eq!(found.next().unwrap(), first);
    let strict = prepare_photograph(Task::VisionDetect, &json!({"score_min": 0.99}));
    assert!(detections(run_one(&mut pipeline, strict)).objects.is_empty());
}

#[test]
fn the_mask_of_a_photograph_is_the_one_that_the_reference_makes() {
    let output = run_one(&mut crate::support::pipeline("u2netp"), photograph());
    let mask = mask(&output, 0);
    assert_eq!(mask.dimensions(), (512, 512));
    let reference = reference("mask.npy");
    let (mut both, mut either, mut off) = (0_u32, 0_u32, 0_u8);
    for (&found, &expected) in mask.as_raw().iter().zip(&reference) {
        both += u32::from(found > 127 && expected > 127);
        either += u32::from(found > 127 || expected > 127);
        off = off.max(found.abs_diff(expected));
    }
    let overlap = f64::from(both) / f64::from(either);
    assert!(overlap >= 0.99, "IoU {overlap}");
    assert!(off <= 8, "a pixel is off by {off} of 255");
    let found = segments(output);
    let object = &found.objects[0];
    assert_eq!((object.file.as_str(), object.score), ("mask.png", None));
    let [left, top, right, bottom] = object.edges.unwrap();
    assert!(left < 60 && top < 30 && right > 380 && bottom == 512, "{object:?}");
}

#[test]
fn a_model_says_which_prompts_it_takes() {
    let mut saliency = crate::support::pipeline("u2netp");
    let error = rejection(&mut saliency, half_bright(&json!({"text": "a cat"})));
    assert!(
        error.to_string().contains("does not support the param text: it supports no params"),
        "{error}"
    );
    let mut sam2 = small("sam2-small");
    for (params, said) in [
        (json!({}), "unfit: needs points or boxes"),
        (json!({"text": "a cat"}), "param: text: it supports points, boxes"),
        (json!({"points": [1, 2, 7]}), "param: not [x, y, 1 or 0]"),
        (json!({"points": [201, 2, 1]}), "param: in 200 x 100 pixels"),
        (json!({"boxes": [50, 0, 10, 10]}), "param: not [left, top, right, bottom]"),
        (
            json!({"boxes": [[0, 0, 9, 9], [0, 0, 8, 8]], "points": [1, 2, 1]}),
            "unfit: with one box",
        ),
    ] {
        let (code, said) = said.split_once(": ").unwrap();
        let error = rejection(&mut sam2, half_bright(&params));
        assert!(error.to_string().contains(said), "{params}: {error}");
        assert_eq!(error.code(), format!("input.{code}"));
    }
    let error = rejection(&mut small("sam3-small"), half_bright(&json!({})));
    assert!(error.to_string().contains("needs a text or boxes"), "{error}");
}

#[test]
fn sam_2_gets_points_and_boxes_in_its_own_square_and_the_surest_mask_is_kept() {
    let mut pipeline = small("sam2-small");
    // The small graph is as sure of the bright part as the points lie right.
    let output = run_one(&mut pipeline, half_bright(&json!({"points": [160, 50, 1]})));
    let bright = mask(&output, 0);
    assert_eq!((bright.get_pixel(20, 50).0[0], bright.get_pixel(180, 50).0[0]), (0, 255));
    let found = segments(output);
    assert!((found.objects[0].score.unwrap() - 0.8).abs() < 1e-4, "{found:?}");
    near_edges(found.objects[0].edges, [100, 0, 200, 100]);
    // A box's corners have the labels 2 and 3, which make the dark part the surer one here; a point refines the box.
    let boxes = json!({"boxes": [[0, 0, 40, 100], [100, 0, 200, 100]]});
    let output = run_one(&mut pipeline, half_bright(&boxes));
    assert_eq!(output.files.len(), 2);
    let found = segments(output);
    assert!((found.objects[0].score.unwrap() - 0.3).abs() < 1e-4, "{found:?}");
    near_edges(found.objects[0].edges, [0, 0, 100, 100]);
    assert!((found.objects[1].score.unwrap() - 0.75).abs() < 1e-4, "{found:?}");
    let both = json!({"boxes": [100, 0, 200, 100], "points": [[150, 50, 1], [30, 50, 0]]});
    let found = segments(run_one(&mut pipeline, half_bright(&both)));
    // (100 + 200 + 150 + 30) / 4 of 200.
    assert!((found.objects[0].score.unwrap() - 0.6).abs() < 1e-4, "{found:?}");
}

#[test]
fn sam_3_gets_words_and_boxes_and_keeps_what_is_sure_enough() {
    let mut pipeline = small("sam3-small");
    // Four tokens with begin and end: a logit of 1. No box: a logit of -5.
    let output = run_one(&mut pipeline, half_bright(&json!({"text": "bright thing"})));
    let found = segments(output);
    assert_eq!(found.objects.len(), 1, "{found:?}");
    let object = &found.objects[0];
    assert_eq!(object.label.as_deref(), Some("bright thing"));
    assert!((object.score.unwrap() - 0.731).abs() < 1e-3, "{object:?}");
    near_edges(object.edges, [100, 0, 200, 100]);
    // A box whose middle lies at 0.9: a logit of 4, surer than the word's; `visual` alone has a logit of 0.
    let boxes = json!({"boxes": [160, 0, 200, 100]});
    let found = segments(run_one(&mut pipeline, half_bright(&boxes)));
    assert_eq!(found.objects.len(), 2, "{found:?}");
    assert!((found.objects[0].score.unwrap() - 0.982).abs() < 1e-3, "{found:?}");
    assert_eq!(found.objects[0].label, None);
    near_edges(found.objects[0].edges, [0, 0, 100, 100]);
    let strict = json!({"text": "bright thing", "score_min": 0.8});
    let output = run_one(&mut pipeline, half_bright(&strict));
    assert!(output.files.is_empty() && segments(output).objects.is_empty());
    let long = json!({"text": "thing ".repeat(31).trim()});
    let error = rejection(&mut pipeline, half_bright(&long));
    assert!(error.to_string().contains("more than 32 tokens"), "{error}");
}

#[test]
fn each_layout_of_a_yolo_s_answer_is_read() {
    // White, and half as high as wide: the square is grey above and below.
    let white = || picture(RgbImage::from_pixel(128, 64, Rgb([255; 3])));
    for (layout, scores) in
        [("columns", [0.9, 0.6]), ("rows", [0.45, 0.3]), ("finished", [0.9, 0.6])]
    {
        let mut pipeline = small(&format!("yolo-{layout}"));
        let found = detections(run_one(&mut pipeline, white()));
        let labels: Vec<&str> = found.objects.iter().map(|object| object.label.as_str()).collect();
        assert_eq!(labels, ["cat", "dog"], "{layout}");
        for (object, score) in found.objects.iter().zip(scores) {
            assert!((object.score - score).abs() < 1e-4, "{layout}: {object:?}");
        }
        // In the square of 64 the cat's edges are 16, 24, 48, 40; the picture begins at 16 and is half as large.
        near(&found.objects[0].edges, &[32.0, 16.0, 96.0, 48.0], 1e-3);
        near(&found.objects[1].edges, &[0.0, 8.0, 32.0, 24.0], 1e-3);
        // As bright as the ground at most: the small graph is less sure then.
        let dark = detections(run_one(&mut pipeline, picture(RgbImage::new(128, 64))));
        let expected = scores[0] * 114.0 / 255.0;
        assert!(dark.objects.first().is_none_or(|cat| (cat.score - expected).abs() < 1e-3));
    }
}

#[test]
fn pictures_and_texts_lie_in_one_space_and_labels_are_judged_each_for_itself() {
    let red = || RgbImage::from_pixel(50, 20, Rgb([255, 0, 0]));
    for (model, tolerance) in [("siglip-small", 1e-5), ("siglip-small-half", 1e-3)] {
        let mut pipeline = small(model);
        let of_picture = embedding(run_one(&mut pipeline, picture(red())));
        near(&of_picture.values, &[0.577_35, -0.577_35, -0.577_35], tolerance);
        assert_eq!((of_picture.tokens, of_picture.truncated), (None, false));
        let of_text = embedding(run_one(&mut pipeline, text("A RED red")));
        near(&of_text.values, &of_picture.values, tolerance);
        assert_eq!(of_text.tokens, Some(4));
        let long = embedding(run_one(&mut pipeline, text(&"red ".repeat(100))));
        assert_eq!((long.tokens, long.truncated), (Some(64), true));
        let labels = with(Task::VisionEmbed, &json!({"labels": ["green", "Red", "red green"]}));
        let labelled = |picture: RgbImage| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("picture.png");
            picture.save(&path).unwrap();
            decode(Task::VisionEmbed, &path, &labels, &InputLimits::default()).unwrap()
        };
        let found = classification(run_one(&mut pipeline, labelled(red())));
        assert_eq!(found.label, "Red");
        // sigmoid(10 * cosine - 5); "red green" lies at (0, 0, -2).
        let expected = [("Red", 0.993_307), ("red green", 0.684_5), ("green", 0.000_240)];
        for (label, (name, score)) in found.labels.iter().zip(expected) {
            assert!(label.name == name && (label.score - score).abs() < 3e-3, "{label:?}");
        }
        // Pictures and texts in one batch, in order.
        let batch = [text("blue"), picture(red()), text("green")];
        let found = pipeline.run(&batch, &gpu_inference::Cancel::new()).unwrap();
        let found: Vec<_> = found.into_iter().map(embedding).collect();
        near(&found[0].values, &[-0.577_35, -0.577_35, 0.577_35], tolerance);
        near(&found[1].values, &of_picture.values, tolerance);
    }
}

#[test]
fn a_picture_task_takes_no_text_and_an_embedding_task_no_recording() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("note.txt");
    std::fs::write(&path, "a red thing").unwrap();
    assert!(matches!(prepare(Task::VisionEmbed, &path).content(), Content::Text(_)));
    let limits = InputLimits::default();
    let rejected =
        |task, path: &std::path::Path| decode(task, path, &Params::default(), &limits).unwrap_err();
    assert_eq!(rejected(Task::VisionDetect, &path).code(), "input.wrong_kind");
    let error = rejected(Task::VisionEmbed, &sample("beckett.wav"));
    assert!(error.to_string().contains("a picture or a text"), "{error}");
}

/// A dark left half and a bright right one.
fn half_bright(params: &Value) -> Prepared {
    let picture = RgbImage::from_fn(200, 100, |x, _| Rgb([if x < 100 { 0 } else { 255 }; 3]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.png");
    picture.save(&path).unwrap();
    let task = Task::VisionSegment;
    decode(task, &path, &with(task, params), &InputLimits::default()).unwrap()
}

fn photograph() -> Prepared {
    prepare_photograph(Task::VisionDetect, &json!({}))
}

fn prepare_photograph(task: Task, params: &Value) -> Prepared {
    let limits = InputLimits::default();
    decode(task, &sample("astronaut.png"), &with(task, params), &limits).unwrap()
}

fn picture(picture: RgbImage) -> Prepared {
    Content::Picture(picture.into()).into()
}

fn mask(output: &Output, place: usize) -> GrayImage {
    let file = &output.files[place];
    assert_eq!(file.media_type, "image/png");
    image::load_from_memory(&file.bytes).unwrap().into_luma8()
}

fn reference(name: &str) -> Vec<u8> {
    let path = gpu_inference::cache_folder().join("graphs/references").join(name);
    let bytes = std::fs::read(&path).expect("run scripts/make-graphs.py");
    // An .npy file of bytes: the numbers are its end.
    bytes[bytes.len() - 512 * 512..].to_vec()
}

fn detections(output: Output) -> Detections {
    match output.result {
        TaskResult::Detections(found) => found,
        other => panic!("not boxes: {other:?}"),
    }
}

fn segments(output: Output) -> Segments {
    match output.result {
        TaskResult::Segments(found) => found,
        other => panic!("not masks: {other:?}"),
    }
}

fn near(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= tolerance);
    assert!(close, "{found:?} for {expected:?}");
}

/// A mask's edge may lie a pixel off where it was enlarged.
fn near_edges(found: Option<[u32; 4]>, expected: [u32; 4]) {
    let found = found.unwrap();
    assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 2), "{found:?}");
}
