//! `gpuctl deploy` and `gpuctl diff`: from files and parameters to a stack that is complete, by a change set that was shown before.

use std::path::PathBuf;

use chrono::TimeDelta;
use gpuctl_core::cost::PriceTable;

use crate::bill::Bill;
use crate::change::{Change, Judged, check, judge};
use crate::change_set::{abandon, check_unclaimed, execute, propose, withdraw};
use crate::files::{Content, Models};
use crate::follow::{Done, State, operate, wait};
use crate::ports::{Proposal, Stack};
use crate::preflight::{POLICY_BYTES_MAX, check_account, check_values, identify};
use crate::template::{Template, Values};
use crate::trouble::{Kind, Trouble};
use crate::{Files, Site, boxes, policy};

/// How often a stack is waited for or removed before another try: someone else may be changing it, too.
const SETTLE_MAX: usize = 4;
/// The parameters that say where in the code bucket a file lies: what it is, and where it comes from.
const FILES: [(&str, &str, &str); 3] = [
    ("FunctionKey", "the function's zip", "scripts/package.sh makes it; name it with --function"),
    ("BootKey", "the boot files", "name their folder with --boot"),
    ("WorkerKey", "the worker", "scripts/package.sh makes it; name its folder with --worker"),
];

/// What to deploy.
pub struct Wanted {
    /// The stack's name.
    pub name: String,
    pub template: Template,
    /// Parameters that the user set. Others keep the stack's value, and are the template's default in a new stack.
    pub set: Values,
    pub files: Files,
    /// `None`: `gpuctl-ACCOUNT-REGION`.
    pub code_bucket: Option<String>,
    /// Resources that may be replaced, or removed with their data.
    pub allow_replace: Vec<String>,
    /// What CloudFormation acts as.
    pub role: Option<String>,
    /// The stack's `gpuctl.toml`; `None`: one that names what the stack has.
    pub policy: Option<String>,
    /// Models for the stack's bucket; `None`: what is in it stays.
    pub models: Option<PathBuf>,
    /// How long a kept box may take for its first boot.
    pub first_boot_max: TimeDelta,
    /// A name for the change set that no other has.
    pub change_set: String,
    pub prices: PriceTable,
}

/// What a deployment would change.
#[derive(Clone, Debug)]
pub struct Difference {
    pub stack: String,
    pub region: String,
    pub is_new: bool,
    pub changes: Vec<Judged>,
    /// The stack's bill as it is; `None` if it is new.
    pub before: Option<Bill>,
    pub after: Bill,
}

/// What a deployment did.
#[derive(Debug)]
pub struct Deployed {
    pub difference: Difference,
    pub outputs: Values,
    /// Where the stack's `gpuctl.toml` lies.
    pub policy_uri: String,
    /// Its text, if it was made for the stack just now.
    pub new_policy: Option<String>,
    /// Kept boxes that were made, or why not all are ready: the stack is complete without them.
    pub boxes: Result<Vec<String>, Trouble>,
}

/// The bucket of an account for what stacks are made from.
#[must_use]
pub fn code_bucket(account: &str, region: &str) -> String {
    format!("gpuctl-{account}-{region}")
}

/// What would change. Nothing does, and a change set that was made to find out is deleted again.
///
/// # Errors
/// When something is not as it must be, or a call fails.
pub async fn difference(site: &Site<'_>, wanted: &Wanted) -> Result<Difference, Trouble> {
    let prepared = prepare(site, wanted, false).await?;
    let difference = prepared.difference(site, wanted).await?;
    if !prepared.proposal.creates {
        withdraw(site, &prepared.proposal).await?;
    }
    Ok(difference)
}

/// Makes the stack as it is wanted.
///
/// # Errors
/// When something is not as it must be, is not allowed, or fails. What was changed until then is said.
pub async fn deploy(site: &Site<'_>, wanted: &Wanted) -> Result<Deployed, Trouble> {
    let prepared = prepare(site, wanted, true).await?;
    prepared.check_complete(wanted)?;
    let models = wanted.models.as_deref().map(Models::of).transpose()?;
    let difference = apply(site, wanted, &prepared).await?;
    let stack = site.stacks.stack(&wanted.name).await?;
    let stack = stack.ok_or_else(|| Trouble::new(Kind::Failed, "the stack is gone again"))?;
    let (policy_uri, new_policy) = store_policy(site, wanted, &stack).await?;
    if let Some(models) = models {
        models.upload(site, &output(&stack, "Bucket")?).await?;
    }
    let of = (&wanted.template, wanted.name.as_str());
    let boxes = boxes::make_kept(site, of, &stack, wanted.first_boot_max).await;
    Ok(Deployed { difference, outputs: stack.outputs, policy_uri, new_policy, boxes })
}

/// What is known before a change set is made.
struct Prepared {
    /// `None` if it is new.
    stack: Option<Stack>,
    bucket: String,
    proposal: Proposal,
}

/// Checks what can be checked before anything is changed, but for a stack that can only be removed: it is, if `removes`.
async fn prepare(site: &Site<'_>, wanted: &Wanted, removes: bool) -> Result<Prepared, Trouble> {
    check_values(&wanted.template, &wanted.set)?;
    if let Some(bytes) = wanted.policy.as_ref().map(String::len).filter(|n| *n > POLICY_BYTES_MAX) {
        let what = format!("the policy has {bytes} bytes, the function reads {POLICY_BYTES_MAX}");
        return Err(
            Trouble::new(Kind::Invalid, what).hint("calendars and comments can go elsewhere")
        );
    }
    let caller = identify(site.account).await?;
    let stack = settle(site, &wanted.name, removes).await?;
    let bucket = code_bucket(&caller.account, site.account.region());
    let (bucket, values) = values(wanted, stack.as_ref(), bucket);
    // What only a file gives is asked for by `check_complete`.
    let mut complete = values.clone();
    for (name, ..) in FILES {
        complete.entry(name.to_owned()).or_default();
    }
    let all = wanted.template.values(&complete, &wanted.name, site.account.region());
    check_account(site, &wanted.template, &all, stack.is_none()).await?;
    let proposal = Proposal {
        stack: wanted.name.clone(),
        change_set: wanted.change_set.clone(),
        creates: stack.is_none(),
        template: Some(wanted.template.text.clone()),
        values,
        role: wanted.role.clone(),
    };
    Ok(Prepared { stack, bucket, proposal })
}

/// The code bucket, and all values that the template has parameters for.
fn values(wanted: &Wanted, stack: Option<&Stack>, default: String) -> (String, Values) {
    let mut values = stack.map(|stack| stack.parameters.clone()).unwrap_or_default();
    let named = wanted.set.get("CodeBucket").or(wanted.code_bucket.as_ref());
    let before = values.get("CodeBucket").cloned();
    let bucket = named.or(before.as_ref()).cloned().unwrap_or(default);
    if before.is_some_and(|before| before != bucket) {
        // The stack's files lie in the other bucket: they are needed again.
        values.retain(|name, _| FILES.iter().all(|(file, ..)| file != name));
    }
    values.insert("CodeBucket".to_owned(), bucket.clone());
    // `gpuctl destroy` switches it off first, and may have been interrupted.
    values.insert("Tick".to_owned(), "on".to_owned());
    values.extend(wanted.files.values());
    values.extend(wanted.set.clone());
    let parameters = wanted.template.parameters();
    values.retain(|name, _| parameters.iter().any(|one| one.name == *name));
    (bucket, values)
}

/// Waits for an operation that is under way. What can only be removed is removed, if `removes`. Returns a stack that can be changed, or `None`.
async fn settle(site: &Site<'_>, name: &str, removes: bool) -> Result<Option<Stack>, Trouble> {
    for _ in 0..SETTLE_MAX {
        let Some(stack) = site.stacks.stack(name).await? else { return Ok(None) };
        match State::of(&stack) {
            State::Absent => return Ok(None),
            State::Ready => return Ok(Some(stack)),
            State::Busy => drop(wait(site, name, &stack).await?),
            State::Stuck => return Err(stuck(site, name, &stack).await),
            State::Undeleted => {
                let done =
                    Done { events: site.stacks.events(&stack.id, None).await?, stack: Some(stack) };
                return Err(done
                    .trouble(format!("stack {name} is half deleted: its deletion failed"))
                    .hint("`gpuctl destroy` deletes the rest"));
            }
            State::Proposed | State::Dead if removes => {
                if State::of(&stack) == State::Proposed {
                    check_unclaimed(site, &stack).await?;
                }
                remove(site, name, &stack).await?;
            }
            State::Proposed | State::Dead => return Ok(None),
        }
    }
    Err(Trouble::new(Kind::Failed, format!("stack {name} is changed by someone else all the time")))
}

/// Deletes a stack that cannot be changed, and says so.
async fn remove(site: &Site<'_>, name: &str, stack: &Stack) -> Result<(), Trouble> {
    let why = match stack.status.as_str() {
        "REVIEW_IN_PROGRESS" => "was proposed and never made",
        _ => "failed to be made, and can only be deleted",
    };
    site.show.warn(&format!("stack {name} ({}) {why}: it is deleted and made anew", stack.status));
    let done = operate(site, &stack.id, site.stacks.delete(&stack.id)).await?;
    match done.state() {
        State::Absent => Ok(()),
        _ => Err(done.trouble(format!("stack {name} could not be deleted"))),
    }
}

async fn stuck(site: &Site<'_>, name: &str, stack: &Stack) -> Trouble {
    let events = site.stacks.events(&stack.id, None).await.unwrap_or_default();
    let failed: Vec<&str> = events
        .iter()
        .take_while(|event| {
            event.kind != "AWS::CloudFormation::Stack" || event.status != "UPDATE_IN_PROGRESS"
        })
        .filter(|event| event.status == "UPDATE_FAILED" && event.name != name)
        .map(|event| event.name.as_str())
        .collect();
    let skip = if failed.is_empty() {
        String::new()
    } else {
        format!(" --resources-to-skip {}", failed.join(" "))
    };
    let done = Done { events, stack: Some(stack.clone()) };
    let what = format!("stack {name} is stuck: an update failed, and so did undoing it");
    done.trouble(what).hint(format!(
        "remove the cause, then `aws cloudformation continue-update-rollback --stack-name {name}`; if it cannot be removed, add{skip}; `gpuctl deploy` goes on from there"
    ))
}

impl Prepared {
    /// A new stack needs every file.
    fn check_complete(&self, wanted: &Wanted) -> Result<(), Trouble> {
        let parameters = wanted.template.parameters();
        let is_missing = |(name, ..): &&(&str, &str, &str)| {
            parameters.iter().any(|one| one.name == *name && one.default.is_none())
                && !self.proposal.values.contains_key(*name)
        };
        match FILES.iter().find(is_missing) {
            Some((_, what, hint)) => {
                Err(Trouble::new(Kind::Invalid, format!("{what} was not found")).hint(*hint))
            }
            None => Ok(()),
        }
    }

    /// What would change. Of a new stack the template says it: CloudFormation is not asked.
    async fn difference(&self, site: &Site<'_>, wanted: &Wanted) -> Result<Difference, Trouble> {
        let Wanted { name, template, prices, .. } = wanted;
        let region = site.account.region();
        let all = |values: &Values| template.values(values, name, region);
        let bill = |values: &Values| Bill::of(template, &all(values), prices);
        let changes = match &self.stack {
            Some(_) => propose(site, &self.proposal).await?.changes,
            None => {
                let values = all(&self.proposal.values);
                template.resources(&values).map(Change::addition).collect()
            }
        };
        Ok(Difference {
            stack: name.clone(),
            region: region.to_owned(),
            is_new: self.stack.is_none(),
            changes: judge(&changes, template),
            before: self.stack.as_ref().map(|stack| bill(&stack.parameters)),
            after: bill(&self.proposal.values),
        })
    }
}

/// Makes or changes the stack, once the user has seen how.
async fn apply(
    site: &Site<'_>,
    wanted: &Wanted,
    prepared: &Prepared,
) -> Result<Difference, Trouble> {
    let proposal = &prepared.proposal;
    let difference = prepared.difference(site, wanted).await?;
    let ready = match ask(site, wanted, &difference) {
        Ok(()) => upload(site, wanted, &prepared.bucket).await,
        declined => declined,
    };
    if proposal.creates {
        ready?;
        propose(site, proposal).await?;
    } else if let Err(trouble) = ready {
        abandon(site, proposal).await;
        return Err(trouble);
    } else if difference.changes.is_empty() {
        withdraw(site, proposal).await?;
        return Ok(difference);
    }
    let done = execute(site, proposal).await?;
    match done.stack.as_ref().map(|stack| stack.status.as_str()) {
        Some("CREATE_COMPLETE" | "UPDATE_COMPLETE") => tell_left(site, &done),
        _ => return Err(undone(site, &wanted.name, &done, difference.is_new).await),
    }
    Ok(difference)
}

/// Shows what would change, and asks.
fn ask(site: &Site<'_>, wanted: &Wanted, difference: &Difference) -> Result<(), Trouble> {
    let Difference { stack, region, is_new, changes, .. } = difference;
    if changes.is_empty() {
        return Ok(());
    }
    site.show.difference(difference);
    check(changes, &wanted.allow_replace)?;
    match is_new {
        true => confirm(site, &format!("make stack {stack} in {region}?")),
        false => confirm(site, &format!("change stack {stack}?")),
    }
}

/// An update is complete even if something that it replaced could not be deleted.
fn tell_left(site: &Site<'_>, done: &Done) {
    for event in done.events.iter().filter(|event| event.status == "DELETE_FAILED") {
        let id = event.physical.as_deref().unwrap_or(&event.name);
        let why = event.reason.as_deref().unwrap_or("no reason was given");
        site.show.warn(&format!("{id} ({}) is left behind, and may cost: {why}", event.kind));
    }
}

/// A stack that was not made, or not changed.
async fn undone(site: &Site<'_>, name: &str, done: &Done, is_new: bool) -> Trouble {
    match (is_new, done.state(), &done.stack) {
        (true, State::Absent, _) => {
            let trouble = done.trouble(format!("stack {name} could not be made"));
            trouble.hint("nothing of it is left")
        }
        (true, ..) => done
            .trouble(format!("stack {name} could not be made"))
            .hint("run `gpuctl deploy` again: what is left of it is deleted first"),
        (false, State::Stuck, Some(stack)) => stuck(site, name, stack).await,
        (false, ..) => done.trouble(format!("stack {name} was not changed: the update was undone")),
    }
}

async fn upload(site: &Site<'_>, wanted: &Wanted, bucket: &str) -> Result<(), Trouble> {
    if site.account.make_bucket(bucket).await? {
        site.show.note(&format!("made bucket {bucket}"));
    }
    wanted.files.upload(site.account, bucket).await
}

/// Stores the user's policy in the stack's bucket; without one the bucket's stays, or one is made. Returns its place, and its text if it was
/// made.
async fn store_policy(
    site: &Site<'_>,
    wanted: &Wanted,
    stack: &Stack,
) -> Result<(String, Option<String>), Trouble> {
    let bucket = output(stack, "Bucket")?;
    let uri = format!("s3://{bucket}/{}", policy::KEY);
    if let Some(text) = &wanted.policy {
        site.account.replace(&bucket, policy::KEY, &Content::of(text)).await?;
        return Ok((uri, None));
    }
    if site.account.has(&bucket, policy::KEY).await? {
        return Ok((uri, None));
    }
    let text = policy::of(&wanted.template, stack, &wanted.name, site.account.region());
    site.account.replace(&bucket, policy::KEY, &Content::of(&text)).await?;
    Ok((uri, Some(text)))
}

pub(crate) fn confirm(site: &Site<'_>, question: &str) -> Result<(), Trouble> {
    match site.show.confirm(question) {
        true => Ok(()),
        false => Err(Trouble::new(Kind::Declined, "not confirmed")
            .hint("add --yes to skip the confirmation")),
    }
}

pub(crate) fn output(stack: &Stack, name: &str) -> Result<String, Trouble> {
    stack.outputs.get(name).cloned().ok_or_else(|| {
        Trouble::new(Kind::Failed, format!("the stack has no output `{name}`"))
            .hint("its template is not the one of this version of gpuctl: leave out --template")
    })
}
