//! Inputs prepared beside the model's thread give what the pipeline makes of inputs that were only decoded.

use gpu_inference::{
    Cancel, Content, InputLimits, Output, Params, Pipeline, Prepared, Task, decode,
};
use serde_json::json;

use crate::support::{pipeline, rejection, run_one, sample, small, text, with};

/// Runs the inputs as they were decoded, then prepared as a worker's decode threads do it.
fn both_ways(pipeline: &mut Pipeline, decoded: &[Prepared]) -> [Vec<Output>; 2] {
    let preparation = pipeline.preparation().expect("its inputs are prepared");
    let late = preparation.late();
    let by_pipeline = pipeline.run(decoded, &Cancel::new()).unwrap();
    let count = decoded.len() as u64;
    assert_eq!(preparation.late() - late, count, "each was prepared on the model's thread");
    let apply = |input: &Prepared| preparation.apply(input.clone()).unwrap();
    let prepared: Vec<Prepared> = decoded.iter().map(apply).collect();
    for input in &prepared {
        let is_counted = (1..=preparation.bytes_max()).contains(&input.bytes());
        assert!(is_counted, "{} of {} bytes", input.bytes(), preparation.bytes_max());
    }
    let by_stage = pipeline.run(&prepared, &Cancel::new()).unwrap();
    assert_eq!(preparation.late() - late, count, "nothing was left to do");
    [by_pipeline, by_stage]
}

fn photograph(task: Task, params: &serde_json::Value) -> Prepared {
    let limits = InputLimits::default();
    decode(task, &sample("astronaut.png"), &with(task, params), &limits).unwrap()
}

fn part(width: u32, height: u32) -> Prepared {
    let Content::Picture(whole) = photograph(Task::VisionDetect, &json!({})).content().clone()
    else {
        panic!("no picture")
    };
    let part = image::imageops::crop_imm(whole.rgb(), 130, 20, width, height).to_image();
    Content::Picture(part.into()).into()
}

#[test]
fn pictures_and_texts_of_every_family_are_the_same_number_for_number() {
    let pictures =
        || vec![photograph(Task::VisionDetect, &json!({})), part(200, 140), part(31, 57)];
    let texts = || vec![text("a red thing"), text("blue"), text("the quick brown fox jumps")];
    let prompt = json!({"boxes": [[40, 30, 300, 400]]});
    let segment = || vec![photograph(Task::VisionSegment, &prompt)];
    let cases: [(&str, Pipeline, Vec<Prepared>); 12] = [
        ("siglip", small("siglip-small"), [pictures(), texts()].concat()),
        ("siglip, 16 bits", small("siglip-small-half"), [texts(), pictures()].concat()),
        ("centerface", pipeline("centerface"), pictures()),
        ("yolo", small("yolo-columns"), pictures()),
        ("yolo, rows", small("yolo-rows"), pictures()),
        ("yolo, finished", small("yolo-finished"), pictures()),
        ("saliency", pipeline("u2netp"), pictures()),
        ("sam2", small("sam2-small"), segment()),
        ("sam3", small("sam3-small"), segment()),
        ("sentences", pipeline("minilm-l6-v2-int8"), texts()),
        ("sentences, small", small("sentences-small"), texts()),
        ("classifier", small("classifier-one"), texts()),
    ];
    for (name, mut pipeline, decoded) in cases {
        let [by_pipeline, by_stage] = both_ways(&mut pipeline, &decoded);
        assert_eq!(by_pipeline, by_stage, "{name}");
    }
}

#[test]
fn what_was_prepared_for_one_opening_of_a_model_is_not_run_by_another() {
    let (first, mut second) = (small("siglip-small"), small("siglip-small"));
    let prepared = first.preparation().unwrap().apply(part(40, 40)).unwrap();
    assert!(first.takes(&prepared) && !second.takes(&prepared));
    assert!(!pipeline("pp-ocr-v6-small").takes(&prepared));
    assert!(second.takes(&part(40, 40)));
    let error = rejection(&mut second, prepared.clone());
    assert!(error.to_string().contains("prepared for this model"), "{error}");
    // Prepared once more, nothing changes.
    let again = second.preparation().unwrap().apply(prepared).unwrap();
    assert!(!second.takes(&again));
}

#[test]
fn an_input_that_the_model_cannot_use_fails_alone_and_before_its_batch() {
    let mut classifier = small("classifier-one");
    let preparation = classifier.preparation().unwrap();
    let nothing: Prepared = Content::Bytes(b"\x00\x01\x02".to_vec().into()).into();
    let early = preparation.apply(nothing.clone()).unwrap_err();
    let late = rejection(&mut classifier, nothing);
    assert_eq!((early.code(), early.to_string()), (late.code(), late.to_string()));
    let params = Params::default();
    assert!(
        preparation
            .apply(
                decode(
                    Task::VisionDetect,
                    &sample("astronaut.png"),
                    &params,
                    &InputLimits::default()
                )
                .unwrap()
            )
            .is_err()
    );
    assert_eq!(run_one(&mut classifier, text("blue")).files.len(), 0);
}
