//! `[cost]` of the policy, once it is read.

use super::PriceTable;
use crate::units::MicroUsd;

/// `[cost]`: what box time is priced as.
#[derive(Clone, Debug, PartialEq)]
pub struct CostSettings {
    /// An EC2 instance type.
    pub instance_type: String,
    /// An AWS region.
    pub region: String,
    /// The price of an hour, in place of the table's.
    pub usd_hour: Option<MicroUsd>,
    /// The size of a box's disk, which costs also while the box is stopped.
    pub disk_gib: u32,
    /// What a GiB of it costs a month.
    pub disk_usd_gib_month: MicroUsd,
    /// Whether each box keeps a public IPv4 address.
    pub public_ipv4: bool,
    /// The prices that are known.
    pub prices: PriceTable,
}
