//! A command, which takes hours.

use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_control::job::Job;
use gpuctl_worker::{Cancel, Fault, Inferred};

use super::{World, seconds};

/// How long it takes.
const COMMAND_TAKES: Duration = Duration::from_secs(3 * 3_600);

impl World {
    /// A command that takes `COMMAND_TAKES`, and a second to save what it has.
    pub(super) async fn run_command(&self, job: &Job, cancel: &Cancel) -> Result<Inferred, Fault> {
        self.state().commands_running += 1;
        let handed_over = self.state().handed_over.clone();
        let done = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Fault::Cancelled),
            () = handed_over.cancelled() => {
                tokio::time::sleep(seconds(1)).await;
                Err(Fault::HandedOver)
            }
            () = tokio::time::sleep(COMMAND_TAKES) => Ok(()),
        };
        let mut state = self.state();
        state.running.remove(job.id.as_str());
        state.commands_running -= 1;
        done.map(|()| {
            state.inferences += 1;
            let took = TimeDelta::from_std(COMMAND_TAKES).unwrap();
            let (model, device) = (job.task.clone(), "process".to_owned());
            let output = serde_json::json!({});
            Inferred { output, files: Vec::new(), model, device, took, worked: took }
        })
    }
}
