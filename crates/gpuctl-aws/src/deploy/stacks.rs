//! Stacks, change sets and events of CloudFormation.

use async_trait::async_trait;
use aws_sdk_cloudformation::Client;
use aws_sdk_cloudformation::config::http::HttpResponse;
use aws_sdk_cloudformation::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudformation::types::{
    Capability, ChangeAction, ChangeSetStatus, ChangeSetSummary, ChangeSetType, OnStackFailure,
    Parameter, Replacement, ResourceChange, Stack as SdkStack, StackEvent, Tag,
};
use chrono::DateTime;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_deploy::Values;
use gpuctl_deploy::change::{Action, Change};
use gpuctl_deploy::ports::{Event, OpenChangeSet, Proposal, Proposed, STACK_TAG, Stack, Stacks};

use crate::Aws;
use crate::calls::show;
use crate::error::{code, port_error};

/// Events that are read at most: a stack of some dozens of parts makes a few hundred in an operation.
const EVENTS_MAX: usize = 2_000;

/// CloudFormation in one region.
pub struct CloudFormation {
    client: Client,
}

impl CloudFormation {
    #[must_use]
    pub fn new(aws: &Aws) -> Self {
        Self { client: aws.cloudformation() }
    }

    async fn described(&self, name: Option<&str>) -> Result<Vec<SdkStack>, PortError> {
        let call = self.client.describe_stacks().set_stack_name(name.map(str::to_owned));
        match call.into_paginator().items().send().try_collect().await {
            Ok(found) => Ok(found),
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            Err(error) => {
                let what = "the stacks cannot be read";
                Err(failed("cloudformation:DescribeStacks", what, error))
            }
        }
    }
}

#[async_trait]
impl Stacks for CloudFormation {
    async fn stack(&self, name: &str) -> Result<Option<Stack>, PortError> {
        Ok(self.described(Some(name)).await?.into_iter().next().map(stack))
    }

    async fn others(&self, name: &str) -> Result<Vec<Stack>, PortError> {
        let stacks = self.described(None).await?;
        let is_ours = |one: &SdkStack| one.tags().iter().any(|tag| tag.key() == Some(STACK_TAG));
        let others =
            stacks.into_iter().filter(|one| is_ours(one) && one.stack_name() != Some(name));
        Ok(others.map(stack).collect())
    }

    async fn propose(&self, wanted: &Proposal) -> Result<(), PortError> {
        let Proposal { stack, change_set, creates, .. } = wanted;
        let kind = if *creates { ChangeSetType::Create } else { ChangeSetType::Update };
        show(format_args!(
            "cloudformation create-change-set --stack-name {stack} --change-set-name {change_set} --change-set-type {} --template-body file://stack.yaml --parameters file://parameters.json --capabilities CAPABILITY_IAM CAPABILITY_NAMED_IAM",
            kind.as_str()
        ));
        let tag = Tag::builder().key(STACK_TAG).value(stack).build();
        let call = self
            .client
            .create_change_set()
            .stack_name(stack)
            .change_set_name(change_set)
            .client_token(change_set)
            .change_set_type(kind)
            .set_template_body(wanted.template.clone())
            .set_use_previous_template(wanted.template.is_none().then_some(true))
            .set_parameters(Some(parameters(&wanted.values)))
            .capabilities(Capability::CapabilityIam)
            .capabilities(Capability::CapabilityNamedIam)
            .set_on_stack_failure(creates.then_some(OnStackFailure::Delete))
            .set_role_arn(wanted.role.clone())
            .tags(tag);
        match call.send().await {
            Ok(_) => Ok(()),
            // The answer to an earlier try was lost.
            Err(error) if code(&error) == Some("AlreadyExistsException") => Ok(()),
            Err(error) => {
                let what = format!("the change of stack {stack} cannot be prepared");
                Err(failed("cloudformation:CreateChangeSet", what, error))
            }
        }
    }

    async fn proposed(&self, stack: &str, change_set: &str) -> Result<Proposed, PortError> {
        let mut found = Proposed::default();
        let mut next = None;
        loop {
            let call = self.client.describe_change_set().stack_name(stack);
            let call = call.change_set_name(change_set).set_next_token(next);
            let page = call.send().await.map_err(|error| {
                let what = format!("the change of stack {stack} cannot be read");
                failed("cloudformation:DescribeChangeSet", what, error)
            })?;
            found.status =
                page.status.as_ref().map(|one| one.as_str().to_owned()).unwrap_or_default();
            found.reason = page.status_reason;
            let changes = page.changes.unwrap_or_default();
            found
                .changes
                .extend(changes.into_iter().filter_map(|one| one.resource_change).map(change));
            next = page.next_token;
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    async fn execute(&self, stack: &str, change_set: &str) -> Result<(), PortError> {
        show(format_args!(
            "cloudformation execute-change-set --stack-name {stack} --change-set-name {change_set}"
        ));
        let call = self.client.execute_change_set().stack_name(stack).change_set_name(change_set);
        let call = call.client_request_token(change_set).retain_except_on_create(true);
        let Err(error) = call.send().await else { return Ok(()) };
        match self.under_way(stack, &error).await {
            // The answer to an earlier try was lost: the change is under way, or done. Not every emulator says whose it is.
            Some(by) if by.is_none() || by.as_deref() == Some(change_set) => Ok(()),
            Some(by) => {
                let what = format!("another deployment is changing stack {stack}");
                let cause = format!("its change set is {}", by.unwrap_or_default());
                Err(PortError::new(PortErrorClass::Conflict, what)
                    .because(cause)
                    .hint("nothing of this one was done; run it again once the other is complete"))
            }
            None => {
                let what = format!("the change of stack {stack} was not begun");
                Err(failed("cloudformation:ExecuteChangeSet", what, error))
            }
        }
    }

    async fn open_change_sets(&self, stack: &str) -> Result<Vec<OpenChangeSet>, PortError> {
        let mut pages = self.client.list_change_sets().stack_name(stack).into_paginator().send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| {
                let what =
                    format!("the changes that are proposed for stack {stack} cannot be read");
                failed("cloudformation:ListChangeSets", what, error)
            })?;
            all.extend(page.summaries().iter().filter_map(open_change_set));
        }
        Ok(all)
    }

    async fn withdraw(&self, stack: &str, change_set: &str) -> Result<(), PortError> {
        let call = self.client.delete_change_set().stack_name(stack).change_set_name(change_set);
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => {
                let what = format!("change set {change_set} of stack {stack} was not deleted");
                Err(failed("cloudformation:DeleteChangeSet", what, error))
            }
        }
    }

    async fn delete(&self, id: &str) -> Result<(), PortError> {
        show(format_args!("cloudformation delete-stack --stack-name {id}"));
        match self.client.delete_stack().stack_name(id).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => {
                let what = format!("stack {id} was not deleted");
                Err(failed("cloudformation:DeleteStack", what, error))
            }
        }
    }

    async fn events(&self, id: &str, known: Option<&str>) -> Result<Vec<Event>, PortError> {
        let call = self.client.describe_stack_events().stack_name(id);
        let mut pages = call.into_paginator().items().send();
        let mut all = Vec::new();
        while let Some(one) = pages.next().await {
            let one = one.map_err(|error| {
                let what = format!("the events of stack {id} cannot be read");
                failed("cloudformation:DescribeStackEvents", what, error)
            })?;
            if known.is_some() && one.event_id() == known || all.len() == EVENTS_MAX {
                break;
            }
            all.push(event(one));
        }
        Ok(all)
    }
}

impl CloudFormation {
    /// Whether an execution was refused because one has begun already, and the token that it was given: with gpuctl its change set's name.
    async fn under_way<E: ProvideErrorMetadata>(
        &self,
        stack: &str,
        error: &SdkError<E, HttpResponse>,
    ) -> Option<Option<String>> {
        if !matches!(code(error), Some("InvalidChangeSetStatus" | "ChangeSetNotFound")) {
            return None;
        }
        let found = self.stack(stack).await.ok()??;
        let is_busy =
            found.status != "REVIEW_IN_PROGRESS" && found.status.ends_with("_IN_PROGRESS");
        if !is_busy {
            return None;
        }
        let events = self.client.describe_stack_events().stack_name(&found.id).send().await;
        let events = events.ok()?.stack_events.unwrap_or_default();
        Some(events.into_iter().next().and_then(|newest| newest.client_request_token))
    }
}

fn open_change_set(found: &ChangeSetSummary) -> Option<OpenChangeSet> {
    let is_open = matches!(
        found.status(),
        Some(
            ChangeSetStatus::CreatePending
                | ChangeSetStatus::CreateInProgress
                | ChangeSetStatus::CreateComplete
        )
    );
    let at =
        found.creation_time().and_then(|at| DateTime::from_timestamp(at.secs(), at.subsec_nanos()));
    let name = found.change_set_name()?.to_owned();
    is_open.then_some(OpenChangeSet { name, at })
}

/// CloudFormation has one code for whatever is not valid, also for a stack that does not exist: only the message tells.
fn is_absent<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let message = error.as_service_error().and_then(ProvideErrorMetadata::message);
    code(error) == Some("ValidationError")
        && message.is_some_and(|text| text.contains("does not exist"))
}

/// As for any service; what is not valid will not be so at the next try either.
fn failed<E>(action: &str, what: impl Into<String>, error: SdkError<E, HttpResponse>) -> PortError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let is_invalid = code(&error) == Some("ValidationError");
    let failed = port_error(action, what, error);
    match is_invalid {
        true => PortError { class: PortErrorClass::Other, ..failed },
        false => failed,
    }
}

fn parameters(values: &Values) -> Vec<Parameter> {
    let one = |(name, value): (&String, &String)| {
        Parameter::builder().parameter_key(name).parameter_value(value).build()
    };
    values.iter().map(one).collect()
}

fn stack(found: SdkStack) -> Stack {
    let parameters = found.parameters.unwrap_or_default().into_iter();
    let outputs = found.outputs.unwrap_or_default().into_iter();
    Stack {
        name: found.stack_name.unwrap_or_default(),
        id: found.stack_id.unwrap_or_default(),
        status: found.stack_status.map(|one| one.as_str().to_owned()).unwrap_or_default(),
        reason: found.stack_status_reason.filter(|reason| !reason.is_empty()),
        parameters: parameters
            .filter_map(|one| Some((one.parameter_key?, one.parameter_value?)))
            .collect(),
        outputs: outputs.filter_map(|one| Some((one.output_key?, one.output_value?))).collect(),
        is_protected: found.enable_termination_protection.unwrap_or_default(),
    }
}

fn change(found: ResourceChange) -> Change {
    let action = match (found.action, found.replacement) {
        (Some(ChangeAction::Add | ChangeAction::Import), _) => Action::Add,
        (Some(ChangeAction::Remove), _) => Action::Remove,
        (_, Some(Replacement::True)) => Action::Replace,
        (_, Some(Replacement::Conditional)) => Action::MayReplace,
        _ => Action::Modify,
    };
    Change {
        name: found.logical_resource_id.unwrap_or_default(),
        kind: found.resource_type.unwrap_or_default(),
        action,
    }
}

fn event(found: StackEvent) -> Event {
    let at = found.timestamp.and_then(|at| DateTime::from_timestamp_millis(at.to_millis().ok()?));
    Event {
        id: found.event_id.unwrap_or_default(),
        at: at.unwrap_or_default(),
        name: found.logical_resource_id.unwrap_or_default(),
        kind: found.resource_type.unwrap_or_default(),
        physical: found.physical_resource_id.filter(|id| !id.is_empty()),
        status: found.resource_status.map(|one| one.as_str().to_owned()).unwrap_or_default(),
        reason: found.resource_status_reason.filter(|reason| !reason.is_empty()),
    }
}
