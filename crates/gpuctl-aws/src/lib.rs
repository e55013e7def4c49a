//! AWS behind the ports of `gpuctl-control`: calls and their errors, no decisions.
//!
//! `queue` is what a worker needs; `control` adds what starts and stops boxes, and with it the build of `aws-sdk-ec2`; `deploy` adds
//! CloudFormation. Without any of them the crate is empty. No other crate names an AWS SDK crate.
#![cfg(feature = "queue")]

#[cfg(feature = "control")]
mod account;
pub mod calls;
pub mod config;
mod credentials;
#[cfg(feature = "deploy")]
mod deploy;
#[cfg(feature = "control")]
mod ec2;
pub mod error;
mod file_store;
pub mod files;
#[cfg(feature = "control")]
mod function;
#[cfg(feature = "control")]
mod function_log;
pub mod ledger;
#[cfg(feature = "control")]
mod limits;
#[cfg(feature = "notify")]
pub mod notify;
pub mod permissions;
#[cfg(feature = "control")]
mod prices;
pub mod queue;
mod self_instance;
#[cfg(feature = "control")]
mod stored_policy;
mod tags;

#[cfg(feature = "control")]
pub use account::Account;
pub use config::Aws;
#[cfg(feature = "deploy")]
pub use deploy::{AwsAccount, CloudFormation};
#[cfg(feature = "control")]
pub use ec2::{Ec2Cloud, Finding};
pub use file_store::{AwsFiles, InputPlaces, results};
pub use files::S3Files;
#[cfg(feature = "control")]
pub use function::Function;
#[cfg(feature = "control")]
pub use function_log::{FunctionLog, Tail, WantedLines};
pub use ledger::DynamoLedger;
#[cfg(feature = "control")]
pub use limits::check_limits;
#[cfg(feature = "notify")]
pub use notify::SnsTopic;
#[cfg(feature = "control")]
pub use prices::fetch_prices;
pub use queue::{QueueFacts, Retention, SqsQueue};
pub use self_instance::{InstanceIdentity, SelfInstance};
#[cfg(feature = "control")]
pub use stored_policy::{EarlierObject, ParameterVersion, policy_in_s3};
