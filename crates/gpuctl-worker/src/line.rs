//! The suspects that a worker holds and that could begin: one after the other, while the worker holds nothing else, and those that have
//! crashed least first. So the one that crashes the worker uses up no receive of an innocent job, and few of other suspects.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// The line; shared by all of the worker's tasks.
#[derive(Default)]
pub(crate) struct Line {
    waiting: Mutex<Waiting>,
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct Waiting {
    /// By crashes, then in the order in which they came.
    all: BTreeSet<(u32, u64)>,
    last: u64,
}

/// A suspect in the line, until this is dropped.
pub(crate) struct Turn<'a> {
    line: &'a Line,
    key: (u32, u64),
}

impl Line {
    pub(crate) fn enter(&self, crashes: u32) -> Turn<'_> {
        let key = self.with(|waiting| {
            waiting.last += 1;
            let key = (crashes, waiting.last);
            waiting.all.insert(key);
            key
        });
        self.changed.notify_waiters();
        Turn { line: self, key }
    }

    pub(crate) fn len(&self) -> usize {
        self.with(|waiting| waiting.all.len())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Waiting) -> T) -> T {
        work(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Turn<'_> {
    pub(crate) fn is_first(&self) -> bool {
        self.line.with(|waiting| waiting.all.first() == Some(&self.key))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.line.with(|waiting| waiting.all.remove(&self.key));
        self.line.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_crashed_least_is_first_and_then_who_came_first() {
        let line = Line::default();
        let [often, once, later] = [3, 1, 1].map(|crashes| line.enter(crashes));
        let first = || [&often, &once, &later].map(Turn::is_first);
        assert_eq!((first(), line.len()), ([false, true, false], 3));
        drop(once);
        assert_eq!(([&often, &later].map(Turn::is_first), line.len()), ([false, true], 2));
        drop(later);
        assert!(often.is_first());
    }
}
