//! `run`, the local daemon: reconcile each tick or when something changes, until interrupted.
//!
//! It keeps no state in memory: after a crash and restart it finds the running boxes by their locks and continues.

use std::time::Duration;

use gpuctl_control::Trigger;
use gpuctl_core::units::show_duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::render::{Output, Printer};

/// How often to check whether another process has written: a check takes microseconds.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// How often to try for the lock: `gpuctl doctor` may be testing it at the same moment.
const LOCK_TRIES: u32 = 5;

/// The least time between two reconciles, so that a burst of submissions causes one reconcile and not a thousand.
const RECONCILE_EVERY_MIN: Duration = Duration::from_millis(100);

/// `gpuctl run`.
pub(crate) async fn watch(context: &Context, printer: &Printer) -> Result<Output, Failure> {
    watch_beside(context, printer, &Notify::new(), std::future::pending()).await
}

/// The same, `beside` something else of this process that never ends, and that says when it has `changed` something.
pub(super) async fn watch_beside(
    context: &Context,
    printer: &Printer,
    changed: &Notify,
    beside: impl Future<Output = ()>,
) -> Result<Output, Failure> {
    let lock = lock(context).await?;
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| Failure::new(Code::Internal, "cannot catch signals").because(&error))?;
    let tick = context.config.policy.cloud.tick;
    printer.note(&format!(
        "controlling {} pools every {}, and at each change; state in {}",
        context.config.policy.pools.len(),
        show_duration(tick),
        context.config.state.display()
    ));
    let watch = async {
        let mut trigger = Trigger::Tick;
        loop {
            // Read before the reconcile: what is written while it runs is then seen as a change.
            let version = version(context);
            match context.reconcile(trigger).await {
                Ok(Some(reconciled)) => {
                    printer.reconciled(&reconciled);
                    notify(context, printer, &reconciled).await;
                }
                Ok(None) => {}
                // The next reconcile is the retry; meanwhile boxes stop by themselves when idle.
                Err(failure) => printer.report_failure(&failure),
            }
            trigger = change_or_tick(
                context,
                version,
                changed,
                tick.to_std().unwrap_or(RECONCILE_EVERY_MIN),
            )
            .await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = beside => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    drop(lock);
    printer.note("stopped; running boxes stop by themselves when idle");
    Ok(Output::Nothing)
}

/// Publishes notices to the SNS topic, if one is configured.
#[cfg(feature = "aws")]
async fn notify(context: &Context, printer: &Printer, reconciled: &gpuctl_control::Reconciled) {
    let Some(account) = &context.backend.account else { return };
    for error in account.notify(&*context.ports.ledger, &context.config.policy, reconciled).await {
        printer.report_failure(&error.into());
    }
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "with AWS it publishes")]
async fn notify(_: &Context, _: &Printer, _: &gpuctl_control::Reconciled) {}

/// Waits for a write by another process, for one that this process tells of, or for the tick.
async fn change_or_tick(
    context: &Context,
    before: Option<i64>,
    changed: &Notify,
    tick: Duration,
) -> Trigger {
    let began = Instant::now();
    tokio::time::sleep(RECONCILE_EVERY_MIN.min(tick)).await;
    while began.elapsed() < tick {
        if version(context) != before {
            return Trigger::Change;
        }
        if tokio::time::timeout(POLL_EVERY, changed.notified()).await.is_ok() {
            return Trigger::Change;
        }
    }
    Trigger::Tick
}

/// Changes with each write of another process to the file; `None` for a table on AWS, which only ticks read.
fn version(context: &Context) -> Option<i64> {
    context.backend.store.as_ref()?.version().ok()
}

async fn lock(context: &Context) -> Result<std::fs::File, Failure> {
    let path = context.daemon_lock();
    let failed = |error: &std::io::Error| {
        Failure::new(Code::FileUnwritable, format!("cannot lock {}", path.display())).because(error)
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    }
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(|error| failed(&error))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(POLL_EVERY).await,
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(&error)),
        }
    }
    Err(Failure::new(
        Code::ControllerRunning,
        "another `gpuctl run` is running on this state folder",
    )
    .hint("one is enough; `gpuctl status` shows its pools"))
}
