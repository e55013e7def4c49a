//! The simulated EC2 behind HTTP: the query protocol of the real SDKs, and IMDSv2 for what runs on an instance.
//!
//! For tests of the real adapter, function and worker against what no emulator has: delays, spot requests, refusals,
//! interruptions. Its time is that of the clock that it is given. It checks no signatures.

mod actions;
mod canned;
mod imds;
mod query;
mod rest;
mod server;
mod stacks;
mod xml;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use gpuctl_control::ports::Clock;
use gpuctl_core::units::Timestamp;

use crate::world::ec2::{Ec2, Ec2Error};
pub use canned::Canned;
pub use imds::Imds;
use query::Query;
pub use rest::Rest;
use server::Server;
pub use stacks::{CloudFormation, End, Rival};

/// An HTTP server for one EC2 on 127.0.0.1, until it is dropped.
pub struct Front {
    shared: Arc<Shared>,
    server: Server,
}

struct Shared {
    ec2: Mutex<Ec2>,
    clock: Arc<dyn Clock>,
    orders: Mutex<Orders>,
    /// What answers the calls that are not simulated.
    rest: OnceLock<Rest>,
}

/// Faults that tests order for single calls.
#[derive(Default)]
struct Orders {
    /// Actions without permission.
    denied: BTreeSet<String>,
    /// How many of the next responses to an action are truncated.
    truncated: BTreeMap<String, u32>,
    /// The next call of this action takes effect and returns an error.
    lost: Option<String>,
    /// What actions that are not simulated respond.
    answers: BTreeMap<String, String>,
    /// The actions called, in order.
    seen: Vec<String>,
}

impl Front {
    /// Listens on 127.0.0.1, on a free port.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn open(ec2: Ec2, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            ec2: Mutex::new(ec2),
            clock,
            orders: Mutex::default(),
            rest: OnceLock::new(),
        });
        let router = Router::new().route("/", post(respond)).with_state(Arc::clone(&shared));
        Ok(Self { shared, server: Server::open(router).await? })
    }

    /// The value of `AWS_ENDPOINT_URL_EC2`.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Has another emulator answer what is not simulated; its launch templates and subnets are those of launches from now on.
    pub fn rest_by(&self, rest: Rest) {
        let _ = self.shared.rest.set(rest);
    }

    /// The EC2 behind it, advanced to the present.
    pub fn ec2(&self) -> MutexGuard<'_, Ec2> {
        let mut ec2 = self.shared.ec2();
        ec2.advance(self.shared.clock.now());
        ec2
    }

    /// Removes the permission for an action, e.g. `StartInstances`.
    pub fn deny(&self, action: &str) {
        self.shared.orders().denied.insert(action.to_owned());
    }

    /// What an action that is not simulated responds: the elements within its response.
    pub fn answer(&self, action: &str, inside: &str) {
        self.shared.orders().answers.insert(action.to_owned(), inside.to_owned());
    }

    /// Truncates the next `count` responses to the action in the middle.
    pub fn truncate_next(&self, action: &str, count: u32) {
        self.shared.orders().truncated.insert(action.to_owned(), count);
    }

    /// Carries out the next call of the action and returns an error.
    pub fn lose_next(&self, action: &str) {
        self.shared.orders().lost = Some(action.to_owned());
    }

    /// The actions called since the last call of this function.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.orders().seen)
    }

    /// Opens the metadata service of one instance.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn imds(&self, instance: &str) -> std::io::Result<Imds> {
        Imds::open(Arc::clone(&self.shared), instance).await
    }
}

impl Shared {
    fn ec2(&self) -> MutexGuard<'_, Ec2> {
        self.ec2.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

async fn respond(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut query = Query::parse(&body);
    let action = query.text("Action").unwrap_or_default().to_owned();
    let answer = shared.orders().answers.get(&action).cloned();
    if let Some(rest) = shared.rest.get().filter(|_| answer.is_none()) {
        let rest = rest.of_call(&headers);
        if !actions::SIMULATED.contains(&&*action) {
            return rest.forward(body).await;
        }
        if let Some(template) = rest.launch(&mut query).await {
            shared.ec2().add_template(template);
        }
    }
    let outcome = permitted(&shared, &query, &action, &headers).and_then(|()| match answer {
        Some(inside) => Ok(xml::response(&action, &inside)),
        None => actions::call(&mut shared.ec2(), shared.now(), &action, &query),
    });
    let mut orders = shared.orders();
    let lost = orders.lost.take_if(|wanted| *wanted == action).is_some();
    let truncated = orders.truncated.get_mut(&action).is_some_and(|left| {
        let now = *left > 0;
        *left = left.saturating_sub(1);
        now
    });
    drop(orders);
    let (status, text) = match outcome {
        _ if lost => error(&Ec2Error {
            code: "InternalError",
            message: "An internal error has occurred".to_owned(),
            http_status: 500,
        }),
        Ok(text) => (StatusCode::OK, text),
        Err(refused) => error(&refused),
    };
    let kept = if truncated { text.len() / 2 } else { text.len() };
    let mut response = Response::new(Body::from(text.as_bytes()[..kept].to_vec()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/xml"));
    response
}

fn permitted(
    shared: &Shared,
    query: &Query,
    action: &str,
    headers: &HeaderMap,
) -> Result<(), Ec2Error> {
    let mut orders = shared.orders();
    orders.seen.push(action.to_owned());
    let refused = |code, http_status, message: String| Err(Ec2Error { code, message, http_status });
    if !headers.contains_key(header::AUTHORIZATION) {
        return refused(
            "MissingAuthenticationToken",
            403,
            "Request is missing Authentication Token".to_owned(),
        );
    }
    if orders.denied.contains(action) {
        let text = format!("You are not authorized to perform this operation: ec2:{action}");
        return refused("UnauthorizedOperation", 403, text);
    }
    if query.text("DryRun") == Some("true") {
        let text = "Request would have succeeded, but DryRun flag is set.".to_owned();
        return refused("DryRunOperation", 412, text);
    }
    Ok(())
}

fn error(refused: &Ec2Error) -> (StatusCode, String) {
    let status =
        StatusCode::from_u16(refused.http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, xml::error(refused.code, &refused.message))
}
