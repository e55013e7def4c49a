//! Prints what is said in a recording: `cargo run -p gpu-inference --example transcribe FILE`.
//!
//! Needs the models and ONNX Runtime that scripts/fetch-models.py fetches.

#![expect(clippy::print_stdout, reason = "the text is what this program is for")]

use std::error::Error;

use gpu_inference::{
    Cancel, DevicePreference, InputLimits, ModelStore, Params, Runtime, RuntimeOptions, Task,
    TaskResult, cache_folder, decode, open_pipeline,
};

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os().nth(1).ok_or("usage: transcribe FILE")?;
    let task = Task::VoiceTranscribe;
    let runtime = Runtime::load(&Runtime::locate(None)?, RuntimeOptions::default())?;
    let store = ModelStore::open(&cache_folder().join("models"))?;
    let model = store.default_for(task).ok_or("no model: run scripts/fetch-models.py")?;
    let mut pipeline = open_pipeline(&runtime, &store, model.name(), DevicePreference::Auto)?;
    let recording = decode(task, file.as_ref(), &Params::default(), &InputLimits::default())?;
    for output in pipeline.run(&[recording], &Cancel::new())? {
        if let TaskResult::Transcript(transcript) = output.result {
            println!("{}", transcript.text);
        }
    }
    Ok(())
}
