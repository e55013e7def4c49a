//! What `decide` returns: for each pool the verdict of every rule, the actions, what blocks further ones, and the next change.
//!
//! No action can be built without a reason, and a reason names its rule: `explain`, the ledger and the log show it.

use crate::units::{BoxId, MicroUsd, PoolId, Timestamp};

/// The plan for all pools. It changes nothing by itself.
#[must_use = "a plan has no effect until it is acted on or shown"]
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The instant of the observation that it follows from.
    pub at: Timestamp,
    /// One entry for each pool of the policy, in the policy's order.
    pub pools: Vec<PoolPlan>,
}

/// The plan for one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolPlan {
    pub pool: PoolId,
    /// How many boxes should be up.
    pub boxes_wanted: u32,
    /// Every rule's verdict, in the order of `Rule::ALL`.
    pub verdicts: Vec<Verdict>,
    /// What to do now; each box at most once.
    pub actions: Vec<Action>,
    /// Why starts that a rule asks for do not happen now.
    pub blocked: Vec<Reason>,
    /// The next instant at which the plan changes by itself, and why.
    pub next_change: Option<NextChange>,
    /// Boxes that a user keeps up to look at them.
    pub kept: Vec<KeptBox>,
}

/// A box that a user keeps up: by its file `keep-until`, or by a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBox {
    pub box_id: BoxId,
    pub until: Timestamp,
    /// Whether the file keeps it, which also holds against a hold that wants it stopped.
    pub by_file: bool,
    /// What the box costs until then; `None` for a box on this machine, or if its price is not known.
    pub cost: Option<MicroUsd>,
    /// A sentence that says what keeps it up, for how long, and at what price.
    pub text: String,
}

/// The rules, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// EC2 interrupts a spot box.
    Interruption,
    /// A user's timed override.
    Hold,
    /// What the pool may spend in a month and a day.
    Budget,
    /// The times at which the pool should be up.
    Schedule,
    /// Jobs that wait in the queue.
    Demand,
    /// Boxes without work.
    Idle,
    /// Which capacity types EC2 has, and whether a cheaper box could take over.
    Capacity,
    /// Boxes that take too long to boot or stop, do not report, or run too long.
    Limits,
    /// Starts that fail, bring no result, or come too often.
    Cooldown,
}

impl Rule {
    /// All rules, in the order in which `decide` asks them.
    pub const ALL: [Self; 9] = [
        Self::Interruption,
        Self::Hold,
        Self::Budget,
        Self::Schedule,
        Self::Demand,
        Self::Idle,
        Self::Capacity,
        Self::Limits,
        Self::Cooldown,
    ];

    /// The rule's name in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interruption => "interruption",
            Self::Hold => "hold",
            Self::Budget => "budget",
            Self::Schedule => "schedule",
            Self::Demand => "demand",
            Self::Idle => "idle",
            Self::Capacity => "capacity",
            Self::Limits => "limits",
            Self::Cooldown => "cooldown",
        }
    }

    /// The rule of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == name)
    }
}

/// A rule and its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub rule: Rule,
    /// A sentence for people with the figures that matter, e.g. `1 job waits, the oldest for 9s`.
    pub text: String,
}

impl Reason {
    pub fn new(rule: Rule, text: impl Into<String>) -> Self {
        Self { rule, text: text.into() }
    }
}

/// What one rule asks for, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub effect: Effect,
    pub reason: Reason,
}

/// What a rule can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// At least this number of boxes is to be up.
    AtLeast(u32),
    /// Boxes may stop, or must.
    Stop,
    /// Boxes stay as they are.
    Keep,
    /// No starts, whichever rule asks for them.
    Forbid,
    /// The rule asks for nothing.
    Abstain,
}

/// One thing to do, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Start { box_id: BoxId, reason: Reason },
    Stop { box_id: BoxId, mode: StopMode, reason: Reason },
}

/// How to stop a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// The worker receives no more jobs, finishes those it holds or releases them to the queue, and then the box stops.
    Drain,
    /// The box is stopped at once: `stop_deadline` is over.
    Force,
    /// The box is terminated: it has been stopped for longer than the policy keeps one.
    Retire,
}

impl Action {
    #[must_use]
    pub fn box_id(&self) -> &BoxId {
        match self {
            Self::Start { box_id, .. } | Self::Stop { box_id, .. } => box_id,
        }
    }

    #[must_use]
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Start { reason, .. } | Self::Stop { reason, .. } => reason,
        }
    }
}

/// When the plan changes by itself if nothing else happens, e.g. because a hold ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextChange {
    pub at: Timestamp,
    /// What happens then.
    pub reason: Reason,
}
