//! The simulated boxes, queue and ledger pass the tests that every adapter must pass.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use chrono::TimeDelta;
use gpuctl_control::contract::{RECEIVES_MAX, WaitingSubject};
use gpuctl_control::contract_tests;
use gpuctl_core::policy::Policy;
use gpuctl_sim::world::faultless_ports;

async fn setup() -> WaitingSubject {
    let policy = format!("[pool.gpu]\nqueue = \"jobs\"\nreceives_max = {RECEIVES_MAX}");
    let policy = Policy::parse(&policy).unwrap();
    let ports = faultless_ports(Some(policy.clone())).unwrap();
    WaitingSubject {
        ports,
        queue: "jobs".parse().unwrap(),
        policy,
        lease_min: TimeDelta::milliseconds(500),
        kept: (),
    }
}

contract_tests!(cloud, setup);
contract_tests!(queue, setup);
contract_tests!(lists, setup);
contract_tests!(redrive, setup);
contract_tests!(ledger, setup);
contract_tests!(jobs, setup);
contract_tests!(cancel, setup);
