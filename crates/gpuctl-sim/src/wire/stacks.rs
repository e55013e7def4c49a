//! A CloudFormation with one stack whose operations end as a test says: no emulator fails as AWS does.
//!
//! Statuses, events and error codes are those of the AWS CloudFormation API Reference and the section "Stack statuses" of its User Guide.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use chrono::{DateTime, SecondsFormat, Utc};

use super::query::Query;
use super::server::Server;
use super::xml::{element, text};

/// How often a stack is read until its operation is over.
const LOOKS: u32 = 2;

/// How an operation ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Succeeds,
    /// This part fails for this reason, and everything is undone.
    Fails {
        part: &'static str,
        reason: &'static str,
    },
    /// As `Fails`, and it cannot be undone.
    Sticks {
        part: &'static str,
        reason: &'static str,
    },
    /// It succeeds, but this part of before could not be deleted.
    Leaves {
        part: &'static str,
        reason: &'static str,
    },
    /// It goes on until the test ends it.
    Hangs,
}

/// What another deployment of the stack does at the same time, with a change set of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// It proposes to make the stack, just before the next change set is made.
    Proposes(&'static str),
    /// It executes its change set, just before the next one is executed.
    Executes(&'static str),
}

/// A change set: the parameters that it sets, and when it was made.
struct ChangeSet {
    parameters: BTreeMap<String, String>,
    at: DateTime<Utc>,
}

/// An HTTP server on 127.0.0.1, until it is dropped.
pub struct CloudFormation {
    shared: Arc<Mutex<Script>>,
    server: Server,
}

/// What the stack is and will be.
#[derive(Default)]
struct Script {
    /// `None`: it does not exist.
    status: Option<String>,
    generation: u32,
    parameters: BTreeMap<String, String>,
    outputs: BTreeMap<String, String>,
    is_protected: bool,
    events: Vec<(String, String, String)>,
    /// What its operation leads to, and how often it is read until then.
    running: Option<(u32, Vec<String>)>,
    ends: VecDeque<End>,
    changes: Vec<(&'static str, &'static str, &'static str)>,
    change_sets: BTreeMap<String, ChangeSet>,
    /// What another deployment does just before the next call of its kind.
    rival: Option<Rival>,
    /// The token of the operation that began last.
    token: String,
    lost: BTreeSet<String>,
    denied: BTreeMap<String, String>,
    /// Why CloudFormation accepts no change set.
    rejection: Option<&'static str>,
    is_overtaken: bool,
    calls: Vec<String>,
    looks: u32,
}

type Refusal = (&'static str, String);

impl CloudFormation {
    /// Listens on 127.0.0.1, on a free port.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn open() -> std::io::Result<Self> {
        let shared = Arc::new(Mutex::new(Script::default()));
        let router = Router::new().route("/", post(respond)).with_state(Arc::clone(&shared));
        Ok(Self { shared, server: Server::open(router).await? })
    }

    /// The value of `AWS_ENDPOINT_URL_CLOUDFORMATION`.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The stack is in this state now.
    pub fn put(&self, status: &str, parameters: &[(&str, &str)], outputs: &[(&str, &str)]) {
        let own = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let mut script = lock(&self.shared);
        script.status = Some(status.to_owned());
        script.parameters = own(parameters);
        script.outputs = own(outputs);
        if status.ends_with("_IN_PROGRESS") && status != "REVIEW_IN_PROGRESS" {
            let end = status.trim_end_matches("_IN_PROGRESS").to_owned() + "_COMPLETE";
            script.running = Some((LOOKS, vec![end]));
        }
    }

    /// What the stack's outputs are, once there is one.
    pub fn outputs(&self, outputs: &[(&str, &str)]) {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        lock(&self.shared).outputs = outputs.iter().map(own).collect();
    }

    /// The ends of the next operations, in order. Others succeed.
    pub fn ends(&self, ends: &[End]) {
        lock(&self.shared).ends.extend(ends.iter().cloned());
    }

    /// What change sets of the stack say: names, types, and `Add`, `Modify`, `True` (a replacement), `Conditional` or `Remove`.
    pub fn changes(&self, changes: &[(&'static str, &'static str, &'static str)]) {
        lock(&self.shared).changes = changes.to_vec();
    }

    pub fn protect(&self) {
        lock(&self.shared).is_protected = true;
    }

    /// A part's event of the past.
    pub fn happened(&self, part: &str, status: &str, reason: &str) {
        lock(&self.shared).event(part, status, reason);
    }

    /// The next call of the action takes effect and returns an error.
    pub fn lose_next(&self, action: &str) {
        lock(&self.shared).lost.insert(action.to_owned());
    }

    /// Refuses the action with this sentence of IAM.
    pub fn deny(&self, action: &str, sentence: &str) {
        lock(&self.shared).denied.insert(action.to_owned(), sentence.to_owned());
    }

    /// Change sets are made, and then fail for this reason.
    pub fn reject(&self, reason: &'static str) {
        lock(&self.shared).rejection = Some(reason);
    }

    /// Just before the next change set is made, someone else's stack of this name is complete.
    pub fn overtake(&self) {
        lock(&self.shared).is_overtaken = true;
    }

    /// Another deployment works on the stack, too.
    pub fn rival(&self, rival: Rival) {
        lock(&self.shared).rival = Some(rival);
    }

    /// Someone else has proposed to make the stack at that time.
    pub fn proposed(&self, change_set: &str, at: DateTime<Utc>) {
        let mut script = lock(&self.shared);
        script.status = Some("REVIEW_IN_PROGRESS".to_owned());
        script
            .change_sets
            .insert(change_set.to_owned(), ChangeSet { parameters: BTreeMap::new(), at });
    }

    /// Lets an operation that hangs succeed.
    pub fn finish(&self) {
        if let Some(running) = &mut lock(&self.shared).running {
            running.0 = LOOKS;
        }
    }

    /// The status, if there is a stack.
    #[must_use]
    pub fn status(&self) -> Option<String> {
        lock(&self.shared).status.clone()
    }

    /// How often the stack was read since its operation began.
    #[must_use]
    pub fn looks(&self) -> u32 {
        lock(&self.shared).looks
    }

    /// The actions that change something, since the last call of this function.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared).calls)
    }
}

fn lock(shared: &Mutex<Script>) -> MutexGuard<'_, Script> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn respond(State(shared): State<Arc<Mutex<Script>>>, body: Bytes) -> Response {
    let query = Query::parse(&body);
    let action = query.text("Action").unwrap_or_default().to_owned();
    let mut script = lock(&shared);
    let outcome = script.call(&action, &query);
    let is_lost = script.lost.remove(&action);
    drop(script);
    let (status, document) = match outcome {
        _ if is_lost => (500, error("InternalFailure", "An internal error occurred.")),
        Ok(inside) => (200, response(&action, &inside)),
        Err((code, message)) => {
            (if code == "AccessDenied" { 403 } else { 400 }, error(code, &message))
        }
    };
    let mut response = Response::new(Body::from(document));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    let xml = header::HeaderValue::from_static("text/xml");
    response.headers_mut().insert(header::CONTENT_TYPE, xml);
    response
}

fn response(action: &str, inside: &str) -> String {
    let result = element(&format!("{action}Result"), inside);
    element(&format!("{action}Response"), &result)
}

fn error(code: &str, message: &str) -> String {
    let parts = [text("Type", "Sender"), text("Code", code), text("Message", message)].concat();
    element("ErrorResponse", &element("Error", &parts))
}

fn list(name: &str, items: impl Iterator<Item = String>) -> String {
    element(name, &items.map(|item| element("member", &item)).collect::<String>())
}

impl Script {
    fn call(&mut self, action: &str, query: &Query) -> Result<String, Refusal> {
        if let Some(sentence) = self.denied.get(action) {
            return Err(("AccessDenied", sentence.clone()));
        }
        if !action.starts_with("Describe") && !action.starts_with("List") {
            self.calls.push(action.to_owned());
        }
        match action {
            "DescribeStacks" => self.describe(query),
            "DescribeStackEvents" => Ok(self.describe_events()),
            "CreateChangeSet" => self.create_change_set(query),
            "DescribeChangeSet" => self.describe_change_set(query),
            "ListChangeSets" => Ok(self.list_change_sets()),
            "ExecuteChangeSet" => self.execute(query),
            "DeleteChangeSet" => {
                self.change_sets.remove(query.text("ChangeSetName").unwrap_or_default());
                Ok(String::new())
            }
            "DeleteStack" => {
                self.delete();
                Ok(String::new())
            }
            _ => Err(("InvalidAction", format!("Could not find operation {action}"))),
        }
    }

    fn id(&self) -> String {
        format!("arn:aws:cloudformation:us-east-1:000000000000:stack/s/{}", self.generation)
    }

    fn event(&mut self, part: &str, status: &str, reason: &str) {
        self.events.push((part.to_owned(), status.to_owned(), reason.to_owned()));
    }

    /// The stack; an operation that is under way comes nearer to its end.
    fn describe(&mut self, query: &Query) -> Result<String, Refusal> {
        if let Some((looks, statuses)) = &mut self.running {
            if *looks == 0 {
                let status = statuses.remove(0);
                if statuses.is_empty() {
                    self.running = None;
                }
                self.event("s", &status, "");
                self.status = Some(status);
            } else if *looks != u32::MAX {
                *looks -= 1;
            }
        }
        self.looks += 1;
        let name = query.text("StackName");
        let is_gone = self.status.as_deref() == Some("DELETE_COMPLETE");
        let by_id = name == Some(self.id().as_str());
        let Some(status) = self.status.clone().filter(|_| !is_gone || by_id) else {
            let name = name.unwrap_or_default();
            return match name.is_empty() {
                true => Ok(element("Stacks", "")),
                false => Err(("ValidationError", format!("Stack with id {name} does not exist"))),
            };
        };
        let pair = |kind: &str, (name, value): (&String, &String)| {
            text(&format!("{kind}Key"), name) + &text(&format!("{kind}Value"), value)
        };
        let stack = [
            text("StackId", &self.id()),
            text("StackName", "s"),
            text("CreationTime", "2026-11-30T00:00:00Z"),
            text("StackStatus", &status),
            text("EnableTerminationProtection", if self.is_protected { "true" } else { "false" }),
            list("Parameters", self.parameters.iter().map(|one| pair("Parameter", one))),
            list("Outputs", self.outputs.iter().map(|one| pair("Output", one))),
        ];
        Ok(list("Stacks", std::iter::once(stack.concat())))
    }

    fn describe_events(&self) -> String {
        let event = |(index, (part, status, reason)): (usize, &(String, String, String))| {
            let kind = if part == "s" { "AWS::CloudFormation::Stack" } else { "AWS::Test::Part" };
            [
                text("EventId", &format!("event-{index}")),
                text("StackId", &self.id()),
                text("StackName", "s"),
                text("LogicalResourceId", part),
                text("PhysicalResourceId", &format!("physical-{part}")),
                text("ResourceType", kind),
                text("Timestamp", "2026-11-30T00:00:00Z"),
                text("ResourceStatus", status),
                text("ResourceStatusReason", reason),
                text("ClientRequestToken", &self.token),
            ]
            .concat()
        };
        list("StackEvents", self.events.iter().enumerate().rev().map(event))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "it stands for AWS, which has a clock of its own"
    )]
    fn create_change_set(&mut self, query: &Query) -> Result<String, Refusal> {
        let name = query.text("ChangeSetName").unwrap_or_default().to_owned();
        if self.change_sets.contains_key(&name) {
            return Err(("AlreadyExistsException", format!("ChangeSet {name} already exists")));
        }
        if std::mem::take(&mut self.is_overtaken) {
            self.status = Some("CREATE_COMPLETE".to_owned());
            let message = "Stack [s] already exists and cannot be created again with the changeSet";
            return Err(("ValidationError", message.to_owned()));
        }
        if let Some(Rival::Proposes(theirs)) = self.rival {
            self.rival = None;
            self.review();
            let parameters = BTreeMap::new();
            self.change_sets.insert(theirs.to_owned(), ChangeSet { parameters, at: Utc::now() });
        }
        if query.text("ChangeSetType") == Some("CREATE") {
            self.review();
        }
        let pair = |item: String| {
            let value = query.text(&format!("{item}.ParameterValue")).unwrap_or_default();
            Some((query.text(&format!("{item}.ParameterKey"))?.to_owned(), value.to_owned()))
        };
        let parameters = query.items("Parameters.member").into_iter().filter_map(pair).collect();
        self.change_sets.insert(name, ChangeSet { parameters, at: Utc::now() });
        Ok(text("Id", "change-set") + &text("StackId", &self.id()))
    }

    /// The stack exists for change sets that would make it.
    fn review(&mut self) {
        if self.status.as_deref() != Some("REVIEW_IN_PROGRESS") {
            self.generation += 1;
            self.status = Some("REVIEW_IN_PROGRESS".to_owned());
            self.events.clear();
        }
    }

    fn list_change_sets(&self) -> String {
        let summary = |(name, one): (&String, &ChangeSet)| {
            let at = one.at.to_rfc3339_opts(SecondsFormat::Millis, true);
            let status = text("Status", "CREATE_COMPLETE");
            [text("ChangeSetName", name), status, text("CreationTime", &at)].concat()
        };
        list("Summaries", self.change_sets.iter().map(summary))
    }

    fn describe_change_set(&self, query: &Query) -> Result<String, Refusal> {
        let name = query.text("ChangeSetName").unwrap_or_default();
        if !self.change_sets.contains_key(name) {
            return Err(("ChangeSetNotFound", format!("ChangeSet [{name}] does not exist")));
        }
        if let Some(reason) = self.rejection {
            return Ok(text("Status", "FAILED") + &text("StatusReason", reason));
        }
        let change = |(part, kind, how): &(&str, &str, &str)| {
            let (action, replacement) = match *how {
                "True" | "False" | "Conditional" => ("Modify", *how),
                other => (other, ""),
            };
            let replacement = if replacement.is_empty() {
                String::new()
            } else {
                text("Replacement", replacement)
            };
            let parts = [
                text("Action", action),
                text("LogicalResourceId", part),
                text("ResourceType", kind),
            ];
            text("Type", "Resource") + &element("ResourceChange", &(parts.concat() + &replacement))
        };
        Ok(text("Status", "CREATE_COMPLETE") + &list("Changes", self.changes.iter().map(change)))
    }

    fn execute(&mut self, query: &Query) -> Result<String, Refusal> {
        let name = query.text("ChangeSetName").unwrap_or_default();
        if let Some(Rival::Executes(theirs)) = self.rival {
            self.rival = None;
            self.carry_out(theirs, BTreeMap::new());
        }
        let Some(mine) = self.change_sets.remove(name) else {
            return Err(("ChangeSetNotFound", format!("ChangeSet [{name}] does not exist")));
        };
        self.carry_out(query.text("ClientRequestToken").unwrap_or_default(), mine.parameters);
        Ok(String::new())
    }

    /// With one change set all others of the stack are gone.
    fn carry_out(&mut self, token: &str, parameters: BTreeMap<String, String>) {
        let is_new = self.status.as_deref() == Some("REVIEW_IN_PROGRESS");
        let verb = if is_new { "CREATE" } else { "UPDATE" };
        self.change_sets.clear();
        self.parameters = parameters;
        token.clone_into(&mut self.token);
        self.begin(verb);
    }

    fn delete(&mut self) {
        match self.status.as_deref() {
            None | Some("DELETE_COMPLETE" | "DELETE_IN_PROGRESS") => {}
            Some("REVIEW_IN_PROGRESS") => {
                self.change_sets.clear();
                self.status = Some("DELETE_COMPLETE".to_owned());
            }
            Some(_) => self.begin("DELETE"),
        }
    }

    fn begin(&mut self, verb: &str) {
        let busy = format!("{verb}_IN_PROGRESS");
        self.event("s", &busy, "User Initiated");
        self.status = Some(busy);
        let complete = format!("{verb}_COMPLETE");
        let (looks, statuses) = match self.ends.pop_front().unwrap_or(End::Succeeds) {
            End::Succeeds => (LOOKS, vec![complete]),
            End::Hangs => (u32::MAX, vec![complete]),
            End::Leaves { part, reason } => {
                self.event(part, "DELETE_FAILED", reason);
                (LOOKS, vec![format!("{verb}_COMPLETE_CLEANUP_IN_PROGRESS"), complete])
            }
            End::Fails { part, reason } => {
                self.event(part, &format!("{verb}_FAILED"), reason);
                (LOOKS, undone(verb))
            }
            End::Sticks { part, reason } => {
                self.event(part, &format!("{verb}_FAILED"), reason);
                (LOOKS, stuck(verb))
            }
        };
        self.running = Some((looks, statuses));
        self.looks = 0;
    }
}

/// A creation that fails is deleted, as gpuctl asks for; an update is rolled back; a deletion stays where it is.
fn undone(verb: &str) -> Vec<String> {
    let statuses: &[&str] = match verb {
        "CREATE" => &["DELETE_IN_PROGRESS", "DELETE_COMPLETE"],
        "UPDATE" => &["UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"],
        _ => &["DELETE_FAILED"],
    };
    statuses.iter().map(|status| (*status).to_owned()).collect()
}

fn stuck(verb: &str) -> Vec<String> {
    let statuses: &[&str] = match verb {
        "CREATE" => &["ROLLBACK_IN_PROGRESS", "ROLLBACK_FAILED"],
        "UPDATE" => &["UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_FAILED"],
        _ => &["DELETE_FAILED"],
    };
    statuses.iter().map(|status| (*status).to_owned()).collect()
}
