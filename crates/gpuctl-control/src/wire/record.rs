//! The ledger's record of one reconcile: what triggered it, which rule decided for each pool, what was done and what failed.
//!
//! It has no ages, so that the records of a quiet night are equal, and the ledger can count them on one row.

use serde::{Deserialize, Serialize};

use super::ReasonDocument;

/// One reconcile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub at: String,
    pub trigger: String,
    pub by: String,
    pub pools: Vec<PoolRecord>,
    /// The parts that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// One pool in a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolRecord {
    pub pool: String,
    /// How many boxes should be up.
    pub boxes_wanted: u32,
    /// The rules that did not abstain.
    pub rules: Vec<String>,
    /// The rules that blocked an action.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<ActionRecord>,
}

/// One action in a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// `start`, `stop` or `force-stop`.
    pub action: String,
    pub r#box: String,
    pub reason: ReasonDocument,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Record {
    /// Whether two records say the same, apart from when, why and by whom.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.pools == other.pools && self.errors == other.errors
    }
}
