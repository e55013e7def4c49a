//! The requests and responses of EC2's calls, with EC2's names. Plain data: the HTTP front writes them as XML, the ports use them
//! directly.

use std::collections::BTreeMap;
use std::fmt;

use chrono::TimeDelta;
use gpuctl_core::offering::CapacityType;
use gpuctl_core::units::Timestamp;

/// An error response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Ec2Error {
    /// EC2's code, e.g. `InsufficientInstanceCapacity`.
    pub code: &'static str,
    /// EC2's message.
    pub message: String,
    /// 400 for client errors, 500 and above for server errors; capacity is a 500 (EC2 API Reference, "Error codes").
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
    /// Starting; not billed.
    Pending,
    /// On, and billed.
    Running,
    /// On its way to stopped; no longer billed.
    Stopping,
    /// Off, with its disk.
    Stopped,
    /// On its way to terminated.
    ShuttingDown,
    /// Still listed for an hour.
    Terminated,
}

impl InstanceState {
    /// EC2's numeric code.
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

    /// EC2's name.
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
    /// E.g. `Client.UserInitiatedShutdown`.
    pub code: &'static str,
    /// The code and a message.
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
    /// E.g. `i-0123456789abcdef0`.
    pub id: String,
    /// E.g. `g4dn.xlarge`.
    pub instance_type: String,
    pub image_id: String,
    pub zone: String,
    /// Spot or on demand.
    pub market: CapacityType,
    /// The id of its spot request; `None` on demand.
    pub spot_request_id: Option<String>,
    pub state: InstanceState,
    /// When it was last started.
    pub launch_time: Timestamp,
    /// Why it is in its state.
    pub state_reason: Option<StateReason>,
    /// The same as a text, e.g. `User initiated (2026-01-05 00:00:00 GMT)`; empty while up.
    pub state_transition_reason: String,
    /// The time in that text.
    pub transition_at: Timestamp,
    pub tags: BTreeMap<String, String>,
    /// What a shutdown from inside does.
    pub shutdown: ShutdownBehaviour,
    /// The client token of its launch.
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
    /// One instance, terminated by an interruption.
    OneTime,
    /// Its instance is stopped by an interruption, and started again by EC2.
    Persistent,
}

/// `RunInstances`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInstances {
    /// A repeated call with the same token and parameters returns the same instances.
    pub client_token: Option<String>,
    /// A launch template, by id or name; what is set here overrides it.
    pub launch_template: Option<String>,
    /// The image; needed without a template.
    pub image_id: Option<String>,
    /// The type; needed without a template.
    pub instance_type: Option<String>,
    /// `None`: any zone.
    pub zone: Option<String>,
    /// `None`: as the template says, else on demand.
    pub market: Option<MarketOptions>,
    /// Number of instances: all or none are launched.
    pub count: u32,
    /// Tags for the instances.
    pub tags: BTreeMap<String, String>,
    /// What a shutdown from inside does.
    pub shutdown: ShutdownBehaviour,
}

/// A launch template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchTemplate {
    /// E.g. `lt-0123456789abcdef0`.
    pub id: String,
    pub name: String,
    /// Its newest version, from which boxes are made.
    pub version: u32,
    pub image_id: String,
    pub instance_type: String,
    pub market: MarketOptions,
    /// Tags for the instances.
    pub tags: BTreeMap<String, String>,
}

/// The parameters of a `Describe…` call; empty means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Describe {
    /// An unknown id fails the call.
    pub ids: Vec<String>,
    /// Filter names, e.g. `tag:gpuctl:pool`, and accepted values.
    pub filters: Vec<(String, Vec<String>)>,
    /// Maximum number of rows in one response.
    pub max_results: Option<usize>,
    /// From the previous response.
    pub next_token: Option<String>,
}

/// A page of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paged<T> {
    pub rows: Vec<T>,
    /// The token of the next page, if there is one.
    pub next_token: Option<String>,
}

/// The effect of a start or stop on an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    pub id: String,
    pub previous: InstanceState,
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
    /// E.g. `sir-abcdefgh`.
    pub id: String,
    pub kind: SpotKind,
    pub state: RequestState,
    /// E.g. `instance-stopped-by-user`.
    pub status_code: &'static str,
    pub status_at: Timestamp,
    pub instance_id: Option<String>,
    pub instance_type: String,
    pub zone: String,
    /// When a persistent request ends (P7).
    pub valid_until: Option<Timestamp>,
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
    /// Over, as is its instance.
    Closed,
    /// Ended by its owner or its date.
    Cancelled,
}

impl RequestState {
    /// EC2's name.
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
    /// A repeated call with the same token and parameters returns the same instances.
    pub client_token: Option<String>,
    /// The launch template, by id or name.
    pub launch_template: String,
    /// Types and zones in order of preference; `None` is the template's type, or any zone.
    pub overrides: Vec<(Option<String>, Option<String>)>,
    /// Spot instances of a fleet are one-time: they can't be stopped.
    pub market: CapacityType,
    /// Number of instances; fewer may be launched.
    pub target: u32,
    /// Tags for the instances.
    pub tags: BTreeMap<String, String>,
}

/// The response of `CreateFleet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetResult {
    pub fleet_id: String,
    pub instances: Vec<Instance>,
    /// Refused launches with type and zone.
    pub errors: Vec<(Ec2Error, String, String)>,
}

/// A spot interruption notice in an instance's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpotAction {
    /// `stop` or `terminate`.
    pub action: &'static str,
    pub at: Timestamp,
}

/// Something that happened to an instance, for EventBridge and for what runs on the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub at: Timestamp,
    /// The instance.
    pub id: String,
    pub kind: ChangeKind,
}

/// A kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It entered this state.
    State(InstanceState),
    /// Its interruption notice.
    Notice,
    /// A rebalance recommendation.
    Rebalance,
}

/// How EC2 behaves without faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ec2Settings {
    /// The zones of the region.
    pub zones: Vec<String>,
    /// The least and the most time from start to `running`.
    pub pending: (TimeDelta, TimeDelta),
    /// The least and the most time from power-off to `stopped`.
    pub stopping: (TimeDelta, TimeDelta),
    /// How long the operating system may take to shut down before the power goes.
    pub shutdown_max: TimeDelta,
    /// What shuts the operating system down.
    pub shutdown: Shutdown,
    /// The vCPU quota of spot instances.
    pub vcpus_spot: u32,
    /// The vCPU quota of on-demand instances.
    pub vcpus_on_demand: u32,
}

/// What shuts the operating system of an instance down when EC2 stops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// It shuts down by itself after this time.
    After(TimeDelta),
    /// What runs on the instance calls `power_off`.
    FromInside,
}

/// Faults of EC2, in thousandths of the calls or instances concerned; all zero is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ec2Faults {
    /// The greatest lag of `Describe…`.
    pub lag_max: TimeDelta,
    /// Starts that succeed and fall back to `stopped`, as with a disk key that can't be used (S1).
    pub fall_back: i64,
    /// Starts that stay in `pending` for half an hour (S2).
    pub stuck_pending: i64,
    /// Stops that stay in `stopping` for half an hour, unless forced (S3).
    pub stuck_stopping: i64,
    /// Interruptions without a notice (P12).
    pub no_notice: i64,
    /// Calls that fail with a server error.
    pub errors: i64,
    /// Calls that are throttled although the buckets are not empty.
    pub throttled: i64,
    /// Refusals that do not name zones with capacity.
    pub no_hint: i64,
}
