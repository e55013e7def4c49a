//! `gpuctl serve`: other programs submit jobs and get results, with the box off at the start.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use rustix::process::Pid;
use serde_json::{Value, json};

use crate::support::{PATIENCE, Sandbox, wait_until};

const ONE_POOL: &str = "[pool.gpu]\nqueue = \"jobs\"\nidle_stop = \"2s\"\n";

/// A running `gpuctl serve`, killed at the end.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(sandbox: &Sandbox) -> Self {
        let mut command = sandbox.command(&["serve", "--address", "127.0.0.1:0"]);
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            Some(line.unwrap().split_once("listening on http://")?.1.trim().to_owned())
        });
        // The pipe is read on, so that no write to it fails.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address: address.expect("it says where it listens") }
    }

    /// Status, head and body of an answer.
    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        head: &str,
        body: &[u8],
    ) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n"
        );
        stream.write_all(&[request.as_bytes(), body].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        (head[9..12].parse().unwrap(), head, answer[end + 4..].to_vec())
    }

    fn json(&self, method: &str, path: &str, head: &str, body: &Value) -> (u16, Value) {
        let head = format!("content-type: application/json\r\n{head}");
        let (status, _, body) = self.call(method, path, &head, body.to_string().as_bytes());
        (status, serde_json::from_slice(&body).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }
}

#[test]
fn a_program_gets_its_vector_from_a_box_that_was_off() {
    let sandbox = Sandbox::new(ONE_POOL);
    let server = Server::start(&sandbox);
    let job = json!({ "task": "text.embed", "text": "a cat" });
    let (status, done) = server.json("POST", "/v1/jobs", "prefer: wait=110\r\n", &job);
    assert_eq!((status, &done["state"]), (200, &json!("succeeded")), "{done}");
    assert_eq!(done["output"]["vector"].as_array().unwrap().len(), 384);
    // The command line sees the same job, and the box stops although the server goes on.
    let id = done["job_id"].as_str().unwrap();
    assert_eq!(sandbox.run(&["job", id, "--json"]).expect(0).json()["state"], "succeeded");
    sandbox.wait_for("gpu", "stopped");
    let (status, health) = server.json("GET", "/healthz", "", &json!(null));
    assert!(status == 200 && health["last_reconcile_at"].is_string(), "{health}");
    // There is one controller on a state folder.
    let second = sandbox.run(&["run", "--json"]).expect(1);
    assert!(second.stderr.contains("controller.running"), "{}", second.stderr);
}

#[test]
fn a_server_that_is_to_end_answers_those_who_wait_first() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\nmax_wait = \"12h\"\n");
    let server = Server::start(&sandbox);
    // It says itself that it can wait: no box starts within the test.
    let job = json!({ "task": "text.embed", "text": "a cat", "max_wait": "12h" });
    let process = Pid::from_raw(i32::try_from(server.process.id()).unwrap()).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.json("POST", "/v1/jobs", "prefer: wait=500\r\n", &job));
        wait_until("the job is there", || sandbox.jobs().len() == 1);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        let (status, answer) = waiting.join().unwrap();
        assert_eq!((status, &answer["state"]), (202, &json!("queued")));
    });
}

#[test]
fn another_machine_may_not_call_without_a_key_and_heads_are_limited() {
    let sandbox = Sandbox::new(ONE_POOL);
    let open = sandbox.run(&["serve", "--address", "0.0.0.0:0", "--json"]).expect(2);
    assert!(open.stderr.contains("http.open"), "{}", open.stderr);
    let server = Server::start(&sandbox);
    let (status, ..) = server.call("GET", "/healthz", "", b"");
    assert_eq!(status, 200);
    let many: String = (0..100).map(|n| format!("x-{n}: y\r\n")).collect();
    assert_eq!(server.call("GET", "/healthz", &many, b"").0, 431);
    let (status, head, body) = server.call("POST", "/v1/jobs", "", b"{}");
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &problem["code"]), (415, &json!("request.media_type")), "{head}");
}

#[test]
fn keys_are_shown_once_count_within_seconds_and_are_revoked() {
    let sandbox = Sandbox::new(ONE_POOL);
    let server = Server::start(&sandbox);
    let made = sandbox.run(&["keys", "create", "app", "--json"]).expect(0).json();
    assert_eq!(made["scopes"], json!(["read", "submit"]), "{made}");
    let key = made["key"].as_str().unwrap();
    let head = format!("authorization: Bearer {key}\r\n");
    wait_until("the key counts", || server.call("GET", "/v1/jobs", "", b"").0 == 401);
    assert_eq!(server.call("GET", "/v1/jobs", &head, b"").0, 200);
    wait_until("its use is noted", || {
        let listed = sandbox.run(&["keys", "list", "--json"]).expect(0);
        assert!(!listed.stdout.contains(key));
        listed.json()["keys"][0]["used_at"].is_string()
    });
    let again = sandbox.run(&["keys", "create", "app", "--json"]).expect(1);
    assert!(again.stderr.contains("backend.conflict"), "{}", again.stderr);
    sandbox.run(&["keys", "create", "app 2"]).expect(2);
    sandbox.run(&["keys", "create", "other", "--scope", "write"]).expect(2);
    sandbox.run(&["keys", "revoke", "none"]).expect(1);
    let revoked = sandbox.run(&["keys", "revoke", "app"]).expect(0).stdout;
    assert!(revoked.contains("revoked"), "{revoked}");
    wait_until("it counts no more", || server.call("GET", "/v1/jobs", &head, b"").0 == 401);
    let (status, _, body) = server.call("POST", "/v1/jobs", &head, b"{}");
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &problem["code"]), (401, &json!("key.revoked")), "{problem}");
    // A revoked key opens no other address.
    let open = sandbox.run(&["serve", "--address", "0.0.0.0:0", "--json"]).expect(2);
    assert!(open.stderr.contains("http.open"), "{}", open.stderr);
}
