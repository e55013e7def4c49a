//! The end of a box's console: what it wrote while it booted and since, as far as EC2 keeps it.

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::SdkError;
use aws_sdk_ec2::operation::get_console_output::{GetConsoleOutputError, GetConsoleOutputOutput};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gpuctl_control::log::LogLine;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_core::units::BoxId;

use super::{Ec2Cloud, failed};
use crate::calls::show;
use crate::error::code;

impl Ec2Cloud {
    /// The lines of a box's console, at most the 64 KB that EC2 keeps; none where EC2 has none yet.
    ///
    /// # Errors
    /// When there is no such box, or its console cannot be read.
    pub async fn console(&self, box_id: &BoxId) -> Result<Vec<LogLine>, PortError> {
        let known = self.with_listing(|last| last.boxes.get(box_id).cloned()).await?;
        let known = known.ok_or_else(|| {
            PortError::new(PortErrorClass::NotFound, format!("EC2 has no box {box_id}")).hint(
                "`gpuctl status` shows the boxes of all pools; a slot without a box has no console",
            )
        })?;
        let id = known.instance_id.as_str();
        let output = match self.output(id, Age::Latest).await {
            // Only instances on Nitro show their latest output; of others EC2 keeps what they wrote at boot.
            Err(error) if code(&error) == Some("UnsupportedOperation") => {
                self.output(id, Age::Kept).await
            }
            output => output,
        };
        let output = output.map_err(|error| {
            let what = format!("the console of box {box_id} cannot be read");
            failed("ec2:GetConsoleOutput", what, error)
        })?;
        lines(box_id, output.output().unwrap_or_default())
    }

    async fn output(
        &self,
        id: &str,
        age: Age,
    ) -> Result<GetConsoleOutputOutput, SdkError<GetConsoleOutputError, HttpResponse>> {
        let latest = if age == Age::Latest { " --latest" } else { "" };
        show(format_args!("ec2 get-console-output --instance-id {id}{latest} --output text"));
        let call = self.client.get_console_output().instance_id(id);
        match age {
            Age::Latest => call.latest(true).send().await,
            Age::Kept => call.send().await,
        }
    }
}

/// Which of the two outputs that EC2 has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    /// As of now.
    Latest,
    /// As of shortly after the box last changed its state.
    Kept,
}

fn lines(box_id: &BoxId, output: &str) -> Result<Vec<LogLine>, PortError> {
    // The base64 is broken into lines as well.
    let output: String = output.split_whitespace().collect();
    let bytes = STANDARD.decode(output).map_err(|error| {
        let what = format!("the console of box {box_id} is not valid base64");
        PortError::new(PortErrorClass::Corrupt, what).because(error)
    })?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().map(LogLine::of_text).collect())
}
