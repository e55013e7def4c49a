//! What boxes are bought as, and what EC2 said when it refused to start one. What follows from that is in `refusals`.

use std::fmt;
use std::str::FromStr;

/// How a box is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapacityType {
    /// Cheap, and taken back with two minutes' notice.
    Spot,
    /// At the list price, for as long as it runs.
    OnDemand,
}

impl CapacityType {
    /// The name in settings and documents.
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

/// Not a capacity type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no capacity type (one of: spot, on-demand)")]
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

/// What can be bought: an instance type, in a zone, in one way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offering {
    /// An EC2 instance type.
    pub instance_type: String,
    /// An availability zone; a stopped box is bound to its own by its disk (P17).
    pub zone: String,
    /// How it is paid for.
    pub capacity: CapacityType,
}

/// The zone of what is wished for and not bought yet: a launch takes the one that has capacity.
pub const ANY_ZONE: &str = "any zone";

impl Offering {
    /// Whether this is a wish: what is bought is known once it is there.
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

/// Why a start was refused, by meaning (`facts/aws.md` 9.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalClass {
    /// None there now: of this type, in this zone, in this way.
    Capacity,
    /// The account may have no more of this capacity type (P9).
    Quota,
    /// This type is not offered in this zone.
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

    /// The class of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Capacity, Self::Quota, Self::NotOffered]
            .into_iter()
            .find(|class| class.as_str() == name)
    }
}

/// A refusal in the cloud's own words, which often name zones that have capacity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it means.
    pub class: RefusalClass,
    /// The words.
    pub text: String,
}
