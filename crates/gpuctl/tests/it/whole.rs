//! The whole way on a deployed stack: `gpuctl deploy`, a job, a tick of the stack's schedule, a box from the stack's launch template, the real
//! worker, its result, the box off, `gpuctl destroy`. It prints the seconds of each phase.
//!
//! CloudFormation, S3, SQS, DynamoDB, Scheduler and Lambda are an emulator, which runs the real function at the stack's own schedule; boxes
//! and spot requests are the simulated EC2. Not real: EventBridge's rules (nothing announces a box), roles (the credentials are keys), the
//! boot (the worker is a process here, with the policy from the stack's bucket; scripts/infra/boxes.sh boots), and the time a box takes.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Instant;

use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::Clock;
use gpuctl_sim::wire::{Front, Imds, Rest};
use gpuctl_sim::world::ec2::{Ec2, InstanceState};
use serde_json::{Value, json};

use crate::aws::{settings, state};
use crate::deployment::{Account, REGION, bootstrap, zip_of};
use crate::emulators::{self, Emulator};
use crate::stacks::pruned;
use crate::support::{Sandbox, cache, said, sample, wait_until};

const STACK: &str = "whole";
/// An image that the emulator has.
const IMAGE: &str = "ami-0123456789abcdef0";
/// The worker's exit code for an idle box, at which its unit powers the box off.
const IDLE: i32 = 10;

/// An account with the simulated EC2, and a folder to deploy from.
struct Place {
    // Its end calls the others once more.
    sandbox: Sandbox,
    front: Front,
    account: Account,
    _ministack: Emulator,
}

/// The worker of a box, and what tells it which one that is.
struct Worker {
    process: Child,
    _imds: Imds,
}

impl Place {
    async fn new() -> Self {
        let ec2 = Ec2::new(settings(), 7);
        let front = Front::open(ec2, Arc::new(SystemClock)).await.unwrap();
        let ministack = emulators::new_ministack_beside(&front.url()).await;
        front.rest_by(Rest::new(ministack.url(), &["whole-gpu-spot"]));
        let sandbox = Sandbox::new("")
            .with("AWS_ACCESS_KEY_ID", "test")
            .with("AWS_SECRET_ACCESS_KEY", "test")
            .with("AWS_REGION", REGION)
            .with("AWS_ENDPOINT_URL", ministack.url())
            .with("AWS_ENDPOINT_URL_EC2", front.url());
        std::fs::remove_file(sandbox.path("gpuctl.toml")).unwrap();
        sandbox.write("stack.yaml", pruned());
        let script = format!("#!/bin/sh\nexec {}\n", bootstrap().display());
        sandbox.write("function.zip", zip_of(&[("bootstrap", script.as_bytes())]));
        std::fs::create_dir(sandbox.path("worker")).unwrap();
        sandbox.write("worker/gpu-worker-x86_64.tar.gz", b"archive");
        std::fs::create_dir(sandbox.path("box")).unwrap();
        std::fs::create_dir_all(sandbox.path("models/any")).unwrap();
        sandbox.write("models/any/model.toml", b"");
        let account = Account { port: ministack.port };
        Self { front, account, sandbox, _ministack: ministack }
    }

    fn deploy(&self) -> Child {
        let image = format!("GpuAmi={IMAGE}");
        let set = ["--set", &image, "--set", "AppAmi=ami-0123456789abcdef0"];
        let files =
            ["--template", "stack.yaml", "--function", "function.zip", "--worker", "worker"];
        let stack = ["deploy", "--stack", STACK, "--models", "models", "--yes", "--json"];
        let what = [&stack[..], &files, &set].concat();
        let mut command = self.sandbox.command(&what);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The stack's one box, once there is one.
    fn the_box(&self) -> String {
        let mut id = None;
        wait_until("a box is made from the launch template", || {
            id = self.front.ec2().instances().next().map(|one| one.id.clone());
            id.is_some()
        });
        id.unwrap()
    }

    /// The worker of the box, as its unit would start it.
    async fn worker(&self, id: &str) -> Worker {
        let imds = self.front.imds(id).await.unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_gpuctl")).with_file_name("gpu-worker");
        let config = self.sandbox.path("box/gpuctl.toml");
        let arguments = ["serve", "--pool", "gpu", "--config", config.to_str().unwrap()];
        let mut command = self.sandbox.program(&program, &arguments);
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.url()).env("GPUCTL_CACHE", cache());
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Worker { process, _imds: imds }
    }

    /// The worker ends when its box is idle, and its unit powers the box off.
    fn ends_idle(&self, mut worker: Worker, id: &str) {
        let mut code = None;
        wait_until("the worker of an idle box ends", || {
            code = worker.process.try_wait().unwrap();
            code.is_some()
        });
        assert_eq!(code.unwrap().code(), Some(IDLE));
        self.front.ec2().power_off(SystemClock.now(), id);
        wait_until("the box is off", || state(&self.front, id) == InstanceState::Stopped);
    }

    /// The policy that `deploy` wrote, with a box that starts at once and stops soon; the function and the box read it in the bucket.
    fn hurry(&self) -> String {
        let bucket = self.account.buckets_of(STACK).remove(0);
        let path = format!("/{bucket}/gpuctl.toml");
        let policy = self.account.s3(REGION, &format!("GET {path}"), "");
        let faster = "[pool.gpu]\nmax_wait = \"0s\"\nidle_stop = \"3s\"\n";
        let policy = policy.replacen("[pool.gpu]\n", faster, 1);
        self.account.s3(REGION, &format!("PUT {path}"), &policy);
        self.sandbox.write("box/gpuctl.toml", policy);
        format!("s3:/{path}")
    }
}

/// Prints the seconds since the last phase.
struct Phases(Instant);

impl Phases {
    fn end(&mut self, what: &str) {
        println!("{:6.1} s  {what}", self.0.elapsed().as_secs_f32());
        self.0 = Instant::now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_done_on_a_stack_that_was_just_deployed_and_nothing_is_left_of_it() {
    let place = Place::new().await;
    let mut phases = Phases(Instant::now());
    let deploying = place.deploy();
    let id = place.the_box();
    phases.end("deploy: the stack is there, and its box is made");
    let policy = place.hurry();
    wait_until("the box is on", || state(&place.front, &id) == InstanceState::Running);
    let worker = place.worker(&id).await;
    place.ends_idle(worker, &id);
    let deployed = said(deploying.wait_with_output().unwrap()).expect(0).json();
    assert_eq!(deployed["boxes"], json!([id]), "{deployed}");
    phases.end("deploy: the first boot is over, and the box has stopped itself");

    let run = |arguments: &[&str]| {
        place.sandbox.run(&[&["--config", &policy][..], arguments].concat()).expect(0)
    };
    let page = sample("page.png");
    let sent = run(&["submit", "vision.ocr", page.to_str().unwrap(), "--json"]).json();
    let job = sent["job_ids"][0].as_str().unwrap().to_owned();
    let submitted = Instant::now();
    phases.end("submit: the input is in the bucket, the job in the queue");
    wait_until("a tick of the stack's schedule starts the box", || {
        state(&place.front, &id) != InstanceState::Stopped
    });
    phases.end("tick: the function has started the box");
    wait_until("the box is on", || state(&place.front, &id) == InstanceState::Running);
    phases.end("box: EC2 says that it runs");
    let worker = place.worker(&id).await;
    let mut done = Value::Null;
    wait_until("the job has its answer", || {
        done = run(&["job", &job, "--json"]).json();
        done["state"] == "succeeded"
    });
    phases.end("worker: the model is loaded, the result is stored");
    println!("{:6.1} s  from submit to result", submitted.elapsed().as_secs_f32());
    place.ends_idle(worker, &id);
    phases.end("idle: the worker has ended, and the box is off");

    let status = run(&["status", "--json"]).json();
    assert_eq!(status["pools"][0]["state"], "stopped", "{status}");
    let why = run(&["explain", "gpu", "--json"]).stdout;
    assert!(why.contains("demand") && why.contains("idle"), "{why}");
    // The first boot, and the one for the job.
    assert_eq!(run(&["cost", "report", "--json"]).json()["starts"], 2);

    let what = ["destroy", "--stack", STACK, "--everything", "--yes", "--json"];
    let gone = place.sandbox.run(&what).expect(0).json();
    assert_eq!(gone["boxes"], json!([id]), "{gone}");
    assert_eq!((&gone["left"], &gone["kept"]), (&json!([]), &json!([])), "{gone}");
    assert!(place.front.ec2().instances().all(|one| !one.is_there()));
    phases.end("destroy: nothing is left");
}
