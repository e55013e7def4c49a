//! What the tests share: the runtime, opened models, samples.

use std::path::{Path, PathBuf};

use gpu_inference::{
    Cancel, Classification, Content, DevicePreference, Embedding, InputLimits, ModelError,
    ModelStore, Output, Page, Params, Pipeline, Prepared, RunError, Runtime, RuntimeOptions, Task,
    TaskResult, Transcript, cache_folder, decode, open_pipeline,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The shared runtime: every load of the same library gives the same one.
pub(crate) fn runtime() -> Runtime {
    let library = Runtime::locate(None).expect("run scripts/fetch-models.py");
    Runtime::load(&library, RuntimeOptions::default()).expect("run scripts/fetch-models.py")
}

pub(crate) fn models_folder() -> PathBuf {
    cache_folder().join("models")
}

pub(crate) fn pipeline(model: &str) -> Pipeline {
    let store = ModelStore::open(&models_folder()).expect("run scripts/fetch-models.py");
    open_pipeline(&runtime(), &store, model, DevicePreference::Cpu)
        .expect("run scripts/fetch-models.py")
}

/// One of the small graphs of models that cannot be fetched.
pub(crate) fn small(model: &str) -> Pipeline {
    let store = ModelStore::open(&cache_folder().join("graphs"));
    let store = store.expect("run scripts/make-graphs.py");
    open_pipeline(&runtime(), &store, model, DevicePreference::Cpu)
        .unwrap_or_else(|error| panic!("run scripts/make-graphs.py: {error:?}"))
}

/// Params as a job gives them.
pub(crate) fn with(task: Task, params: &Value) -> Params {
    Params::read(task, params.as_object().unwrap()).unwrap()
}

/// The error for a batch of one.
pub(crate) fn rejection(pipeline: &mut Pipeline, input: Prepared) -> RunError {
    pipeline.run(&[input], &Cancel::new()).unwrap_err()
}

pub(crate) fn sample(name: &str) -> PathBuf {
    let path = cache_folder().join("samples").join(name);
    assert!(path.is_file(), "{} is missing: run scripts/fetch-models.py", path.display());
    path
}

/// The files of a package's source archive.
pub(crate) fn samples_folder(name: &str) -> PathBuf {
    let path = cache_folder().join("samples").join(name);
    assert!(path.is_dir(), "{} is missing: run scripts/fetch-models.py", path.display());
    path
}

pub(crate) fn prepare(task: Task, path: &Path) -> Prepared {
    decode(task, path, &Params::default(), &InputLimits::default()).unwrap()
}

pub(crate) fn text(words: &str) -> Prepared {
    Content::Text(words.into()).into()
}

pub(crate) fn embedding(output: Output) -> Embedding {
    match output.result {
        TaskResult::Embedding(found) => found,
        other => panic!("no vector: {other:?}"),
    }
}

pub(crate) fn classification(output: Output) -> Classification {
    match output.result {
        TaskResult::Classification(found) => found,
        other => panic!("no labels: {other:?}"),
    }
}

pub(crate) fn transcript(output: Output) -> Transcript {
    match output.result {
        TaskResult::Transcript(transcript) => transcript,
        other => panic!("not a transcript: {other:?}"),
    }
}

pub(crate) fn page(output: Output) -> Page {
    match output.result {
        TaskResult::Page(page) => page,
        other => panic!("not a page: {other:?}"),
    }
}

/// The output of a batch of one.
pub(crate) fn run_one(pipeline: &mut Pipeline, input: Prepared) -> Output {
    let mut outputs = pipeline.run(&[input], &Cancel::new()).unwrap();
    assert_eq!(outputs.len(), 1);
    outputs.remove(0)
}

/// The samples in the file of an output that is sound.
pub(crate) fn recording(output: &Output, rate_hz: u32) -> Vec<f32> {
    let mut reader = hound::WavReader::new(output.files[0].bytes.as_slice()).unwrap();
    assert_eq!(reader.spec().sample_rate, rate_hz);
    reader.samples::<i16>().map(|sample| f32::from(sample.unwrap()) / 32_768.0).collect()
}

/// A graph that `scripts/make-graphs.py` has made.
pub(crate) fn graph(name: &str) -> PathBuf {
    let path = cache_folder().join("graphs").join(name);
    assert!(path.is_file(), "{} is missing: run scripts/make-graphs.py", path.display());
    path
}

/// Opens a model of these files, as a user makes one whose weights no registry has.
pub(crate) fn contract(
    family: &str,
    task: Task,
    files: &[(&str, &Path)],
) -> Result<Pipeline, ModelError> {
    let store = tempfile::tempdir().unwrap();
    let folder = store.path().join("own");
    std::fs::create_dir(&folder).unwrap();
    let uses = match task {
        Task::VoiceTranscribe => "uses = { vad = \"silero-vad-v6\" }\n",
        _ => "",
    };
    let mut text = format!(
        "name = \"own\"\nfamily = \"{family}\"\ntask = \"{task}\"\nlicence = \"none\"\nprecision = \"fp32\"\n\
         max_batch = 1\nmemory_mib = 1\n{uses}"
    );
    for (role, file) in files {
        let bytes = std::fs::read(file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        std::fs::write(folder.join(name), &bytes).unwrap();
        let hash: String =
            Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!(
            "[[file]]\nrole = \"{role}\"\npath = \"{name}\"\nsha256 = \"{hash}\"\nsize_bytes = {}\n",
            bytes.len()
        );
    }
    std::fs::write(folder.join("model.toml"), text).unwrap();
    if task == Task::VoiceTranscribe {
        let vad = models_folder().join("silero-vad-v6");
        std::os::unix::fs::symlink(vad, store.path().join("silero-vad-v6")).unwrap();
    }
    let models = ModelStore::open(store.path()).unwrap();
    open_pipeline(&runtime(), &models, "own", DevicePreference::Cpu)
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
