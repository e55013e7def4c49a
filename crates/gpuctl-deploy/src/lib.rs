//! The stack of an account: what a change does and costs, how it is made, and how it goes without leaving anything behind that costs.
//!
//! No AWS SDK here: `ports` says what is needed of CloudFormation and the account, `gpuctl-aws` does it.

pub mod bill;
mod boxes;
pub mod change;
mod change_set;
mod denial;
mod deploy;
mod destroy;
pub mod export;
mod files;
mod follow;
mod policy;
pub mod ports;
mod preflight;
pub mod template;
#[cfg(test)]
mod tests;
mod trouble;

use ports::{Account, Stacks};

pub use deploy::{Deployed, Difference, Wanted, code_bucket, deploy, difference};
pub use destroy::{Destroyed, Removal, destroy};
pub use files::{Content, Files};
pub use follow::State;
pub use preflight::check_values;
pub use template::{Template, Values};
pub use trouble::{Kind, Trouble};

/// The template of this version of gpuctl.
pub const TEMPLATE: &str = include_str!("../../../infra/stack.yaml");

/// Where stacks are made and removed, and who watches.
#[derive(Clone, Copy)]
pub struct Site<'s> {
    pub stacks: &'s dyn Stacks,
    pub account: &'s dyn Account,
    pub show: &'s dyn Show,
}

/// What the user sees and answers meanwhile.
pub trait Show: Send + Sync {
    fn note(&self, line: &str);
    fn warn(&self, line: &str);
    /// What is about to change.
    fn difference(&self, difference: &Difference);
    /// Asks; whether the answer is yes.
    fn confirm(&self, question: &str) -> bool;
}
