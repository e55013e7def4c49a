//! The worker's trait [`Inference`] over [`Engine`]: decoding on CPU threads, models on their own.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpu_inference::{Cancel as RunCancel, Decoder, Output, Params, Prepared, Task, TaskError};
use gpuctl_control::job::{Job, JobFailure};
use gpuctl_worker::{
    BoxFault, Cancel, Decoded, Fault, Inference, Inferred, Inputs, JobTimer, Needs, OutputFile,
};

use crate::cancel::ItemCancel;
use crate::engine::Engine;
use crate::failure;
use crate::result::output_document;

/// The largest input in bytes: 4 hours of 48 kHz stereo sound in 16 bits are 2.8 GB.
pub(crate) const INPUT_BYTES_MAX: u64 = 4 << 30;

#[async_trait]
impl Inference for Engine {
    async fn probe(&self) -> Result<(), BoxFault> {
        let engine = self.clone();
        let probed = tokio::task::spawn_blocking(move || engine.probe()).await;
        probed.unwrap_or_else(|error| {
            let (code, message) = ("runtime.crashed".to_owned(), error.to_string());
            Err(BoxFault { code, message, hint: None })
        })
    }

    fn check(&self, job: &Job) -> Result<Needs, JobFailure> {
        let (_, params) = check_job(job).map_err(|error| failure::task(&error))?;
        let files = params.uris().map(|(name, uri)| {
            let uri = uri.parse().map_err(|error| failure::uri(&error))?;
            Ok((name, uri))
        });
        let files = files.collect::<Result<_, JobFailure>>()?;
        Ok(Needs { files, bytes_max: INPUT_BYTES_MAX })
    }

    fn model(&self, job: &Job) -> Option<String> {
        let name = job.model.clone().or_else(|| {
            let (task, _) = check_job(job).ok()?;
            Some(self.resolve(task, None).ok()?.model().to_owned())
        })?;
        // `onnx.run` may name one of a model's graphs.
        Some(name.split('/').next().unwrap_or(&name).to_owned())
    }

    fn bytes_max(&self, job: &Job, inputs: &Inputs) -> u64 {
        let Ok((task, params)) = read(job, inputs) else { return 0 };
        let decoder = Decoder { limits: self.limits(), cancel: RunCancel::new() };
        let decoded = decoder.bytes_max(task, inputs.input.path(), &params);
        let preparation = self.preparation(task, job.model.as_deref());
        decoded + preparation.map_or(0, |preparation| preparation.bytes_max())
    }

    async fn decode(
        &self,
        job: &Job,
        inputs: Inputs,
        cancel: &Cancel,
        timer: &JobTimer,
    ) -> Result<Decoded, Fault> {
        let (task, params) = read(job, &inputs)?;
        let permit = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Fault::Cancelled),
            permit = self.decoders().acquire_owned() => permit,
        };
        timer.start(1);
        let decoder = Decoder { limits: self.limits(), cancel: RunCancel::new() };
        let stop = decoder.cancel.clone();
        let (engine, model) = (self.clone(), job.model.clone());
        let decode = tokio::task::spawn_blocking(move || {
            let (_permit, began) = (permit, Instant::now());
            let decoded = decoder.decode(task, inputs.input.path(), &params);
            let decoded = decoded.map_err(|error| failure::input(&error, task))?;
            // While its model is not open yet, the model's thread prepares it.
            let prepared = match engine.preparation(task, model.as_deref()) {
                Some(preparation) => preparation.apply(decoded),
                None => Ok(decoded),
            };
            let prepared = prepared.map_err(|error| failure::run(&error))?;
            Ok((prepared, TimeDelta::from_std(began.elapsed()).unwrap_or_default()))
        });
        match cancelled_with(decode, cancel, || stop.cancel()).await {
            Ok(Ok((prepared, took))) => {
                Ok(Decoded { bytes: prepared.bytes(), took, inner: Box::new(prepared) })
            }
            Ok(Err(fault)) => Err(fault),
            // A decoder's panic is an error above; only a runtime that ends cancels the call.
            Err(_) => Err(Fault::Cancelled),
        }
    }

    async fn infer(
        &self,
        job: &Job,
        decoded: Decoded,
        cancel: &Cancel,
        timer: &Arc<JobTimer>,
    ) -> Result<Inferred, Fault> {
        let prepared = decoded.inner.downcast::<Prepared>().expect("it is what `decode` returned");
        let (task, _) = check_job(job).map_err(|error| Fault::Input(failure::task(&error)))?;
        let stop = ItemCancel::default();
        let wanted = (task, job.model.as_deref());
        let run = self.run(wanted, *prepared, stop.clone(), Arc::clone(timer));
        let inferred = cancelled_with(run, cancel, || stop.cancel()).await?;
        let took = TimeDelta::from_std(inferred.took).unwrap_or_default();
        Ok(Inferred {
            output: output_document(&inferred.output),
            files: output_files(inferred.output),
            model: inferred.model,
            device: inferred.device.to_string(),
            took,
            worked: took,
        })
    }
}

/// The task and its params, with the files among them.
fn read(job: &Job, inputs: &Inputs) -> Result<(Task, Params), Fault> {
    let (task, mut params) = check_job(job).map_err(|error| Fault::Input(failure::task(&error)))?;
    for (name, file) in &inputs.files {
        params.set_file(name, file.path().to_owned());
    }
    Ok((task, params))
}

/// The outcome of `work`, which ends early after `stop`: that is called when `cancel` is set.
async fn cancelled_with<T>(
    work: impl Future<Output = T>,
    cancel: &Cancel,
    stop: impl FnOnce(),
) -> T {
    tokio::pin!(work);
    tokio::select! {
        biased;
        outcome = &mut work => return outcome,
        () = cancel.cancelled() => stop(),
    }
    work.await
}

/// The files of an output, as a worker stores them.
#[must_use]
pub fn output_files(output: Output) -> Vec<OutputFile> {
    let file = |file: gpu_inference::OutputFile| OutputFile {
        name: file.name,
        bytes: file.bytes,
        media_type: file.media_type.to_owned(),
    };
    output.files.into_iter().map(file).collect()
}

/// The task and its params; `gpuctl submit` checks the same before queueing.
fn check_job(job: &Job) -> Result<(Task, Params), TaskError> {
    let task: Task = job.task.parse()?;
    Ok((task, Params::read(task, &job.params)?))
}

#[cfg(test)]
mod tests {
    use gpu_inference::{DevicePreference, InputLimits, RuntimeOptions};
    use gpuctl_control::ports::Fetched;
    use serde_json::json;

    use super::*;
    use crate::EngineSetup;

    fn job(task: &str, model: Option<&str>, params: &serde_json::Value) -> Job {
        let submitted_at = "2026-11-21T00:00:00Z".parse().unwrap();
        Job {
            id: gpuctl_control::job::JobId::new(submitted_at),
            queue: "jobs".parse().unwrap(),
            task: task.to_owned(),
            model: model.map(str::to_owned),
            input: "data:,x".parse().unwrap(),
            params: params.as_object().unwrap().clone(),
            submitted_at,
            generation: 0,
            urgency: gpuctl_control::job::Urgency::default(),
        }
    }

    #[test]
    fn a_message_that_was_not_checked_when_submitted_is_rejected_here() {
        let code =
            |task, params| check_job(&job(task, None, &params)).map(|_| ()).unwrap_err().code();
        assert_eq!(code("vision.orc", json!({})), "task.unknown");
        assert_eq!(code("vision.ocr", json!({"speed": 2})), "input.param_unknown");
        assert!(check_job(&job("vision.ocr", None, &json!({}))).is_ok());
    }

    /// An engine with the small graphs of scripts/make-graphs.py.
    fn engine() -> Engine {
        Engine::new(EngineSetup {
            library: None,
            models: gpu_inference::cache_folder().join("graphs"),
            device: DevicePreference::Cpu,
            device_of: std::collections::BTreeMap::new(),
            options: RuntimeOptions::default(),
            limits: InputLimits::default(),
        })
    }

    async fn decoded(engine: &Engine, job: &Job, text: &str) -> Result<Decoded, Fault> {
        let inputs = Inputs { input: Fetched::of_text(text).unwrap(), files: Vec::new() };
        engine.decode(job, inputs, &Cancel::new(), &JobTimer::new()).await
    }

    async fn inferred(engine: &Engine, job: &Job, decoded: Decoded) -> Result<Inferred, Fault> {
        engine.infer(job, decoded, &Cancel::new(), &Arc::new(JobTimer::new())).await
    }

    #[tokio::test]
    async fn once_a_model_is_open_its_thread_prepares_nothing() {
        let engine = engine();
        let job = job("text.embed", Some("sentences-small"), &json!({}));
        // Decoded before the model is open.
        let first = decoded(&engine, &job, "a red thing").await.unwrap();
        assert!(engine.preparation(Task::TextEmbed, job.model.as_deref()).is_none());
        let first = inferred(&engine, &job, first).await.unwrap();
        let preparation = engine.preparation(Task::TextEmbed, job.model.as_deref()).unwrap();
        assert_eq!(preparation.late(), 1);
        for _ in 0..3 {
            let next = decoded(&engine, &job, "a red thing").await.unwrap();
            assert_eq!(inferred(&engine, &job, next).await.unwrap().output, first.output);
        }
        assert_eq!(preparation.late(), 1);
    }

    #[tokio::test]
    async fn an_input_that_its_model_cannot_use_fails_while_it_is_decoded() {
        let engine = engine();
        let job = job("text.classify", Some("classifier-one"), &json!({}));
        let zeros = "\0\u{1}\u{2}";
        let code = |failed: Fault| match failed {
            Fault::Input(failure) => failure.code,
            other => panic!("{other:?}"),
        };
        // Before its model is open it is found on the model's thread.
        let late = decoded(&engine, &job, zeros).await.unwrap();
        assert_eq!(code(inferred(&engine, &job, late).await.unwrap_err()), "input.wrong_kind");
        assert_eq!(code(decoded(&engine, &job, zeros).await.err().unwrap()), "input.wrong_kind");
    }

    #[tokio::test]
    async fn an_input_that_was_prepared_for_an_earlier_opening_is_decoded_again() {
        let (before, after) = (engine(), engine());
        let job = job("text.embed", Some("sentences-small"), &json!({}));
        let opening = decoded(&before, &job, "one").await.unwrap();
        inferred(&before, &job, opening).await.unwrap();
        let prepared = decoded(&before, &job, "two").await.unwrap();
        match inferred(&after, &job, prepared).await.unwrap_err() {
            Fault::Box(fault) => assert_eq!(fault.code, "model.reopened"),
            other => panic!("{other:?}"),
        }
        let again = decoded(&after, &job, "two").await.unwrap();
        inferred(&after, &job, again).await.unwrap();
    }

    #[test]
    fn a_job_is_limited_by_the_model_that_it_names_or_by_that_of_its_task() {
        let engine = engine();
        let model = |task, model| engine.model(&job(task, model, &json!({})));
        assert_eq!(model("onnx.run", Some("sam2-small/encoder")).as_deref(), Some("sam2-small"));
        assert_eq!(model("text.classify", None).as_deref(), Some("classifier-any"));
        // None is here for it.
        assert_eq!(model("voice.denoise", None), None);
    }
}
