//! What commands work with: the configuration, and most of them the ports on its backend, too.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use gpuctl_control::Reconciled;
use gpuctl_control::clock::SystemClock;
use gpuctl_control::config::Config;
use gpuctl_control::ports::{Clock, Fence, LEASE_LASTS, PortError, Ports};
use gpuctl_control::{Trigger, pools, reconcile};
use gpuctl_core::policy::{Pool, QueuePolicy};
use gpuctl_core::text::excerpt;
use gpuctl_core::units::{BoxId, PoolId, Timestamp, parse_duration};

use crate::backend::Backend;
use crate::failure::{Code, Failure};
use crate::render::Printer;

/// How often, and how long apart, a busy lease is tried: a reconcile takes milliseconds.
const LEASE_TRIES: u32 = 40;
const LEASE_RETRY: Duration = Duration::from_millis(50);

/// How often a waiting command polls.
const POLL_EVERY: Duration = Duration::from_millis(200);
const POLL_EVERY_AWS: Duration = Duration::from_secs(3);

/// The configuration, and a clock.
pub(crate) struct Configured {
    pub(crate) config: Config,
    clock: Arc<dyn Clock>,
}

impl Configured {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, clock: Arc::new(SystemClock) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Reads `now`, or a time with its offset: without one it would mean something else on each machine.
    pub(crate) fn time(&self, text: &str) -> Result<Timestamp, Failure> {
        if text == "now" {
            return Ok(self.now());
        }
        // RFC 3339, and as `date` and EventBridge write it.
        let forms = ["%Y-%m-%dT%H:%M%#z", "%Y-%m-%dT%H:%M:%S%#z"];
        let other = || forms.iter().find_map(|form| DateTime::parse_from_str(text, form).ok());
        let found = DateTime::parse_from_rfc3339(text).ok().or_else(other);
        found.map(|at| at.to_utc()).ok_or_else(|| {
            let failure =
                Failure::new(Code::UsageInvalidValue, format!("`{}` is not a valid time", excerpt(text)));
            failure.hint(match text.split_once(['T', 't']) {
                Some((_, time)) if time.contains(['Z', 'z', '+', '-']) => {
                    "the date and the time of day must exist, e.g. `2026-11-23T09:00:00+09:00`"
                }
                _ => {
                    "write it with its offset, e.g. `2026-11-23T09:00:00+09:00` or `2026-11-23T00:00:00Z`, or `now`"
                }
            })
        })
    }

    /// Reads a time as [`Context::time`] does, or a duration until now.
    pub(crate) fn time_or_age(&self, text: &str) -> Result<Timestamp, Failure> {
        match parse_duration(text) {
            Ok(age) => Ok(self.now() - age),
            Err(_) => self.time(text),
        }
    }

    /// All pools.
    pub(crate) fn pools(&self) -> Vec<PoolId> {
        self.config.policy.pools.iter().map(|pool| pool.id.clone()).collect()
    }

    pub(crate) fn pool(&self, id: &PoolId) -> Result<&Pool, Failure> {
        Ok(pools::named(&self.config.policy, id.as_str())?)
    }

    /// The pool that a submitted job goes to.
    pub(crate) fn queue_pool(
        &self,
        wanted: Option<&PoolId>,
    ) -> Result<(&Pool, &QueuePolicy), Failure> {
        Ok(pools::for_job(&self.config.policy, wanted.map(PoolId::as_str))?)
    }
}

/// The configuration and the ports.
pub(crate) struct Context {
    configured: Configured,
    pub(crate) backend: Backend,
    pub(crate) ports: Ports,
    owner: String,
}

impl Deref for Context {
    type Target = Configured;

    fn deref(&self) -> &Configured {
        &self.configured
    }
}

impl Context {
    pub(crate) async fn open(config: Config) -> Result<Self, Failure> {
        let backend = Backend::open(&config).await?;
        let owner = format!("{}, process {}", user(), std::process::id());
        let (ports, clock) = (backend.ports.clone(), backend.ports.clock.clone());
        Ok(Self { configured: Configured { config, clock }, backend, ports, owner })
    }

    /// One reconcile; `None` if another controller holds the lease.
    pub(crate) async fn reconcile(&self, trigger: Trigger) -> Result<Option<Reconciled>, Failure> {
        Ok(reconcile(&self.ports, &self.config.policy, trigger, &self.owner).await?)
    }

    /// One reconcile after a change, printed. A failure is reported and does not undo the change: the next reconcile is the retry.
    ///
    /// Another controller may have observed before the change, so a busy lease is waited for. `None` if there was no reconcile.
    pub(crate) async fn reconcile_until_free(&self, printer: &Printer) -> Option<Reconciled> {
        for _ in 0..LEASE_TRIES {
            match self.reconcile(Trigger::Command).await {
                Ok(None) => tokio::time::sleep(LEASE_RETRY).await,
                Ok(Some(reconciled)) => {
                    printer.reconciled(&reconciled);
                    return Some(reconciled);
                }
                Err(failure) => {
                    printer.report_failure(&failure);
                    return None;
                }
            }
        }
        None
    }

    /// The right to act on boxes; a busy one is waited for.
    pub(crate) async fn lease(&self) -> Result<Fence, Failure> {
        for _ in 0..LEASE_TRIES {
            if let Some(fence) = self.ports.ledger.lease(&self.owner, LEASE_LASTS).await? {
                return Ok(fence);
            }
            tokio::time::sleep(LEASE_RETRY).await;
        }
        Err(Failure::new(Code::BackendUnavailable, "another controller is reconciling")
            .hint("try again in a few seconds"))
    }

    /// The boxes that differ from what their launch template would make now, and how. One of this machine has no template.
    #[cfg(feature = "aws")]
    pub(crate) async fn outdated(&self) -> Result<Vec<(BoxId, String)>, PortError> {
        match &self.backend.account {
            Some(account) => account.ec2.outdated().await,
            None => Ok(Vec::new()),
        }
    }

    #[cfg(not(feature = "aws"))]
    #[expect(clippy::unused_async, reason = "with AWS it asks EC2")]
    pub(crate) async fn outdated(&self) -> Result<Vec<(BoxId, String)>, PortError> {
        Ok(Vec::new())
    }

    /// How often to poll while waiting: here a poll reads a file, on AWS it makes API calls, which cost money and are throttled.
    pub(crate) fn poll_every(&self) -> Duration {
        if self.config.policy.cloud.aws.is_some() { POLL_EVERY_AWS } else { POLL_EVERY }
    }

    /// The file that `gpuctl run` locks.
    pub(crate) fn daemon_lock(&self) -> PathBuf {
        self.config.state.join("run.lock")
    }

    /// Whether `gpuctl run` is running on this state folder.
    pub(crate) fn has_daemon(&self) -> bool {
        let lock = std::fs::File::open(self.daemon_lock());
        lock.is_ok_and(|lock| {
            matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
        })
    }
}

/// The user's name, for holds and records; cron and containers may set none.
pub(crate) fn user() -> String {
    ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()))
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid()))
}
