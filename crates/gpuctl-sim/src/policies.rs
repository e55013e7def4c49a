//! The policies that `simulate` compares: what other autoscalers do, written in gpuctl's own settings, so that one `decide` runs
//! them all and only the rule differs.
//!
//! Each uses the defaults that its project documents: KEDA's `cooldownPeriod` of 300 s and a `ScaledObject` with a queue length of
//! 5, SkyPilot's `--idle-minutes-to-autostop 5`, and for `asg` target tracking on the backlog per instance (Amazon EC2 Auto Scaling
//! User Guide, "Scaling policy based on Amazon SQS") with its 15 minutes before a scale-in. Where gpuctl's settings cannot express
//! a rule exactly, a comment says so.

use chrono::TimeDelta;
use gpuctl_core::policy::{IdleStop, Policy, Problems};

/// The circumstances that every compared policy gets.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long a job may wait.
    pub max_wait: TimeDelta,
    /// How long a box takes from start to ready.
    pub boot: TimeDelta,
    /// How often the controller reconciles.
    pub tick: TimeDelta,
    /// Maximum number of boxes at once.
    pub boxes_max: u32,
    /// When gpuctl's own policy stops an idle box; the others have theirs.
    pub idle_stop: IdleStop,
    /// The mean service time of a job; a backlog target is `max_wait` divided by it.
    pub service: TimeDelta,
}

/// One of the policies that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComparedPolicy {
    /// The name on the command line and in documents, e.g. `depth-rule`.
    pub name: &'static str,
    /// What it does, in one line.
    pub what: &'static str,
}

/// Every policy that can be compared, gpuctl last.
pub const COMPARED_POLICIES: [ComparedPolicy; 8] = [
    ComparedPolicy { name: "always-on", what: "one box up all the time" },
    ComparedPolicy {
        name: "office-hours",
        what: "up from 9 to 19 on weekdays (UTC), regardless of the queue",
    },
    ComparedPolicy {
        name: "depth-rule",
        what: "start above 10 jobs, stop 5 minutes after the last",
    },
    ComparedPolicy {
        name: "keda",
        what: "one box per 5 jobs, from the first job; stop 300 s after the last",
    },
    ComparedPolicy { name: "skypilot", what: "start at the first job; stop after 5 idle minutes" },
    ComparedPolicy { name: "asg", what: "backlog target per box; scale in after 15 minutes" },
    ComparedPolicy { name: "start1-stop0", what: "start at the first job, stop at once" },
    ComparedPolicy {
        name: "gpuctl",
        what: "start as late as max_wait allows, stop as idle_stop says",
    },
];

/// The longest `max_wait` that a policy accepts: in practice no limit on a job's wait.
const NEVER: &str = "14d";

impl ComparedPolicy {
    /// The policy of that name, if there is one.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        COMPARED_POLICIES.into_iter().find(|one| one.name == name)
    }

    /// This policy under `terms`.
    ///
    /// # Errors
    /// When a term is outside the range that a policy accepts.
    pub fn policy(self, terms: &Terms) -> Result<Policy, Problems> {
        pool_policy(terms, &self.settings(terms))
    }

    fn settings(self, terms: &Terms) -> String {
        let window = |more: &str| format!("[[pool.gpu.schedule]]\nzone = \"UTC\"\n{more}");
        match self.name {
            "always-on" => window(""),
            "office-hours" => {
                let hours = window("weekdays = \"mon-fri\"\nbegin = \"09:00\"\nend = \"19:00\"");
                format!("max_wait = \"{NEVER}\"\nidle_stop = \"0s\"\n{hours}")
            }
            // A queue-depth threshold without a limit on the wait: a lone job starves, which is the point of comparing it.
            "depth-rule" => format!("max_wait = \"{NEVER}\"\nstart_depth = 11\nidle_stop = \"5m\""),
            "keda" => "jobs_per_box = 5\nidle_stop = \"5m\"".to_owned(),
            "skypilot" => "idle_stop = \"5m\"".to_owned(),
            "asg" => {
                let target =
                    terms.max_wait.num_milliseconds() / terms.service.num_milliseconds().max(1);
                format!("jobs_per_box = {}\nidle_stop = \"15m\"", target.clamp(1, 1_000_000))
            }
            "start1-stop0" => "idle_stop = \"0s\"".to_owned(),
            _ => {
                let idle_stop = match terms.idle_stop {
                    IdleStop::Auto => "auto".to_owned(),
                    IdleStop::After(span) => exact(span),
                };
                format!("max_wait = \"{}\"\nidle_stop = \"{idle_stop}\"", exact(terms.max_wait))
            }
        }
    }
}

/// A policy with one pool that has these lines of settings, under `terms`.
///
/// # Errors
/// When a setting or a term is invalid.
pub fn pool_policy(terms: &Terms, settings: &str) -> Result<Policy, Problems> {
    let (tick, boot) = (exact(terms.tick), exact(terms.boot));
    Policy::parse(&format!(
        "[cloud]\ntick = \"{tick}\"\n[pool.gpu]\nqueue = \"jobs\"\nboxes_max = {}\nboot_default = \"{boot}\"\n\
         boot_deadline = \"1h\"\nlifetime_max = \"3650d\"\nstarts_per_hour_max = 100\n{settings}\n",
        terms.boxes_max
    ))
}

/// A duration as a policy spells it, to the millisecond.
pub(crate) fn exact(span: TimeDelta) -> String {
    let (seconds, ms) = (span.num_seconds(), span.subsec_millis());
    if ms == 0 { format!("{seconds}s") } else { format!("{seconds}s{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_compared_policy_is_valid() {
        let terms = Terms {
            max_wait: TimeDelta::minutes(10),
            boot: TimeDelta::milliseconds(120_500),
            tick: TimeDelta::minutes(1),
            boxes_max: 1,
            idle_stop: IdleStop::After(TimeDelta::milliseconds(1_500)),
            service: TimeDelta::seconds(3),
        };
        for one in COMPARED_POLICIES {
            let policy =
                one.policy(&terms).unwrap_or_else(|problems| panic!("{}: {problems}", one.name));
            assert_eq!(policy.pools[0].boot_default, terms.boot, "{}", one.name);
        }
        assert!(
            ComparedPolicy::named("gpuctl").is_some() && ComparedPolicy::named("kida").is_none()
        );
    }
}
