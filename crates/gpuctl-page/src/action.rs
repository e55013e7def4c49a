//! What the page's buttons send, and who may send it.

use chrono::TimeDelta;
use gpuctl_control::job::JobId;
use gpuctl_core::observation::HoldWants;
use gpuctl_core::text::within;
use gpuctl_core::units::PoolId;
use serde::Deserialize;

use crate::query::Query;

/// The longest hold that the page sets; the command line sets longer ones.
pub const FOR_MAX: TimeDelta = TimeDelta::hours(12);

/// The most jobs that one button sends again or cancels.
pub const ACTED_MAX: u32 = 1_000;

/// The longest reason of a hold, in characters.
const WHY_CHARS_MAX: usize = 200;

/// What a button asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Retry(JobId),
    Cancel(JobId),
    /// All jobs that a view lists and that are over without success.
    RetryAll(Query),
    /// All jobs that a view lists and that wait or run.
    CancelAll(Query),
    Hold {
        pool: PoolId,
        wants: HoldWants,
        lasts: TimeDelta,
        why: Option<String>,
    },
    Release(PoolId),
    /// Moves the dead letters of the pool's queue back.
    Redrive(PoolId),
}

/// The fields of a form.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ActionForm {
    pub token: String,
    pub r#do: String,
    pub job: String,
    pub pool: String,
    pub minutes: String,
    pub why: String,
    pub state: String,
    pub task: String,
    pub q: String,
}

/// Why a form was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The page only shows.
    ReadOnly,
    /// Another page sent it.
    Foreign,
    /// It lacks the token of this server.
    Token,
    /// It asks for nothing that there is.
    Form,
}

impl Refusal {
    /// What is wrong, and what to do about it.
    #[must_use]
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::ReadOnly => {
                ("this page only shows", "start it with `gpuctl serve --allow-actions`")
            }
            Self::Foreign => {
                ("a page of another site sent this", "press the button on gpuctl's own page")
            }
            Self::Token => (
                "the form is not of this server",
                "the server was started anew: load the page again",
            ),
            Self::Form => ("the form asks for nothing that there is", "load the page again"),
        }
    }
}

impl ActionForm {
    /// What the form asks for, if it has the token of this server.
    ///
    /// # Errors
    /// The page only shows, the token is not this server's, or the form is not one of the page's.
    pub fn action(&self, token: Option<&str>) -> Result<Action, Refusal> {
        let token = token.ok_or(Refusal::ReadOnly)?;
        if !is_same(&self.token, token) {
            return Err(Refusal::Token);
        }
        self.wanted().ok_or(Refusal::Form)
    }

    fn wanted(&self) -> Option<Action> {
        let job = || self.job.parse().ok();
        let pool = || self.pool.parse().ok();
        let hold = |wants| {
            let lasts = TimeDelta::minutes(self.minutes.parse().ok().filter(|n| *n > 0)?);
            let why = Some(within(self.why.trim(), WHY_CHARS_MAX)).filter(|why| !why.is_empty());
            Some(Action::Hold { pool: pool()?, wants, lasts: lasts.min(FOR_MAX), why })
        };
        let view = || {
            let [state, task, q] = [&self.state, &self.task, &self.q].map(Clone::clone);
            Some(Query::of_jobs(state, task, q)).filter(Query::is_filtered)
        };
        match self.r#do.as_str() {
            "retry-all" => view().map(Action::RetryAll),
            "cancel-all" => view().map(Action::CancelAll),
            "retry" => job().map(Action::Retry),
            "cancel" => job().map(Action::Cancel),
            "start" => hold(HoldWants::Running),
            "stop" => hold(HoldWants::Stopped),
            "release" => pool().map(Action::Release),
            "redrive" => pool().map(Action::Redrive),
            _ => None,
        }
    }
}

/// Compares without telling by its time where the difference is.
fn is_same(given: &str, wanted: &str) -> bool {
    let differences = given.bytes().zip(wanted.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == wanted.len() && differences == 0
}

/// Whether a form comes from a page of this very server: by what a browser says of the page that sent it, which no page can change. A form
/// of which a browser says nothing is refused.
///
/// # Errors
/// Where it comes from elsewhere.
pub fn check_sender(
    host: Option<&str>,
    origin: Option<&str>,
    fetch_site: Option<&str>,
) -> Result<(), Refusal> {
    let is_own_site = fetch_site.is_none_or(|site| site == "same-origin");
    let authority = origin.and_then(|origin| origin.split_once("://")).map(|(_, name)| name);
    let is_own = host.is_some() && authority == host;
    if is_own && is_own_site { Ok(()) } else { Err(Refusal::Foreign) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_form_of_this_page_is_taken() {
        let own = Some("127.0.0.1:8686");
        let page = Some("http://127.0.0.1:8686");
        assert_eq!(check_sender(own, page, Some("same-origin")), Ok(()));
        assert_eq!(check_sender(own, page, None), Ok(()));
        for (origin, site) in [
            (None, Some("same-origin")),
            (None, None),
            (Some("null"), Some("cross-site")),
            (Some("http://other.invalid"), None),
            // Another program of this machine serves a page, too.
            (Some("http://127.0.0.1:3000"), Some("same-site")),
            (page, Some("cross-site")),
            (page, Some("none")),
        ] {
            assert_eq!(
                check_sender(own, origin, site),
                Err(Refusal::Foreign),
                "{origin:?} {site:?}"
            );
        }
        assert_eq!(check_sender(None, None, None), Err(Refusal::Foreign));
    }

    #[test]
    fn a_form_needs_the_token_and_something_to_do() {
        let form = |token: &str, what: &str| ActionForm {
            token: token.to_owned(),
            r#do: what.to_owned(),
            pool: "gpu".to_owned(),
            minutes: "100000".to_owned(),
            ..ActionForm::default()
        };
        assert_eq!(form("a", "release").action(None), Err(Refusal::ReadOnly));
        for bad in ["", "a", "abd", "abcd"] {
            assert_eq!(form(bad, "release").action(Some("abc")), Err(Refusal::Token), "{bad}");
        }
        // Without a filter it would be all jobs that there are.
        for bad in ["", "retry", "delete", "cancel-all"] {
            assert_eq!(form("abc", bad).action(Some("abc")), Err(Refusal::Form), "{bad}");
        }
        let pool: PoolId = "gpu".parse().unwrap();
        let held = Action::Hold { pool, wants: HoldWants::Running, lasts: FOR_MAX, why: None };
        assert_eq!(form("abc", "start").action(Some("abc")), Ok(held));
    }
}
