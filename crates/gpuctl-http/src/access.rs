//! Who may call: programs that have a key (`keys`), and where there are no keys this machine's own programs, told by where the server listens
//! and by the headers that a browser sets.
//!
//! A page of a foreign site can make a browser here send requests to a loopback address. It cannot choose `Host` (its own name, also where
//! that is made to lead here) nor leave out `Origin`.

use std::net::SocketAddr;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use gpuctl_core::policy::Http;
use gpuctl_core::text::excerpt;

use crate::Shared;
use crate::keys::Pass;
use crate::problem::Problem;

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// That of its key; empty without keys.
    pub(crate) name: String,
    /// By `Prefer: respond-async`: the jobs of a call go on if the client hangs up.
    pub(crate) is_async: bool,
}

/// Which names it may be called by.
pub(crate) struct Access {
    hosts: Vec<String>,
}

impl Access {
    pub(crate) fn new(http: &Http) -> Self {
        Self { hosts: http.hosts.iter().map(|host| host.to_ascii_lowercase()).collect() }
    }

    /// Whether a name, with or without a port, is one of this machine.
    fn is_own(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        if let Ok(address) = authority.parse::<SocketAddr>() {
            return address.ip().is_loopback();
        }
        let name = match authority.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => authority.as_str(),
        };
        let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        name == "localhost"
            || ip.is_ok_and(|ip| ip.is_loopback())
            || self.hosts.iter().any(|host| host == name)
    }

    fn check_own(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let forbidden = |code, detail: String| Problem::new(StatusCode::FORBIDDEN, code, detail);
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(HOST).unwrap_or_default();
        if !self.is_own(host) {
            let detail = format!("the host `{}` may not be called", excerpt(host));
            return Err(forbidden("request.host", detail)
                .hint("call it as localhost, or add the name to `hosts` under [http]"));
        }
        self.check_origin(headers)
    }

    /// Refuses what a page of a foreign site sends. Programs say no origin.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let Some(origin) = text(ORIGIN) else { return Ok(()) };
        let name = origin.split_once("://").map_or(origin, |(_, name)| name);
        if self.is_own(name) || text(HOST) == Some(name) {
            return Ok(());
        }
        let detail = format!("a page of `{}` may not call it", excerpt(origin));
        Err(Problem::new(StatusCode::FORBIDDEN, "request.origin", detail)
            .hint("call it from a program, or add the name to `hosts` under [http]"))
    }
}

/// Lets a request through, with its caller, or refuses it.
pub(crate) async fn check(
    State(api): State<Shared>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut head, body) = request.into_parts();
    let name = match api.pass(&head).await? {
        // A browser sends no key by itself, but a proxy may add it to whatever comes.
        Pass::Key(name) => {
            api.access.check_origin(&head.headers)?;
            name.to_string()
        }
        Pass::Open => String::new(),
        Pass::Keyless => {
            api.access.check_own(&head.headers)?;
            String::new()
        }
    };
    let is_async = prefers_no_answer(&head.headers);
    head.extensions.insert(Caller { name, is_async });
    Ok(next.run(Request::from_parts(head, body)).await)
}

fn prefers_no_answer(headers: &HeaderMap) -> bool {
    let prefers = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    prefers.flat_map(|value| value.split(',')).any(|one| one.trim() == "respond-async")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_may_be_called() {
        let access = Access { hosts: vec!["box.internal".to_owned()] };
        for own in [
            "localhost",
            "LOCALHOST:8686",
            "127.0.0.1:80",
            "127.0.0.1",
            "[::1]:80",
            "[::1]",
            "box.internal:1",
        ] {
            assert!(access.is_own(own), "{own}");
        }
        for other in [
            "",
            "other.invalid",
            "localhost.other.invalid",
            "10.0.0.1:80",
            "0.0.0.0",
            "127.0.0.1.other.invalid:80",
        ] {
            assert!(!access.is_own(other), "{other}");
        }
    }
}
