//! A policy's text where a function without a disk finds it: an SSM parameter.

use gpuctl_control::ports::{PortError, PortErrorClass};

use crate::Aws;
use crate::error::port_error;

impl Aws {
    /// The text of an SSM parameter, decrypted if it is secret.
    ///
    /// # Errors
    /// When it is not there, or may not be read.
    pub async fn parameter(&self, name: &str) -> Result<String, PortError> {
        let answer = self.ssm().get_parameter().name(name).with_decryption(true).send().await;
        let answer = answer.map_err(|error| {
            port_error("ssm:GetParameter", format!("cannot read the SSM parameter {name}"), error)
        })?;
        let value = answer.parameter.and_then(|parameter| parameter.value);
        value.ok_or_else(|| {
            PortError::new(PortErrorClass::NotFound, format!("the SSM parameter {name} is empty"))
        })
    }
}
