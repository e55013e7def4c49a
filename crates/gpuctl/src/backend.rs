//! The ports: all on this machine, all on AWS, or boxes on AWS with the ledger on this machine.

use gpuctl_control::config::Config;
use gpuctl_control::ports::Ports;
use gpuctl_local::{Launcher, Store, StoreOptions};

use crate::failure::Failure;
use crate::worker_program::worker_program;

/// The ports, and what only one kind of backend has.
pub(crate) struct Backend {
    pub(crate) ports: Ports,
    /// The file of queue and ledger, if they are on this machine.
    pub(crate) store: Option<Store>,
    /// The account, if boxes and queue are on AWS.
    #[cfg(feature = "aws")]
    pub(crate) account: Option<gpuctl_aws::Account>,
}

impl Backend {
    pub(crate) async fn open(config: &Config) -> Result<Self, Failure> {
        match &config.policy.cloud.aws {
            None => local(config),
            Some(named) => on_aws(config, named).await,
        }
    }
}

fn local(config: &Config) -> Result<Backend, Failure> {
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

/// Without a table the ledger is a file on this machine, so that instance ids and credentials are enough to start with.
#[cfg(feature = "aws")]
async fn on_aws(config: &Config, named: &gpuctl_core::policy::Aws) -> Result<Backend, Failure> {
    use std::sync::Arc;

    use gpuctl_local::LocalFiles;

    let aws = gpuctl_aws::Aws::connect(named.region.as_deref(), named.profile.as_deref()).await?;
    let account = gpuctl_aws::Account::open(aws, &config.policy).await?;
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
    Err(without_aws())
}

/// The failure of a command that needs AWS in a build without it.
#[cfg(not(feature = "aws"))]
pub(crate) fn without_aws() -> Failure {
    Failure::new(crate::failure::Code::UsageNoAws, "this gpuctl was built without AWS")
        .hint("build it with the feature `aws`, which is on by default")
}

/// The failure of a command on stacks in a build without them.
#[cfg(not(feature = "deploy"))]
pub(crate) fn without_deploy() -> Failure {
    Failure::new(crate::failure::Code::UsageNoAws, "this gpuctl was built without CloudFormation")
        .hint("build it with the feature `deploy`, which is on by default")
}
