//! The section `[cost]` of the policy, as parsed.

use super::PriceTable;
use crate::units::MicroUsd;

/// `[cost]`: the prices of box time.
#[derive(Clone, Debug, PartialEq)]
pub struct CostSettings {
    /// An EC2 instance type, e.g. `g4dn.xlarge`.
    pub instance_type: String,
    /// An AWS region, e.g. `us-east-1`.
    pub region: String,
    /// The price of an hour, in place of that of the table.
    pub usd_hour: Option<MicroUsd>,
    /// The size of each box's disk, which is billed even while the box is stopped.
    pub disk_gib: u32,
    /// The price of a GiB of disk a month.
    pub disk_usd_gib_month: MicroUsd,
    /// Whether each box keeps a public IPv4 address.
    pub public_ipv4: bool,
    /// The shipped prices and those fetched since.
    pub prices: PriceTable,
}
