//! A policy's text where a function without a disk finds it: an SSM parameter, and what it was before.

use aws_sdk_ssm::types::ParameterHistory;
use gpuctl_control::ports::{PortError, PortErrorClass};

use crate::Aws;
use crate::error::port_error;

/// Versions that are read: SSM itself keeps no more.
const VERSIONS_MAX: usize = 100;

/// The text of one version of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterVersion {
    /// Its number: it grows.
    pub version: i64,
    /// Its text, decrypted if it is secret.
    pub text: String,
}

impl Aws {
    /// The newest version of an SSM parameter.
    ///
    /// # Errors
    /// When it is not there, or may not be read.
    pub async fn parameter(&self, name: &str) -> Result<ParameterVersion, PortError> {
        let answer = self.ssm().get_parameter().name(name).with_decryption(true).send().await;
        let answer = answer.map_err(|error| {
            port_error("ssm:GetParameter", format!("cannot read the SSM parameter {name}"), error)
        })?;
        let found = answer.parameter.and_then(|parameter| {
            Some(ParameterVersion { version: parameter.version, text: parameter.value? })
        });
        found.ok_or_else(|| {
            PortError::new(PortErrorClass::NotFound, format!("the SSM parameter {name} is empty"))
        })
    }

    /// Every version of an SSM parameter that SSM still has, the newest first.
    ///
    /// # Errors
    /// As there.
    pub async fn parameter_history(&self, name: &str) -> Result<Vec<ParameterVersion>, PortError> {
        let call = self.ssm().get_parameter_history().name(name).with_decryption(true);
        let mut pages = call.into_paginator().send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| {
                let what = format!("cannot read what the SSM parameter {name} was before");
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
