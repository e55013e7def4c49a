//! `run`, the local daemon: reconcile each tick or when something changes, until interrupted.
//!
//! It keeps nothing in memory that matters. Killed and started again it finds the running boxes by their locks and goes on.

use std::time::Duration;

use gpuctl_control::Trigger;
use gpuctl_core::units::show_span;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::context::Context;
use crate::failure::Failure;
use crate::render::{Answer, Printer};

/// How often to look whether another process has written: a look costs microseconds.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often to try for the lock: a `gpuctl doctor` may be looking at it this very moment.
const LOCK_TRIES: u32 = 5;

/// The least time between two reconciles, so that a storm of submissions is one reconcile and not a thousand.
const PASS_EVERY_MIN: Duration = Duration::from_millis(100);

/// `gpuctl run`.
pub(crate) async fn watch(context: &Context, printer: &Printer) -> Result<Answer, Failure> {
    let lock = lock(context).await?;
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| Failure::new("cannot catch signals").because(&error))?;
    let tick = context.config.policy.cloud.tick;
    printer.note(&format!(
        "watching {} pools every {}, and at each change; state in {}",
        context.config.policy.pools.len(),
        show_span(tick),
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
                    tell(context, printer, &reconciled).await;
                }
                Ok(None) => {}
                // The next reconcile is the retry; what failed may mend itself, and boxes end themselves meanwhile.
                Err(failure) => printer.trouble(&failure),
            }
            trigger =
                change_or_tick(context, version, tick.to_std().unwrap_or(PASS_EVERY_MIN)).await;
        }
    };
    tokio::select! {
        () = watch => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    drop(lock);
    printer.note("stopped watching; boxes that are up stop by themselves when idle");
    Ok(Answer::Nothing)
}

/// Tells a topic what a person should hear of, where there is one.
#[cfg(feature = "aws")]
async fn tell(
    context: &Context,
    printer: &Printer,
    reconciled: &gpuctl_control::reconcile::Reconciled,
) {
    let Some(account) = &context.backend.account else { return };
    for error in account.tell(&*context.ports.ledger, &context.config.policy, reconciled).await {
        printer.trouble(&error.into());
    }
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "with AWS it tells")]
async fn tell(_: &Context, _: &Printer, _: &gpuctl_control::reconcile::Reconciled) {}

/// Waits for a write by another process, or for the tick.
async fn change_or_tick(context: &Context, before: Option<i64>, tick: Duration) -> Trigger {
    let began = Instant::now();
    tokio::time::sleep(PASS_EVERY_MIN.min(tick)).await;
    while began.elapsed() < tick {
        if version(context) != before {
            return Trigger::Change;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Trigger::Tick
}

/// Grows with each write of another process to the file; a table on AWS is looked at with each tick alone.
fn version(context: &Context) -> Option<i64> {
    context.backend.store.as_ref()?.version().ok()
}

async fn lock(context: &Context) -> Result<std::fs::File, Failure> {
    let path = context.daemon_lock();
    let failed = |error: &std::io::Error| {
        Failure::new(format!("cannot lock {}", path.display())).because(error)
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    }
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(|error| failed(&error))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(LOOK_EVERY).await,
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(&error)),
        }
    }
    Err(Failure::new("another `gpuctl run` watches this state")
        .hint("one is enough; `gpuctl status` shows what it does"))
}
