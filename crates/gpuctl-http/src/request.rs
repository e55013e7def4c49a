//! Requests that a client may send again: each belongs to one job, also while they come at once.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use chrono::TimeDelta;
use gpuctl_control::job::JobId;
use gpuctl_control::text::hexadecimal;
use gpuctl_core::units::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, MutexGuard};

use crate::Api;
use crate::limits::{IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_TIME_MAX};
use crate::problem::Problem;

/// Locks for jobs that may come twice at once: one for each of this many parts of all ids.
const LOCKS: usize = 64;

/// Keeps requests for the same job apart.
#[derive(Default)]
pub(crate) struct Requests(Locks);

struct Locks([Mutex<()>; LOCKS]);

impl Default for Locks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }
}

impl Requests {
    /// Held while it is looked up whether the job is there, and until it is.
    pub(crate) async fn alone(&self, id: &JobId) -> MutexGuard<'_, ()> {
        let sum: usize = id.as_str().bytes().map(usize::from).sum();
        self.0.0[sum % LOCKS].lock().await
    }
}

/// Which request it is, for as long as it may come again.
pub(crate) struct Identity {
    digest: [u8; 32],
    lasts: Duration,
}

impl Identity {
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>, lasts: Duration) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Self { digest: digest.finalize().into(), lasts }
    }

    /// By the header `Idempotency-Key`, for this caller.
    pub(crate) fn of_header(headers: &HeaderMap, caller: &str) -> Result<Option<Self>, Problem> {
        let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
        let length = key.as_bytes().len();
        if length == 0 || length > IDEMPOTENCY_KEY_BYTES_MAX {
            let detail = format!("the header `Idempotency-Key` has {length} bytes");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "request.idempotency_key", detail)
                .hint(format!("use 1 to {IDEMPOTENCY_KEY_BYTES_MAX}, e.g. a UUID")));
        }
        let parts = [b"idempotency-key".as_slice(), caller.as_bytes(), key.as_bytes()];
        Ok(Some(Self::of(parts, IDEMPOTENCY_TIME_MAX)))
    }

    /// The job of this request: the same as for an equal request before, until that may not come again.
    pub(crate) async fn job(&self, api: &Api) -> Result<JobId, Problem> {
        Ok(JobId::of_request(self.first_seen(api).await?, &self.digest))
    }

    /// The jobs of a request for several, each told by what it is. The request is remembered once, however many they are.
    pub(crate) async fn jobs(&self, api: &Api, each: &[Vec<u8>]) -> Result<Vec<JobId>, Problem> {
        let first = self.first_seen(api).await?;
        let one = |what: &Vec<u8>| Self::of([&self.digest[..], what], self.lasts);
        Ok(each.iter().map(|what| JobId::of_request(first, &one(what).digest)).collect())
    }

    async fn first_seen(&self, api: &Api) -> Result<Timestamp, Problem> {
        let (name, now) = (hexadecimal(&self.digest), api.ports.clock.now());
        let lasts = TimeDelta::from_std(self.lasts).unwrap_or(TimeDelta::MAX);
        Ok(api.ports.ledger.first_seen(&name, now, lasts).await?)
    }
}
