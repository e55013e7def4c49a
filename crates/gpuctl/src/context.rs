//! What every command works with: the configuration and the ports on the state that it names.

use std::path::PathBuf;
use std::time::Duration;

use chrono::DateTime;
use gpuctl_control::config::Config;
use gpuctl_control::ports::Ports;
use gpuctl_control::reconcile::Reconciled;
use gpuctl_control::{Trigger, pools, reconcile};
use gpuctl_core::policy::{Pool, QueuePolicy};
use gpuctl_core::units::{PoolId, Timestamp};

use crate::backend::Backend;
use crate::failure::Failure;
use crate::render::Printer;

/// How often, and how long apart, the wake-up tries: a reconcile takes milliseconds.
const RING_TRIES: u32 = 40;
const RING_AGAIN: Duration = Duration::from_millis(50);

/// How often a waiting command looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOK_EVERY_AWS: Duration = Duration::from_secs(3);

/// The configuration and the ports.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) backend: Backend,
    pub(crate) ports: Ports,
    owner: String,
}

impl Context {
    pub(crate) async fn open(config: Config) -> Result<Self, Failure> {
        let backend = Backend::open(&config).await?;
        let owner = format!("{}, process {}", user(), std::process::id());
        Ok(Self { config, ports: backend.ports.clone(), backend, owner })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }

    /// `now`, or an instant with its offset: a time without one means something else on each machine.
    pub(crate) fn instant(&self, text: &str) -> Result<Timestamp, Failure> {
        if text == "now" {
            return Ok(self.now());
        }
        let to_the_minute = || DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M%#z");
        let found = DateTime::parse_from_rfc3339(text).or_else(|_| to_the_minute());
        found.map(|at| at.to_utc()).map_err(|_| {
            Failure::usage(format!("`{text}` is no instant"))
                .hint("write its offset, too, as `2026-11-23T09:00:00+09:00` or `2026-11-23T00:00:00Z`, or `now`")
        })
    }

    /// One reconcile of the loop; `None` if another controller is at it.
    pub(crate) async fn reconcile(&self, trigger: Trigger) -> Result<Option<Reconciled>, Failure> {
        Ok(reconcile(&self.ports, &self.config.policy, trigger, &self.owner).await?)
    }

    /// The wake-up after something was sent: one reconcile, printed. What was sent is sent, whatever comes of it.
    ///
    /// A reconcile of another controller may have begun before the sending, so a busy lease is waited for.
    pub(crate) async fn ring(&self, printer: &Printer) {
        for _ in 0..RING_TRIES {
            match self.reconcile(Trigger::Command).await {
                Ok(None) => tokio::time::sleep(RING_AGAIN).await,
                Ok(Some(reconciled)) => return printer.reconciled(&reconciled),
                Err(failure) => return printer.trouble(&failure),
            }
        }
    }

    pub(crate) fn pool(&self, id: &PoolId) -> Result<&Pool, Failure> {
        Ok(pools::named(&self.config.policy, id.as_str())?)
    }

    /// The pool that a submitted job goes to.
    pub(crate) fn queue_pool(
        &self,
        wanted: Option<&PoolId>,
    ) -> Result<(&Pool, &QueuePolicy), Failure> {
        if let Some(id) = wanted {
            let pool = self.pool(id)?;
            let queue = pool.queue();
            return queue.map(|queue| (pool, queue)).ok_or_else(|| {
                Failure::usage(format!("pool `{id}` has no queue"))
                    .hint("it runs a command; submit to a pool with a `queue`")
            });
        }
        let mut pools = self.config.policy.queue_pools();
        match (pools.next(), pools.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => {
                Err(Failure::usage("no pool has a queue").hint("give one `queue = \"jobs\"`"))
            }
            (Some(_), Some(_)) => {
                Err(Failure::usage("several pools have a queue").hint("say which one"))
            }
        }
    }

    /// How often to look while waiting: a look here is a read of a file, on AWS it is calls that are counted.
    pub(crate) fn look_every(&self) -> Duration {
        if self.config.policy.cloud.aws.is_some() { LOOK_EVERY_AWS } else { LOOK_EVERY }
    }

    /// The file that the daemon holds a lock on.
    pub(crate) fn daemon_lock(&self) -> PathBuf {
        self.config.state.join("run.lock")
    }

    /// Whether `gpuctl run` is at work on this state.
    pub(crate) fn has_daemon(&self) -> bool {
        let lock = std::fs::File::open(self.daemon_lock());
        lock.is_ok_and(|lock| {
            matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
        })
    }
}

/// The worker beside this program, else the one in the search path.
pub(crate) fn worker_program() -> PathBuf {
    let beside =
        std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join("gpu-worker")));
    beside.filter(|program| program.is_file()).unwrap_or_else(|| PathBuf::from("gpu-worker"))
}

/// Who gives this command, for the record.
pub(crate) fn user() -> String {
    ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "someone".to_owned())
}
