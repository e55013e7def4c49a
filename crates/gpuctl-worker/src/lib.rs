//! A worker's life over the ports: it receives jobs, leases, limits, commits, drains, and ends with a reason.
//!
//! The queue delivers at least once and the ledger takes one result a job, so each job has exactly one result. The worker has no
//! rules about boxes of its own: it calls the same `decide` as a controller, and follows what the plan says about its own box.
//! Models are behind [`Inference`] and a disk behind [`Scratch`], so that the fault simulation runs this code in simulated time:
//! on one thread, with tokio's clock for durations and the port `Clock` for times, and nothing that wakes in a random order.

mod cancel;
mod commit;
mod exit;
mod faults;
mod held;
mod inference;
mod job;
mod leases;
mod line;
mod neighbours;
mod pace;
mod panics;
mod receive;
mod result;
mod run;
mod running;
mod scratch;
mod serve;
mod service;
mod signals;
mod suspects;
mod timer;
mod unreadable;
mod watch;
mod worker;

pub use cancel::Cancel;
pub use exit::WorkerExit;
pub use inference::{BoxFault, Decoded, Fault, Inference, Inferred, Inputs, Needs, OutputFile};
pub use neighbours::{Alone, Neighbours};
pub use result::{FileDocument, file_document, with_files};
pub use scratch::{MemoryScratch, Scratch};
pub use serve::serve;
pub use signals::Signals;
pub use timer::JobTimer;
pub use watch::KEEP_UNTIL;
pub use worker::{Parts, Worker, WorkerError, WorkerSetup};
