//! What is limited beside the settings of `[http]`; `/openapi.json` lists all of it.

use std::time::Duration;

use gpuctl_core::policy::{Http, Policy};
use serde::Serialize;

/// The largest body that is JSON.
pub const JSON_BYTES_MAX: usize = 1 << 20;
/// The most header lines of a request.
pub const HEADERS_MAX: usize = 64;
/// The largest head of a request, in bytes.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// How long a client may take to send the head of a request, and how long an idle connection stays open.
pub const HEADER_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a client may take to send a body that is JSON, or the next part of an upload.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// How long an upload may take in all.
pub(crate) const UPLOAD_TIME_MAX: Duration = Duration::from_secs(3_600);
/// The most parts of a multipart body.
pub(crate) const PARTS_MAX: usize = 32;
/// The most bytes of a multipart body, such as the head of a part, of which nothing can be read yet.
pub(crate) const PART_HEAD_BYTES_MAX: usize = 64 << 10;
/// The most clients that follow a job's events at once.
pub(crate) const EVENTS_MAX: usize = 128;
/// The largest part of a multipart body that is not a file; all of them together may be as large as a body that is JSON.
pub(crate) const FIELD_BYTES_MAX: usize = 256 << 10;
/// The longest `Idempotency-Key`.
pub(crate) const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// How long an `Idempotency-Key` names the same job.
pub(crate) const IDEMPOTENCY_TIME_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How long an equal call of OpenAI's clients joins the job of the first: longer than a job waits for a box that has no capacity.
pub(crate) const JOINED_TIME_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How long after its end a failed job answers an equal call.
pub(crate) const FAILURE_JOINED_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the job of a call of OpenAI's clients goes on after the last client that waited for it has hung up: long enough for a box to
/// boot, while a proxy cuts off each of the client's tries.
pub const ABANDONED_TIME_MAX: Duration = Duration::from_secs(600);
/// The longest `Retry-After`.
pub(crate) const RETRY_SECONDS_MAX: u64 = 90;
/// The most texts of one call for embeddings.
pub(crate) const EMBEDDED_TEXTS_MAX: usize = 256;
/// The most jobs of one call that are submitted at once.
pub(crate) const SUBMITTED_AT_ONCE_MAX: usize = 32;
/// The most jobs of one page of a listing.
pub(crate) const PAGE_JOBS_MAX: u32 = 200;
/// The largest output, and the longest text as input, that a listing shows.
pub(crate) const LISTED_BYTES_MAX: usize = 4 << 10;
/// The longest file name of an upload that is kept.
pub(crate) const NAME_BYTES_MAX: usize = 200;
/// The longest time for which events of a job are sent; a client then asks again.
pub(crate) const EVENTS_TIME_MAX: Duration = Duration::from_secs(3_600);

/// All limits, in the units of their names.
#[derive(Debug, Serialize)]
pub(crate) struct Limits {
    json_bytes_max: usize,
    upload_bytes_max: u64,
    uploads_bytes_max: u64,
    parts_max: usize,
    field_bytes_max: usize,
    part_head_bytes_max: usize,
    events_max: usize,
    header_bytes_max: usize,
    headers_max: usize,
    header_seconds_max: u64,
    body_seconds_max: u64,
    upload_seconds_max: u64,
    wait_seconds_max: i64,
    waiting_max: u32,
    connections_max: u32,
    queued_max: u32,
    page_jobs_max: u32,
    idempotency_key_bytes_max: usize,
    idempotency_seconds_max: u64,
    events_seconds_max: u64,
    joined_seconds_max: u64,
    abandoned_seconds_max: u64,
    retry_seconds_max: u64,
    embedded_texts_max: usize,
}

impl Limits {
    pub(crate) fn of(policy: &Policy) -> Self {
        let http = &policy.http;
        Self {
            json_bytes_max: JSON_BYTES_MAX,
            upload_bytes_max: upload_bytes_max(http),
            uploads_bytes_max: uploads_bytes_max(policy),
            parts_max: PARTS_MAX,
            field_bytes_max: FIELD_BYTES_MAX,
            part_head_bytes_max: PART_HEAD_BYTES_MAX,
            events_max: EVENTS_MAX,
            header_bytes_max: HEADER_BYTES_MAX,
            headers_max: HEADERS_MAX,
            header_seconds_max: HEADER_TIME_MAX.as_secs(),
            body_seconds_max: BODY_TIME_MAX.as_secs(),
            upload_seconds_max: UPLOAD_TIME_MAX.as_secs(),
            wait_seconds_max: http.wait_max.num_seconds(),
            waiting_max: http.waiting_max.get(),
            connections_max: http.connections_max.get(),
            queued_max: http.queued_max.get(),
            page_jobs_max: PAGE_JOBS_MAX,
            idempotency_key_bytes_max: IDEMPOTENCY_KEY_BYTES_MAX,
            idempotency_seconds_max: IDEMPOTENCY_TIME_MAX.as_secs(),
            events_seconds_max: EVENTS_TIME_MAX.as_secs(),
            joined_seconds_max: JOINED_TIME_MAX.as_secs(),
            abandoned_seconds_max: ABANDONED_TIME_MAX.as_secs(),
            retry_seconds_max: RETRY_SECONDS_MAX,
            embedded_texts_max: EMBEDDED_TEXTS_MAX,
        }
    }
}

/// The most bytes of files that clients sent, on this machine: results and files of jobs that have ended are deleted beyond half of it.
pub(crate) fn uploads_bytes_max(policy: &Policy) -> u64 {
    (u64::from(policy.cloud.results_mib_max) << 20) * 2
}

pub(crate) fn upload_bytes_max(http: &Http) -> u64 {
    u64::from(http.upload_mib_max) << 20
}
