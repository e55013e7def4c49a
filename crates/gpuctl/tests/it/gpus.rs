//! `gpu-worker serve --gpus`: a worker for each GPU. There is none here: a library in place of NVIDIA's lists two, and the jobs run on the
//! processor.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Sandbox, said, sample, wait_until, workers};

/// No controller starts or stops a box here.
const CONFIG: &str = "[pool.gpu]\nqueue = \"jobs\"\nmax_wait = \"12h\"\nidle_stop = \"12h\"\n";

const LIBRARY: &str = "lib/libnvidia-ml.so.1";

/// The driver's library, as far as gpu-worker calls it, with two GPUs.
fn with_two_gpus() -> Sandbox {
    let sandbox = Sandbox::new(CONFIG);
    let library = sandbox.path(LIBRARY);
    std::fs::create_dir(library.parent().unwrap()).unwrap();
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../gpu-inference/tests/nvml/stand_in.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-DCARDS=2", "-o"]).args([&library, &source]);
    assert!(compiler.status().unwrap().success());
    let folder = sandbox.path("lib");
    sandbox.with("LD_LIBRARY_PATH", folder)
}

fn serve(sandbox: &Sandbox, gpus: &str) -> Command {
    let worker = Path::new(env!("CARGO_BIN_EXE_gpuctl")).with_file_name("gpu-worker");
    let config = sandbox.config();
    let words = ["--config", config.to_str().unwrap(), "serve", "--pool", "gpu", "--box", "gpu-1"];
    sandbox.program(&worker, &[&words[..], &["--gpus", gpus]].concat())
}

fn refused(sandbox: &Sandbox, gpus: &str) -> String {
    said(serve(sandbox, gpus).output().unwrap()).expect(2).stderr
}

/// The supervisor of a box, killed at the end.
struct Supervisor(Child);

impl Supervisor {
    fn start(sandbox: &Sandbox, gpus: &str) -> Self {
        Self(serve(sandbox, gpus).stderr(Stdio::null()).spawn().unwrap())
    }

    /// The worker with this GPU.
    fn worker(&self, sandbox: &Sandbox, gpu: &str) -> Option<Pid> {
        let own = Pid::from_child(&self.0);
        let sees = format!("CUDA_VISIBLE_DEVICES={gpu}");
        workers(sandbox).into_iter().find(|pid| {
            let file = format!("/proc/{}/environ", pid.as_raw_nonzero());
            let variables = std::fs::read_to_string(file).unwrap_or_default();
            *pid != own && variables.split('\0').any(|variable| variable == sees)
        })
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn each_gpu_has_a_worker_that_is_started_again_and_all_drain_together() {
    let sandbox = with_two_gpus();
    let mut supervisor = Supervisor::start(&sandbox, "all");
    for gpu in ["GPU-a", "GPU-b"] {
        wait_until(gpu, || supervisor.worker(&sandbox, gpu).is_some());
    }
    let crashed = supervisor.worker(&sandbox, "GPU-b").unwrap();
    kill_process(crashed, Signal::KILL).unwrap();
    wait_until("a new worker", || {
        supervisor.worker(&sandbox, "GPU-b").is_some_and(|worker| worker != crashed)
    });
    let input = sample("astronaut.png");
    sandbox.run(&["submit", "vision.segment", input.to_str().unwrap(), "--wait"]).expect(0);
    kill_process(Pid::from_child(&supervisor.0), Signal::TERM).unwrap();
    assert_eq!(supervisor.0.wait().unwrap().code(), Some(0));
    assert_eq!(workers(&sandbox), []);
}

#[test]
fn workers_do_not_outlive_their_supervisor() {
    let sandbox = with_two_gpus();
    let mut supervisor = Supervisor::start(&sandbox, "0,1");
    wait_until("two workers", || workers(&sandbox).len() == 3);
    supervisor.0.kill().unwrap();
    supervisor.0.wait().unwrap();
    wait_until("the workers' end", || workers(&sandbox).is_empty());
}

#[test]
fn gpus_that_are_not_there_or_taken_are_refused() {
    let sandbox = with_two_gpus();
    let error = refused(&sandbox, "1,2");
    assert!(error.contains("there is no GPU 2: this process sees 2"), "{error}");
    let error = refused(&sandbox, "0,0");
    assert!(error.contains("GPU 0 is listed twice"), "{error}");
    let supervisor = Supervisor::start(&sandbox, "all");
    wait_until("a worker", || supervisor.worker(&sandbox, "GPU-a").is_some());
    wait_until("a second supervisor is refused", || {
        refused(&sandbox, "0").contains("another gpu-worker serves box gpu-1 on this machine")
    });
    std::fs::remove_file(sandbox.path(LIBRARY)).unwrap();
    let error = refused(&sandbox, "0");
    assert!(error.contains("NVIDIA's driver is not here"), "{error}");
}
