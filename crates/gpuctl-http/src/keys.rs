//! Keys: which program calls, and what it may do.
//!
//! Without any key this machine's programs may call (`access`). Once there is one, also a revoked one, each call needs a key that is in force:
//! the last revocation must not open a server that others can reach through a proxy.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use chrono::TimeDelta;
use gpuctl_control::keys::{ApiKey, KeyChange, KeyName, Scope, digest};
use gpuctl_control::ports::PortError;
use gpuctl_core::units::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::Shared;
use crate::problem::Problem;

/// How long keys are not read again at least: a new one counts, and a revoked one ends, after this.
const KEPT_MIN: Duration = Duration::from_millis(250);

/// How often the use of a key is noted.
const USE_NOTED_EVERY: TimeDelta = TimeDelta::minutes(1);

/// The path that needs no key: who can reach the server may know that it is up.
const OPEN_PATH: &str = "/healthz";

/// The keys as last read, and which uses were noted.
pub(crate) struct Keys {
    latest: Mutex<Option<(Instant, Arc<Vec<ApiKey>>)>>,
    used: std::sync::Mutex<HashMap<KeyName, Timestamp>>,
    /// Whether a key is needed also where there is none.
    is_public: bool,
    kept: Duration,
}

impl Keys {
    pub(crate) fn new(is_public: bool, poll_every: Duration) -> Self {
        let kept = poll_every.max(KEPT_MIN);
        Self { latest: Mutex::default(), used: std::sync::Mutex::default(), is_public, kept }
    }

    /// Whether this use is to be noted: only one within `USE_NOTED_EVERY` is.
    fn is_news(&self, name: &KeyName, now: Timestamp) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let before = used.get(name).copied();
        let is_news = before.is_none_or(|before| now - before >= USE_NOTED_EVERY);
        if is_news {
            used.insert(name.clone(), now);
        }
        is_news
    }
}

/// By what a request may be let through.
pub(crate) enum Pass {
    /// It has this key.
    Key(KeyName),
    /// It needs no key, by its path.
    Open,
    /// There are no keys.
    Keyless,
}

impl crate::Api {
    async fn keys(&self) -> Result<Arc<Vec<ApiKey>>, PortError> {
        let mut latest = self.keys.latest.lock().await;
        if let Some((at, keys)) = &*latest
            && at.elapsed() < self.keys.kept
        {
            return Ok(Arc::clone(keys));
        }
        let begun = Instant::now();
        let keys = Arc::new(self.ports.ledger.keys().await?);
        *latest = Some((begun, Arc::clone(&keys)));
        Ok(keys)
    }

    /// By what the request may pass, or why it may not.
    pub(crate) async fn pass(self: &Shared, head: &Parts) -> Result<Pass, Problem> {
        let keys = self.keys().await?;
        if keys.is_empty() && !self.keys.is_public {
            return Ok(Pass::Keyless);
        }
        if head.uri.path() == OPEN_PATH {
            return Ok(Pass::Open);
        }
        let digest = digest(sent(head)?);
        let key = keys.iter().find(|key| key.digest == digest).ok_or_else(|| {
            refused("key.unknown", "there is no such key".to_owned())
                .hint("send the whole of a key that `gpuctl keys create` showed")
        })?;
        if let Some(at) = key.revoked_at {
            let at = gpuctl_control::wire::time(at);
            return Err(refused(
                "key.revoked",
                format!("the key `{}` was revoked at {at}", key.name),
            )
            .hint("`gpuctl keys create` makes a new one"));
        }
        check_scope(key, &head.method)?;
        self.note_use(&key.name);
        Ok(Pass::Key(key.name.clone()))
    }

    /// Notes that the key is in use, beside the request, which does not wait for it.
    fn note_use(self: &Shared, name: &KeyName) {
        let now = self.ports.clock.now();
        if !self.keys.is_news(name, now) {
            return;
        }
        let (ledger, name) = (Arc::clone(&self.ports.ledger), name.clone());
        tokio::spawn(async move {
            if let Err(error) = ledger.change_key(&name, KeyChange::Used(now)).await {
                let error = gpuctl_control::log::shown(&error);
                tracing::warn!(key = %name, %error, "the use of a key could not be noted");
            }
        });
    }
}

/// The key that the request has.
fn sent(head: &Parts) -> Result<&str, Problem> {
    let header = head.headers.get(AUTHORIZATION);
    let parts = header.and_then(|value| value.to_str().ok()).and_then(|text| text.split_once(' '));
    let bearer = parts.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    bearer.map(|(_, key)| key.trim()).ok_or_else(|| {
        refused("key.missing", "the request has no key".to_owned())
            .hint("send it as `Authorization: Bearer KEY`; `gpuctl keys create` makes one")
    })
}

fn check_scope(key: &ApiKey, method: &Method) -> Result<(), Problem> {
    let reads = [Method::GET, Method::HEAD].contains(method);
    let scope = if reads { Scope::Read } else { Scope::Submit };
    if key.scopes.contains(&scope) {
        return Ok(());
    }
    let detail = format!("the key `{}` has no scope `{}`", key.name, scope.as_str());
    Err(Problem::new(StatusCode::FORBIDDEN, "key.scope", detail)
        .hint("use another key: scopes are given by `gpuctl keys create --scope`"))
}

fn refused(code: &'static str, detail: String) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, code, detail)
}
