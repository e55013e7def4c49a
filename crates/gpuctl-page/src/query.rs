//! What a page shows, as its address says it: every view is a link.

use chrono::TimeDelta;
use gpuctl_control::job::JobState;
use gpuctl_control::ports::{JobFilter, JobPage, JobPlace};
use gpuctl_core::units::Timestamp;
use serde::Deserialize;

/// Jobs on one page.
pub const PAGE_JOBS_MAX: u32 = 25;

/// The longest text that is searched for, in characters.
const SEARCH_CHARS_MAX: usize = 200;

/// The query of the page. What cannot be read of it is left out: an old link still shows something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Query {
    /// Only jobs in this state.
    #[serde(default)]
    state: String,
    /// Only jobs of this task.
    #[serde(default)]
    task: String,
    /// Only jobs with this text.
    #[serde(default)]
    q: String,
    /// How far back the timeline goes: `24h`, `7d` or `30d`.
    #[serde(default)]
    t: String,
    /// The last job of the page before: its time in microseconds, and its id.
    #[serde(default)]
    after: String,
}

/// How far back the timeline goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Window {
    #[default]
    Day,
    Week,
    Month,
}

impl Window {
    pub(crate) const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
        }
    }

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Day => "24 hours",
            Self::Week => "7 days",
            Self::Month => "30 days",
        }
    }

    pub(crate) fn lasts(self) -> TimeDelta {
        match self {
            Self::Day => TimeDelta::hours(24),
            Self::Week => TimeDelta::days(7),
            Self::Month => TimeDelta::days(30),
        }
    }
}

impl Query {
    /// The jobs in a state, of a task, and with a text; each may be empty.
    pub(crate) fn of_jobs(state: String, task: String, q: String) -> Self {
        Self { state, task, q, ..Self::default() }
    }

    pub(crate) fn window(&self) -> Window {
        Window::ALL.into_iter().find(|window| window.as_str() == self.t).unwrap_or_default()
    }

    /// From when on runs and jobs are shown. What was submitted somewhat before may still wait then.
    #[must_use]
    pub fn since(&self, now: Timestamp) -> Timestamp {
        now - self.window().lasts() - TimeDelta::days(1)
    }

    pub(crate) fn state(&self) -> Option<JobState> {
        JobState::ALL.into_iter().find(|state| state.as_str() == self.state)
    }

    pub(crate) fn task(&self) -> Option<&str> {
        Some(self.task.trim()).filter(|task| !task.is_empty())
    }

    pub(crate) fn text(&self) -> Option<String> {
        let text: String = self.q.trim().chars().take(SEARCH_CHARS_MAX).collect();
        Some(text).filter(|text| !text.is_empty())
    }

    /// Whether fewer than all jobs are shown.
    pub(crate) fn is_filtered(&self) -> bool {
        self.state().is_some() || self.task().is_some() || self.text().is_some()
    }

    fn after(&self) -> Option<JobPlace> {
        let (micros, id) = self.after.split_once('.')?;
        let submitted_at = Timestamp::from_timestamp_micros(micros.parse().ok()?)?;
        Some(JobPlace { submitted_at, id: id.parse().ok()? })
    }

    /// Whether it is not the first page.
    pub(crate) fn is_behind(&self) -> bool {
        self.after().is_some()
    }

    /// The page of the listing, and one job more: whether there is another page.
    #[must_use]
    pub fn jobs(&self) -> JobPage {
        let filter = JobFilter { state: self.state(), limit: PAGE_JOBS_MAX + 1, since: None };
        JobPage {
            filter,
            task: self.task().map(str::to_owned),
            text: self.text(),
            after: self.after(),
        }
    }

    /// The first `limit` of the listing.
    #[must_use]
    pub fn first_jobs(&self, limit: u32) -> JobPage {
        let page = self.jobs();
        JobPage { filter: JobFilter { limit, ..page.filter }, after: None, ..page }
    }

    /// The same view with another timeline.
    pub(crate) fn with_window(&self, window: Window) -> Self {
        Self { t: window.as_str().to_owned(), ..self.clone() }
    }

    /// The next page of the same view; without a place the first.
    pub(crate) fn with_place(&self, place: Option<&JobPlace>) -> Self {
        let after =
            |place: &JobPlace| format!("{}.{}", place.submitted_at.timestamp_micros(), place.id);
        Self { after: place.map(after).unwrap_or_default(), ..self.clone() }
    }

    /// The same timeline with all jobs.
    pub(crate) fn without_filter(&self) -> Self {
        Self { t: self.t.clone(), ..Self::default() }
    }

    /// The same timeline with the jobs in a state.
    pub(crate) fn with_state(&self, state: JobState) -> Self {
        Self { state: state.as_str().to_owned(), ..self.without_filter() }
    }

    /// The address of this view.
    #[must_use]
    pub fn link(&self) -> String {
        let text = self.text().unwrap_or_default();
        let pairs = [
            ("t", if self.window() == Window::Day { "" } else { self.window().as_str() }),
            ("state", self.state().map(JobState::as_str).unwrap_or_default()),
            ("task", self.task().unwrap_or_default()),
            ("q", text.as_str()),
            ("after", if self.is_behind() { self.after.as_str() } else { "" }),
        ];
        let mut link = String::from("/");
        for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
            link.push(if link.len() == 1 { '?' } else { '&' });
            link.push_str(&format!("{name}={}", escaped(value)));
        }
        link
    }
}

/// A text as a value in a query.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
