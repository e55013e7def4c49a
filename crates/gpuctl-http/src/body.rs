//! Reading bodies: JSON into a type, and multipart into fields and files on disk. Both within limits of size and time.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, ready};

use axum::body::{Body, Bytes};
use axum::extract::multipart::Field;
use axum::extract::{Form, FromRequest, Multipart, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use futures_util::{StreamExt, stream};
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
    BODY_TIME_MAX, FIELD_BYTES_MAX, JSON_BYTES_MAX, NAME_BYTES_MAX, PART_HEAD_BYTES_MAX, PARTS_MAX,
    UPLOAD_TIME_MAX, upload_bytes_max,
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

/// The fields of a form.
pub(crate) async fn form<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    let whole = Request::from_parts(head, Body::from(bytes(body).await?));
    let read = Form::<T>::from_request(whole, &()).await;
    read.map(|Form(form)| form).map_err(|error| Problem::form(error.body_text()))
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
    pub(crate) bytes: u64,
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
        let (request, quiet) = paced(request);
        let multipart = Multipart::from_request(request, &()).await;
        let mut multipart = multipart.map_err(|error| {
            Problem::form(format!("the body is not multipart: {}", error.body_text()))
                .hint("let your HTTP library make the body and its `Content-Type`")
        })?;
        let end = Instant::now() + UPLOAD_TIME_MAX;
        let read = Self::read_all(api, &mut multipart, &quiet);
        timeout_at(end, read).await.map_err(|_| too_slow())?
    }

    async fn read_all(
        api: &Api,
        multipart: &mut Multipart,
        quiet: &Quiet,
    ) -> Result<Self, Problem> {
        let mut parts = Self::default();
        let (mut left, mut text_left) = (upload_bytes_max(&api.policy.http), JSON_BYTES_MAX);
        for _ in 0..PARTS_MAX {
            let next = timeout(BODY_TIME_MAX, multipart.next_field()).await;
            let next = next.map_err(|_| too_slow())?.map_err(|error| quiet.unreadable(&error))?;
            let Some(field) = next else { return Ok(parts) };
            quiet.ended();
            let name = field.name().unwrap_or_default().to_owned();
            if name == "file" || field.file_name().is_some() {
                parts.files.push((name, file(api, field, quiet, &mut left).await?));
            } else {
                parts.fields.push((name, text(field, quiet, &mut text_left).await?));
            }
        }
        Err(Problem::form(format!("the body has more than {PARTS_MAX} parts"))
            .hint("send one job a request"))
    }
}

/// How many bytes came since the last part or chunk of one was read. The reader of multipart bodies keeps all that is there, and the head
/// of a part until it is whole: what it keeps must have an end.
#[derive(Clone, Default)]
struct Quiet(Arc<AtomicUsize>);

impl Quiet {
    fn ended(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Whether more than is taken at once has come; `added` counts, too.
    fn is_over(&self, added: usize) -> bool {
        let before = self.0.fetch_add(added, Ordering::Relaxed);
        before.saturating_add(added) > PART_HEAD_BYTES_MAX
    }

    fn unreadable(&self, error: &axum::extract::multipart::MultipartError) -> Problem {
        let is_cut = error.status() == StatusCode::PAYLOAD_TOO_LARGE;
        if is_cut || self.is_over(0) {
            let detail =
                if is_cut { "the body is too large" } else { "the head of a part is too large" };
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request.too_large", detail)
                .hint("`/openapi.json` lists the limits; `upload_mib_max` under [http] sets that of a body");
        }
        let said = excerpt(&error.body_text());
        Problem::form(format!("the multipart body cannot be read: {said}"))
            .hint("it may have been cut short: send all of it, with its last boundary")
    }
}

/// A request whose body stops where nothing is read of it: once for the reader to look at what it has, and then for good.
fn paced(request: Request) -> (Request, Quiet) {
    let quiet = Quiet::default();
    let (parts, body) = request.into_parts();
    let (mut body, counted, mut has_paused) = (body.into_data_stream(), quiet.clone(), false);
    let paced = stream::poll_fn(move |context| {
        if counted.is_over(0) {
            if has_paused {
                return Poll::Ready(Some(Err(axum::Error::new("the head of a part is too large"))));
            }
            has_paused = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        has_paused = false;
        let next = ready!(body.poll_next_unpin(context));
        if let Some(Ok(bytes)) = &next {
            counted.is_over(bytes.len());
        }
        Poll::Ready(next)
    });
    (Request::from_parts(parts, Body::from_stream(paced)), quiet)
}

async fn chunk(field: &mut Field<'_>, quiet: &Quiet) -> Result<Option<Bytes>, Problem> {
    let chunk = timeout(BODY_TIME_MAX, field.chunk()).await.map_err(|_| too_slow())?;
    quiet.ended();
    chunk.map_err(|error| quiet.unreadable(&error))
}

/// `left` is how many bytes all texts of the body may still have.
async fn text(mut field: Field<'_>, quiet: &Quiet, left: &mut usize) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = chunk(&mut field, quiet).await? {
        let within = bytes.len() + chunk.len() <= FIELD_BYTES_MAX;
        *left = left
            .checked_sub(chunk.len())
            .filter(|_| within)
            .ok_or_else(|| too_large(FIELD_BYTES_MAX as u64).hint("send a long text as a file"))?;
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes)
        .map_err(|_| Problem::form("a field is not UTF-8").hint("write texts in UTF-8"))
}

/// Writes a part to the disk; `left` is how many bytes the body may still have.
async fn file(
    api: &Api,
    mut field: Field<'_>,
    quiet: &Quiet,
    left: &mut u64,
) -> Result<UploadedFile, Problem> {
    let name = plain_name(field.file_name().unwrap_or_default());
    let mut file = api.ports.files.incoming().await?;
    let (mut digest, mut head, mut bytes) = (Sha256::new(), Vec::new(), 0_u64);
    while let Some(chunk) = chunk(&mut field, quiet).await? {
        let length = chunk.len() as u64;
        *left = left
            .checked_sub(length)
            .ok_or_else(|| too_large(upload_bytes_max(&api.policy.http)))?;
        bytes += length;
        digest.update(&chunk);
        let missing = media::HEAD_BYTES_MAX - head.len();
        head.extend_from_slice(&chunk[..chunk.len().min(missing)]);
        file = write(file, chunk).await?;
    }
    let digest = hexadecimal(&digest.finalize()[..DIGEST_BYTES]);
    Ok(UploadedFile { name, digest, bytes, head, file })
}

/// A text as an uploaded file.
pub(crate) async fn file_of_text(api: &Api, text: String) -> Result<UploadedFile, Problem> {
    let (head, bytes) = (Vec::new(), text.len() as u64);
    let digest = hexadecimal(&Sha256::digest(&text)[..DIGEST_BYTES]);
    let file = write(api.ports.files.incoming().await?, text.into()).await?;
    Ok(UploadedFile { name: "text.txt".to_owned(), digest, bytes, head, file })
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

/// A name without folders, of letters that every file system takes. Its end stays: it has the extension.
fn plain_name(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let from = last.len().saturating_sub(NAME_BYTES_MAX);
    let cut = (from..=last.len()).find(|at| last.is_char_boundary(*at)).unwrap_or(last.len());
    let plain = |c: &char| !c.is_control() && !gpuctl_core::text::is_unsafe(*c);
    let name: String = last[cut..].chars().filter(plain).collect();
    match name.trim_start_matches('.') {
        "" => "upload".to_owned(),
        name => name.to_owned(),
    }
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
            ("\u{1b}.hidden", "hidden"),
            ("", "upload"),
        ] {
            assert_eq!(plain_name(given), name);
        }
        for long in ["é".repeat(300), "x".repeat(1 << 20)] {
            let name = plain_name(&format!("{long}.wav"));
            assert!(name.len() <= NAME_BYTES_MAX && name.ends_with(".wav"), "{name}");
        }
    }
}
