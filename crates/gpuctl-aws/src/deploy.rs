//! What `gpuctl deploy` and `gpuctl destroy` need of AWS: CloudFormation, and the account around the stack.

mod around;
mod buckets;
mod left;
mod stacks;

pub use around::AwsAccount;
pub use stacks::CloudFormation;
