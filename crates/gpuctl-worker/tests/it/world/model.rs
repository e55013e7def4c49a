//! The model.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::job::{Job, JobFailure};
use gpuctl_worker::{
    BoxFault, Cancel, Decoded, Fault, Inference, Inferred, Inputs, JobTimer, Needs, OutputFile,
};

use super::{Call, DECODING, LARGE_BYTES, World};

#[async_trait]
impl Inference for World {
    async fn probe(&self) -> Result<(), BoxFault> {
        self.check(Call::Probe)
            .map_err(|_| fault("models.missing", "the folder of models is empty"))
    }

    fn check(&self, job: &Job) -> Result<Needs, JobFailure> {
        if job.task == "unknown" {
            let (code, message) = ("task.unknown".to_owned(), "no such task".to_owned());
            return Err(JobFailure { code, message, hint: None });
        }
        Ok(Needs { files: Vec::new(), bytes_max: 1 << 30 })
    }

    fn model(&self, _: &Job) -> Option<String> {
        Some("fake".to_owned())
    }

    fn bytes_max(&self, _: &Job, _: &Inputs) -> u64 {
        self.state().decoded_bytes
    }

    async fn decode(
        &self,
        _: &Job,
        _: Inputs,
        _: &Cancel,
        timer: &JobTimer,
    ) -> Result<Decoded, Fault> {
        timer.start(1);
        let bytes = self.state().decoded_bytes;
        Ok(Decoded { bytes, took: DECODING, inner: Box::new(()) })
    }

    async fn infer(
        &self,
        job: &Job,
        _: Decoded,
        cancel: &Cancel,
        timer: &Arc<JobTimer>,
    ) -> Result<Inferred, Fault> {
        Inference::check(self, job).map_err(Fault::Input)?;
        self.check(Call::Infer).map_err(|_| Fault::Box(fault("device.memory", "out of memory")))?;
        if job.task == "opens" {
            self.state().opening += 1;
            let _opening = Opening(self);
            return std::future::pending().await;
        }
        if job.task == "waits" {
            cancel.cancelled().await;
            return Err(Fault::Cancelled);
        }
        timer.start(1);
        {
            let mut state = self.state();
            state.running.insert(job.id.to_string());
            state.running_max = state.running_max.max(state.running.len());
        }
        if job.task.starts_with("command.") {
            return self.run_command(job, cancel).await;
        }
        let (kind, takes) = job.task.split_once(':').unwrap_or((&job.task, "0"));
        let takes = Duration::from_secs(takes.parse().unwrap()) + Duration::from_millis(100);
        let cancelled = match kind {
            "hang" => std::future::pending().await,
            "deaf" => {
                tokio::time::sleep(takes).await;
                false
            }
            _ => tokio::select! {
                biased;
                () = cancel.cancelled() => true,
                () = tokio::time::sleep(takes) => false,
            },
        };
        let mut state = self.state();
        state.running.remove(job.id.as_str());
        if cancelled {
            return Err(Fault::Cancelled);
        }
        state.inferences += 1;
        if kind == "fails" {
            let (code, message) = ("input.damaged".to_owned(), "it is damaged".to_owned());
            return Err(Fault::Input(JobFailure { code, message, hint: None }));
        }
        let bytes = match kind {
            "file" => Some(state.inferences.to_string().into_bytes()),
            "large" => Some(vec![1; LARGE_BYTES]),
            _ => None,
        };
        let (name, media_type) = ("speech.wav".to_owned(), "audio/wav".to_owned());
        let file = |bytes| OutputFile { name: name.clone(), bytes, media_type: media_type.clone() };
        Ok(Inferred {
            output: serde_json::json!({}),
            files: bytes.map(file).into_iter().collect(),
            model: "fake".to_owned(),
            device: "cpu".to_owned(),
            took: TimeDelta::from_std(takes).unwrap(),
            worked: TimeDelta::from_std(takes).unwrap(),
        })
    }

    async fn forget(&self, _: &Job) {
        self.state().forgotten += 1;
    }

    fn runs_command(&self) -> bool {
        self.state().commands_running > 0
    }

    fn hand_over(&self) {
        self.state().handed_over.cancel();
    }
}

struct Opening<'a>(&'a World);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.state().opening -= 1;
    }
}

fn fault(code: &str, message: &str) -> BoxFault {
    BoxFault { code: code.to_owned(), message: message.to_owned(), hint: None }
}
