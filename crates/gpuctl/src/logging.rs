//! The log on standard error: what `GPUCTL_LOG` asks for, and with `--show-calls` each call to AWS.

use std::io::{self, Write};

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer};

use crate::render::escaped_line;

/// The target under which AWS calls are logged.
const CALLS: &str = "gpuctl::calls";

/// Starts the log. AWS calls are bare lines, to copy and paste. What simulated workers log is shown only where `GPUCTL_LOG` asks for it.
pub(crate) fn start(show_calls: bool, is_simulated: bool) {
    let usually = if is_simulated { "off" } else { "error" };
    let filter = EnvFilter::try_from_env("GPUCTL_LOG").unwrap_or_else(|_| EnvFilter::new(usually));
    let usual = tracing_subscriber::fmt::layer().with_writer(|| Escaped).with_ansi(false);
    let calls = tracing_subscriber::fmt::layer()
        .with_writer(|| Escaped)
        .with_ansi(false)
        .without_time()
        .with_level(false)
        .with_target(false);
    let is_shown_call = filter_fn(move |event| show_calls && event.target() == CALLS);
    tracing_subscriber::registry()
        .with(usual.with_filter(filter))
        .with(calls.with_filter(is_shown_call))
        .init();
}

/// Standard error for events: each is written at once, as one escaped line.
struct Escaped;

impl Write for Escaped {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = escaped_line(&String::from_utf8_lossy(event));
        writeln!(io::stderr().lock(), "{line}")?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
