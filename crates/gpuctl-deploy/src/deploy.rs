//! `gpuctl deploy` and `gpuctl diff`: from files and parameters to a stack that is complete, by a change set that was shown before.

use std::path::PathBuf;

use chrono::TimeDelta;
use gpuctl_control::ports::PortErrorClass;
use gpuctl_core::cost::PriceTable;

use crate::bill::Bill;
use crate::change::{Action, Change, Judged, check, judge};
use crate::files::{Content, Models};
use crate::follow::{Done, State, follow, newest, pause};
use crate::ports::{Proposal, Proposed, Stack};
use crate::preflight::{POLICY_BYTES_MAX, check_account, check_values, identify};
use crate::template::{Template, Values};
use crate::trouble::{Kind, Trouble};
use crate::{Files, Site, all_values, boxes, policy};

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
    let prepared = prepare(site, wanted).await?;
    let Some(stack) = &prepared.stack else { return Ok(prepared.of_new(wanted, site)) };
    let proposed = propose(site, wanted, &prepared).await?;
    let difference = prepared.difference(wanted, site, stack, &proposed);
    site.stacks.withdraw(&wanted.name, &wanted.change_set).await?;
    Ok(difference)
}

/// Makes the stack as it is wanted.
///
/// # Errors
/// When something is not as it must be, is not allowed, or fails. What was changed until then is said.
pub async fn deploy(site: &Site<'_>, wanted: &Wanted) -> Result<Deployed, Trouble> {
    settle(site, &wanted.name).await?;
    let prepared = prepare(site, wanted).await?;
    prepared.check_complete(wanted)?;
    let models = wanted.models.as_deref().map(Models::of).transpose()?;
    let difference = match &prepared.stack {
        Some(_) => change(site, wanted, &prepared).await?,
        None => create(site, wanted, &prepared).await?,
    };
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

/// Waits for an operation that is under way, and removes what can only be removed, so that the stack is absent or can be changed.
async fn settle(site: &Site<'_>, name: &str) -> Result<(), Trouble> {
    // Deleted, and then made anew by someone else, and so on: not for ever.
    for _ in 0..4 {
        let Some(stack) = site.stacks.stack(name).await? else { return Ok(()) };
        match State::of(Some(&stack)) {
            State::Absent | State::Ready => return Ok(()),
            State::Busy => {
                site.show.note(&format!("stack {name} is {}: waiting for it", stack.status));
                follow(site, &stack.id, newest(site, &stack.id).await).await?;
            }
            State::Stuck => return Err(stuck(site, name, &stack).await),
            State::Undeleted => {
                let done =
                    Done { events: site.stacks.events(&stack.id, None).await?, stack: Some(stack) };
                return Err(done
                    .trouble(format!("stack {name} is half deleted: its deletion failed"))
                    .hint("`gpuctl destroy` deletes the rest"));
            }
            State::Proposed | State::Dead => remove(site, name, &stack).await?,
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
    let known = newest(site, &stack.id).await;
    site.stacks.delete(&stack.id).await?;
    let done = follow(site, &stack.id, known).await?;
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

/// What is known before a change set is made.
struct Prepared {
    /// `None` if it is new.
    stack: Option<Stack>,
    bucket: String,
    /// All values that the template has parameters for.
    values: Values,
}

async fn prepare(site: &Site<'_>, wanted: &Wanted) -> Result<Prepared, Trouble> {
    check_values(&wanted.template, &wanted.set)?;
    if let Some(bytes) = wanted.policy.as_ref().map(String::len).filter(|n| *n > POLICY_BYTES_MAX) {
        let what = format!("the policy has {bytes} bytes, the function reads {POLICY_BYTES_MAX}");
        return Err(
            Trouble::new(Kind::Invalid, what).hint("calendars and comments can go elsewhere")
        );
    }
    let caller = identify(site.account).await?;
    let stack = site.stacks.stack(&wanted.name).await?;
    let stack = stack.filter(|one| State::of(Some(one)) == State::Ready);
    let kept = stack.iter().flat_map(|stack| stack.parameters.clone());
    let mut values: Values = kept.collect();
    values.extend(wanted.files.values());
    // `gpuctl destroy` switches it off first, and may have been interrupted.
    values.insert("Tick".to_owned(), "on".to_owned());
    let bucket = wanted.code_bucket.clone().or_else(|| values.get("CodeBucket").cloned());
    let bucket = bucket.unwrap_or_else(|| code_bucket(&caller.account, site.account.region()));
    values.insert("CodeBucket".to_owned(), bucket.clone());
    values.extend(wanted.set.clone());
    let parameters = wanted.template.parameters();
    values.retain(|name, _| parameters.iter().any(|one| one.name == *name));
    let is_new = stack.is_none();
    // What only a file gives is asked for by `check_complete`.
    let mut complete = values.clone();
    for name in ["FunctionKey", "BootKey", "WorkerKey"] {
        complete.entry(name.to_owned()).or_default();
    }
    let all = all_values(&wanted.template, &complete, &wanted.name, site.account.region());
    check_account(site, &wanted.template, &all, is_new).await?;
    Ok(Prepared { stack, bucket, values })
}

impl Prepared {
    /// A new stack needs every file.
    fn check_complete(&self, wanted: &Wanted) -> Result<(), Trouble> {
        let missing = |name: &str| {
            wanted.template.parameters().iter().any(|one| one.name == name && one.default.is_none())
                && !self.values.contains_key(name)
        };
        for (name, what, hint) in [
            (
                "FunctionKey",
                "the function's zip",
                "scripts/package.sh makes it; name it with --function",
            ),
            ("BootKey", "the boot files", "name their folder with --boot"),
            (
                "WorkerKey",
                "the worker",
                "scripts/package.sh makes it; name its folder with --worker",
            ),
        ] {
            if missing(name) {
                return Err(Trouble::new(Kind::Invalid, format!("{what} was not found")).hint(hint));
            }
        }
        Ok(())
    }

    fn bill(&self, wanted: &Wanted, site: &Site<'_>, values: &Values) -> Bill {
        let all = all_values(&wanted.template, values, &wanted.name, site.account.region());
        Bill::of(&wanted.template, &all, &wanted.prices)
    }

    /// A new stack has what the template says: no need to ask CloudFormation.
    fn of_new(&self, wanted: &Wanted, site: &Site<'_>) -> Difference {
        let all = all_values(&wanted.template, &self.values, &wanted.name, site.account.region());
        let added = wanted.template.resources(&all).map(|one| Change {
            name: one.name.to_owned(),
            kind: one.kind.to_owned(),
            action: Action::Add,
        });
        Difference {
            stack: wanted.name.clone(),
            region: site.account.region().to_owned(),
            is_new: true,
            changes: judge(&added.collect::<Vec<_>>(), &wanted.template),
            before: None,
            after: self.bill(wanted, site, &self.values),
        }
    }

    fn difference(
        &self,
        wanted: &Wanted,
        site: &Site<'_>,
        stack: &Stack,
        proposed: &Proposed,
    ) -> Difference {
        Difference {
            is_new: false,
            changes: judge(&proposed.changes, &wanted.template),
            before: Some(self.bill(wanted, site, &stack.parameters)),
            ..self.of_new(wanted, site)
        }
    }
}

/// Makes a new stack.
async fn create(
    site: &Site<'_>,
    wanted: &Wanted,
    prepared: &Prepared,
) -> Result<Difference, Trouble> {
    let difference = prepared.of_new(wanted, site);
    site.show.difference(&difference);
    confirm(site, &format!("make stack {} in {}?", wanted.name, difference.region))?;
    upload(site, wanted, &prepared.bucket).await?;
    let proposed = propose(site, wanted, prepared).await;
    let stack = site.stacks.stack(&wanted.name).await?;
    if let Err(trouble) = proposed {
        // A change set that failed leaves an empty stack.
        if let Some(stack) = &stack {
            site.stacks.delete(&stack.id).await?;
        }
        return Err(trouble);
    }
    let stack = stack.ok_or_else(|| Trouble::new(Kind::Failed, "the stack is gone again"))?;
    let done = execute(site, wanted, &stack).await?;
    let is_made = done.stack.as_ref().is_some_and(|one| one.status == "CREATE_COMPLETE");
    if is_made {
        return Ok(difference);
    }
    let rest = match done.state() {
        State::Absent => "nothing of it is left",
        _ => "run `gpuctl deploy` again: what is left of it is deleted first",
    };
    Err(done.trouble(format!("stack {} could not be made", wanted.name)).hint(rest))
}

/// Changes a stack that is there.
async fn change(
    site: &Site<'_>,
    wanted: &Wanted,
    prepared: &Prepared,
) -> Result<Difference, Trouble> {
    let Some(stack) = &prepared.stack else {
        return create(site, wanted, prepared).await;
    };
    upload(site, wanted, &prepared.bucket).await?;
    let proposed = propose(site, wanted, prepared).await?;
    let difference = prepared.difference(wanted, site, stack, &proposed);
    let asked = match difference.changes.is_empty() {
        true => Err(Trouble::new(Kind::Declined, "nothing to change")),
        false => {
            site.show.difference(&difference);
            let allowed = check(&difference.changes, &wanted.allow_replace);
            allowed.and_then(|()| confirm(site, &format!("change stack {}?", wanted.name)))
        }
    };
    if let Err(trouble) = asked {
        site.stacks.withdraw(&wanted.name, &wanted.change_set).await?;
        return if difference.changes.is_empty() { Ok(difference) } else { Err(trouble) };
    }
    let done = execute(site, wanted, stack).await?;
    if done.stack.as_ref().is_none_or(|one| one.status != "UPDATE_COMPLETE") {
        let what = format!("stack {} was not changed: the update was undone", wanted.name);
        return Err(done.trouble(what));
    }
    // An update is complete even if something that it replaced could not be deleted.
    let left = done.events.iter().filter(|event| event.status == "DELETE_FAILED");
    for event in left {
        let id = event.physical.as_deref().unwrap_or(&event.name);
        let why = event.reason.as_deref().unwrap_or("no reason was given");
        site.show.warn(&format!("{id} ({}) is left behind, and may cost: {why}", event.kind));
    }
    Ok(difference)
}

async fn upload(site: &Site<'_>, wanted: &Wanted, bucket: &str) -> Result<(), Trouble> {
    if site.account.make_bucket(bucket).await? {
        site.show.note(&format!("made bucket {bucket}"));
    }
    wanted.files.upload(site.account, bucket).await
}

/// Makes the change set, and waits until CloudFormation has worked it out.
async fn propose(
    site: &Site<'_>,
    wanted: &Wanted,
    prepared: &Prepared,
) -> Result<Proposed, Trouble> {
    let proposal = Proposal {
        stack: wanted.name.clone(),
        change_set: wanted.change_set.clone(),
        creates: prepared.stack.is_none(),
        template: Some(wanted.template.text.clone()),
        values: prepared.values.clone(),
        role: wanted.role.clone(),
    };
    site.stacks.propose(&proposal).await.map_err(|error| match error.class {
        PortErrorClass::Other => Trouble { kind: Kind::Invalid, ..error.into() },
        _ => error.into(),
    })?;
    work_out(site, &proposal).await
}

/// Waits for a change set; one without changes is an empty one.
pub(crate) async fn work_out(site: &Site<'_>, proposal: &Proposal) -> Result<Proposed, Trouble> {
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

async fn execute(site: &Site<'_>, wanted: &Wanted, stack: &Stack) -> Result<Done, Trouble> {
    let known = newest(site, &stack.id).await;
    site.stacks.execute(&wanted.name, &wanted.change_set).await?;
    follow(site, &stack.id, known).await
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
