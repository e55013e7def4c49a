//! Counts the steps of searches in tests: work is bounded by its number, and seconds depend on the machine.

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A day, a minute or a stretch was looked at, or the instant of a local time looked up.
pub(super) fn step() {
    #[cfg(test)]
    STEPS.set(STEPS.get() + 1);
}

/// How many steps `task` takes.
#[cfg(test)]
pub(super) fn steps_of<T>(task: impl FnOnce() -> T) -> usize {
    let before = STEPS.get();
    task();
    STEPS.get() - before
}
