//! What EC2's calls take and answer, in its own words. Plain data: an HTTP front writes them as XML, the ports read them as they are.

use std::collections::BTreeMap;
use std::fmt;

use chrono::TimeDelta;
use gpuctl_core::offering::CapacityType;
use gpuctl_core::units::Timestamp;

/// A refused call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Ec2Error {
    /// EC2's code, as `InsufficientInstanceCapacity`.
    pub code: &'static str,
    /// EC2's sentence.
    pub message: String,
    /// 4xx for the caller's fault, 5xx for EC2's; capacity is a 500 (`facts/aws.md` 9.5).
    pub http_status: u16,
}

impl Ec2Error {
    pub(super) fn client(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), http_status: 400 }
    }

    pub(super) fn server(code: &'static str, status: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), http_status: status }
    }
}

/// The state of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// Asked for; not billed.
    Pending,
    /// On, and billed.
    Running,
    /// On its way to stopped; no longer billed.
    Stopping,
    /// Off, with its disk.
    Stopped,
    /// On its way to terminated.
    ShuttingDown,
    /// Gone; its row lingers for an hour.
    Terminated,
}

impl InstanceState {
    /// EC2's number for it.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }

    /// EC2's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    /// Whether it is on or coming up.
    pub(crate) fn is_on(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }

    /// Whether it takes up vCPUs of the quota.
    pub(super) fn counts(self) -> bool {
        matches!(self, Self::Pending | Self::Running | Self::Stopping)
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an instance is in its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateReason {
    /// As `Client.UserInitiatedShutdown`.
    pub code: &'static str,
    /// The code and a sentence.
    pub message: String,
}

/// What `shutdown -h` inside the box does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShutdownBehaviour {
    /// Stops it.
    #[default]
    Stop,
    /// Terminates it (W2).
    Terminate,
}

/// An instance, as `DescribeInstances` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// As `i-0123456789abcdef0`.
    pub id: String,
    /// As `g4dn.xlarge`.
    pub instance_type: String,
    /// The image.
    pub image_id: String,
    /// The availability zone.
    pub zone: String,
    /// How it is paid for.
    pub market: CapacityType,
    /// Its spot request.
    pub spot_request_id: Option<String>,
    /// In which state.
    pub state: InstanceState,
    /// When it was last started.
    pub launch_time: Timestamp,
    /// Why it is in its state.
    pub state_reason: Option<StateReason>,
    /// The same in words with the time, as `User initiated (2026-01-05 00:00:00 GMT)`; empty while up.
    pub state_transition_reason: String,
    /// The time in those words.
    pub transition_at: Timestamp,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// What a shutdown from inside does.
    pub shutdown: ShutdownBehaviour,
    /// The token that it was launched with.
    pub client_token: Option<String>,
}

/// How an instance is bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarketOptions {
    /// On demand.
    OnDemand,
    /// On spot.
    Spot(SpotOptions),
}

/// The options of a spot request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpotOptions {
    /// Whether the request outlives its instance; only then may the instance be stopped.
    pub kind: SpotKind,
    /// When a persistent request ends (P7).
    pub valid_until: Option<Timestamp>,
}

/// The kind of a spot request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpotKind {
    /// One instance, terminated when it is taken back.
    OneTime,
    /// Stopped when it is taken back, and started again by EC2.
    Persistent,
}

/// `RunInstances`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInstances {
    /// Same token and parameters: same instances.
    pub client_token: Option<String>,
    /// A launch template, by id or name; what is set here overrides it.
    pub launch_template: Option<String>,
    /// The image; needed without a template.
    pub image_id: Option<String>,
    /// The type; needed without a template.
    pub instance_type: Option<String>,
    /// The zone; any if unset.
    pub zone: Option<String>,
    /// How to buy; the template's or on demand if unset.
    pub market: Option<MarketOptions>,
    /// How many: all or none.
    pub count: u32,
    /// Tags for the instances.
    pub tags: BTreeMap<String, String>,
    /// What a shutdown from inside does.
    pub shutdown: ShutdownBehaviour,
}

/// A launch template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchTemplate {
    /// As `lt-0123456789abcdef0`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image.
    pub image_id: String,
    /// The type.
    pub instance_type: String,
    /// How to buy.
    pub market: MarketOptions,
    /// Tags for the instances.
    pub tags: BTreeMap<String, String>,
}

/// What a describing call asks for; empty means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Describe {
    /// These ids; one that is unknown fails the call.
    pub ids: Vec<String>,
    /// Names and the values that will do, as in `tag:gpuctl:pool`.
    pub filters: Vec<(String, Vec<String>)>,
    /// At most so many rows in one answer.
    pub max_results: Option<usize>,
    /// From the answer before.
    pub next_token: Option<String>,
}

/// A page of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paged<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Ask again with this for more.
    pub next_token: Option<String>,
}

/// What a start or stop did to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Which.
    pub id: String,
    /// Its state before.
    pub previous: InstanceState,
    /// Its state now.
    pub current: InstanceState,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ec2StopMode {
    /// Through the operating system.
    Shutdown,
    /// Power off.
    Force,
}

/// A spot request, as `DescribeSpotInstanceRequests` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpotRequest {
    /// As `sir-abcdefgh`.
    pub id: String,
    /// One-time or persistent.
    pub kind: SpotKind,
    /// In which state.
    pub state: RequestState,
    /// As `instance-stopped-by-user`.
    pub status_code: &'static str,
    /// When the status last changed.
    pub status_at: Timestamp,
    /// Its instance.
    pub instance_id: Option<String>,
    /// The type that it asks for.
    pub instance_type: String,
    /// The zone that it asks for.
    pub zone: String,
    /// When it ends.
    pub valid_until: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The state of a spot request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// Waits for capacity.
    Open,
    /// Has its instance.
    Active,
    /// Its instance is stopped.
    Disabled,
    /// Over, with its instance.
    Closed,
    /// Ended by its owner or its date.
    Cancelled,
}

impl RequestState {
    /// EC2's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Closed => "closed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// `CreateFleet` of type `instant`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateFleet {
    /// Same token and parameters: same instances.
    pub client_token: Option<String>,
    /// The launch template, by id or name.
    pub launch_template: String,
    /// Types and zones in order of preference; `None` is the template's, or any.
    pub overrides: Vec<(Option<String>, Option<String>)>,
    /// How to buy. Spot boxes of a fleet are one-time: they can't be stopped.
    pub market: CapacityType,
    /// How many; fewer may come.
    pub target: u32,
    /// Tags for the instances.
    pub tags: BTreeMap<String, String>,
}

/// What became of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetResult {
    /// As `fleet-…`.
    pub fleet_id: String,
    /// What was launched.
    pub instances: Vec<Instance>,
    /// What was refused, with its type and zone.
    pub errors: Vec<(Ec2Error, String, String)>,
}

/// A notice in a box's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpotAction {
    /// `stop` or `terminate`.
    pub action: &'static str,
    /// When.
    pub at: Timestamp,
}

/// Something that happened to an instance, for EventBridge and for whoever lives in the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// To which instance.
    pub id: String,
    /// What.
    pub kind: ChangeKind,
}

/// What can happen to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It came into this state.
    State(InstanceState),
    /// It will be taken back.
    Notice,
    /// EC2 thinks that it may be taken back.
    Rebalance,
}

/// How this EC2 behaves when nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ec2Settings {
    /// The region's zones.
    pub zones: Vec<String>,
    /// The least and the most time from start to `running`.
    pub pending: (TimeDelta, TimeDelta),
    /// The least and the most time from power-off to `stopped`.
    pub stopping: (TimeDelta, TimeDelta),
    /// How long the operating system may take to shut down before the power goes.
    pub shutdown_max: TimeDelta,
    /// Who shuts the operating system down.
    pub shutdown: Shutdown,
    /// vCPUs that spot and on-demand boxes may have.
    pub vcpus_spot: u32,
    /// … on demand.
    pub vcpus_on_demand: u32,
}

/// Who shuts a box's operating system down when it is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// It does so by itself, after this time.
    After(TimeDelta),
    /// Whoever lives in the box calls `power_off`.
    FromInside,
}

/// What is wrong with EC2 at the moment, in thousandths of the calls or instances; all zero is fair weather.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ec2Faults {
    /// How long `Describe…` may lag behind at most.
    pub lag_max: TimeDelta,
    /// Starts that answer 200 and fall back to `stopped`, as with a key that can't be used (S1).
    pub fall_back: i64,
    /// Starts that stay in `pending` for half an hour (S2).
    pub stuck_pending: i64,
    /// Stops that stay in `stopping` until forced, or for an hour (S3).
    pub stuck_stopping: i64,
    /// Interruptions that come without a notice (P12).
    pub no_notice: i64,
    /// Calls that fail on EC2's side.
    pub errors: i64,
    /// Calls that are throttled beyond the buckets.
    pub throttled: i64,
    /// Refusals that name no other zone.
    pub no_hint: i64,
}
