//! `gpu-worker box`: what the scripts that boot a box ask and tell, before there is a worker or where there cannot be one.

use std::error::Error;
use std::io::Write;

use chrono::TimeDelta;
use gpu_worker::scratch::FolderScratch;
use gpuctl_control::config::Config;
use gpuctl_control::ports::WorkerReport;
use gpuctl_core::observation::WorkerFault;
use gpuctl_core::units::PoolId;

use super::runtime;
use crate::arguments::BoxCommand;
use crate::backend::{Backend, NamedBox};

/// What a worker gets beyond its lifetime and its drain, before the box is powered off under it.
const LIFETIME_MARGIN: TimeDelta = TimeDelta::minutes(10);

pub(crate) fn own_box(config: &Config, command: BoxCommand) -> Result<(), Box<dyn Error>> {
    match command {
        BoxCommand::Lifetime { pool } => {
            let seconds = lifetime(config, &pool.parse()?)?.num_seconds();
            Ok(writeln!(std::io::stdout(), "{seconds}")?)
        }
        BoxCommand::Health { r#box } => {
            let box_id = r#box.map(|name| name.parse()).transpose()?;
            FolderScratch::check_alive(&config.state, box_id.as_ref())
        }
        BoxCommand::Fault { of, code, message } => {
            let named = NamedBox::try_from(of)?;
            runtime()?.block_on(tell_fault(config, &named, Told { code, message }))
        }
    }
}

/// How long a box of this pool may be up, by a timer that does not know of its worker.
fn lifetime(config: &Config, pool: &PoolId) -> Result<TimeDelta, Box<dyn Error>> {
    let settings = config.policy.pool(pool).ok_or_else(|| format!("there is no [pool.{pool}]"))?;
    let drain = config.policy.worker.drain;
    Ok(settings.lifetime_max + settings.command_max + drain + LIFETIME_MARGIN)
}

struct Told {
    code: String,
    message: String,
}

async fn tell_fault(config: &Config, named: &NamedBox, words: Told) -> Result<(), Box<dyn Error>> {
    let Backend { ports, setup, .. } = Backend::open(config, named).await?;
    let at = ports.clock.now();
    let report = WorkerReport {
        device: setup.device,
        last_error: Some(words.message.clone()),
        fault: Some(WorkerFault { code: words.code, message: words.message, since: at }),
        ..WorkerReport::begin(setup.box_id, setup.run_started_at, at, setup.pid)
    };
    Ok(ports.ledger.report(&report).await?)
}
