//! Panics of the worker's own parts: none ends unseen, and none keeps a worker from its end.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use gpuctl_control::log::shown;

use crate::{Worker, WorkerExit};

impl Worker {
    /// What `part` returns. If it panics the worker ends, after a drain: only a new process gets rid of what is broken.
    pub(crate) async fn survive<T>(&self, what: &str, part: impl Future<Output = T>) -> Option<T> {
        let done = caught(part).await;
        if let Err(panic) = &done {
            tracing::error!(error = %shown(text(&**panic)), "{what} panicked: this worker ends");
            self.drain(WorkerExit::Hung);
        }
        done.ok()
    }
}

/// The outcome of `work`, or its panic. What it left half done is behind mutexes, and each is read again before it is used.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Box<dyn Any + Send>> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
