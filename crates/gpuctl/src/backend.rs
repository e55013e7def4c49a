//! Where boxes, queue and ledger are: on this machine, on AWS, or boxes on AWS with the ledger here.

use gpuctl_control::config::Config;
use gpuctl_control::ports::Ports;
use gpuctl_local::{Launcher, Store, StoreOptions};

use crate::context::worker_program;
use crate::failure::Failure;

/// The ports, and what only one kind of place has.
pub(crate) struct Backend {
    pub(crate) ports: Ports,
    /// The file of queue and ledger, where they are on this machine.
    pub(crate) store: Option<Store>,
    /// The account, where boxes and queue are on AWS.
    #[cfg(feature = "aws")]
    pub(crate) account: Option<gpuctl_aws::Account>,
}

impl Backend {
    pub(crate) async fn open(config: &Config) -> Result<Self, Failure> {
        match &config.policy.cloud.aws {
            None => here(config),
            Some(named) => on_aws(config, named).await,
        }
    }
}

fn here(config: &Config) -> Result<Backend, Failure> {
    let store = open_store(config)?;
    store.configure(&config.policy)?;
    let launcher = Launcher {
        worker: worker_program(),
        config: config.file.clone(),
        folder: config.folder.clone(),
        policy: config.policy.clone(),
    };
    let ports = gpuctl_local::ports(&store, Some(launcher), config.input_roots());
    Ok(Backend {
        ports,
        store: Some(store),
        #[cfg(feature = "aws")]
        account: None,
    })
}

fn open_store(config: &Config) -> Result<Store, Failure> {
    let options = StoreOptions {
        folder: config.state.clone(),
        file_mib_max: config.policy.cloud.file_mib_max,
    };
    Ok(Store::open(&options)?)
}

/// With no table the ledger is a file of this machine, so that two instance ids and credentials are enough to begin with.
#[cfg(feature = "aws")]
async fn on_aws(config: &Config, named: &gpuctl_core::policy::Aws) -> Result<Backend, Failure> {
    use std::sync::Arc;

    use gpuctl_local::LocalFiles;

    let aws = gpuctl_aws::Aws::connect(named.region.as_deref(), named.profile.as_deref()).await?;
    let account = gpuctl_aws::Account::open(aws, &config.policy)?;
    let files = Arc::new(LocalFiles::new(&config.state, config.input_roots()));
    let (ports, store) = if let Some(table) = account.table.clone() {
        (account.ports_with(table, files), None)
    } else {
        let store = open_store(config)?;
        (account.ports_with(Arc::new(store.clone()), files), Some(store))
    };
    Ok(Backend { ports, store, account: Some(account) })
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "with AWS it connects")]
async fn on_aws(_: &Config, _: &gpuctl_core::policy::Aws) -> Result<Backend, Failure> {
    Err(Failure::usage(
        "this gpuctl was built without AWS, and the configuration says `kind = \"aws\"`",
    )
    .hint("build it with the feature `aws`, which is on by default"))
}
