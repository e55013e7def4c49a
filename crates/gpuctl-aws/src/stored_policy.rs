//! The text of a policy in an SSM parameter, for the function, which has no disk; and the parameter's earlier versions.

use aws_sdk_ssm::types::ParameterHistory;
use gpuctl_control::ports::{PortError, PortErrorClass};

use crate::Aws;
use crate::error::port_error;

/// Versions that are read: SSM keeps 100.
const VERSIONS_MAX: usize = 100;

/// The text of one version of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterVersion {
    /// Grows with each version.
    pub version: i64,
    /// Decrypted, if the parameter is a `SecureString`.
    pub text: String,
}

impl Aws {
    /// The newest version of an SSM parameter.
    ///
    /// # Errors
    /// When it does not exist, is empty, or cannot be read.
    pub async fn parameter(&self, name: &str) -> Result<ParameterVersion, PortError> {
        let sent = self.ssm().get_parameter().name(name).with_decryption(true).send().await;
        let output = sent.map_err(|error| {
            port_error("ssm:GetParameter", format!("cannot read the SSM parameter {name}"), error)
        })?;
        let found = output.parameter.and_then(|parameter| {
            Some(ParameterVersion { version: parameter.version, text: parameter.value? })
        });
        found.ok_or_else(|| {
            PortError::new(PortErrorClass::NotFound, format!("the SSM parameter {name} is empty"))
        })
    }

    /// Every version of an SSM parameter that SSM still has, the newest first.
    ///
    /// # Errors
    /// When the history cannot be read, which needs a permission of its own.
    pub async fn parameter_history(&self, name: &str) -> Result<Vec<ParameterVersion>, PortError> {
        let call = self.ssm().get_parameter_history().name(name).with_decryption(true);
        let mut pages = call.into_paginator().send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| {
                let what = format!("cannot read the history of the SSM parameter {name}");
                port_error("ssm:GetParameterHistory", what, error)
            })?;
            all.extend(page.parameters.unwrap_or_default().into_iter().filter_map(version));
            if all.len() >= VERSIONS_MAX {
                break;
            }
        }
        all.sort_unstable_by_key(|one| -one.version);
        Ok(all)
    }
}

fn version(one: ParameterHistory) -> Option<ParameterVersion> {
    Some(ParameterVersion { version: one.version, text: one.value? })
}
