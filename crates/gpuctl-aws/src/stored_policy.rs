//! The text of a policy in an SSM parameter or in S3, for the function, which has no disk; and its earlier versions.

use aws_sdk_s3::types::ObjectVersion;
use aws_sdk_ssm::types::ParameterHistory;
use gpuctl_control::ports::{PortError, PortErrorClass};

use crate::error::port_error;
use crate::{Aws, S3Files};

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

/// Earlier versions of an object that are listed.
const OBJECT_VERSIONS_MAX: i32 = 20;

/// The largest policy in S3 that is read.
const OBJECT_BYTES_MAX: u64 = 1 << 20;

/// An earlier version of an object in S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierObject {
    pub id: String,
    /// When it was written.
    pub written_at: String,
}

/// The text of a policy in S3, by the credentials and the region of the environment: the policy itself is not known yet.
///
/// # Errors
/// When it cannot be read, or is not UTF-8.
pub async fn policy_in_s3(uri: &str) -> Result<String, PortError> {
    let aws = Aws::connect(None, None).await?;
    aws.object(uri).await
}

impl Aws {
    /// The text of an object.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or is not UTF-8.
    pub async fn object(&self, uri: &str) -> Result<String, PortError> {
        S3Files::new(self, "", "").text(uri, OBJECT_BYTES_MAX).await
    }

    /// The versions of an object before its newest, the newest first: none where its bucket keeps no versions.
    ///
    /// # Errors
    /// When they cannot be listed, which needs a permission of its own.
    pub async fn earlier_objects(&self, uri: &str) -> Result<Vec<EarlierObject>, PortError> {
        let (bucket, key) = bucket_and_key(uri);
        let call = self.s3().list_object_versions().bucket(bucket).prefix(key);
        let listed = call.max_keys(OBJECT_VERSIONS_MAX).send().await.map_err(|error| {
            port_error("s3:ListBucketVersions", format!("cannot list the versions of {uri}"), error)
        })?;
        let is_earlier = |one: &&ObjectVersion| {
            one.key() == Some(key)
                && one.is_latest() != Some(true)
                && one.size().is_some_and(|bytes| bytes.unsigned_abs() <= OBJECT_BYTES_MAX)
        };
        let earlier = |one: &ObjectVersion| {
            let written_at = one.last_modified().map(ToString::to_string).unwrap_or_default();
            Some(EarlierObject { id: one.version_id()?.to_owned(), written_at })
        };
        Ok(listed.versions().iter().filter(is_earlier).filter_map(earlier).collect())
    }

    /// The text of an earlier version of an object.
    ///
    /// # Errors
    /// When it cannot be read, which needs a permission of its own, or is not UTF-8.
    pub async fn earlier_text(
        &self,
        uri: &str,
        version: &EarlierObject,
    ) -> Result<String, PortError> {
        let (bucket, key) = bucket_and_key(uri);
        let what = || format!("cannot read the version of {uri} of {}", version.written_at);
        let call = self.s3().get_object().bucket(bucket).key(key).version_id(&version.id);
        let sent = call.send().await;
        let found = sent.map_err(|error| port_error("s3:GetObjectVersion", what(), error))?;
        let bytes =
            found.body.collect().await.map_err(|error| {
                PortError::new(PortErrorClass::Unavailable, what()).because(error)
            })?;
        String::from_utf8(bytes.to_vec())
            .map_err(|error| PortError::new(PortErrorClass::Corrupt, what()).because(error))
    }
}

fn bucket_and_key(uri: &str) -> (&str, &str) {
    uri.trim_start_matches("s3://").split_once('/').unwrap_or((uri, ""))
}

fn version(one: ParameterHistory) -> Option<ParameterVersion> {
    Some(ParameterVersion { version: one.version, text: one.value? })
}
