//! `GET /v1/jobs/{id}/files/{name}`: a file of a job's result, whole or a part of it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use gpuctl_control::input::INPUT_BYTES_MAX;
use gpuctl_control::job::InputUri;
use gpuctl_control::ports::{Fetched, JobEntry};
use gpuctl_core::text::excerpt;
use serde_json::Value;

use crate::problem::Problem;
use crate::{Api, Shared};

/// Bytes that are read from the disk at once.
const CHUNK_BYTES: usize = 64 << 10;

/// `GET /v1/jobs/{id}/files/{name}`.
pub(crate) async fn get(
    State(api): State<Shared>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let entry = api.job_of(&id).await?;
    let listed = listed(&entry, &name)?;
    let tag = listed["sha256"].as_str().map(|digest| format!("\"{digest}\""));
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let is_known = |known: &str| {
        known == "*" || known.split(',').any(|one| Some(one.trim()) == tag.as_deref())
    };
    if let Some(tag) = tag.as_ref().filter(|_| text(IF_NONE_MATCH).is_some_and(is_known)) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag.clone())]).into_response());
    }
    // A part of another file than the client has the rest of would make neither.
    let is_same = text(IF_RANGE).is_none_or(|wanted| Some(wanted) == tag.as_deref());
    let range = headers.get(RANGE).filter(|_| is_same);
    let mut response = api.open(listed).await?.answer(range)?;
    let media_type = listed["media_type"].as_str().unwrap_or("application/octet-stream");
    let disposition = format!("attachment; filename=\"{}\"", name.replace(['"', '\\'], "_"));
    let set = [
        (CONTENT_TYPE, media_type.to_owned()),
        (CONTENT_DISPOSITION, disposition),
        (ACCEPT_RANGES, "bytes".to_owned()),
    ];
    let tag = tag.map(|tag| (ETAG, tag));
    for (name, value) in set.into_iter().chain(tag) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// The file's entry in the job's output.
pub(crate) fn listed<'e>(entry: &'e JobEntry, name: &str) -> Result<&'e Value, Problem> {
    let output = entry.result.as_ref().and_then(|result| result.outcome.as_ref().ok());
    let files = output.and_then(|output| output["files"].as_array());
    let found = files.and_then(|files| files.iter().find(|file| file["name"] == *name));
    found.ok_or_else(|| {
        let names = files.into_iter().flatten().filter_map(|file| file["name"].as_str());
        let names: Vec<&str> = names.collect();
        let hint = if names.is_empty() {
            format!("the job is {} and has no files", entry.state.as_str())
        } else {
            format!("it has {}", names.join(", "))
        };
        let detail = format!("the job has no file `{}`", excerpt(name));
        Problem::new(StatusCode::NOT_FOUND, "file.unknown", detail).hint(hint)
    })
}

/// A file that is open, and lasts until it was sent.
pub(crate) struct Opened {
    file: File,
    bytes: u64,
    fetched: Fetched,
}

impl Api {
    /// Opens a file that a result lists.
    pub(crate) async fn open(&self, listed: &Value) -> Result<Opened, Problem> {
        let uri = listed["uri"].as_str().and_then(|uri| uri.parse().ok());
        self.open_uri(&uri.ok_or_else(gone)?).await
    }

    /// Opens a file that a job or a result names.
    pub(crate) async fn open_uri(&self, uri: &InputUri) -> Result<Opened, Problem> {
        let fetched = match self.ports.files.fetch(uri, INPUT_BYTES_MAX).await {
            Ok(fetched) => fetched,
            Err(error) if is_rejected(&error) => return Err(gone()),
            Err(error) => return Err(error.into()),
        };
        let path = fetched.path().to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let file = File::open(path)?;
            let bytes = file.metadata()?.len();
            Ok::<_, std::io::Error>((file, bytes))
        });
        let (file, bytes) = opened.await.ok().and_then(Result::ok).ok_or_else(gone)?;
        Ok(Opened { file, bytes, fetched })
    }
}

fn gone() -> Problem {
    Problem::new(StatusCode::GONE, "file.gone", "the file is no longer there")
        .hint("old files are deleted where `results_mib_max` is reached; retry the job")
}

/// Whether the file is not there, where another try would not help.
fn is_rejected(error: &gpuctl_control::ports::PortError) -> bool {
    let cause = error.cause.as_ref();
    cause.is_some_and(|cause| cause.is::<gpuctl_control::input::InputRejected>())
}

impl Opened {
    /// All bytes, for a file that is small.
    pub(crate) async fn read(mut self, bytes_max: u64) -> Result<Vec<u8>, Problem> {
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            self.file.by_ref().take(bytes_max).read_to_end(&mut bytes).map(|_| bytes)
        });
        read.await.ok().and_then(Result::ok).ok_or_else(|| {
            let detail = "a file of the result cannot be read";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "backend.unavailable", detail)
                .hint("try again")
        })
    }

    /// Its first bytes.
    pub(crate) fn head(&self, bytes_max: usize) -> Result<Vec<u8>, Problem> {
        let mut bytes = vec![0; bytes_max];
        let read = self.file.read_at(&mut bytes, 0).map_err(|_| gone())?;
        bytes.truncate(read);
        Ok(bytes)
    }

    pub(crate) fn answer(mut self, range: Option<&HeaderValue>) -> Result<Response, Problem> {
        let range = range.and_then(|range| range.to_str().ok());
        let part = range.and_then(|range| part(range, self.bytes));
        let (status, first, count) = match part {
            None => (StatusCode::OK, 0, self.bytes),
            Some(Some((first, last))) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
            Some(None) => {
                let detail = format!("the file has {} bytes", self.bytes);
                return Err(Problem::new(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "request.range",
                    detail,
                )
                .hint("ask for a part of it, or for all of it without `Range`"));
            }
        };
        let unread = |_| {
            let detail = "the file cannot be read";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "backend.unavailable", detail)
                .hint("try again")
        };
        self.file.seek(SeekFrom::Start(first)).map_err(unread)?;
        let total = self.bytes;
        let mut response = (status, self.stream(count)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, count.into());
        if status == StatusCode::PARTIAL_CONTENT {
            let range = format!("bytes {first}-{}/{total}", first + count - 1);
            headers.insert(CONTENT_RANGE, HeaderValue::from_str(&range).expect("digits are ASCII"));
        }
        Ok(response)
    }

    /// The next `count` bytes. The copy of a file in S3 is deleted when they are sent.
    fn stream(self, count: u64) -> Body {
        let Self { file, fetched, .. } = self;
        let chunks =
            stream::unfold((file, fetched, count), |(mut file, fetched, left)| async move {
                if left == 0 {
                    return None;
                }
                let read = tokio::task::spawn_blocking(move || {
                    let most = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
                    let mut bytes = vec![0; most];
                    let read = file.read_exact(&mut bytes).map(|()| Bytes::from(bytes));
                    (file, read)
                });
                match read.await {
                    Ok((file, Ok(bytes))) => {
                        let left = left - bytes.len() as u64;
                        Some((Ok(bytes), (file, fetched, left)))
                    }
                    // The connection is cut: the client sees that bytes are missing.
                    Ok((file, Err(error))) => Some((Err(error), (file, fetched, 0))),
                    Err(_) => None,
                }
            });
        Body::from_stream(chunks)
    }
}

/// First and last byte of a header `Range`; `None` inside where the file has no such bytes, outside where the header is ignored: of
/// another unit, or of several parts.
fn part(range: &str, bytes: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = bytes.checked_sub(1);
    let part = match (first.trim(), last.trim()) {
        ("", last) => {
            let count: u64 = last.parse().ok()?;
            end.filter(|_| count > 0).map(|end| (bytes.saturating_sub(count), end))
        }
        (first, "") => end.map(|end| (first.parse().unwrap_or(u64::MAX), end)),
        (first, last) => {
            let last: u64 = last.parse().ok()?;
            let first = first.parse().ok()?;
            if first > last {
                return None;
            }
            end.map(|end| (first, last.min(end)))
        }
    };
    Some(part.filter(|(first, last)| first <= last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_one_part_of_the_file_or_ignored() {
        for (range, found) in [
            ("bytes=0-3", Some(Some((0, 3)))),
            ("bytes=4-", Some(Some((4, 9)))),
            ("bytes=-4", Some(Some((6, 9)))),
            ("bytes=0-100", Some(Some((0, 9)))),
            ("bytes=-100", Some(Some((0, 9)))),
            ("bytes=10-", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=3-1", None),
            ("bytes=0-1,4-5", None),
            ("lines=1-2", None),
            ("bytes=x-y", None),
        ] {
            assert_eq!(part(range, 10), found, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Some(None));
    }
}
