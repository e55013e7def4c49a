//! On this machine: queue and ledger in SQLite, files in a folder.

use std::process::Command;

use chrono::TimeDelta;
use gpuctl_control::ports::NewMessage;
use gpuctl_core::policy::Policy;
use gpuctl_local::{Store, StoreOptions};

use super::{POOL, Place, models, worker};
use crate::support::{Sandbox, cache};

pub(in crate::kills) struct Local {
    sandbox: Sandbox,
    store: Store,
}

impl Local {
    pub(in crate::kills) fn new() -> Self {
        let config = format!("[pool.gpu]\nboxes_max = 3\n{POOL}");
        let sandbox = Sandbox::new(&config);
        let models = models(&sandbox);
        let sandbox = sandbox.with("GPUCTL_MODELS", models).with("GPUCTL_CACHE", cache());
        let options = StoreOptions { folder: sandbox.path(".gpuctl"), file_mib_max: 256 };
        let store = Store::open(&options).unwrap();
        store.configure(&Policy::parse(&config).unwrap()).unwrap();
        Self { sandbox, store }
    }
}

impl Place for Local {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn worker(&self, number: usize) -> (Command, String) {
        let name = format!("gpu-{}", number + 1);
        (worker(&self.sandbox, &["--box", &name]), name)
    }

    fn send(&self, body: &str) {
        let message =
            NewMessage { body: body.to_owned(), attributes: Vec::new(), delay: TimeDelta::zero() };
        self.store.send_now(&"jobs".parse().unwrap(), &[message]).unwrap();
    }

    fn moves_at_once(&self) -> bool {
        true
    }

    fn files(&self) -> Vec<String> {
        let results = self.sandbox.path(".gpuctl/results");
        let mut found = Vec::new();
        let mut folders = vec![results.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else {
                    found.push(entry.strip_prefix(&results).unwrap().display().to_string());
                }
            }
        }
        found
    }

    fn read(&self, uri: &str) -> Vec<u8> {
        std::fs::read(uri.strip_prefix("file://").unwrap()).unwrap()
    }
}
