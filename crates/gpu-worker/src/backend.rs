//! Where a worker's queue and ledger are: in a file of this machine, or on AWS, where the instance's metadata says which box
//! this is.

use std::error::Error;

use gpuctl_control::clock::SystemClock;
use gpuctl_control::config::Config;
use gpuctl_control::log::shown;
use gpuctl_control::ports::{Clock, Ports};
use gpuctl_core::observation::BootPhase;
use gpuctl_core::policy::{Aws as Account, PowerOff};
use gpuctl_core::units::{BoxId, PoolId, Timestamp};
use gpuctl_local::{Store, StoreOptions};
use gpuctl_worker::WorkerSetup;

use crate::arguments::WhichBox;

#[cfg(feature = "aws")]
use gpuctl_control::text::with_causes;

/// The ports, and which box this is.
pub(crate) struct Backend {
    pub(crate) ports: Ports,
    pub(crate) setup: WorkerSetup,
    /// The instance, which this process must not outlive by much once it has shut it down.
    #[cfg(feature = "aws")]
    instance: Option<std::sync::Arc<gpuctl_aws::SelfInstance>>,
}

/// What the command line says of this box; on EC2 the instance's metadata wins.
pub(crate) struct NamedBox {
    pub(crate) pool: PoolId,
    pub(crate) box_id: Option<String>,
    /// Which of the box's devices this worker is for, if it has several workers.
    pub(crate) device: Option<String>,
    /// When the box was asked to start, in microseconds since 1970.
    pub(crate) run_micros: Option<i64>,
}

impl TryFrom<WhichBox> for NamedBox {
    type Error = Box<dyn Error>;

    fn try_from(given: WhichBox) -> Result<Self, Self::Error> {
        Ok(Self {
            pool: given.pool.parse()?,
            box_id: given.r#box,
            device: given.device_index.map(|index| index.to_string()),
            run_micros: given.run,
        })
    }
}

impl Backend {
    /// Opens the store, or connects to AWS.
    pub(crate) async fn open(config: &Config, named: &NamedBox) -> Result<Self, Box<dyn Error>> {
        match &config.policy.cloud.aws {
            None => local(config, named),
            Some(account) => on_aws(config, account, named).await,
        }
    }

    /// Powers this box off, and waits until that ends this process. Returns at once on the local backend, where the process is the box,
    /// and where the service manager does it, by the exit code.
    #[cfg(feature = "aws")]
    pub(crate) async fn power_off(&self) {
        use gpuctl_control::ports::Cloud;
        use gpuctl_core::plan::StopMode;

        let Some(instance) = &self.instance else { return };
        // Where the plan stopped the box it is shutting down already.
        let ordered = match instance.is_shutting_down() {
            true => Ok(()),
            false => instance.stop(&self.setup.box_id, StopMode::Drain).await,
        };
        let ended = match ordered {
            Ok(()) => instance.wait_for_shutdown().await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::error!(
                error = with_causes(&error),
                "this box did not shut down and costs money; a controller stops it"
            );
        }
    }

    #[cfg(not(feature = "aws"))]
    #[expect(clippy::unused_async, reason = "with AWS it waits")]
    pub(crate) async fn power_off(&self) {}

    /// Powers the box off by its command alone, where AWS cannot be reached.
    pub(crate) async fn power_off_unconnected(config: &Config) {
        let PowerOff::Command(command) = &config.policy.worker.power_off else { return };
        let Some((program, words)) = command.split_first() else { return };
        match tokio::process::Command::new(program).args(words).status().await {
            Ok(status) if status.success() => tracing::warn!("this box shuts down"),
            Ok(status) => tracing::error!(%status, "this box did not shut down and costs money"),
            Err(error) => {
                tracing::error!(error = %shown(error), "this box did not shut down and costs money");
            }
        }
    }
}

fn setup(named: &NamedBox, box_id: BoxId, run_started_at: Timestamp) -> WorkerSetup {
    WorkerSetup {
        pool: named.pool.clone(),
        box_id,
        device: named.device.clone(),
        run_started_at,
        pid: std::process::id(),
        boot_phases: boot_phases(),
    }
}

/// What the box's scripts noted of this boot, where they name a file; without one, or if it cannot be read, nothing.
fn boot_phases() -> Vec<BootPhase> {
    let file = std::env::var_os("GPUCTL_BOOT_PHASES");
    let text = file.and_then(|file| std::fs::read_to_string(file).ok());
    text.map(|text| BootPhase::read_all(&text)).unwrap_or_default()
}

fn local(config: &Config, named: &NamedBox) -> Result<Backend, Box<dyn Error>> {
    let box_id =
        named.box_id.clone().ok_or("on this machine a worker needs `--box NAME`")?.parse()?;
    let started = named.run_micros.and_then(Timestamp::from_timestamp_micros);
    let run_started_at = started.unwrap_or_else(|| SystemClock.now());
    let store = Store::open(&StoreOptions {
        folder: config.state.clone(),
        file_mib_max: config.policy.cloud.file_mib_max,
    })?;
    let ports = gpuctl_local::ports(&store, None, config.input_roots());
    Ok(Backend {
        ports,
        setup: setup(named, box_id, run_started_at),
        #[cfg(feature = "aws")]
        instance: None,
    })
}

#[cfg(feature = "aws")]
async fn on_aws(
    config: &Config,
    account: &Account,
    named: &NamedBox,
) -> Result<Backend, Box<dyn Error>> {
    use std::sync::Arc;

    use gpuctl_aws::{Aws, DynamoLedger, SelfInstance, SqsQueue};
    use gpuctl_control::lanes::Lanes;
    use gpuctl_control::ports::Ledger;
    use gpuctl_core::observation::Run;

    let aws = Aws::connect(account.region.as_deref(), account.profile.as_deref()).await?;
    let table = account.table.as_deref().ok_or("a worker on AWS needs `table` in [cloud]")?;
    let instance = SelfInstance::find(&aws, &config.policy, named.pool.clone()).await?;
    let instance = Arc::new(instance);
    let results = gpuctl_aws::results(&aws, account)?;
    let ledger = DynamoLedger::new(&aws, table, aws.clock(), results.clone());
    let ledger = ledger.of_worker(named.pool.clone());
    let box_id = instance.identity().box_id.clone();
    let memory = ledger.memory(&named.pool).await?;
    // A run that is over did not lead to this boot, however short ago it was.
    let of_boot = |run: &&Run| run.box_id == box_id && run.stopped_at.is_none();
    let starts = memory.runs.iter().filter(of_boot).map(|run| run.started_at);
    let run_started_at = instance.adopt_run(starts);
    let local = gpuctl_local::LocalFiles::new(&config.state, config.input_roots());
    let ports = Ports {
        cloud: instance.clone(),
        queue: Arc::new(Lanes::new(Arc::new(SqsQueue::new(&aws)), &config.policy)),
        ledger: Arc::new(ledger),
        files: Arc::new(gpuctl_aws::AwsFiles::new(
            &aws,
            results,
            Arc::new(local),
            gpuctl_aws::InputPlaces::of(&config.policy),
        )),
        clock: aws.clock(),
    };
    let setup = setup(named, box_id, run_started_at);
    Ok(Backend { ports, setup, instance: Some(instance) })
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "with AWS it connects")]
async fn on_aws(_: &Config, _: &Account, _: &NamedBox) -> Result<Backend, Box<dyn Error>> {
    Err("this gpu-worker was built without AWS, and the configuration says `kind = \"aws\"`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_box_that_cannot_reach_aws_is_powered_off_by_its_command_or_left_to_the_hook() {
        let folder = tempfile::tempdir().unwrap();
        let (file, off) = (folder.path().join("gpuctl.toml"), folder.path().join("off"));
        for power_off in ["\"exit-code\"".to_owned(), format!("[\"touch\", {off:?}]")] {
            let text = format!(
                "[cloud]\nkind = \"aws\"\ntable = \"gpuctl\"\n[worker]\npower_off = {power_off}\n[pool.gpu]\nqueue = \"jobs\"\ninstances = [\"i-0123456789abcdef0\"]\n"
            );
            std::fs::write(&file, text).unwrap();
            let config = Config::load(Some(&file)).unwrap();
            Backend::power_off_unconnected(&config).await;
            assert_eq!(off.exists(), power_off.contains("touch"));
        }
    }
}
