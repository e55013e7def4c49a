//! Request token buckets, with sizes and refill rates of the EC2 API Reference, "Request throttling".

use gpuctl_core::units::Timestamp;

use super::types::Ec2Error;

/// The buckets, by what a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bucket {
    Describe,
    Mutate,
    Run,
    Start,
    Terminate,
    Spot,
    Tags,
}

impl Bucket {
    /// The bucket's size in calls, and its refill per second.
    fn limits(self) -> (i64, i64) {
        match self {
            Self::Describe => (100, 20),
            Self::Mutate | Self::Spot => (50, 5),
            Self::Run | Self::Start => (5, 2),
            Self::Terminate => (100, 5),
            Self::Tags => (100, 10),
        }
    }
}

/// How full each bucket is, in thousandths of a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Throttle {
    used: [(i64, Timestamp); 7],
}

impl Throttle {
    pub(super) fn take(&mut self, bucket: Bucket, now: Timestamp) -> Result<(), Ec2Error> {
        let (most, a_second) = bucket.limits();
        let (used, at) = &mut self.used[bucket as usize];
        // A bucket is empty again after less than a minute.
        let passed_ms = (now - *at).num_milliseconds().clamp(0, 60_000);
        let left = (*used - passed_ms * a_second).max(0);
        if left + 1_000 > most * 1_000 {
            return Err(exceeded());
        }
        (*used, *at) = (left + 1_000, now);
        Ok(())
    }
}

pub(super) fn exceeded() -> Ec2Error {
    Ec2Error::server("RequestLimitExceeded", 503, "Request limit exceeded.")
}
