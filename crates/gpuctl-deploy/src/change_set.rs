//! A change set, from its proposal until it is executed or withdrawn.

use chrono::TimeDelta;
use gpuctl_control::ports::PortErrorClass;
use gpuctl_core::units::Timestamp;

use crate::Site;
use crate::follow::{Done, State, operate, pause};
use crate::ports::{OpenChangeSet, Proposal, Proposed, Stack};
use crate::trouble::{Kind, Trouble};

/// How long after it was made someone else's change set of a new stack may still be executed: gpuctl does it within a minute or two.
const EXECUTED_WITHIN: TimeDelta = TimeDelta::minutes(15);

/// Makes the change set, and waits until CloudFormation has worked it out. One that is not accepted is withdrawn.
pub(crate) async fn propose(site: &Site<'_>, proposal: &Proposal) -> Result<Proposed, Trouble> {
    site.stacks.propose(proposal).await.map_err(|error| match error.class {
        PortErrorClass::Other => Trouble { kind: Kind::Invalid, ..error.into() },
        _ => error.into(),
    })?;
    let proposed = work_out(site, proposal).await;
    if proposed.is_err() {
        abandon(site, proposal).await;
    }
    proposed
}

/// Waits for a change set; one without changes is an empty one.
async fn work_out(site: &Site<'_>, proposal: &Proposal) -> Result<Proposed, Trouble> {
    let mut looks = 0;
    loop {
        let proposed = site.stacks.proposed(&proposal.stack, &proposal.change_set).await?;
        match proposed.status.as_str() {
            "CREATE_COMPLETE" => return Ok(proposed),
            "FAILED" => {
                let reason = proposed.reason.unwrap_or_default();
                let is_empty = ["didn't contain changes", "No updates are to be performed"];
                if is_empty.iter().any(|words| reason.contains(words)) {
                    return Ok(Proposed { status: proposed.status, ..Proposed::default() });
                }
                let what = "CloudFormation does not accept the change";
                return Err(Trouble::new(Kind::Invalid, what).because(reason));
            }
            _ => pause(&mut looks).await?,
        }
    }
}

/// Deletes the change set that was proposed and will not be made, and the empty stack that it has made. A stack for which someone else
/// has proposed, too, is theirs as well.
pub(crate) async fn withdraw(site: &Site<'_>, proposal: &Proposal) -> Result<(), Trouble> {
    let Proposal { stack, change_set, creates, .. } = proposal;
    site.stacks.withdraw(stack, change_set).await?;
    if !creates {
        return Ok(());
    }
    let Some(empty) = site.stacks.stack(stack).await? else { return Ok(()) };
    let open = site.stacks.open_change_sets(&empty.id).await?;
    let is_free = open.iter().all(|one| one.name == *change_set);
    if State::of(&empty) == State::Proposed && is_free {
        site.stacks.delete(&empty.id).await?;
    }
    Ok(())
}

/// Fails if another deployment is about to make this stack, which was only proposed: with the stack its change set would go. One that is
/// older was left behind.
pub(crate) async fn check_unclaimed(site: &Site<'_>, stack: &Stack) -> Result<(), Trouble> {
    let now = site.account.now();
    let is_fresh = |one: &OpenChangeSet| one.at.is_none_or(|at| now - at < EXECUTED_WITHIN);
    let open = site.stacks.open_change_sets(&stack.id).await?;
    let Some(other) = open.into_iter().find(is_fresh) else { return Ok(()) };
    let what = format!("another deployment is making stack {}", stack.name);
    let made = other.at.map_or_else(|| "at an unknown time".to_owned(), show_time);
    Err(Trouble::new(Kind::Blocked, what)
        .because(format!("its change set {} was made {made}", other.name))
        .hint("wait until it is done; if it was interrupted, `gpuctl destroy` removes what it has proposed"))
}

fn show_time(at: Timestamp) -> String {
    at.format("on %Y-%m-%d at %H:%M:%S UTC").to_string()
}

/// Withdraws after a failure, which is what the caller returns: if this fails, too, it is a warning.
pub(crate) async fn abandon(site: &Site<'_>, proposal: &Proposal) {
    if let Err(trouble) = withdraw(site, proposal).await {
        let why: Vec<String> = std::iter::once(trouble.what).chain(trouble.causes).collect();
        let stack = &proposal.stack;
        site.show.warn(&format!("the change of stack {stack} stays proposed: {}", why.join(": ")));
    }
}

/// Executes the change set, and waits for its end.
pub(crate) async fn execute(site: &Site<'_>, proposal: &Proposal) -> Result<Done, Trouble> {
    let stack = site.stacks.stack(&proposal.stack).await?;
    let stack = stack.ok_or_else(|| Trouble::new(Kind::Failed, "the stack is gone again"))?;
    let begin = site.stacks.execute(&proposal.stack, &proposal.change_set);
    operate(site, &stack.id, begin).await
}
