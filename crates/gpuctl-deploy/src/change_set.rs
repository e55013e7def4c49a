//! A change set, from its proposal until it is executed or withdrawn.

use gpuctl_control::ports::PortErrorClass;

use crate::Site;
use crate::follow::{Done, State, operate, pause};
use crate::ports::{Proposal, Proposed};
use crate::trouble::{Kind, Trouble};

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

/// Removes what was proposed and will not be made: the change set, or the empty stack that it has made. A stack that someone else has made
/// meanwhile is theirs; one that they have only proposed looks like ours, and goes: no port method lists the change sets of a stack.
pub(crate) async fn withdraw(site: &Site<'_>, proposal: &Proposal) -> Result<(), Trouble> {
    if !proposal.creates {
        return Ok(site.stacks.withdraw(&proposal.stack, &proposal.change_set).await?);
    }
    match site.stacks.stack(&proposal.stack).await? {
        Some(stack) if State::of(&stack) == State::Proposed => {
            Ok(site.stacks.delete(&stack.id).await?)
        }
        _ => Ok(()),
    }
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
