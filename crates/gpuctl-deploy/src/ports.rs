//! The two ports through which a stack is made and removed: CloudFormation, and the rest of the account around the stack. Both are
//! implemented by `gpuctl-aws`.

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::ports::PortError;
use gpuctl_core::offering::CapacityType;
use gpuctl_core::units::Timestamp;

use crate::change::Change;
use crate::files::Content;
use crate::template::Values;

/// The tag of everything that belongs to a stack; its value is the stack's name.
pub const STACK_TAG: &str = "gpuctl:stack";

/// The tag of a kept box; its value is the name of the launch template from which it was made.
pub const TEMPLATE_TAG: &str = "gpuctl:template";

/// The kinds of what a deleted stack leaves on purpose.
pub const BUCKET: &str = "bucket";
pub const FILE_SYSTEM: &str = "file system";

/// CloudFormation.
#[async_trait]
pub trait Stacks: Send + Sync {
    /// The stack of this name, or of this id also after its deletion; `None` if there is none.
    async fn stack(&self, name: &str) -> Result<Option<Stack>, PortError>;

    /// Other stacks of gpuctl in the account and region.
    async fn others(&self, name: &str) -> Result<Vec<Stack>, PortError>;

    /// Makes a change set. The same one twice is made once.
    async fn propose(&self, wanted: &Proposal) -> Result<(), PortError>;

    /// What a change set would do, as far as CloudFormation has worked it out.
    async fn proposed(&self, stack: &str, change_set: &str) -> Result<Proposed, PortError>;

    /// Executes a change set. One that is executing already, or has been, is a success; a `Conflict` if another is instead.
    async fn execute(&self, stack: &str, change_set: &str) -> Result<(), PortError>;

    /// The change sets of a stack that are worked out or may be executed, not those that failed.
    async fn open_change_sets(&self, stack: &str) -> Result<Vec<OpenChangeSet>, PortError>;

    /// Deletes a change set. One that is gone with its stack is a success.
    async fn withdraw(&self, stack: &str, change_set: &str) -> Result<(), PortError>;

    /// Deletes a stack. One that is being deleted, or is gone, is a success.
    async fn delete(&self, id: &str) -> Result<(), PortError>;

    /// The events of a stack, newest first, as far as `known`.
    async fn events(&self, id: &str, known: Option<&str>) -> Result<Vec<Event>, PortError>;
}

/// A stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    pub name: String,
    pub id: String,
    /// E.g. `UPDATE_ROLLBACK_FAILED`.
    pub status: String,
    pub reason: Option<String>,
    pub parameters: Values,
    pub outputs: Values,
    pub is_protected: bool,
}

/// A change set to make.
#[derive(Clone, Debug)]
pub struct Proposal {
    pub stack: String,
    pub change_set: String,
    /// Whether it creates the stack.
    pub creates: bool,
    /// `None`: the stack's own.
    pub template: Option<String>,
    pub values: Values,
    /// What CloudFormation acts as; `None`: as the user.
    pub role: Option<String>,
}

/// A change set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposed {
    /// E.g. `CREATE_COMPLETE`, `FAILED`.
    pub status: String,
    pub reason: Option<String>,
    pub changes: Vec<Change>,
}

/// A change set that may be executed, also one that someone else made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenChangeSet {
    pub name: String,
    /// When it was made, if CloudFormation says so.
    pub at: Option<Timestamp>,
}

/// One thing that happened to a stack or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub at: Timestamp,
    /// The logical name; of the stack itself, the stack's name.
    pub name: String,
    /// E.g. `AWS::SQS::Queue`.
    pub kind: String,
    pub physical: Option<String>,
    pub status: String,
    pub reason: Option<String>,
}

/// The account around the stack: what must be there before it, is made from it, and must be gone before it goes.
#[async_trait]
pub trait Account: Send + Sync {
    fn region(&self) -> &str;

    /// The time, by AWS's clock.
    fn now(&self) -> Timestamp;

    /// Who is asking, and how far this machine's clock is ahead of AWS's.
    async fn caller(&self) -> (Result<Caller, PortError>, Option<TimeDelta>);

    /// Whether a zone of the region has this instance type.
    async fn offers(&self, instance_type: &str) -> Result<bool, PortError>;

    /// The quota for boxes of a type; `None` if that cannot be told.
    async fn quota(
        &self,
        instance_type: &str,
        capacity: CapacityType,
    ) -> Result<Option<QuotaFound>, PortError>;

    /// The image that `ami-…` or `resolve:ssm:NAME` means now; `None` if there is none.
    async fn image(&self, named: &str) -> Result<Option<String>, PortError>;

    /// Whether something of this kind and name is there already. Kinds are CloudFormation's; of others it says no.
    async fn is_taken(&self, kind: &str, name: &str) -> Result<bool, PortError>;

    /// The zones of subnets, by id; those that do not exist are missing.
    async fn zones(&self, subnets: &[String]) -> Result<Values, PortError>;

    /// The zones that have a default subnet.
    async fn default_zones(&self) -> Result<Vec<String>, PortError>;

    /// Makes the bucket, private and encrypted; one that is there and ours stays as it is. Says whether it was made.
    async fn make_bucket(&self, name: &str) -> Result<bool, PortError>;

    /// Stores an object whose key names its content: what is there stays.
    async fn upload(&self, bucket: &str, key: &str, content: &Content) -> Result<(), PortError>;

    /// Whether a bucket has this object, or one in this folder, whose name ends with a slash.
    async fn has(&self, bucket: &str, key: &str) -> Result<bool, PortError>;

    /// Stores an object in place of what is there.
    async fn replace(&self, bucket: &str, key: &str, content: &Content) -> Result<(), PortError>;

    /// The boxes of a stack, also those that are being terminated.
    async fn boxes(&self, stack: &str) -> Result<Vec<StackBox>, PortError>;

    /// Makes a box from a launch template's newest version. The same order twice makes one box.
    async fn make_box(&self, order: &BoxOrder) -> Result<String, PortError>;

    /// Gives a box an Elastic IP address, unless a box has that address already: the user may have moved it.
    async fn give_address(&self, id: &str, allocation: &str) -> Result<(), PortError>;

    async fn stop_box(&self, id: &str) -> Result<(), PortError>;

    /// Cancels every open spot request of a stack; returns them.
    async fn cancel_requests(&self, stack: &str) -> Result<Vec<String>, PortError>;

    async fn terminate(&self, ids: &[String]) -> Result<(), PortError>;

    /// Messages that wait, and that workers hold; `None` if there is no such queue.
    async fn jobs(&self, queue: &str) -> Result<Option<Jobs>, PortError>;

    /// What carries the stack's tag, its launch templates, and the code bucket.
    async fn left(&self, stack: &str) -> Result<Vec<Left>, PortError>;

    /// Deletes a bucket or a file system with everything in it. One that is gone is a success.
    async fn remove(&self, one: &Left) -> Result<(), PortError>;
}

/// Whose credentials these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub account: String,
    pub arn: String,
}

/// A quota of vCPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaFound {
    /// E.g. `L-3819A6DF`.
    pub code: String,
    pub name: String,
    pub vcpus: u32,
    /// What one box of the type takes of it.
    pub needed: u32,
}

/// A box of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackBox {
    pub id: String,
    /// As EC2 says it, e.g. `running`.
    pub state: String,
    /// The launch template from which `gpuctl deploy` made it; `None` of other boxes.
    pub template: Option<String>,
}

/// A box to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoxOrder {
    pub template: String,
    pub subnet: String,
    /// What the launch template tags its boxes with, and `TEMPLATE_TAG`.
    pub tags: Values,
    pub token: String,
}

/// What is in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    pub waiting: u64,
    pub running: u64,
}

/// Something of a stack that is still there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Left {
    /// E.g. `volume`, `BUCKET`.
    pub kind: &'static str,
    pub id: String,
    /// GiB of a disk or snapshot, GB of data, or hours of an address; 0 of what costs nothing by itself.
    pub units: i64,
    /// Its price in the table, if it has one.
    pub item: Option<&'static str>,
}

impl Left {
    /// Whether a deletion of the stack keeps it on purpose.
    pub(crate) fn is_data(&self) -> bool {
        matches!(self.kind, BUCKET | FILE_SYSTEM)
    }
}
