//! Reading bodies: JSON into a type, and multipart into fields and files on disk. Both within limits of size and time.

use std::io::Write;

use axum::body::{Body, Bytes};
use axum::extract::multipart::Field;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use gpuctl_control::media;
use gpuctl_control::text::hexadecimal;
use gpuctl_core::suggest::did_you_mean;
use gpuctl_core::text::excerpt;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::time::{Instant, timeout, timeout_at};

use crate::Api;
use crate::limits::{
    BODY_TIME_MAX, FIELD_BYTES_MAX, JSON_BYTES_MAX, NAME_BYTES_MAX, PARTS_MAX, UPLOAD_TIME_MAX,
    upload_bytes_max,
};
use crate::problem::Problem;

/// Bytes of a file's digest that tell it from others.
const DIGEST_BYTES: usize = 16;

/// Whether a request's body is of this media type.
pub(crate) fn is_of_type(request: &Request, wanted: &str) -> bool {
    let given = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split(';').next()).unwrap_or_default();
    given.trim().eq_ignore_ascii_case(wanted)
}

/// A body that must be JSON.
pub(crate) async fn json<T: DeserializeOwned + JsonSchema>(request: Request) -> Result<T, Problem> {
    if !is_of_type(&request, "application/json") {
        let detail = "the body is neither `application/json` nor `multipart/form-data`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "request.media_type", detail)
            .hint("set the header `Content-Type: application/json`"));
    }
    read_json(&bytes(request.into_body()).await?)
}

async fn bytes(body: Body) -> Result<Bytes, Problem> {
    let whole = timeout(BODY_TIME_MAX, axum::body::to_bytes(body, JSON_BYTES_MAX)).await;
    match whole.map_err(|_| too_slow())? {
        Ok(bytes) => Ok(bytes),
        Err(error) if is_too_long(&error) => Err(too_large(JSON_BYTES_MAX as u64)
            .hint("send a long input as a file: `multipart/form-data` with the part `file`")),
        Err(_) => Err(Problem::form("the body ended early").hint("send all of it")),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
        .any(|error| error.to_string().contains("length limit exceeded"))
}

fn too_slow() -> Problem {
    let detail = format!("nothing came for {} s", BODY_TIME_MAX.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "request.slow", detail)
        .hint("send the body without long pauses")
}

fn too_large(bytes_max: u64) -> Problem {
    let detail = format!("the body is too large: at most {bytes_max} bytes are taken");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request.too_large", detail)
        .hint("`/openapi.json` lists the limits")
}

/// Reads JSON; an unknown field is told with the one that is near, a wrong value with its place.
pub(crate) fn read_json<T: DeserializeOwned + JsonSchema>(bytes: &[u8]) -> Result<T, Problem> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        Problem::form(format!("the body is not JSON: {error}")).hint("send one JSON object")
    })?;
    let Value::Object(fields) = &value else {
        return Err(Problem::form("the body is not a JSON object").hint("send one JSON object"));
    };
    let known = fields_of::<T>();
    if let Some(unknown) = fields.keys().find(|name| !known.contains(name)) {
        return Err(unknown_field(unknown, &known));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let pointer =
            if path == "." { String::new() } else { format!("/{}", path.replace('.', "/")) };
        Problem::form(format!("`{path}` cannot be used: {}", error.inner()))
            .hint("`/openapi.json` has the type of each field")
            .at(pointer)
    })
}

pub(crate) fn unknown_field(unknown: &str, known: &[String]) -> Problem {
    let hint = did_you_mean(unknown, known.iter().map(String::as_str))
        .unwrap_or_else(|| format!("known are {}", known.join(", ")));
    let detail = format!("there is no field `{}`", excerpt(unknown));
    Problem::new(StatusCode::BAD_REQUEST, "request.unknown_field", detail)
        .hint(hint)
        .at(format!("/{}", excerpt(unknown)))
}

/// The names of a type's fields, by its schema.
pub(crate) fn fields_of<T: JsonSchema>() -> Vec<String> {
    let schema = schemars::schema_for!(T);
    let fields = schema.get("properties").and_then(Value::as_object);
    fields.map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
}

/// A file that a client sent.
#[derive(Debug)]
pub(crate) struct UploadedFile {
    /// A plain file name.
    pub(crate) name: String,
    pub(crate) digest: String,
    /// The first bytes.
    pub(crate) head: Vec<u8>,
    pub(crate) file: NamedTempFile,
}

/// A multipart body: texts and files in the order in which they came, by the names of their parts.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) files: Vec<(String, UploadedFile)>,
}

impl Parts {
    /// Reads the body; parts named in `files`, and those with a file name, are files.
    pub(crate) async fn read(api: &Api, request: Request) -> Result<Self, Problem> {
        let multipart = Multipart::from_request(request, &()).await;
        let mut multipart = multipart.map_err(|error| {
            Problem::form(format!("the body is not multipart: {}", error.body_text()))
                .hint("let your HTTP library make the body and its `Content-Type`")
        })?;
        let (mut parts, mut left) = (Self::default(), upload_bytes_max(&api.policy.http));
        let end = Instant::now() + UPLOAD_TIME_MAX;
        for _ in 0..PARTS_MAX {
            let next = timeout(BODY_TIME_MAX, multipart.next_field()).await;
            let Some(field) = next.map_err(|_| too_slow())?.map_err(unreadable)? else {
                return Ok(parts);
            };
            let name = field.name().unwrap_or_default().to_owned();
            if name == "file" || field.file_name().is_some() {
                let read = timeout_at(end, file(api, field, &mut left)).await;
                parts.files.push((name, read.map_err(|_| too_slow())??));
            } else {
                parts.fields.push((name, text(field).await?));
            }
        }
        Err(Problem::form(format!("the body has more than {PARTS_MAX} parts"))
            .hint("send one job a request"))
    }
}

async fn chunk(field: &mut Field<'_>) -> Result<Option<Bytes>, Problem> {
    timeout(BODY_TIME_MAX, field.chunk()).await.map_err(|_| too_slow())?.map_err(unreadable)
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` calls it")]
fn unreadable(error: axum::extract::multipart::MultipartError) -> Problem {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let detail = "the body is too large";
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request.too_large", detail)
            .hint("`/openapi.json` lists the limits; `upload_mib_max` under [http] sets this one");
    }
    Problem::form(format!("the multipart body cannot be read: {}", excerpt(&error.body_text())))
        .hint("it may have been cut short: send all of it, with its last boundary")
}

async fn text(mut field: Field<'_>) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = chunk(&mut field).await? {
        if bytes.len() + chunk.len() > FIELD_BYTES_MAX {
            return Err(too_large(FIELD_BYTES_MAX as u64).hint("send a long text as a file"));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes)
        .map_err(|_| Problem::form("a field is not UTF-8").hint("write texts in UTF-8"))
}

/// Writes a part to the disk; `left` is how many bytes the body may still have.
async fn file(api: &Api, mut field: Field<'_>, left: &mut u64) -> Result<UploadedFile, Problem> {
    let name = plain_name(field.file_name().unwrap_or_default());
    let mut file = api.ports.files.incoming().await?;
    let (mut digest, mut head) = (Sha256::new(), Vec::new());
    while let Some(chunk) = chunk(&mut field).await? {
        let length = chunk.len() as u64;
        *left = left
            .checked_sub(length)
            .ok_or_else(|| too_large(upload_bytes_max(&api.policy.http)))?;
        digest.update(&chunk);
        let missing = media::HEAD_BYTES_MAX - head.len();
        head.extend_from_slice(&chunk[..chunk.len().min(missing)]);
        file = write(file, chunk).await?;
    }
    let digest = hexadecimal(&digest.finalize()[..DIGEST_BYTES]);
    Ok(UploadedFile { name, digest, head, file })
}

/// A text as an uploaded file.
pub(crate) async fn file_of_text(api: &Api, text: String) -> Result<UploadedFile, Problem> {
    let head = Vec::new();
    let digest = hexadecimal(&Sha256::digest(&text)[..DIGEST_BYTES]);
    let file = write(api.ports.files.incoming().await?, text.into()).await?;
    Ok(UploadedFile { name: "text.txt".to_owned(), digest, head, file })
}

async fn write(mut file: NamedTempFile, chunk: Bytes) -> Result<NamedTempFile, Problem> {
    let written = tokio::task::spawn_blocking(move || file.write_all(&chunk).map(|()| file)).await;
    written.map_err(std::io::Error::other).and_then(|written| written).map_err(|error| {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        if matches!(error.kind(), StorageFull | QuotaExceeded) {
            return Problem::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "backend.full",
                "the disk of the server is full",
            )
            .hint("free some disk there; nothing was submitted");
        }
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "backend.unavailable",
            "the upload cannot be written",
        )
        .hint("see the log of `gpuctl serve`")
    })
}

/// A name without folders, of letters that every file system takes.
fn plain_name(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = |c: char| !c.is_control() && !gpuctl_core::text::is_unsafe(c);
    let mut name: String = last.trim_start_matches('.').chars().filter(|c| plain(*c)).collect();
    while name.len() > NAME_BYTES_MAX {
        // The end stays: it has the extension.
        name.remove(0);
    }
    if name.is_empty() { "upload".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere() {
        for (given, name) in [
            ("a.wav", "a.wav"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Users\\a b.wav", "a b.wav"),
            ("..", "upload"),
            (".hidden", "hidden"),
            ("a\0\u{1b}b", "ab"),
            ("", "upload"),
        ] {
            assert_eq!(plain_name(given), name);
        }
        assert_eq!(plain_name(&format!("{}.wav", "é".repeat(300))).len() <= NAME_BYTES_MAX, true);
    }
}
