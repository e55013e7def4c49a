//! Where a model's file is read from: a wheel of a package index, a model hub, an address, a bucket, a folder.
//!
//! No index and no hub is built in: the index is the one that pip is configured to use, and the hub the one that `HF_ENDPOINT`
//! names. `HF_TOKEN` is sent to the hub and to no other host, a name and password in the index's address to the index; neither is
//! shown. A bucket is read over HTTPS without credentials.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
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

use super::pip::{index_url, setting};

/// The longest silence of a server.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The largest page of an index, in bytes: some packages have 10,000 files.
const PAGE_BYTES_MAX: u64 = 64 << 20;
/// The largest wheel, and the largest file in one, in bytes.
const WHEEL_BYTES_MAX: u64 = 4 << 30;
/// Hexadecimal digits of a commit's SHA-1.
const COMMIT_DIGITS: usize = 40;

/// Where files are taken from in place of their origins: `BASE/MODEL/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror(String);

impl Mirror {
    /// `https://…`, `s3://BUCKET[/PREFIX]`, `file:///…`, or a folder.
    ///
    /// # Errors
    /// A folder that does not exist.
    pub fn new(location: &str) -> Result<Self, FetchError> {
        if location.contains("://") {
            return Ok(Self(location.trim_end_matches('/').to_owned()));
        }
        let unreadable = |source| FetchError::Read { location: location.to_owned(), source };
        let folder = Path::new(location).canonicalize().map_err(unreadable)?;
        Ok(Self(format!("file://{}", folder.display())))
    }

    pub(super) fn source(&self, model: &str, path: &str) -> Source {
        Source::of_url(&format!("{}/{model}/{path}", self.0))
    }
}

/// Why a file cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The manifest's `origin` has unknown, missing or contradictory keys.
    #[error("its origin is not valid")]
    Origin(#[source] Box<toml::de::Error>),
    /// Neither a variable nor pip's configuration names an index.
    #[error("no package index is configured")]
    NoIndex,
    /// `HF_ENDPOINT` is not set.
    #[error("no model hub is configured")]
    NoHub,
    /// A file of this machine, or the body of a response, cannot be read.
    #[error("cannot read {location}")]
    Read {
        /// Its path or address.
        location: String,
        #[source]
        source: io::Error,
    },
    /// The server did not respond, or responded with an error.
    #[error("cannot fetch {url}")]
    Http {
        url: String,
        #[source]
        source: Box<ureq::Error>,
    },
    /// The response is not what the protocol requires.
    #[error("{url} returned {problem}")]
    Response { url: String, problem: String },
}

impl FetchError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Origin(_) => {
                "an origin is { package, version, member }, { hub, revision, path } or { url }"
            }
            Self::NoIndex => {
                "set PIP_INDEX_URL, or `pip config set global.index-url URL`; or use --from with a mirror or a folder"
            }
            Self::NoHub => {
                "set HF_ENDPOINT to the hub's address, or use --from with a mirror or a folder"
            }
            Self::Read { .. } => "check the path",
            Self::Http { source, .. } => match source.as_ref() {
                ureq::Error::StatusCode(401 | 403) => {
                    "it needs an account: set HF_TOKEN for a hub, or copy the files yourself and use --from FOLDER"
                }
                ureq::Error::StatusCode(404) => "there is no such file: check name and revision",
                _ => "check the network, or use --from with a mirror or a folder",
            },
            Self::Response { .. } => "use --from with a mirror or a folder",
        }
    }
}

/// What a file can be read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    Web {
        url: String,
        token: Option<String>,
    },
    /// The file is their members, one after the other.
    Wheels(Vec<WheelFile>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Web { url, .. } => f.write_str(&shown(url)),
            Self::Wheels(files) => {
                let names: Vec<String> = files.iter().map(ToString::to_string).collect();
                f.write_str(&names.join(", "))
            }
        }
    }
}

impl Source {
    /// The source that a manifest's origin names, and whether a branch in `entry` was replaced by its commit.
    pub(super) fn of_origin(entry: &mut Table) -> Result<(Self, bool), FetchError> {
        let (repository, revision, path) =
            match entry.clone().try_into().map_err(|error| FetchError::Origin(Box::new(error)))? {
                Origin::Wheels(files) => return Ok((Self::Wheels(files), false)),
                Origin::Url(url) => return Ok((Self::of_url(&url), false)),
                Origin::Hub { repository, revision, path } => (repository, revision, path),
            };
        let base = setting("HF_ENDPOINT").ok_or(FetchError::NoHub)?;
        let base = base.trim_end_matches('/');
        let token = setting("HF_TOKEN");
        let commit = commit_of(base, &repository, &revision, token.as_deref())?;
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

    /// Opens the source for reading; wheels are fetched first, whole.
    pub(super) fn open(&self, wheels: &mut Wheels) -> Result<Box<dyn Read>, FetchError> {
        match self {
            Self::File(path) => match File::open(path) {
                Ok(file) => Ok(Box::new(file)),
                Err(source) => {
                    Err(FetchError::Read { location: path.display().to_string(), source })
                }
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

/// The commit that a branch or tag names now.
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
    let response = page(&url, token, "application/json")?;
    let response: Json = serde_json::from_slice(&response).unwrap_or_default();
    let commit = response["sha"].as_str().filter(|commit| commit.len() == COMMIT_DIGITS);
    commit.map(str::to_owned).ok_or_else(|| FetchError::Response {
        url,
        problem: "no commit of the revision".to_owned(),
    })
}

/// The wheels of one pull: each is fetched once, however many files are in it.
#[derive(Default)]
pub(super) struct Wheels(BTreeMap<(String, String), (String, ZipArchive<File>)>);

impl Wheels {
    /// Appends a file's bytes.
    fn read(&mut self, file: &WheelFile, bytes: &mut Vec<u8>) -> Result<(), FetchError> {
        let key = (file.package.clone(), file.version.clone());
        let (address, wheel) = match self.0.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(fetch_wheel(&file.package, &file.version)?),
        };
        let wrong = |error: &dyn fmt::Display| FetchError::Response {
            url: address.clone(),
            problem: format!("{}: {error}", file.member),
        };
        let entry = wheel.by_name(&file.member).map_err(|error| wrong(&error))?;
        entry.take(WHEEL_BYTES_MAX).read_to_end(bytes).map_err(|error| wrong(&error))?;
        Ok(())
    }
}

/// Fetches a wheel of this version through the index; returns its address, too.
fn fetch_wheel(package: &str, version: &str) -> Result<(String, ZipArchive<File>), FetchError> {
    let index = index_url().ok_or(FetchError::NoIndex)?;
    let normal = package.to_lowercase().replace(['_', '.'], "-");
    let url = format!("{index}/{normal}/");
    let response = page(&url, None, "application/vnd.pypi.simple.v1+json")?;
    let wrong =
        |problem: &str| FetchError::Response { url: shown(&url), problem: problem.to_owned() };
    let listing: Json = serde_json::from_slice(&response)
        .map_err(|_| wrong("something other than JSON: the index does not support PEP 691"))?;
    let files = listing["files"].as_array().ok_or_else(|| wrong("no list of files"))?;
    let begin = format!("{}-{version}-", normal.replace('-', "_"));
    let of_version = |file: &Json| {
        let (name, address) = (file["filename"].as_str()?, file["url"].as_str()?);
        let fits = name.to_lowercase().starts_with(&begin) && runs_here(name);
        let hash = file["hashes"]["sha256"].as_str().map(str::to_owned);
        fits.then(|| (!name.ends_with("-any.whl"), absolute(&url, address), hash))
    };
    // A wheel for every machine comes first: it is the smaller one where both hold the model.
    let wheel = files.iter().filter_map(of_version).min();
    let (_, address, hash) =
        wheel.ok_or_else(|| wrong(&format!("no wheel of {package}=={version}")))?;
    match ZipArchive::new(checked_file(&address, hash.as_deref())?) {
        Ok(archive) => Ok((shown(&address), archive)),
        Err(error) => {
            Err(FetchError::Response { url: shown(&address), problem: error.to_string() })
        }
    }
}

/// Whether a wheel may be read: a model's files are the same in the wheels of all platforms, which may exist for x86_64 only.
fn runs_here(wheel: &str) -> bool {
    wheel.ends_with("-any.whl") || (wheel.contains("manylinux") && wheel.ends_with("x86_64.whl"))
}

/// Fetches a file and checks its SHA-256; the copy is deleted with its handle.
fn checked_file(url: &str, hash: Option<&str>) -> Result<File, FetchError> {
    let broken = |source| FetchError::Read { location: shown(url), source };
    let mut file = tempfile::tempfile().map_err(broken)?;
    let mut content = get(url, None, "*/*")?.take(WHEEL_BYTES_MAX);
    io::copy(&mut content, &mut file).map_err(broken)?;
    file.seek(SeekFrom::Start(0)).map_err(broken)?;
    if let Some(hash) = hash {
        let mut digest = Sha256::new();
        io::copy(&mut file, &mut DigestWriter(&mut digest)).map_err(broken)?;
        let found = hexadecimal(&digest.finalize());
        if found != hash {
            let problem = format!("a file of SHA-256 {found}, but the index says {hash}");
            return Err(FetchError::Response { url: shown(url), problem });
        }
        file.seek(SeekFrom::Start(0)).map_err(broken)?;
    }
    Ok(file)
}

/// Digests what is written.
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

/// The absolute form of an address on an index's page.
fn absolute(page: &str, address: &str) -> String {
    let address = address.split('#').next().unwrap_or(address);
    if address.contains("://") {
        return address.to_owned();
    }
    let host_end = page.find("://").and_then(|at| page[at + 3..].find('/').map(|end| at + 3 + end));
    if address.starts_with('/') {
        return format!("{}{address}", &page[..host_end.unwrap_or(page.len())]);
    }
    // `../../packages/…`: one folder up for each.
    let mut base = page.trim_end_matches('/').to_owned();
    let mut rest = address;
    while let Some(shorter) = rest.strip_prefix("../") {
        base.truncate(base.rfind('/').unwrap_or(0));
        rest = shorter;
    }
    format!("{base}/{rest}")
}

fn page(url: &str, token: Option<&str>, accept: &str) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let read = get(url, token, accept)?.take(PAGE_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|source| FetchError::Read { location: shown(url), source })?;
    Ok(bytes)
}

fn get(url: &str, token: Option<&str>, accept: &str) -> Result<Box<dyn Read>, FetchError> {
    // The machine's certificates: a company's mirror often has its own authority.
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
    let failed = |source| FetchError::Http { url: shown(url), source: Box::new(source) };
    let response = request.call().map_err(failed)?;
    Ok(Box::new(response.into_body().into_reader()))
}

/// An address for a message: without the name and password that an index's address may hold.
fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..host_end].rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{}", &rest[host_end..])
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
    fn a_password_in_an_address_is_not_shown() {
        assert_eq!(shown("https://ada:secret@host:8443/simple/a/"), "https://host:8443/simple/a/");
        assert_eq!(shown("https://token@host"), "https://host");
        assert_eq!(shown("https://host/a@b"), "https://host/a@b");
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
    fn wheels_of_other_platforms_are_left_out() {
        assert!(runs_here("a-1-py3-none-any.whl"));
        assert!(runs_here("a-1-cp311-cp311-manylinux_2_28_x86_64.whl"));
        assert!(!runs_here("a-1-cp311-cp311-win_amd64.whl"));
    }
}
