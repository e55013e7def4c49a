//! Small files that claim or become much: each is refused in a process that may have only so much memory.
//!
//! A binary of its own: whatever asks for more aborts it, as the kernel's out-of-memory killer would end a worker with all its jobs.

#[cfg(test)]
mod craft;
#[cfg(test)]
mod refusals;
