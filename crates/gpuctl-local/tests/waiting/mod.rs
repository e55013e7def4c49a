//! A ledger in which one job waits, beside a cloud of the test's own.

use std::sync::Arc;

use gpuctl_control::job::{InputUri, Job, JobId, Urgency};
use gpuctl_control::ports::{Clock, Cloud, Ports};
use gpuctl_control::submit::submit;
use gpuctl_core::policy::Policy;
use gpuctl_local::{Store, StoreOptions, SystemClock, ports};
use tempfile::TempDir;

pub(crate) struct Waiting {
    pub(crate) store: Store,
    pub(crate) policy: Policy,
    pub(crate) ports: Ports,
    _folder: TempDir,
}

pub(crate) async fn waiting(policy: &str, cloud: Arc<dyn Cloud>) -> Waiting {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { folder: folder.path().to_owned(), file_mib_max: 64 };
    let store = Store::open(&options).unwrap();
    let policy = Policy::parse(policy).unwrap();
    store.configure(&policy).unwrap();
    let ports = Ports { cloud, ..ports(&store, None, Vec::new()) };
    let submitted_at = SystemClock.now();
    let job = Job {
        id: JobId::new(submitted_at),
        queue: "jobs".parse().unwrap(),
        task: "voice.transcribe".to_owned(),
        model: None,
        input: InputUri::of_path(folder.path()),
        params: serde_json::Map::new(),
        submitted_at,
        generation: 0,
        urgency: Urgency::default(),
    };
    submit(&ports, &[job]).await.unwrap();
    Waiting { store, policy, ports, _folder: folder }
}
