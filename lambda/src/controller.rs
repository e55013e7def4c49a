//! One event: read the policy, apply the command, reconcile once, send notices, respond.
//!
//! Doubled, late and reordered events are harmless. Most are only a reason to reconcile. A command's hold begins when the command was
//! sent, or else when its request was delivered first: so a repeated delivery sets the same hold again, and an older command never
//! replaces a newer one.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use gpuctl_aws::{Account, Aws};
use gpuctl_control::Reconciled;
use gpuctl_control::hold::{self, HoldRequest};
use gpuctl_control::log::shown;
use gpuctl_control::outcome::{HoldOutcome, outcome_of_hold};
use gpuctl_control::pools;
use gpuctl_control::ports::{PortError, PortErrorClass, Ports};
use gpuctl_control::reconcile::{Caller, reconcile_for};
use gpuctl_core::policy::Policy;
use lambda_runtime::{Error, LambdaEvent};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::command::{Action, Command};
use crate::event::{CommandSources, Event};
use crate::response::{self, Outcome, Response};
use crate::source::{Read, Source, sentence};

/// How long before Lambda ends the call acting must end: recording and responding take this long (L6).
const RECORD_TIME: TimeDelta = TimeDelta::seconds(3);

/// The variable that asks for metrics with `on`, as `metrics` in the policy does: for who deploys the function.
const METRICS: &str = "GPUCTL_METRICS";

/// What one instance of the function keeps between events: connections, and the last good policy.
pub(crate) struct Controller {
    source: Source,
    commands_from: CommandSources,
    /// Whether metrics are printed, whatever the policy says.
    metrics: bool,
    owner: String,
    ready: Mutex<Option<Ready>>,
}

#[derive(Clone)]
struct Ready {
    aws: Aws,
    text: String,
    policy: Arc<Policy>,
    account: Arc<Account>,
    ports: Ports,
}

impl Controller {
    pub(crate) fn from_environment() -> Result<Self, Error> {
        let name = |key| std::env::var(key).unwrap_or_else(|_| "local".to_owned());
        let (function, log) =
            (name("AWS_LAMBDA_FUNCTION_NAME"), name("AWS_LAMBDA_LOG_STREAM_NAME"));
        Ok(Self {
            source: Source::from_environment(),
            commands_from: CommandSources::from_environment(),
            metrics: std::env::var(METRICS).is_ok_and(|value| value == "on"),
            owner: format!("{function}, {log}"),
            ready: Mutex::new(None),
        })
    }

    /// Handles one event. An error is for Lambda to retry; what a user can fix is in the response and in the log.
    pub(crate) async fn handle(&self, event: LambdaEvent<Value>) -> Result<Value, Error> {
        let deadline =
            i64::try_from(event.context.deadline).ok().and_then(DateTime::from_timestamp_millis);
        let (ready, policy_error) = self.ready().await?;
        let request = &event.context.request_id;
        let (event, invalid) = match Event::read(&event.payload, request, &self.commands_from) {
            Ok(event) => (event, None),
            Err(error) => (Event::of_invalid_command(), Some(error.to_string())),
        };
        tracing::info!(trigger = event.trigger.as_str(), "{}", shown(&event.text));
        let mut errors: Vec<String> = policy_error.into_iter().chain(invalid).collect();
        let now = ready.ports.clock.now();
        let failed = apply_commands(&ready, &event, &mut errors).await;
        let until = deadline.map(|deadline| deadline - RECORD_TIME);
        let caller = Caller { owner: &self.owner, trigger: event.trigger, until };
        let outcome = match reconcile_for(&ready.ports, &ready.policy, &caller).await {
            Ok(Some(reconciled)) => {
                errors.extend(not_carried_out(&ready.policy, &event, &reconciled));
                let not_sent =
                    ready.account.notify(&*ready.ports.ledger, &ready.policy, &reconciled).await;
                errors.extend(not_sent.iter().map(sentence));
                Outcome::Done(Box::new(reconciled))
            }
            Ok(None) => Outcome::Busy,
            Err(error) => {
                errors.push(sentence(&error));
                Outcome::Failed
            }
        };
        for error in &errors {
            tracing::error!("{}", shown(error));
        }
        if self.metrics || ready.policy.cloud.aws.as_ref().is_some_and(|aws| aws.metrics) {
            response::print_metrics(&ready.policy, &outcome, now);
        }
        match failed.invocation {
            // Lambda repeats the invocation, whose command was not stored.
            Some(error) => Err(error.into()),
            None => Ok(response::document(
                &event,
                &ready.policy,
                outcome,
                Response { errors, failed_messages: failed.messages },
            )),
        }
    }

    /// The account under the policy as it is now; or under the last good one, and why the new one cannot be used.
    async fn ready(&self) -> Result<(Ready, Option<String>), Error> {
        let mut kept = self.ready.lock().await;
        let aws = match &*kept {
            Some(ready) => ready.aws.clone(),
            None => Aws::connect(None, None).await?,
        };
        match (self.source.read(&aws).await, &*kept) {
            (Ok(read), Some(before)) if read.text == before.text => {
                Ok((before.clone(), read.newer_error))
            }
            (Ok(read), _) => {
                let newer_error = read.newer_error.clone();
                let ready = open(aws, read).await?;
                *kept = Some(ready.clone());
                Ok((ready, newer_error))
            }
            (Err(error), Some(before)) => {
                let text = format!("{}; the last good policy stays in force", sentence(&error));
                Ok((before.clone(), Some(text)))
            }
            (Err(error), None) => {
                let text = sentence(&error);
                tracing::error!("{}", shown(&text));
                Err(text.into())
            }
        }
    }
}

async fn open(aws: Aws, read: Read) -> Result<Ready, Error> {
    let account = Account::open(aws.clone(), &read.policy).await?;
    let ports = account.ports().ok_or("the policy names no table")?;
    Ok(Ready {
        aws,
        text: read.text,
        policy: Arc::new(read.policy),
        account: Arc::new(account),
        ports,
    })
}

/// The commands that could not be stored, and are to be delivered again.
#[derive(Default)]
struct FailedCommands {
    /// The error of one whose delivery is the invocation itself.
    invocation: Option<String>,
    /// The ids of messages in a batch.
    messages: Vec<String>,
}

/// Applies each command of the event. One that is invalid or outdated would be so again: it is only reported.
async fn apply_commands(ready: &Ready, event: &Event, errors: &mut Vec<String>) -> FailedCommands {
    let direct = event.command.iter().map(|command| ("", command));
    let of_messages = event
        .messages
        .iter()
        .filter_map(|message| Some((message.id.as_str(), message.command.as_ref()?)));
    let mut failed = FailedCommands::default();
    for (message, command) in direct.chain(of_messages) {
        let Err(error) = apply_command(ready, command).await else { continue };
        let text = sentence(&error);
        if !matches!(error.class, PortErrorClass::Conflict | PortErrorClass::NotFound) {
            match message {
                "" => failed.invocation = Some(text.clone()),
                id => failed.messages.push(id.to_owned()),
            }
        }
        errors.push(text);
    }
    failed
}

/// Why the start or stop of a direct command is not carried out, so that its sender sees that at once.
fn not_carried_out(policy: &Policy, event: &Event, reconciled: &Reconciled) -> Vec<String> {
    let Some(Command { action: Action::Hold(wants), target, .. }) = &event.command else {
        return Vec::new();
    };
    let pools = pools::targeted(policy, target).unwrap_or_default();
    let text = |pool| match outcome_of_hold(reconciled, pool, *wants) {
        HoldOutcome::Not(not) => Some(format!("{} ({})", not.text, not.hint)),
        HoldOutcome::CarriedOut | HoldOutcome::Later(..) | HoldOutcome::Failed(_) => None,
    };
    pools.iter().filter_map(text).collect()
}

/// Sets or ends the holds that a command asks for, on each pool that it names; `status` changes nothing.
async fn apply_command(ready: &Ready, command: &Command) -> Result<(), PortError> {
    let pools = pools::targeted(&ready.policy, &command.target)?;
    if command.action == Action::Status {
        return Ok(());
    }
    let ledger = &*ready.ports.ledger;
    let delivery = &command.delivery;
    let first = ledger.first_seen(&delivery.id, ready.ports.clock.now(), TimeDelta::MAX).await?;
    // A sender's clock that is ahead must not keep later commands from counting.
    let since = delivery.sent_at.map_or(first, |sent_at| sent_at.min(first));
    match command.action {
        Action::Hold(wants) => {
            let request = HoldRequest {
                wants,
                since,
                until: since + command.length,
                by: command.by.clone(),
                why: command.why.clone(),
                over_budget: None,
                until_empty: false,
            };
            hold::set(ledger, &pools, &request).await
        }
        Action::Release => hold::release(ledger, &pools, &command.by, since).await,
        Action::Status => Ok(()),
    }
}
