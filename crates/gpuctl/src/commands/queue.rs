//! `queue`, `redrive` and `purge`: counts of the queues, and moving or deleting their messages.

use gpuctl_control::ports::{Purge, QueueChange};
use gpuctl_control::wire::status::QueueDocument;
use gpuctl_core::units::PoolId;

use crate::context::Context;
use crate::documents::reply::{MovedDocument, PoolQueueDocument, QueuesDocument};
use crate::failure::Failure;
use crate::render::{Output, Printer};

/// `gpuctl queue`.
pub(super) async fn counts(context: &Context) -> Result<Output, Failure> {
    let mut queues = Vec::new();
    for (pool, queue) in context.config.policy.queue_pools() {
        let counts = context.ports.queue.counts(&queue.name).await?;
        queues.push(PoolQueueDocument {
            pool: pool.id.to_string(),
            queue: queue.name.to_string(),
            counts: QueueDocument::of(&counts, context.now()),
        });
    }
    Ok(Output::Queues(QueuesDocument { queues }))
}

/// `gpuctl redrive [POOL]`.
pub(super) async fn redrive(
    context: &Context,
    printer: &Printer,
    pool: Option<&PoolId>,
) -> Result<Output, Failure> {
    let (_, queue) = context.queue_pool(pool)?;
    let messages = context.ports.queue.redrive(&queue.name).await?;
    context.ports.ledger.queue_changed(&queue.name, QueueChange::Redriven).await?;
    context.reconcile_until_free(printer).await;
    Ok(Output::Moved(MovedDocument { action: "redrive", queue: queue.name.to_string(), messages }))
}

/// `gpuctl purge POOL [--dead]`.
pub(super) async fn purge(
    context: &Context,
    printer: &Printer,
    pool: &PoolId,
    which: Purge,
) -> Result<Output, Failure> {
    let (_, queue) = context.queue_pool(Some(pool))?;
    let counts = context.ports.queue.counts(&queue.name).await?;
    let count = match which {
        Purge::Dead => counts.dead,
        Purge::Live => counts.visible + counts.in_flight + counts.delayed,
    };
    if count > 0 {
        let name = &queue.name;
        printer.confirm(&format!(
            "delete {count} jobs of queue `{name}`? They will have no result."
        ))?;
    }
    let messages = context.ports.queue.purge(&queue.name, which).await?;
    context.ports.ledger.queue_changed(&queue.name, QueueChange::Purged(which)).await?;
    Ok(Output::Moved(MovedDocument { action: "purge", queue: queue.name.to_string(), messages }))
}
