//! Where the policy comes from: an SSM parameter, an object in S3, or the function's own bundle.
//!
//! A policy that cannot be used does not replace the last good one: boxes that are up must still be stopped (T12). SSM keeps earlier
//! versions of a parameter, and S3 those of an object if its bucket is versioned: with them this also holds for a fresh instance of the
//! function.

use std::path::{Path, PathBuf};

use gpuctl_aws::Aws;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_control::text::with_causes;
use gpuctl_core::policy::Policy;

/// The variable that names the source: `ssm:/name`, `s3://bucket/key`, or a file of the bundle.
pub(crate) const VARIABLE: &str = "GPUCTL_POLICY";
const DEFAULT: &str = "gpuctl.toml";

/// Where the policy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Parameter(String),
    Object(String),
    Bundle(PathBuf),
}

/// A policy and its text.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) policy: Policy,
    pub(crate) text: String,
    /// Why a newer version cannot be used, if there is one.
    pub(crate) newer_error: Option<String>,
}

impl Source {
    pub(crate) fn from_environment() -> Self {
        Self::of(&std::env::var(VARIABLE).unwrap_or_else(|_| DEFAULT.to_owned()))
    }

    fn of(text: &str) -> Self {
        if let Some(name) = text.strip_prefix("ssm:") {
            return Self::Parameter(name.to_owned());
        }
        if text.starts_with("s3://") {
            return Self::Object(text.to_owned());
        }
        let folder = std::env::var_os("LAMBDA_TASK_ROOT").map(PathBuf::from).unwrap_or_default();
        Self::Bundle(folder.join(text))
    }

    /// The policy as it is now, or the newest earlier version that can be used where the source keeps versions.
    pub(crate) async fn read(&self, aws: &Aws) -> Result<Read, PortError> {
        let (newest, text) = match self {
            Self::Parameter(name) => {
                let newest = aws.parameter(name).await?;
                (newest.version, newest.text)
            }
            Self::Object(uri) => (0, aws.object(uri).await?),
            Self::Bundle(path) => return self.usable(self.bundled(path)?),
        };
        match self.usable(text) {
            Ok(read) => Ok(read),
            Err(error) => self.earlier(aws, newest, error).await,
        }
    }

    fn usable(&self, text: String) -> Result<Read, PortError> {
        let policy = Policy::parse(&text).map_err(|problems| {
            let all: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
            PortError::new(PortErrorClass::Corrupt, format!("{self} cannot be used"))
                .because(all.join("; "))
                .hint("`gpuctl plan --config FILE` shows the same problems before it is uploaded")
        })?;
        if policy.cloud.aws.as_ref().is_none_or(|aws| aws.table.is_none()) {
            let what = format!("{self} has no `table` under [cloud] kind = \"aws\"");
            return Err(PortError::new(PortErrorClass::Corrupt, what).hint(
                "the function keeps nothing between calls, so its ledger must be a DynamoDB table",
            ));
        }
        Ok(Read { policy, text, newer_error: None })
    }

    /// The newest version before `unusable` that can be used; else `error`, and why no earlier one can.
    async fn earlier(&self, aws: &Aws, unusable: i64, error: PortError) -> Result<Read, PortError> {
        let found = match self {
            Self::Parameter(name) => self.earlier_parameter(aws, name, unusable).await,
            Self::Object(uri) => self.earlier_object(aws, uri).await,
            Self::Bundle(_) => Ok(None),
        };
        match found {
            Ok(Some((version, read))) => {
                let text = sentence(&error);
                let newer_error = format!("{text}; its {version} is in force until it is fixed");
                Ok(Read { newer_error: Some(newer_error), ..read })
            }
            Ok(None) => Err(error.hint(
                "no earlier version can be used either; `gpuctl plan --config FILE` shows the problems",
            )),
            Err(unread) => Err(error.hint(sentence(&unread))),
        }
    }

    async fn earlier_parameter(
        &self,
        aws: &Aws,
        name: &str,
        unusable: i64,
    ) -> Result<Option<(String, Read)>, PortError> {
        let history = aws.parameter_history(name).await?;
        let mut earlier = history.into_iter().filter(|one| one.version < unusable);
        Ok(earlier.find_map(|one| {
            Some((format!("version {}", one.version), self.usable(one.text).ok()?))
        }))
    }

    async fn earlier_object(
        &self,
        aws: &Aws,
        uri: &str,
    ) -> Result<Option<(String, Read)>, PortError> {
        for one in aws.earlier_objects(uri).await? {
            if let Ok(read) = self.usable(aws.earlier_text(uri, &one).await?) {
                return Ok(Some((format!("version of {}", one.written_at), read)));
            }
        }
        Ok(None)
    }

    fn bundled(&self, path: &Path) -> Result<String, PortError> {
        std::fs::read_to_string(path).map_err(|error| {
            PortError::new(PortErrorClass::NotFound, format!("cannot read {self}"))
                .because(error)
                .hint(format!(
                    "put it into the zip, or set {VARIABLE} to `ssm:/name` or `s3://bucket/key`"
                ))
        })
    }
}

/// The error with its causes and hint, on one line.
pub(crate) fn sentence(error: &PortError) -> String {
    let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{}{hint}", with_causes(error))
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Parameter(name) => write!(f, "SSM parameter {name}"),
            Self::Object(uri) => f.write_str(uri),
            Self::Bundle(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_every_cause_and_its_hint() {
        let error = |what: &str| PortError::new(PortErrorClass::Other, what);
        let error = error("a").because(error("b").because(error("c"))).hint("do d");
        assert_eq!(sentence(&error), "a: b: c (do d)");
    }

    #[test]
    fn a_policy_is_in_a_parameter_an_object_or_the_bundle() {
        assert_eq!(Source::of("ssm:/gpuctl/policy"), Source::Parameter("/gpuctl/policy".into()));
        assert_eq!(Source::of("s3://b/k.toml"), Source::Object("s3://b/k.toml".into()));
        assert!(
            matches!(Source::of("gpuctl.toml"), Source::Bundle(path) if path.ends_with("gpuctl.toml"))
        );
    }
}
