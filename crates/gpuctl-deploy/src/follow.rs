//! Waiting for what CloudFormation does with a stack, with its events as progress, and what the stack's states mean.

use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_control::ports::PortError;
use tokio::time::Instant;

use crate::Site;
use crate::denial::explain;
use crate::ports::{Event, Stack};
use crate::trouble::{Kind, Trouble};

/// The first pause between two reads, and the longest: each doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long an operation may take before gpuctl stops waiting for it. It goes on by itself.
const OPERATION_MAX: TimeDelta = TimeDelta::hours(1);

/// What can be done with a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none, or it was deleted.
    Absent,
    /// It was proposed and never made.
    Proposed,
    /// Something is being done to it.
    Busy,
    /// It can be changed.
    Ready,
    /// It can only be deleted.
    Dead,
    /// An update failed, and so did undoing it.
    Stuck,
    /// Its deletion failed.
    Undeleted,
}

impl State {
    /// The state of a stack.
    #[must_use]
    pub fn of(stack: &Stack) -> Self {
        match stack.status.as_str() {
            "DELETE_COMPLETE" => Self::Absent,
            "REVIEW_IN_PROGRESS" => Self::Proposed,
            "UPDATE_ROLLBACK_FAILED" => Self::Stuck,
            "DELETE_FAILED" => Self::Undeleted,
            "CREATE_FAILED" | "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" => Self::Dead,
            other if other.ends_with("_IN_PROGRESS") => Self::Busy,
            _ => Self::Ready,
        }
    }
}

/// Pauses before the stack is read again, longer each time.
///
/// # Errors
/// When the user presses Ctrl-C meanwhile.
pub(crate) async fn pause(looks: &mut u32) -> Result<(), Trouble> {
    let doubled = PAUSE_FIRST.saturating_mul(1 << (*looks).min(8));
    *looks += 1;
    tokio::select! {
        () = tokio::time::sleep(doubled.min(PAUSE_MAX)) => Ok(()),
        _ = tokio::signal::ctrl_c() => Err(Trouble::new(Kind::Interrupted, "interrupted while waiting")
            .hint("AWS continues without gpuctl; the same command again takes it from there")),
    }
}

/// The end of an operation.
pub(crate) struct Done {
    /// `None` if the stack is gone.
    pub(crate) stack: Option<Stack>,
    /// Oldest first.
    pub(crate) events: Vec<Event>,
}

impl Done {
    pub(crate) fn state(&self) -> State {
        self.stack.as_ref().map_or(State::Absent, State::of)
    }

    /// Parts that could not be made, changed or deleted, with the reason; what was only cancelled with them is left out.
    pub(crate) fn failures(&self) -> Vec<String> {
        let failed = self.events.iter().filter(|event| event.status.ends_with("_FAILED"));
        let told = failed.filter_map(|event| {
            let reason = event.reason.as_deref().filter(|reason| !reason.contains("cancelled"))?;
            let explained = explain(reason).map(|words| format!(" ({words})")).unwrap_or_default();
            Some(format!("{}: {reason}{explained}", event.name))
        });
        let mut told: Vec<String> = told.collect();
        told.dedup();
        told
    }

    /// The operation failed: what and why.
    pub(crate) fn trouble(&self, what: String) -> Trouble {
        let mut trouble = Trouble::new(Kind::Failed, what);
        trouble.causes = self.failures();
        if trouble.causes.is_empty() {
            trouble.causes.extend(self.stack.as_ref().and_then(|stack| stack.reason.clone()));
        }
        trouble
    }
}

/// Begins an operation on a stack, and waits for its end. Only its own events are told.
///
/// # Errors
/// When a call fails, or the operation takes too long.
pub(crate) async fn operate(
    site: &Site<'_>,
    id: &str,
    begin: impl Future<Output = Result<(), PortError>>,
) -> Result<Done, Trouble> {
    let events = site.stacks.events(id, None).await.unwrap_or_default();
    let mut known = events.into_iter().next().map(|event| event.id);
    begin.await?;
    let until = Instant::now() + OPERATION_MAX.to_std().unwrap_or_default();
    let (mut told, mut looks) = (Vec::new(), 0);
    loop {
        // The state is read first: events of before its end are then all there.
        let stack = site.stacks.stack(id).await?;
        let mut new = site.stacks.events(id, known.as_deref()).await.unwrap_or_default();
        new.reverse();
        if let Some(last) = new.last() {
            known = Some(last.id.clone());
            looks = 0;
        }
        new.iter().filter(|event| is_news(event)).for_each(|event| site.show.note(&line(event)));
        told.extend(new);
        if stack.as_ref().is_none_or(|stack| State::of(stack) != State::Busy) {
            return Ok(Done { stack, events: told });
        }
        if Instant::now() >= until {
            return Err(Trouble::new(Kind::TimedOut, "CloudFormation is still at work")
                .hint("it continues without gpuctl; the same command again waits for it"));
        }
        pause(&mut looks).await?;
    }
}

/// Waits for what someone has begun to do to a stack.
pub(crate) async fn wait(site: &Site<'_>, name: &str, stack: &Stack) -> Result<Done, Trouble> {
    site.show.note(&format!("stack {name} is {}: waiting for it", stack.status));
    operate(site, &stack.id, async { Ok(()) }).await
}

/// Ends are news, beginnings are not.
fn is_news(event: &Event) -> bool {
    !event.status.ends_with("_IN_PROGRESS") || event.status.contains("ROLLBACK")
}

fn line(event: &Event) -> String {
    let reason = event.reason.as_deref().filter(|reason| !reason.is_empty());
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{}  {} {}{reason}", event.at.format("%H:%M:%S"), event.status, event.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_cloudformation_means_one_state() {
        for (status, state) in [
            ("CREATE_COMPLETE", State::Ready),
            ("CREATE_FAILED", State::Dead),
            ("CREATE_IN_PROGRESS", State::Busy),
            ("DELETE_COMPLETE", State::Absent),
            ("DELETE_FAILED", State::Undeleted),
            ("DELETE_IN_PROGRESS", State::Busy),
            ("IMPORT_COMPLETE", State::Ready),
            ("REVIEW_IN_PROGRESS", State::Proposed),
            ("ROLLBACK_COMPLETE", State::Dead),
            ("ROLLBACK_FAILED", State::Dead),
            ("ROLLBACK_IN_PROGRESS", State::Busy),
            ("UPDATE_COMPLETE", State::Ready),
            ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", State::Busy),
            ("UPDATE_FAILED", State::Ready),
            ("UPDATE_IN_PROGRESS", State::Busy),
            ("UPDATE_ROLLBACK_COMPLETE", State::Ready),
            ("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS", State::Busy),
            ("UPDATE_ROLLBACK_FAILED", State::Stuck),
            ("UPDATE_ROLLBACK_IN_PROGRESS", State::Busy),
        ] {
            let stack = Stack { status: status.to_owned(), ..Stack::default() };
            assert_eq!(State::of(&stack), state, "{status}");
        }
    }
}
