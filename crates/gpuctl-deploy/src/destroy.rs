//! `gpuctl destroy`: in the order in which nothing comes back, and what is left is listed at the end.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use gpuctl_core::cost::service_price;
use gpuctl_core::units::MicroUsd;
use tokio::time::Instant;

use crate::change_set::{execute, propose, withdraw};
use crate::deploy::confirm;
use crate::follow::{Done, State, operate, pause, wait};
use crate::ports::{Jobs, Left, Proposal, Stack, StackBox};
use crate::preflight::identify;
use crate::trouble::{Kind, Trouble};
use crate::{Site, code_bucket};

/// How long boxes may take to end.
const BOXES_END_MAX: TimeDelta = TimeDelta::minutes(10);

/// What to remove, and how.
#[derive(Clone, Debug)]
pub struct Removal {
    /// The stack's name.
    pub name: String,
    /// Also what a deletion of the stack keeps: results, shared files, and the code bucket if no other stack uses it.
    pub everything: bool,
    /// Wait this long for the queue to become empty.
    pub drain: Option<TimeDelta>,
    /// Jobs in the queue may be lost.
    pub lose_jobs: bool,
    /// A name for a change set that no other has.
    pub change_set: String,
}

/// What a removal did.
#[derive(Clone, Debug, Default)]
pub struct Destroyed {
    /// Whether there was a stack.
    pub was_there: bool,
    pub boxes: Vec<String>,
    /// Kept on purpose, with what it costs a month.
    pub kept: Vec<(Left, MicroUsd)>,
    /// Left although nothing should be.
    pub left: Vec<(Left, MicroUsd)>,
}

/// Removes a stack and its boxes.
///
/// # Errors
/// When jobs would be lost, something cannot be removed, or a call fails.
pub async fn destroy(site: &Site<'_>, removal: &Removal) -> Result<Destroyed, Trouble> {
    let caller = identify(site.account).await?;
    let others = site.stacks.others(&removal.name).await?;
    let code = code_bucket(&caller.account, site.account.region());
    let shared = (!others.is_empty()).then_some(code.as_str());
    let stack = settled(site, &removal.name).await?;
    let jobs = jobs(site, stack.as_ref()).await?;
    if let Some(stack) = &stack {
        check_protection(stack, &removal.name)?;
    }
    ask(site, removal, stack.as_ref(), jobs, shared).await?;
    if let Some(stack) = &stack {
        if let Some(longest) = removal.drain {
            drain(site, stack, longest).await?;
        }
        switch_off(site, removal, stack).await?;
    }
    let boxes = end_boxes(site, &removal.name).await?;
    if let Some(stack) = &stack {
        delete(site, removal, stack).await?;
    }
    // Another stack may have been made since the question.
    let others = site.stacks.others(&removal.name).await?;
    let shared = (!others.is_empty()).then_some(code.as_str());
    for one in doomed(site, removal, shared).await? {
        site.account.remove(&one).await?;
        site.show.note(&format!("deleted {} {} with everything in it", one.kind, one.id));
    }
    if let Some(code) = shared.filter(|_| removal.everything) {
        let names: Vec<&str> = others.iter().map(|one| one.name.as_str()).collect();
        site.show.note(&format!("bucket {code} stays: stack {} uses it", names.join(", ")));
    }
    let (kept, left) = sweep(site, removal, shared).await?;
    Ok(Destroyed { was_there: stack.is_some(), boxes, kept, left })
}

/// The stack once nothing is being done to it, except that it may be half deleted; `None` if there is none.
async fn settled(site: &Site<'_>, name: &str) -> Result<Option<Stack>, Trouble> {
    let mut stack = site.stacks.stack(name).await?;
    if let Some(busy) = stack.take_if(|one| State::of(one) == State::Busy) {
        stack = wait(site, name, &busy).await?.stack;
    }
    Ok(stack.filter(|one| State::of(one) != State::Absent))
}

async fn jobs(site: &Site<'_>, stack: Option<&Stack>) -> Result<Jobs, Trouble> {
    let queue = stack.and_then(|stack| stack.outputs.get("QueueUrl"));
    let Some(queue) = queue else { return Ok(Jobs::default()) };
    Ok(site.account.jobs(queue).await?.unwrap_or_default())
}

fn check_protection(stack: &Stack, name: &str) -> Result<(), Trouble> {
    if !stack.is_protected {
        return Ok(());
    }
    let what = format!("stack {name} is protected from deletion");
    Err(Trouble::new(Kind::Blocked, what).hint(format!(
        "`aws cloudformation update-termination-protection --no-enable-termination-protection --stack-name {name}` lifts it"
    )))
}

/// Says what will go, and asks; jobs are lost only if that was said.
async fn ask(
    site: &Site<'_>,
    removal: &Removal,
    stack: Option<&Stack>,
    Jobs { waiting, running }: Jobs,
    shared: Option<&str>,
) -> Result<(), Trouble> {
    let name = &removal.name;
    let has_jobs = waiting + running > 0;
    if has_jobs && removal.drain.is_none() && !removal.lose_jobs {
        let what = format!("stack {name} has jobs: {running} running, {waiting} waiting");
        return Err(Trouble::new(Kind::Busy, what)
            .hint("--drain 2h waits for them at most that long; --lose-jobs deletes them"));
    }
    let boxes = up(site, name).await?;
    let mut parts = Vec::new();
    if stack.is_some() {
        parts.push(format!("stack {name} with its queue, table and function"));
    }
    if !boxes.is_empty() {
        parts.push(format!("{} boxes with their disks", boxes.len()));
    }
    if has_jobs && removal.lose_jobs {
        parts.push(format!("{} jobs", waiting + running));
    }
    for one in doomed(site, removal, shared).await? {
        parts.push(format!("{} {} with everything in it", one.kind, one.id));
    }
    if parts.is_empty() {
        return Ok(());
    }
    confirm(site, &format!("delete {} for good?", parts.join(", ")))
}

/// Boxes of the stack that have not ended.
async fn up(site: &Site<'_>, name: &str) -> Result<Vec<StackBox>, Trouble> {
    let boxes = site.account.boxes(name).await?;
    Ok(boxes.into_iter().filter(|one| one.state != "terminated").collect())
}

/// Waits until the queue is empty. Boxes go on working meanwhile, and the function starts them.
async fn drain(site: &Site<'_>, stack: &Stack, longest: TimeDelta) -> Result<(), Trouble> {
    let until = Instant::now() + longest.to_std().unwrap_or_default();
    let (mut looks, mut last) = (0, Jobs::default());
    loop {
        let now = jobs(site, Some(stack)).await?;
        if now == Jobs::default() {
            return Ok(());
        }
        if now != last {
            site.show.note(&format!("{} jobs running, {} waiting", now.running, now.waiting));
        }
        if Instant::now() >= until {
            let what = format!("{} jobs are left: nothing was deleted", now.running + now.waiting);
            return Err(Trouble::new(Kind::TimedOut, what)
                .hint("stop submitting jobs, give --drain more time, or add --lose-jobs"));
        }
        last = now;
        pause(&mut looks).await?;
    }
}

/// Has the stack invoke its function no more: it would start boxes while they are being ended. A stack that cannot be changed is deleted
/// as it is.
async fn switch_off(site: &Site<'_>, removal: &Removal, stack: &Stack) -> Result<(), Trouble> {
    let is_on = stack.parameters.get("Tick").is_some_and(|tick| tick == "on");
    if State::of(stack) != State::Ready || !is_on {
        return Ok(());
    }
    let mut values = stack.parameters.clone();
    values.insert("Tick".to_owned(), "off".to_owned());
    let proposal = Proposal {
        stack: removal.name.clone(),
        change_set: removal.change_set.clone(),
        creates: false,
        template: None,
        values,
        role: None,
    };
    if propose(site, &proposal).await?.changes.is_empty() {
        return withdraw(site, &proposal).await;
    }
    let done = execute(site, &proposal).await?;
    match done.stack.as_ref().is_some_and(|one| one.status == "UPDATE_COMPLETE") {
        true => site.show.note("the function is switched off"),
        false => return Err(done.trouble("the function could not be switched off".to_owned())),
    }
    Ok(())
}

/// Cancels spot requests first, since EC2 would replace their boxes; then ends every box, also one that was launched meanwhile.
async fn end_boxes(site: &Site<'_>, name: &str) -> Result<Vec<String>, Trouble> {
    let until = Instant::now() + BOXES_END_MAX.to_std().unwrap_or_default();
    let (mut looks, mut ended) = (0, BTreeSet::new());
    loop {
        for request in site.account.cancel_requests(name).await? {
            site.show.note(&format!("cancelled spot request {request}"));
        }
        let boxes = up(site, name).await?;
        if boxes.is_empty() {
            return Ok(ended.into_iter().collect());
        }
        let is_going = |one: &&StackBox| one.state == "shutting-down";
        let staying: Vec<String> =
            boxes.iter().filter(|one| !is_going(one)).map(|one| one.id.clone()).collect();
        if !staying.is_empty() {
            site.account.terminate(&staying).await?;
        }
        for id in staying {
            if ended.insert(id.clone()) {
                site.show.note(&format!("terminated box {id}"));
            }
        }
        if Instant::now() >= until {
            let what = format!("{} boxes do not end: the stack was not deleted", boxes.len());
            return Err(Trouble::new(Kind::Failed, what).hint("run `gpuctl destroy` again"));
        }
        pause(&mut looks).await?;
    }
}

/// Deletes the stack; twice, since a box that was launched in the last second keeps its network from going.
async fn delete(site: &Site<'_>, removal: &Removal, stack: &Stack) -> Result<(), Trouble> {
    let name = &removal.name;
    for is_last in [false, true] {
        let done = operate(site, &stack.id, site.stacks.delete(&stack.id)).await?;
        match done.state() {
            State::Absent => return Ok(()),
            State::Undeleted if !is_last => {
                site.show.warn("the deletion failed; trying once more");
                end_boxes(site, name).await?;
            }
            _ => return Err(undeleted(&done, name)),
        }
    }
    Ok(())
}

fn undeleted(done: &Done, name: &str) -> Trouble {
    done.trouble(format!("stack {name} could not be deleted completely"))
        .hint("remove what is named above by hand, then run `gpuctl destroy` again")
}

/// What `--everything` deletes of that which a deletion of the stack keeps; a bucket that another stack uses stays.
async fn doomed(
    site: &Site<'_>,
    removal: &Removal,
    shared: Option<&str>,
) -> Result<Vec<Left>, Trouble> {
    if !removal.everything {
        return Ok(Vec::new());
    }
    let mut kept = site.account.left(&removal.name).await?;
    kept.retain(|one| one.is_data() && shared != Some(&one.id));
    Ok(kept)
}

type Priced = Vec<(Left, MicroUsd)>;

/// What is left: on purpose, and in spite of it all.
async fn sweep(
    site: &Site<'_>,
    removal: &Removal,
    shared: Option<&str>,
) -> Result<(Priced, Priced), Trouble> {
    let mut left = site.account.left(&removal.name).await?;
    left.sort();
    let price = |left: Left| {
        let price = left.item.and_then(|item| service_price(item, site.account.region()));
        let month = price.map(|price| price.of(left.units)).unwrap_or_default();
        (left, month)
    };
    let is_meant = |(one, _): &(Left, MicroUsd)| {
        one.is_data() && (!removal.everything || shared == Some(&one.id))
    };
    Ok(left.into_iter().map(price).partition(is_meant))
}
