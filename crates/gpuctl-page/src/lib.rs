//! The page of gpuctl for people: what is on, why, until when and what it costs; when boxes ran; jobs with their results; dead letters.
//!
//! HTML from what was read, and what else the page consists of. There are no sockets and no files here: `gpuctl-http` reads, and answers.
//! What jobs and users wrote is escaped by the templates, and no script can run that is not a file of this crate (`HEADERS`).

mod action;
mod job;
mod jobs;
mod now;
mod query;
mod result;
mod timeline;
mod words;

use askama::Template;
use gpuctl_control::job::JobResult;
use gpuctl_control::overview::Overview;
use gpuctl_control::ports::JobEntry;
use gpuctl_control::snapshot::Snapshot;
use gpuctl_core::policy::Policy;

use self::job::JobView;
use self::jobs::{Dead, Jobs};
use self::now::Now;
use self::timeline::Timeline;
use self::words::Clock;

pub use self::action::{ACTED_MAX, Action, ActionForm, FOR_MAX, Refusal, check_sender};
pub use self::query::{PAGE_JOBS_MAX, Query};

/// What a browser may do with a page: nothing but what its own files say.
pub const HEADERS: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    // Not `no-referrer`: by that a browser says of the page's own forms that they come from nowhere.
    ("referrer-policy", "same-origin"),
];

/// A file of the page: its media type, and its bytes.
#[must_use]
pub fn asset(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "page.css" => Some(("text/css; charset=utf-8", include_str!("../assets/page.css"))),
        "page.js" => Some(("text/javascript; charset=utf-8", include_str!("../assets/page.js"))),
        "icon.svg" => Some(("image/svg+xml", include_str!("../assets/icon.svg"))),
        _ => None,
    }
}

/// What every page is made from.
#[derive(Clone, Copy)]
pub struct Page<'a> {
    pub policy: &'a Policy,
    pub snapshot: &'a Snapshot,
    /// The token that actions need; none where the page only shows.
    pub token: Option<&'a str>,
}

impl Page<'_> {
    fn clock(&self) -> Clock {
        Clock::of(self.policy, self.snapshot.observation.at)
    }

    /// The first page.
    #[must_use]
    pub fn overview(&self, overview: &Overview, query: &Query) -> String {
        let (policy, snapshot, clock) = (self.policy, self.snapshot, self.clock());
        written(&OverviewPage {
            frame: Frame::new(self, format!("/live{}", &query.link()[1..])),
            now: Now::of(policy, snapshot, overview, clock),
            timeline: Timeline::of(policy, overview, query, clock),
            jobs: Jobs::of(policy, snapshot, overview, query, clock),
            dead: Dead::all(policy, snapshot, overview, query, clock),
        })
    }

    /// The page of a job, with the results of all its generations.
    #[must_use]
    pub fn job(&self, entry: &JobEntry, results: &[JobResult]) -> String {
        let job = JobView::of(self.policy, self.snapshot, entry, results, self.clock());
        let frame = Frame::new(self, format!("/live?job={}", job.id));
        written(&JobPage { frame, job })
    }
}

/// The page of a request that was refused.
#[must_use]
pub fn problem(title: &str, detail: &str, hint: &str) -> String {
    written(&ProblemPage { title, detail, hint })
}

fn written(template: &impl Template) -> String {
    template.render().expect("a text takes whatever is written to it")
}

/// What is around every page.
struct Frame {
    /// Where changes come from.
    live: String,
    zone: &'static str,
    looked_at: String,
    token: Option<String>,
}

impl Frame {
    fn new(page: &Page<'_>, live: String) -> Self {
        let clock = page.clock();
        Self {
            live,
            zone: clock.zone.name(),
            looked_at: clock.shown(clock.now, "%H:%M:%S"),
            token: page.token.map(str::to_owned),
        }
    }
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    now: Now,
    timeline: Timeline,
    jobs: Jobs,
    dead: Vec<Dead>,
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    frame: Frame,
    job: JobView,
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    title: &'a str,
    detail: &'a str,
    hint: &'a str,
}
