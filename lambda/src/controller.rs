//! One event: read the policy, take a person's word, look and act once, tell, answer.
//!
//! Doubled, late and reordered events are harmless: each is only a reason to look, and a hold is set to what it says.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use gpuctl_aws::{Account, Aws};
use gpuctl_control::hold::{self, HoldRequest};
use gpuctl_control::pools;
use gpuctl_control::ports::{PortError, Ports};
use gpuctl_control::reconcile::{Caller, reconcile_for};
use gpuctl_core::policy::Policy;
use gpuctl_core::units::Timestamp;
use lambda_runtime::{Error, LambdaEvent};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::answer::{self, Looked};
use crate::event::{Action, Command, Event};
use crate::source::{Read, Source, sentence};

/// What is left for recording and answering when acting must end (L6).
const RECORD_TIME: TimeDelta = TimeDelta::seconds(3);

/// What one instance of the function keeps between events: connections, and the last good policy.
pub(crate) struct Controller {
    source: Source,
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
            owner: format!("{function}, {log}"),
            ready: Mutex::new(None),
        })
    }

    /// Answers one event. An error is for Lambda to retry; whatever a person can mend is in the answer and the log.
    pub(crate) async fn answer(&self, event: LambdaEvent<Value>) -> Result<Value, Error> {
        let deadline =
            i64::try_from(event.context.deadline).ok().and_then(DateTime::from_timestamp_millis);
        let (ready, trouble) = self.ready().await?;
        let (asked, refused) = match Event::read(&event.payload) {
            Ok(asked) => (asked, None),
            Err(error) => (Event::unread(), Some(error.to_string())),
        };
        tracing::info!(trigger = asked.trigger.as_str(), "{}", asked.text);
        let mut errors: Vec<String> = trouble.into_iter().chain(refused).collect();
        let now = ready.ports.clock.now();
        let commands = asked
            .command
            .iter()
            .chain(asked.messages.iter().filter_map(|one| one.command.as_ref()));
        for command in commands {
            if let Err(error) = apply_command(&ready, command, now).await {
                errors.push(sentence(&error));
            }
        }
        let until = deadline.map(|deadline| deadline - RECORD_TIME);
        let caller = Caller { owner: &self.owner, trigger: asked.trigger, until };
        let looked = match reconcile_for(&ready.ports, &ready.policy, &caller).await {
            Ok(Some(reconciled)) => {
                let untold =
                    ready.account.tell(&*ready.ports.ledger, &ready.policy, &reconciled).await;
                errors.extend(untold.iter().map(sentence));
                Looked::Done(Box::new(reconciled))
            }
            Ok(None) => Looked::Busy,
            Err(error) => {
                errors.push(sentence(&error));
                Looked::Failed
            }
        };
        for error in &errors {
            tracing::error!("{error}");
        }
        answer::metrics(&ready.policy, &looked, now);
        Ok(answer::document(&asked, looked, errors))
    }

    /// The account under the policy as it is now, or the last good one and why the new one will not do.
    async fn ready(&self) -> Result<(Ready, Option<String>), Error> {
        let mut slot = self.ready.lock().await;
        let aws = match &*slot {
            Some(ready) => ready.aws.clone(),
            None => Aws::connect(None, None).await?,
        };
        let read = self.source.read(&aws).await;
        match (read, slot.take()) {
            (Ok(read), Some(before)) if read.text == before.text => {
                *slot = Some(before.clone());
                Ok((before, read.trouble))
            }
            (Ok(read), _) => {
                let trouble = read.trouble.clone();
                let ready = open(aws, read).await?;
                *slot = Some(ready.clone());
                Ok((ready, trouble))
            }
            (Err(error), Some(before)) => {
                *slot = Some(before.clone());
                let text = sentence(&error);
                Ok((before, Some(format!("{text}; the last good policy stays in force"))))
            }
            (Err(error), None) => {
                tracing::error!("{}", sentence(&error));
                Err(sentence(&error).into())
            }
        }
    }
}

async fn open(aws: Aws, read: Read) -> Result<Ready, Error> {
    let account = Account::open(aws.clone(), &read.policy)?;
    let ports = account.ports().ok_or("the policy names no table")?;
    Ok(Ready {
        aws,
        text: read.text,
        policy: Arc::new(read.policy),
        account: Arc::new(account),
        ports,
    })
}

/// Sets or ends the holds that a command asks for, on each pool that it names; `status` changes nothing.
async fn apply_command(ready: &Ready, command: &Command, now: Timestamp) -> Result<(), PortError> {
    let pools = pools::targeted(&ready.policy, &command.target)?;
    let ledger = &*ready.ports.ledger;
    match command.action {
        Action::Hold(wants) => {
            let request = HoldRequest {
                wants,
                since: now,
                until: now + command.lasts,
                by: command.by.clone(),
                why: command.why.clone(),
                over_budget: None,
            };
            hold::set(ledger, &pools, &request).await
        }
        Action::Release => hold::release(ledger, &pools, &command.by, now).await,
        Action::Status => Ok(()),
    }
}
