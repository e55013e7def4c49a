//! Where a worker's queue and ledger are: in a file of this machine, or on AWS, where the box itself knows who it is.

use std::error::Error;

use gpuctl_control::clock::SystemClock;
use gpuctl_control::config::Config;
use gpuctl_control::ports::{Clock, Ports};
use gpuctl_core::policy::Aws as Account;
use gpuctl_core::units::{PoolId, Timestamp};
use gpuctl_local::{Store, StoreOptions};

use gpu_worker::WorkerSetup;
#[cfg(feature = "aws")]
use gpu_worker::failure::with_causes;

/// The ports, and which box this is.
pub(crate) struct Backend {
    pub(crate) ports: Ports,
    pub(crate) setup: WorkerSetup,
    /// The box that must be gone once its worker has asked it to.
    #[cfg(feature = "aws")]
    pub(crate) own: Option<std::sync::Arc<gpuctl_aws::SelfInstance>>,
}

/// What the command line says of this box; on EC2 the box itself knows better.
pub(crate) struct Named {
    pub(crate) pool: PoolId,
    pub(crate) box_id: Option<String>,
    pub(crate) run: Option<i64>,
}

impl Backend {
    pub(crate) async fn open(config: &Config, named: Named) -> Result<Self, Box<dyn Error>> {
        match &config.policy.cloud.aws {
            None => here(config, named),
            Some(account) => on_aws(config, account, named).await,
        }
    }
}

impl Backend {
    /// Waits for the box to go, where it was asked to and has agreed.
    #[cfg(feature = "aws")]
    pub(crate) async fn see_off(&self) {
        if let Some(own) = &self.own
            && let Err(error) = own.wait_for_shutdown().await
        {
            tracing::error!(error = with_causes(&error), "this box goes on");
        }
    }

    #[cfg(not(feature = "aws"))]
    #[expect(clippy::unused_async, reason = "with AWS it waits")]
    pub(crate) async fn see_off(&self) {}
}

fn here(config: &Config, named: Named) -> Result<Backend, Box<dyn Error>> {
    let box_id = named.box_id.ok_or("on this machine a worker needs `--box NAME`")?.parse()?;
    let run_started_at =
        named.run.and_then(Timestamp::from_timestamp_micros).unwrap_or_else(|| SystemClock.now());
    let store = Store::open(&StoreOptions {
        folder: config.state.clone(),
        file_mib_max: config.policy.cloud.file_mib_max,
    })?;
    let ports = gpuctl_local::ports(&store, None, config.input_roots());
    Ok(Backend {
        ports,
        setup: WorkerSetup { pool: named.pool, box_id, run_started_at },
        #[cfg(feature = "aws")]
        own: None,
    })
}

#[cfg(feature = "aws")]
async fn on_aws(
    config: &Config,
    account: &Account,
    named: Named,
) -> Result<Backend, Box<dyn Error>> {
    use std::sync::Arc;

    use gpuctl_aws::{Aws, DynamoLedger, SelfInstance, SqsQueue};
    use gpuctl_control::ports::Ledger;

    let aws = Aws::connect(account.region.as_deref(), account.profile.as_deref()).await?;
    let table = account.table.as_deref().ok_or("a worker on AWS needs `table` in [cloud]")?;
    let own = Arc::new(SelfInstance::find(&aws, &config.policy, named.pool.clone()).await?);
    let results = gpuctl_aws::results(&aws, account)?;
    let ledger = DynamoLedger::new(&aws, table, Arc::new(SystemClock), results.clone());
    let box_id = own.identity().box_id.clone();
    let memory = ledger.memory(&named.pool).await?;
    let starts = memory.runs.iter().filter(|run| run.box_id == box_id).map(|run| run.started_at);
    let run_started_at = own.adopt_run(starts);
    let here = gpuctl_local::LocalFiles::new(&config.state, config.input_roots());
    let ports = Ports {
        cloud: own.clone(),
        queue: Arc::new(SqsQueue::new(&aws)),
        ledger: Arc::new(ledger),
        files: Arc::new(gpuctl_aws::AwsFiles::new(&aws, results, Arc::new(here))),
        clock: Arc::new(SystemClock),
    };
    let setup = WorkerSetup { pool: named.pool, box_id, run_started_at };
    Ok(Backend { ports, setup, own: Some(own) })
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "with AWS it connects")]
async fn on_aws(_: &Config, _: &Account, _: Named) -> Result<Backend, Box<dyn Error>> {
    Err("this gpu-worker was built without AWS, and the configuration says `kind = \"aws\"`".into())
}
