//! The other workers of the same box: a box with several devices has one for each, and is powered off once, when the last of them ends.

/// What a worker and its neighbours agree on. What one of them holds is free again once its process has ended, however that ended.
pub trait Neighbours: Send + Sync {
    /// Gives up serving, if it has not yet, and takes the right to end the box if no other worker serves on it or has that right.
    fn is_last(&self) -> bool;

    /// Takes the right to stop the box although others serve on it, since all of them are idle. `false` if another one is doing it.
    fn may_stop_box(&self) -> bool;
}

/// No other worker: that of a box with one device.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Neighbours for Alone {
    fn is_last(&self) -> bool {
        true
    }

    fn may_stop_box(&self) -> bool {
        true
    }
}
