//! The worker's trait [`Inference`] over [`Engine`]: decoding on CPU threads, models on their own.

use async_trait::async_trait;
use chrono::TimeDelta;
use gpu_inference::{Cancel as RunCancel, Output, Params, Prepared, Task, TaskError, decode};
use gpuctl_control::job::{Job, JobFailure};
use gpuctl_worker::{
    BoxFault, Cancel, Decoded, Fault, Inference, Inferred, Inputs, Needs, OutputFile,
};

use crate::engine::{Engine, EngineError};
use crate::failure;
use crate::result::output_document;

/// The largest input in bytes: 4 hours of 48 kHz stereo sound in 16 bits are 2.8 GB.
const INPUT_BYTES_MAX: u64 = 4 << 30;

#[async_trait]
impl Inference for Engine {
    async fn probe(&self) -> Result<(), BoxFault> {
        Ok(())
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

    async fn decode(&self, job: &Job, inputs: Inputs, _: &Cancel) -> Result<Decoded, Fault> {
        let (task, mut params) =
            check_job(job).map_err(|error| Fault::Input(failure::task(&error)))?;
        let permit = self.decoders().acquire_owned().await;
        let limits = self.limits();
        let decoded = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            for (name, file) in &inputs.files {
                params.set_file(name, file.path().to_owned());
            }
            decode(task, inputs.input.path(), &params, &limits)
        });
        match decoded.await {
            Ok(Ok(prepared)) => Ok(Decoded { bytes: 0, inner: Box::new(prepared) }),
            Ok(Err(error)) => Err(Fault::Input(failure::input(&error))),
            Err(_) => {
                let message = "the decoder crashed on this input".to_owned();
                let hint = Some("please report it with the input".to_owned());
                Err(Fault::Input(JobFailure { code: "input.crash".to_owned(), message, hint }))
            }
        }
    }

    async fn infer(&self, job: &Job, decoded: Decoded, cancel: &Cancel) -> Result<Inferred, Fault> {
        let prepared = decoded.inner.downcast::<Prepared>().expect("it is what `decode` returned");
        let (task, _) = check_job(job).map_err(|error| Fault::Input(failure::task(&error)))?;
        let run_cancel = RunCancel::new();
        let run = self.run(task, job.model.as_deref(), *prepared, run_cancel.clone());
        let inferred = cancelled_with(run, cancel, &run_cancel).await;
        let inferred = inferred.map_err(|error| match error {
            EngineError::Failed(failure) => Fault::Input(failure),
            EngineError::Cancelled => Fault::Cancelled,
        })?;
        Ok(Inferred {
            output: output_document(&inferred.output.result),
            files: output_files(inferred.output),
            model: inferred.model,
            device: inferred.device.to_string(),
            took: TimeDelta::from_std(inferred.took).unwrap_or_default(),
        })
    }
}

/// The outcome of `run`, which `run_cancel` ends early: when `cancel` is set, that is set too.
async fn cancelled_with<T>(
    run: impl Future<Output = T>,
    cancel: &Cancel,
    run_cancel: &RunCancel,
) -> T {
    tokio::pin!(run);
    tokio::select! {
        biased;
        outcome = &mut run => return outcome,
        () = cancel.cancelled() => run_cancel.cancel(),
    }
    run.await
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
    use super::*;

    #[test]
    fn a_message_that_was_not_checked_when_submitted_is_rejected_here() {
        let submitted_at = "2026-11-21T00:00:00Z".parse().unwrap();
        let job = |task: &str, params: serde_json::Value| Job {
            id: gpuctl_control::job::JobId::new(submitted_at),
            queue: "jobs".parse().unwrap(),
            task: task.to_owned(),
            model: None,
            input: "data:,x".parse().unwrap(),
            params: params.as_object().unwrap().clone(),
            submitted_at,
            generation: 0,
        };
        let code = |task, params| check_job(&job(task, params)).unwrap_err().code();
        assert_eq!(code("vision.orc", serde_json::json!({})), "task.unknown");
        assert_eq!(code("vision.ocr", serde_json::json!({"speed": 2})), "input.param_unknown");
        assert!(check_job(&job("vision.ocr", serde_json::json!({}))).is_ok());
    }
}
