//! The HTTP API: jobs are submitted, waited for and read by other programs. README.md of this crate is the page for them.
//!
//! It is a router over the ports, and knows no sockets: `gpuctl serve` accepts connections and hands them over. It decides nothing: what a
//! job waits for is read off the plan, and what is refused is refused by the checks of `gpuctl submit`.

#![expect(clippy::result_large_err, reason = "a request has one problem, which is its answer")]

mod access;
mod body;
mod callers;
mod catalog;
mod create;
mod events;
mod files;
mod jobs;
mod keys;
mod limits;
mod openai;
mod openapi;
mod page;
mod problem;
mod request;
mod routes;
mod snapshot;
mod status;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gpuctl_control::models::KnownModels;
use gpuctl_control::ports::Ports;
use gpuctl_core::policy::Policy;
use tokio::sync::{Notify, Semaphore};

use self::request::Requests;
use self::snapshot::Snapshots;

pub use self::limits::{
    ABANDONED_TIME_MAX, BODY_TIME_MAX, HEADER_BYTES_MAX, HEADER_TIME_MAX, HEADERS_MAX,
    JSON_BYTES_MAX,
};
pub use self::routes::router;

/// What the API works with.
pub struct Api {
    ports: Ports,
    policy: Policy,
    models: KnownModels,
    /// How often a waiting request looks at its job: a read of a file here, a call on AWS.
    poll_every: Duration,
    /// Which names it may be called by.
    access: access::Access,
    keys: keys::Keys,
    waiting: Arc<Semaphore>,
    following: Arc<Semaphore>,
    snapshots: Snapshots,
    requests: Requests,
    callers: callers::Callers,
    /// How long the job of a call goes on after its client has hung up.
    abandoned_after: Duration,
    changed: Arc<Notify>,
    /// What the page's buttons send along; none where it has no buttons.
    page_token: Option<String>,
    /// Set once the server is to end: requests that wait are answered then.
    closing: AtomicBool,
}

/// What [`Api::new`] needs beside the ports.
pub struct Settings {
    pub policy: Policy,
    pub models: KnownModels,
    /// How often a waiting request looks at its job.
    pub poll_every: Duration,
    /// How long the job of a call of OpenAI's clients goes on after the last client that waited for it has hung up.
    pub abandoned_after: Duration,
    /// Whether the page has buttons that change something.
    pub allow_actions: bool,
    /// Whether other machines can reach it: then each call needs a key.
    pub is_public: bool,
}

impl Api {
    #[must_use]
    pub fn new(ports: Ports, settings: Settings) -> Self {
        let Settings { policy, models, poll_every, abandoned_after, allow_actions, is_public } =
            settings;
        let waiting_max = usize::try_from(policy.http.waiting_max.get()).unwrap_or(usize::MAX);
        Self {
            access: access::Access::new(&policy.http),
            keys: keys::Keys::new(is_public, poll_every),
            waiting: Arc::new(Semaphore::new(waiting_max.min(Semaphore::MAX_PERMITS))),
            following: Arc::new(Semaphore::new(limits::EVENTS_MAX)),
            snapshots: Snapshots::new(poll_every),
            requests: Requests::default(),
            callers: callers::Callers::default(),
            abandoned_after,
            changed: Arc::new(Notify::new()),
            page_token: allow_actions.then(|| uuid::Uuid::new_v4().simple().to_string()),
            closing: AtomicBool::new(false),
            ports,
            policy,
            models,
            poll_every,
        }
    }

    /// Has requests that wait for a job answered as if their wait were over, since the server ends.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Told after each job that was sent: a reason for the controller in this process to look at once.
    #[must_use]
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }
}

/// The API, as handlers have it.
type Shared = Arc<Api>;
