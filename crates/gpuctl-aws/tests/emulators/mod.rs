//! Emulators as child processes, on free ports of the loopback: one of each kind a test process, and they end with it.
//!
//! Several crates' tests include this file.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

/// How long an emulator may take to respond: a second or two, and more on a busy machine.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Ends its command when its standard input is closed: when the test process ends, however it ends.
const END_WITH_US: &str = "\"$@\" </dev/null & child=$!; cat >/dev/null; kill \"$child\"; wait";

/// A running server.
pub(crate) struct Emulator {
    pub(crate) port: u16,
    /// Its end of the pipe keeps the server up.
    _process: Child,
}

/// A program that serves AWS's protocols.
#[derive(Default)]
struct Program {
    /// The folder of its environment, and its name there.
    package: &'static str,
    name: &'static str,
    /// A path that it answers once it is up.
    looks: &'static str,
    arguments: Vec<String>,
    /// Which what it runs has as well.
    variables: Vec<(&'static str, String)>,
}

impl Program {
    fn ministack() -> Self {
        let (package, looks) = ("ministack", "/_ministack/health");
        Self { package, name: "ministack", looks, ..Self::default() }
    }
}

impl Emulator {
    fn start(what: &Program, port: u16) -> Self {
        let Program { package, name, looks, arguments, variables } = what;
        let program = emulators().join(package).join("bin").join(name);
        assert!(
            program.is_file(),
            "{} is missing: run scripts/install-emulators.sh",
            program.display()
        );
        let process = Command::new("sh")
            .args(["-c", END_WITH_US, "sh"])
            .arg(program)
            .args(arguments)
            .envs([("BIND_HOST", "127.0.0.1"), ("MINISTACK_HOST", "127.0.0.1")])
            .env("GATEWAY_PORT", port.to_string())
            .env_remove("AWS_ENDPOINT_URL")
            .envs(variables.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + START_TIME_MAX;
        while !request(port, "GET", looks, "").is_some_and(|answer| answer.contains(" 200 ")) {
            assert!(Instant::now() < until, "{package} does not answer");
            // A refused connection returns at once: this is the interval of the polls.
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Self { port, _process: process }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// SQS with a dead-letter queue, DynamoDB, S3 and SNS, fast.
pub(crate) async fn ministack() -> &'static Emulator {
    static ONE: OnceCell<Emulator> = OnceCell::const_new();
    ONE.get_or_init(new_ministack).await
}

/// An empty account of its own, for tests that others' tables and log groups would disturb.
pub(crate) async fn new_ministack() -> Emulator {
    started(Program::ministack(), free_port()).await
}

/// An account of its own, whose functions find EC2 at `ec2` and all other services here.
pub(crate) async fn new_ministack_beside(ec2: &str) -> Emulator {
    let port = free_port();
    let variables = [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ("AWS_ENDPOINT_URL_EC2", ec2.to_owned()),
    ];
    started(Program { variables: variables.into(), ..Program::ministack() }, port).await
}

/// The same services by another project.
pub(crate) async fn moto() -> &'static Emulator {
    static ONE: OnceCell<Emulator> = OnceCell::const_new();
    ONE.get_or_init(async || {
        let port = free_port();
        let arguments = ["-H", "127.0.0.1", "-p", &port.to_string()].map(ToOwned::to_owned);
        let (package, looks) = ("moto", "/moto-api/data.json");
        let arguments = arguments.into();
        let name = "moto_server";
        started(Program { package, name, looks, arguments, ..Program::default() }, port).await
    })
    .await
}

/// A proxy that makes faults, in front of an emulator; each test has its own, since its rules hold for all.
pub(crate) async fn faults(upstream: &Emulator) -> Emulator {
    let port = free_port();
    let upstream = upstream.url();
    let arguments =
        ["-u", &upstream, "-p", &port.to_string(), "--host", "127.0.0.1"].map(ToOwned::to_owned);
    let (package, looks) = ("microburst", "/_microburst/health");
    let arguments = arguments.into();
    started(Program { package, name: package, looks, arguments, ..Program::default() }, port).await
}

async fn started(what: Program, port: u16) -> Emulator {
    tokio::task::spawn_blocking(move || Emulator::start(&what, port)).await.unwrap()
}

impl Emulator {
    /// Replaces a proxy's rules.
    pub(crate) fn break_by(&self, rules: &serde_json::Value) {
        let answer = request(self.port, "POST", "/_microburst/rules", &rules.to_string()).unwrap();
        assert!(answer.contains(" 200 ") || answer.contains(" 201 "), "{answer}");
    }

    /// How often a proxy has made a fault.
    pub(crate) fn fired(&self) -> usize {
        let answer = request(self.port, "GET", "/_microburst/fired", "").unwrap();
        answer.matches("\"action\"").count()
    }
}

/// A server whose clock says 2020, and which therefore accepts no signature of today.
pub(crate) fn refusing_in_2020() -> String {
    refusing(|| "Wed, 01 Jan 2020 00:00:00 GMT".to_owned())
}

/// A server that accepts no signature, and whose clock says this.
pub(crate) fn refusing(date: impl Fn() -> String + Send + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = "<ErrorResponse><Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code>\
        <Message>Signature not yet current</Message></Error></ErrorResponse>";
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut some = [0; 1_024];
            // What is asked does not matter, and a client may not send all of it before it reads.
            let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
            while let Ok(count) = stream.read(&mut some) {
                if count == 0 {
                    break;
                }
            }
            let length = body.len();
            let head = format!(
                "HTTP/1.1 403 Forbidden\r\nDate: {}\r\nContent-Type: text/xml\r\n\
                 Content-Length: {length}\r\nConnection: close\r\n\r\n",
                date()
            );
            let _ =
                stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
    });
    url
}

/// A port that no one listens at.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// As scripts/environment.sh has it.
fn emulators() -> PathBuf {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("GPUCTL_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("gpuctl")))
        .or_else(|| Some(folder("HOME")?.join(".cache/gpuctl")));
    cache.unwrap().join("emulators")
}

/// One HTTP request, and its whole response if there is one.
fn request(port: u16, method: &str, path: &str, body: &str) -> Option<String> {
    request_with(port, method, path, "", body)
}

/// One HTTP request with more headers, each with its line's end. The body is JSON, unless they say otherwise.
pub(crate) fn request_with(
    port: u16,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Option<String> {
    let answer = request_bytes(port, method, path, headers, body)?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// As `request_with`, for a response that may be anything but text.
pub(crate) fn request_bytes(
    port: u16,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let length = body.len();
    let json = "Content-Type: application/json\r\n";
    let kind = if headers.contains("Content-Type:") { "" } else { json };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{kind}\
         Content-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // A server that closed the connection while it was starting is asked again.
    stream.read_to_end(&mut answer).ok()?;
    Some(answer)
}
