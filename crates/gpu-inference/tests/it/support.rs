//! What the tests share: the runtime, opened models, samples.

use std::path::{Path, PathBuf};

use gpu_inference::{
    Answer, Cancel, DevicePreference, InputLimits, ModelStore, Output, Page, Params, Pipeline,
    Prepared, RunError, Runtime, RuntimeOptions, Task, Transcript, cache_folder, decode,
    open_pipeline,
};
use serde_json::Value;

/// The shared runtime: every load of the same library gives the same one.
pub(crate) fn runtime() -> Runtime {
    let library = Runtime::locate(None).expect("run scripts/fetch-models.py");
    Runtime::load(&library, RuntimeOptions::default()).expect("run scripts/fetch-models.py")
}

pub(crate) fn models_folder() -> PathBuf {
    cache_folder().join("models")
}

pub(crate) fn pipeline(model: &str) -> Box<dyn Pipeline> {
    let store = ModelStore::open(&models_folder()).expect("run scripts/fetch-models.py");
    open_pipeline(&runtime(), &store, model, DevicePreference::Cpu)
        .expect("run scripts/fetch-models.py")
}

/// One of the small graphs of models that cannot be fetched.
pub(crate) fn small(model: &str) -> Box<dyn Pipeline> {
    let store = ModelStore::open(&cache_folder().join("graphs"));
    let store = store.expect("run scripts/make-graphs.py");
    open_pipeline(&runtime(), &store, model, DevicePreference::Cpu)
        .unwrap_or_else(|error| panic!("run scripts/make-graphs.py: {error:?}"))
}

/// Params as a job gives them.
pub(crate) fn with(task: Task, params: &Value) -> Params {
    Params::read(task, params.as_object().unwrap()).unwrap()
}

/// Why a pipeline does not take an input.
pub(crate) fn refusal(pipeline: &mut dyn Pipeline, input: Prepared) -> RunError {
    pipeline.run(&[input], &Cancel::new()).unwrap_err()
}

pub(crate) fn sample(name: &str) -> PathBuf {
    let path = cache_folder().join("samples").join(name);
    assert!(path.is_file(), "{} is missing: run scripts/fetch-models.py", path.display());
    path
}

pub(crate) fn prepare(task: Task, path: &Path) -> Prepared {
    decode(task, path, &Params::default(), &InputLimits::default()).unwrap()
}

pub(crate) fn transcript(output: Output) -> Transcript {
    match output.answer {
        Answer::Transcript(transcript) => transcript,
        other => panic!("not a transcript: {other:?}"),
    }
}

pub(crate) fn page(output: Output) -> Page {
    match output.answer {
        Answer::Page(page) => page,
        other => panic!("not a page: {other:?}"),
    }
}

/// The answer to one input alone.
pub(crate) fn answer(pipeline: &mut dyn Pipeline, input: Prepared) -> Output {
    let mut outputs = pipeline.run(&[input], &Cancel::new()).unwrap();
    assert_eq!(outputs.len(), 1);
    outputs.remove(0)
}

/// A mono 16-bit WAV file.
pub(crate) fn wav(rate_hz: u32, samples: &[i16]) -> Vec<u8> {
    let length = u32::try_from(samples.len() * 2).unwrap();
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + length).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend(rate_hz.to_le_bytes());
    bytes.extend((rate_hz * 2).to_le_bytes());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend(length.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes
}
