//! On an emulated AWS: SQS, DynamoDB and S3 by an emulator, the boxes in the simulated EC2.

use std::process::Command;
use std::sync::Arc;

use chrono::TimeDelta;
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::Clock;
use gpuctl_core::policy::RECEIVES_SPARE;
use gpuctl_sim::wire::{Front, Imds};
use gpuctl_sim::world::ec2::{Ec2, Ec2Settings, MarketOptions};
use serde_json::json;

use super::{POOL, Place, RECEIVES_MAX, models, worker};
use crate::aws::{gpu_boxes, settings};
use crate::deployment::{ACCOUNT, Account, REGION};
use crate::emulators::{self, Emulator};
use crate::support::{Sandbox, cache};

/// As `POOL` says.
const QUEUE: &str = "jobs";
const TABLE: &str = "gpuctl";
const BUCKET: &str = "results";

pub(in crate::kills) struct Aws {
    // Dropped first: it stops the boxes.
    sandbox: Sandbox,
    boxes: Vec<(String, Imds)>,
    account: Account,
    _front: Front,
    _emulator: Emulator,
}

impl Aws {
    pub(in crate::kills) async fn new() -> Self {
        let emulator = emulators::new_ministack().await;
        let account = Account { port: emulator.port };
        furnish(account);
        let (front, ids) = running_boxes().await;
        let sandbox = sandbox(&emulator.url(), &front.url(), &ids);
        // It makes the table. Whether all is well is not asked here: the emulated account lacks some of what is checked.
        let checks = sandbox.run(&["doctor", "--fix", "--json"]).json();
        let ledger =
            checks["checks"].as_array().unwrap().iter().find(|one| one["name"] == "ledger");
        assert!(ledger.is_some_and(|ledger| ledger["status"] == "pass"), "{checks}");
        let mut boxes = Vec::new();
        for id in ids {
            let imds = front.imds(&id).await.unwrap();
            boxes.push((id, imds));
        }
        Self { sandbox, boxes, account, _front: front, _emulator: emulator }
    }
}

fn sandbox(endpoint: &str, ec2: &str, ids: &[String]) -> Sandbox {
    let sandbox = Sandbox::new("");
    let own = sandbox.config();
    let roots = [cache().join("samples"), own.parent().unwrap().to_owned()];
    let off = sandbox.path("off");
    let config = format!(
        "[cloud]\nkind = \"aws\"\nregion = \"{REGION}\"\ntable = \"{TABLE}\"\nresults = \"s3://{BUCKET}/gpuctl\"\n\
         [pool.gpu]\ninstances = {ids:?}\n{POOL}\
         [worker]\ninput_roots = {roots:?}\npower_off = [\"touch\", {off:?}]\n\
         [cost]\ninstance_type = \"g4dn.xlarge\"\n",
    );
    sandbox.write("gpuctl.toml", config);
    let models = models(&sandbox);
    sandbox
        .with("GPUCTL_MODELS", models)
        .with("GPUCTL_CACHE", cache())
        .with("AWS_ACCESS_KEY_ID", "test")
        .with("AWS_SECRET_ACCESS_KEY", "test")
        .with("AWS_ENDPOINT_URL", endpoint)
        .with("AWS_ENDPOINT_URL_EC2", ec2)
}

/// A queue with dead letters, and a bucket.
fn furnish(account: Account) {
    let dead = format!("{QUEUE}-dead");
    account.sqs("CreateQueue", &json!({ "QueueName": dead }));
    let policy = json!({
        "deadLetterTargetArn": format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{dead}"),
        "maxReceiveCount": RECEIVES_MAX + RECEIVES_SPARE,
    });
    let attributes = json!({ "RedrivePolicy": policy.to_string() });
    account.sqs("CreateQueue", &json!({ "QueueName": QUEUE, "Attributes": attributes }));
    account.call("s3", &format!("PUT /{BUCKET}"), &json!(null));
}

async fn running_boxes() -> (Front, Vec<String>) {
    let mut ec2 = Ec2::new(Ec2Settings { vcpus_on_demand: 16, ..settings() }, 7);
    let now = SystemClock.now();
    let wanted = gpu_boxes(3, MarketOptions::OnDemand);
    let started = ec2.run_instances(now - TimeDelta::minutes(1), &wanted).unwrap();
    ec2.advance(now);
    let ids = started.into_iter().map(|instance| instance.id).collect();
    (Front::open(ec2, Arc::new(SystemClock)).await.unwrap(), ids)
}

impl Place for Aws {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn worker(&self, number: usize) -> (Command, String) {
        let (id, imds) = &self.boxes[number];
        let mut command = worker(&self.sandbox, &[]);
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.url());
        (command, id.clone())
    }

    fn send(&self, body: &str) {
        let url = format!("http://127.0.0.1:{}/{ACCOUNT}/{QUEUE}", self.account.port);
        self.account.sqs("SendMessage", &json!({ "QueueUrl": url, "MessageBody": body }));
    }

    fn moves_at_once(&self) -> bool {
        false
    }

    fn files(&self) -> Vec<String> {
        let prefix = "gpuctl/jobs/";
        let mut found = Vec::new();
        loop {
            let after: String = found.last().cloned().unwrap_or_default();
            let query = format!("list-type=2&prefix={prefix}&start-after={prefix}{after}");
            let page = self.account.get("s3", &format!("/{BUCKET}?{query}"));
            let page = String::from_utf8(page).unwrap();
            let keys = page.split("<Key>").skip(1).filter_map(|rest| rest.split('<').next());
            let before = found.len();
            found.extend(keys.filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned));
            if found.len() == before {
                return found;
            }
        }
    }

    fn read(&self, uri: &str) -> Vec<u8> {
        self.account.get("s3", uri.strip_prefix("s3:/").unwrap())
    }
}
