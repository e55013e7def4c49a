//! `onnx.run`: any model's graph on named tensors gives what the model's own pipeline saw.

use gpu_inference::{
    Cancel, Content, DevicePreference, Elements, InputLimits, ModelError, ModelStore, Params,
    Pipeline, Prepared, RunError, Task, TaskResult, Tensor, TensorSummary, Tensors, decode,
    open_raw,
};

use crate::support::{models_folder, pipeline, rejection, run_one, runtime};

#[test]
fn a_file_classifier_run_raw_says_what_its_own_task_says() {
    let file = b"fn main() {\n    println!(\"{}\", 1 + 1);\n}\n\n#[test]\nfn it_adds() {}\n";
    // The beginning is stripped at its start and the end at its end.
    let (beginning, end) = (file.trim_ascii_start(), file.trim_ascii_end());
    let mut features = vec![256; 2_048];
    for (place, byte) in beginning.iter().enumerate() {
        features[place] = i32::from(*byte);
    }
    for (place, byte) in end.iter().rev().enumerate() {
        features[2_047 - place] = i32::from(*byte);
    }
    let own = run_one(&mut pipeline("magika-v3-3"), Content::Bytes(file.to_vec().into()).into());
    let TaskResult::Classification(own) = own.result else { panic!("no labels") };
    let output = run_one(
        &mut raw("magika-v3-3"),
        tensors([("bytes", &[1, 2_048][..], Elements::I32(features))]),
    );
    let TaskResult::Tensors(found) = &output.result else { panic!("no tensors") };
    let [TensorSummary { name, element_type, shape, values, file }] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(
        (name.as_str(), *element_type, shape.as_slice()),
        ("target_label", "float32", &[1, 214][..])
    );
    assert_eq!((values, file.as_str()), (&None, "target_label.npy"));
    let scores = read_npy(&output.files[0].bytes);
    let best = scores.iter().copied().fold(0.0, f32::max);
    assert!((best - own.labels[0].score).abs() < 1e-6, "{best} {own:?}");
}

#[test]
fn a_sentence_encoder_run_raw_gives_its_states() {
    let ids = Elements::I64(vec![101, 7_592, 102]);
    let ones = Elements::I64(vec![1; 3]);
    let zeros = Elements::I64(vec![0; 3]);
    let shape: &[usize] = &[1, 3];
    let input = tensors([
        ("input_ids", shape, ids),
        ("attention_mask", shape, ones),
        ("token_type_ids", shape, zeros),
    ]);
    let output = run_one(&mut raw("minilm-l6-v2-int8"), input);
    let states = read_npy(&output.files[0].bytes);
    let mut mean: Vec<f32> =
        (0..384).map(|n| (states[n] + states[384 + n] + states[768 + n]) / 3.0).collect();
    let length = mean.iter().map(|value| value * value).sum::<f32>().sqrt();
    mean.iter_mut().for_each(|value| *value /= length);
    let own = run_one(&mut pipeline("minilm-l6-v2-int8"), Content::Text("Hello".into()).into());
    let TaskResult::Embedding(own) = own.result else { panic!("no vector") };
    assert_eq!(own.tokens, Some(3));
    let off = own.values.iter().zip(&mean).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 1e-5, "off by {off}");
}

#[test]
fn what_does_not_fit_a_graph_is_said_before_it_runs() {
    let mut pipeline = raw("minilm-l6-v2-int8");
    let whole = |count: usize| Elements::I64(vec![1; count]);
    let row: &[usize] = &[1, 3];
    let cases = [
        (vec![("input_ids", row, whole(3))], "\"attention_mask\" is missing"),
        (vec![("words", row, whole(3))], "has no input \"words\": it takes input_ids"),
        (
            vec![
                ("input_ids", &[3][..], whole(3)),
                ("attention_mask", row, whole(3)),
                ("token_type_ids", row, whole(3)),
            ],
            "the input \"input_ids\" is int64 [3]",
        ),
        (
            vec![
                ("input_ids", row, Elements::F32(vec![1.0; 3])),
                ("attention_mask", row, whole(3)),
                ("token_type_ids", row, whole(3)),
            ],
            "is float32 [1, 3]",
        ),
        // ONNX Runtime would run this one.
        (
            vec![
                ("input_ids", row, whole(3)),
                ("attention_mask", &[1, 4][..], whole(4)),
                ("token_type_ids", row, whole(3)),
            ],
            "the dimension \"sequence\" is 3 in \"input_ids\" and 4 in \"attention_mask\"",
        ),
    ];
    for (given, said) in cases {
        let error = rejection(&mut pipeline, tensors(given));
        assert!(matches!(error, RunError::Unfit { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    let words: Prepared = Content::Text("no tensors".into()).into();
    assert!(matches!(pipeline.run(&[words], &Cancel::new()), Err(RunError::WrongInput { .. })));
}

#[test]
fn a_model_of_several_graphs_is_asked_for_one_and_one_array_needs_no_name() {
    let store = ModelStore::open(&models_folder()).unwrap();
    let open = |graph| open_raw(&runtime(), &store, graph, DevicePreference::Cpu);
    for graph in ["pp-ocr-v6-small", "pp-ocr-v6-small/none"] {
        let error = open(graph).err().unwrap();
        assert!(matches!(error, ModelError::WhichGraph { .. }), "{error}");
        assert!(error.to_string().contains("pp-ocr-v6-small/detect"), "{error}");
    }
    assert!(matches!(open("nothing").err().unwrap(), ModelError::Unknown { .. }));
    let mut angle = open("pp-ocr-v6-small/angle").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("line.npy");
    let line = Tensor::new(vec![1, 3, 48, 192], Elements::F32(vec![0.1; 3 * 48 * 192])).unwrap();
    std::fs::write(&path, line.to_npy()).unwrap();
    let input = decode(Task::OnnxRun, &path, &Params::default(), &InputLimits::default()).unwrap();
    let output = run_one(&mut angle, input);
    let TaskResult::Tensors(found) = output.result else { panic!("no tensors") };
    let scores = found[0].values.clone().expect("two numbers are in the result");
    assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{scores:?}");
}

fn raw(graph: &str) -> Pipeline {
    let store = ModelStore::open(&models_folder()).expect("run scripts/fetch-models.py");
    open_raw(&runtime(), &store, graph, DevicePreference::Cpu).expect("run scripts/fetch-models.py")
}

fn tensors<'a>(named: impl IntoIterator<Item = (&'a str, &'a [usize], Elements)>) -> Prepared {
    let tensor = |(name, shape, elements): (&str, &[usize], Elements)| {
        (name.to_owned(), Tensor::new(shape.to_vec(), elements).unwrap())
    };
    Content::Tensors(named.into_iter().map(tensor).collect::<Tensors>()).into()
}

/// The numbers of an .npy file: its header ends with a line break.
fn read_npy(bytes: &[u8]) -> Vec<f32> {
    let start = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let number = |four: &[u8]| f32::from_le_bytes(four.try_into().unwrap());
    bytes[start..].chunks_exact(4).map(number).collect()
}
