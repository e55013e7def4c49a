//! What peers do, written as policies of gpuctl, so that one `decide` plays them all and only the rule differs.
//!
//! Their defaults are those of `facts/policies.md` and `facts/peers.md`. What cannot be said in gpuctl's settings is named
//! where it is left out.

use chrono::TimeDelta;
use gpuctl_core::policy::{Policy, Problems};

/// What a comparison is made for.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long a job may wait.
    pub max_wait: TimeDelta,
    /// What a boot takes.
    pub boot: TimeDelta,
    /// How often the controller looks.
    pub tick: TimeDelta,
    /// The most boxes at once.
    pub boxes_max: u32,
    /// The mean time of a job, which a backlog target is made from.
    pub service: TimeDelta,
}

/// A policy to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender {
    /// Its name on the command line and in documents.
    pub name: &'static str,
    /// What it does, in a line.
    pub what: &'static str,
}

/// Every policy that can be compared, gpuctl last.
pub const CONTENDERS: [Contender; 8] = [
    Contender { name: "always-on", what: "one box up all the time" },
    Contender { name: "office-hours", what: "up from 9 to 19 on weekdays (UTC), whatever waits" },
    Contender { name: "seed", what: "start above 10 jobs, stop 5 minutes after the last" },
    Contender {
        name: "keda",
        what: "one box for each 5 jobs, from the first on; stop 300 s after the last",
    },
    Contender { name: "skypilot", what: "start at the first job; stop after 5 idle minutes" },
    Contender { name: "asg", what: "backlog target per box; scale in after 15 minutes" },
    Contender { name: "start1-stop0", what: "start at the first job, stop at once" },
    Contender { name: "gpuctl", what: "start as late as max_wait allows, stop at once" },
];

/// The longest wait that a policy can name: no age guard in practice.
const NEVER: &str = "14d";

impl Contender {
    /// The contender of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        CONTENDERS.into_iter().find(|one| one.name == name)
    }

    /// The policy on these terms.
    ///
    /// # Errors
    /// When the terms are beyond what a policy may say.
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
            // "Above 10" is from 11 on; without gpuctl's age guard a lone job starves, and that is the point of comparing it.
            "seed" => format!("max_wait = \"{NEVER}\"\nstart_depth = 11\nidle_stop = \"5m\""),
            "keda" => "jobs_per_box = 5\nidle_stop = \"5m\"".to_owned(),
            "skypilot" => "idle_stop = \"5m\"".to_owned(),
            "asg" => {
                let target =
                    terms.max_wait.num_milliseconds() / terms.service.num_milliseconds().max(1);
                format!("jobs_per_box = {}\nidle_stop = \"15m\"", target.clamp(1, 1_000_000))
            }
            "start1-stop0" => "idle_stop = \"0s\"".to_owned(),
            _ => format!("max_wait = \"{}\"", exact(terms.max_wait)),
        }
    }
}

/// A policy of one pool with these settings.
///
/// # Errors
/// When a setting cannot be used.
pub fn pool_policy(terms: &Terms, settings: &str) -> Result<Policy, Problems> {
    let (tick, boot) = (exact(terms.tick), exact(terms.boot));
    Policy::parse(&format!(
        "[cloud]\ntick = \"{tick}\"\n[pool.gpu]\nqueue = \"jobs\"\nboxes_max = {}\nboot_default = \"{boot}\"\n\
         boot_deadline = \"1h\"\nlifetime_max = \"3650d\"\nstarts_per_hour_max = 100\n{settings}\n",
        terms.boxes_max
    ))
}

/// A span as the policy reads it, to the millisecond.
pub(crate) fn exact(span: TimeDelta) -> String {
    let (seconds, ms) = (span.num_seconds(), span.subsec_millis());
    if ms == 0 { format!("{seconds}s") } else { format!("{seconds}s{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_is_a_valid_policy() {
        let terms = Terms {
            max_wait: TimeDelta::minutes(10),
            boot: TimeDelta::milliseconds(120_500),
            tick: TimeDelta::minutes(1),
            boxes_max: 1,
            service: TimeDelta::seconds(3),
        };
        for one in CONTENDERS {
            let policy =
                one.policy(&terms).unwrap_or_else(|problems| panic!("{}: {problems}", one.name));
            assert_eq!(policy.pools[0].boot_default, terms.boot, "{}", one.name);
        }
        assert!(Contender::named("gpuctl").is_some() && Contender::named("kida").is_none());
    }
}
