//! `[http]`: where `gpuctl serve` listens, and what it lets clients do.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU32;

use chrono::TimeDelta;

use super::section::Section;

/// Where `gpuctl serve` listens unless the policy says otherwise: on this machine alone.
const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8_686));
/// The largest upload that can be allowed: the largest input that a worker fetches.
const UPLOAD_MIB_MAX: u32 = 4_096;
/// The longest answer that can be allowed: clients of OpenAI give up after ten minutes.
const WAIT_MAX: TimeDelta = TimeDelta::seconds(590);

/// `[http]`: settings of `gpuctl serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    pub address: SocketAddr,
    /// Names under which it may be called, beside `localhost` and the address itself.
    pub hosts: Vec<String>,
    /// The largest file that a client may upload, in MiB.
    pub upload_mib_max: u32,
    /// The most connections at once.
    pub connections_max: NonZeroU32,
    /// The most requests at once that wait for a job.
    pub waiting_max: NonZeroU32,
    /// How long a request may wait for a job.
    pub wait_max: TimeDelta,
    /// The most jobs in the queue; beyond that none is taken.
    pub queued_max: NonZeroU32,
}

pub(super) fn read(mut section: Section<'_, '_, '_>) -> Http {
    let (second, seconds) = (TimeDelta::seconds(1), TimeDelta::seconds);
    let http = Http {
        address: section.parsed("address").unwrap_or(ADDRESS),
        hosts: section.texts("hosts").map(|(_, hosts)| hosts).unwrap_or_default(),
        upload_mib_max: section.whole("upload_mib_max", 1..=UPLOAD_MIB_MAX).unwrap_or(512),
        connections_max: section.count("connections_max", 100_000, 512),
        waiting_max: section.count("waiting_max", 100_000, 64),
        wait_max: section.duration_or("wait_max", second..=WAIT_MAX, seconds(570)),
        queued_max: section.count("queued_max", 10_000_000, 10_000),
    };
    section.report_unknown_keys();
    http
}
