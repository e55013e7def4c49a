//! The function as it is deployed: a zip in an emulated Lambda, a schedule that fires it, and a queue whose messages wake it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::Clock;
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;

use crate::emulators;
use crate::support::Sandbox;

pub(crate) const REGION: &str = "us-east-1";
/// The account of the credentials `test`.
pub(crate) const ACCOUNT: &str = "000000000000";
const NAME: &str = "gpuctl";
/// How many one-time schedules stand in for a rate of a minute: the emulator looks at them every ten seconds.
const TICKS: i64 = 12;
const TICK_SECONDS: i64 = 10;

/// The emulated account.
#[derive(Clone, Copy)]
pub(crate) struct Account {
    pub(crate) port: u16,
}

impl Account {
    /// One call of a REST service; `request` is method and path.
    pub(crate) fn call(self, service: &str, request: &str, body: &Value) -> Value {
        self.call_with(service, request, "", body)
    }

    /// One call of SQS.
    pub(crate) fn sqs(self, action: &str, body: &Value) -> Value {
        self.call_with("sqs", "POST /", &format!("X-Amz-Target: AmazonSQS.{action}\r\n"), body)
    }

    /// The parameter `/mine/ami`: the emulator has none of AWS's own.
    pub(crate) fn image(self) {
        let image =
            json!({ "Name": "/mine/ami", "Value": "ami-1", "Type": "String", "Overwrite": true });
        self.call_with("ssm", "POST /", "X-Amz-Target: AmazonSSM.PutParameter\r\n", &image);
    }

    /// One call of S3; `request` is method and path.
    pub(crate) fn s3(self, region: &str, request: &str, body: &str) -> String {
        let (method, path) = request.split_once(' ').unwrap();
        let headers = format!(
            "Content-Type: text/plain\r\nAuthorization: AWS4-HMAC-SHA256 Credential=test/20261122/{region}/s3/aws4_request\r\n"
        );
        let answer = emulators::request_with(self.port, method, path, &headers, body).unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{request}: {answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// Tags a bucket as that of a stack.
    pub(crate) fn tag(self, region: &str, bucket: &str, stack: &str) {
        let tag = format!("<Tag><Key>gpuctl:stack</Key><Value>{stack}</Value></Tag>");
        let body = format!("<Tagging><TagSet>{tag}</TagSet></Tagging>");
        self.s3(region, &format!("PUT /{bucket}?tagging"), &body);
    }

    /// The buckets of a stack. The emulator's CloudFormation drops their tags: they get it here.
    pub(crate) fn buckets_of(self, stack: &str) -> Vec<String> {
        let listed = self.s3(REGION, "GET /", "");
        let names = listed.split("<Name>").filter_map(|rest| Some(rest.split_once('<')?.0));
        let own = format!("{stack}-bucket-");
        let names: Vec<String> =
            names.filter(|name| name.starts_with(&own)).map(str::to_owned).collect();
        names.iter().for_each(|name| self.tag(REGION, name, stack));
        names
    }

    /// One call with these headers.
    pub(crate) fn call_with(
        self,
        service: &str,
        request: &str,
        headers: &str,
        body: &Value,
    ) -> Value {
        let (method, path) = request.split_once(' ').unwrap();
        let headers = format!("{headers}{}", authorization(service));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = emulators::request_with(self.port, method, path, &headers, &body).unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{request}: {answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(body).unwrap_or_default()
    }

    /// The body of the response to a GET, which need not be text.
    pub(crate) fn get(self, service: &str, path: &str) -> Vec<u8> {
        let headers = authorization(service);
        let answer = emulators::request_bytes(self.port, "GET", path, &headers, "").unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&answer[..end]);
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        assert!(!head.to_lowercase().contains("transfer-encoding"), "{path}: {head}");
        answer[end..].to_vec()
    }

    /// Makes the function of the real program, with the place's configuration in its zip, and wakes it by the queue `bell`.
    pub(crate) fn deploy(self, sandbox: &Sandbox, ec2: &str) {
        let program = std::fs::read(stripped(sandbox)).unwrap();
        let policy = std::fs::read(sandbox.path("gpuctl.toml")).unwrap();
        let zip = zip_of(&[("bootstrap", &program), ("gpuctl.toml", &policy)]);
        let bell = format!("arn:aws:sqs:{REGION}:{ACCOUNT}:bell");
        let variables = [
            ("AWS_ENDPOINT_URL_EC2", ec2),
            ("GPUCTL_POLICY", "gpuctl.toml"),
            ("GPUCTL_COMMANDS_FROM", &*bell),
        ];
        self.make_function(NAME, &zip, &variables);
        let source = json!({
            "FunctionName": NAME,
            "EventSourceArn": bell,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
        });
        self.call("lambda", "POST /2015-03-31/event-source-mappings", &source);
    }

    /// Makes a function; every service that its variables do not name is this account's.
    pub(crate) fn make_function(self, name: &str, zip: &[u8], variables: &[(&str, &str)]) {
        let own = format!("http://127.0.0.1:{}", self.port);
        let mut all = json!({
            "AWS_ENDPOINT_URL": own,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        });
        for (variable, value) in variables {
            all[*variable] = json!(value);
        }
        let function = json!({
            "FunctionName": name,
            "Runtime": "provided.al2023",
            "Handler": "bootstrap",
            "Role": format!("arn:aws:iam::{ACCOUNT}:role/gpuctl"),
            "Timeout": 30,
            "MemorySize": 128,
            "Environment": { "Variables": all },
            "Code": { "ZipFile": STANDARD.encode(zip) },
        });
        self.call("lambda", "POST /2015-03-31/functions", &function);
    }

    /// Ticks for the next two minutes.
    pub(crate) fn schedule(self) {
        let now = SystemClock.now();
        for tick in 0..TICKS {
            let at = now + TimeDelta::seconds(tick * TICK_SECONDS);
            let schedule = json!({
                "ScheduleExpression": format!("at({})", at.format("%Y-%m-%dT%H:%M:%S")),
                "FlexibleTimeWindow": { "Mode": "OFF" },
                "Target": {
                    "Arn": format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{NAME}"),
                    "RoleArn": format!("arn:aws:iam::{ACCOUNT}:role/gpuctl"),
                },
            });
            self.call("scheduler", &format!("POST /schedules/tick-{tick}"), &schedule);
        }
    }

    /// Sends an event to the function by way of its queue.
    pub(crate) fn ring(self, event: &Value) {
        let url = format!("http://127.0.0.1:{}/{ACCOUNT}/bell", self.port);
        self.sqs("SendMessage", &json!({ "QueueUrl": url, "MessageBody": event.to_string() }));
    }
}

/// The header of a call of a service: emulators read the service in it, and check no signature.
fn authorization(service: &str) -> String {
    format!(
        "Authorization: AWS4-HMAC-SHA256 Credential=test/20261122/{REGION}/{service}/aws4_request\r\n"
    )
}

/// The function's program as it was built.
pub(crate) fn bootstrap() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_gpuctl")).with_file_name("bootstrap");
    assert!(program.is_file(), "{} is missing: build the workspace", program.display());
    program
}

/// The program without its symbols, which are most of it.
fn stripped(sandbox: &Sandbox) -> PathBuf {
    let small = sandbox.path("bootstrap");
    let strip = Command::new("strip").arg("-o").arg(&small).arg(bootstrap()).status().unwrap();
    assert!(strip.success(), "strip: {strip}");
    small
}

/// A zip of these files, which can be run.
pub(crate) fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, SimpleFileOptions::default().unix_permissions(0o755)).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}
