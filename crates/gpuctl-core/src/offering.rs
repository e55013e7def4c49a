//! The offerings of EC2 that boxes are, and its refusals to start one, as plain data. What follows from a refusal is in `refusals.rs`.

use std::fmt;
use std::str::FromStr;

/// How a box is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapacityType {
    /// Cheap, and interrupted by EC2 with two minutes' notice.
    Spot,
    /// At the list price, for as long as it runs.
    OnDemand,
}

impl CapacityType {
    /// The name in settings, in JSON and in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
        }
    }
}

impl fmt::Display for CapacityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is not a capacity type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a valid capacity type (one of: spot, on-demand)")]
pub struct CapacityTypeError(String);

impl FromStr for CapacityType {
    type Err = CapacityTypeError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Spot, Self::OnDemand]
            .into_iter()
            .find(|one| one.as_str() == text)
            .ok_or_else(|| CapacityTypeError(text.to_owned()))
    }
}

/// What EC2 offers: an instance type in a zone, paid for in one way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offering {
    /// An EC2 instance type, e.g. `g4dn.xlarge`.
    pub instance_type: String,
    /// An availability zone. A stopped box can start only in the zone of its disk (P17).
    pub zone: String,
    pub capacity: CapacityType,
}

/// The zone of a box that is not launched yet: a launch takes one that has capacity.
pub const ANY_ZONE: &str = "any zone";

impl Offering {
    /// Whether its zone is not known yet: the box is still to be launched.
    #[must_use]
    pub fn is_unplaced(&self) -> bool {
        self.zone == ANY_ZONE
    }
}

impl fmt::Display for Offering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in {}", self.capacity, self.instance_type, self.zone)
    }
}

/// What a refusal means. Which of EC2's error codes means which: `ec2/refusal.rs` of gpuctl-aws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalClass {
    /// EC2 has none now of this type in this zone for this capacity type.
    Capacity,
    /// The account's quota for this capacity type is reached (P9).
    Quota,
    /// EC2 does not have this type in this zone.
    NotOffered,
}

impl RefusalClass {
    /// The name in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Quota => "quota",
            Self::NotOffered => "not-offered",
        }
    }

    /// The class with that name in the ledger.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Capacity, Self::Quota, Self::NotOffered]
            .into_iter()
            .find(|class| class.as_str() == name)
    }
}

/// EC2's refusal to start a box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub class: RefusalClass,
    /// EC2's message, which often names zones that have capacity.
    pub text: String,
}
