//! What `decide` answers: for each pool every rule's verdict, the actions, what blocks others, and the next change.
//!
//! No action can be built without a reason, and a reason names its rule: `explain`, the ledger and the log all read this.

use crate::units::{BoxId, PoolId, Timestamp};

/// The whole answer. An unread plan changes nothing, so reading it is not optional.
#[must_use = "a plan that nobody acts on or shows is lost"]
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The instant that it was made for.
    pub at: Timestamp,
    /// One entry for each pool of the policy, in the policy's order.
    pub pools: Vec<PoolPlan>,
}

/// The answer for one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolPlan {
    /// Which.
    pub pool: PoolId,
    /// How many boxes should be up.
    pub boxes_wanted: u32,
    /// Every rule's verdict, in the order in which the rules are asked.
    pub verdicts: Vec<Verdict>,
    /// What to do now.
    pub actions: Vec<Action>,
    /// What a rule wants and another forbids, with the one that forbids.
    pub blocked: Vec<Reason>,
    /// The next instant at which the answer changes by itself, and why.
    pub next_change: Option<NextChange>,
}

/// The rules, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The cloud takes a box back.
    Interruption,
    /// A person's timed override.
    Hold,
    /// Money.
    Budget,
    /// When the pool should be up.
    Schedule,
    /// Jobs that wait.
    Demand,
    /// Nothing to do.
    Idle,
    /// What can be bought, and whether a cheaper box could take over.
    Capacity,
    /// Boxes that take too long to boot or stop, keep silent, or live too long.
    Limits,
    /// Failed starts, fruitless ones and flapping.
    Cooldown,
}

impl Rule {
    /// All of them, in order.
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
    /// The rule that speaks.
    pub rule: Rule,
    /// A sentence for people: what holds, with its figures.
    pub text: String,
}

impl Reason {
    /// A reason; there is no default.
    pub fn new(rule: Rule, text: impl Into<String>) -> Self {
        Self { rule, text: text.into() }
    }
}

/// What one rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it asks for.
    pub effect: Effect,
    /// Why.
    pub reason: Reason,
}

/// What a rule can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// At least so many boxes.
    AtLeast(u32),
    /// Let boxes go.
    Stop,
    /// Leave things as they are.
    Keep,
    /// Not now, whatever the others want.
    Forbid,
    /// Nothing to say.
    Abstain,
}

/// One thing to do, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a stopped box.
    Start {
        /// Which.
        box_id: BoxId,
        /// Why.
        reason: Reason,
    },
    /// Stop a box.
    Stop {
        /// Which.
        box_id: BoxId,
        /// How.
        mode: StopMode,
        /// Why.
        reason: Reason,
    },
}

/// How to stop a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Stop receiving, finish or release the leases, stop.
    Drain,
    /// At once: it had its grace.
    Force,
}

impl Action {
    /// The box that it is about.
    #[must_use]
    pub fn box_id(&self) -> &BoxId {
        match self {
            Self::Start { box_id, .. } | Self::Stop { box_id, .. } => box_id,
        }
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Start { reason, .. } | Self::Stop { reason, .. } => reason,
        }
    }
}

/// When the answer changes by itself, if nothing else happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextChange {
    /// When.
    pub at: Timestamp,
    /// What happens then.
    pub reason: Reason,
}
