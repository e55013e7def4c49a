//! `deploy`, `diff` and `destroy` with a CloudFormation that ends as it is told: what fails, gets stuck, is lost or interrupted.
//! Everything else of the account is an emulator.

use std::process::Stdio;

use gpuctl_sim::wire::{CloudFormation, End};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::deployment::{Account, REGION};
use crate::emulators::{self, Emulator};
use crate::support::{Said, Sandbox, said, wait_until};

/// Parameters with which no box is made, and the image is one that the emulator knows.
const SET: [&str; 6] = [
    "--set",
    "GpuBoxes=launched",
    "--set",
    "GpuAmi=resolve:ssm:/mine/ami",
    "--set",
    "AppAmi=resolve:ssm:/mine/ami",
];

/// The account of these tests: a stack's names must be free in it.
async fn account() -> &'static Emulator {
    static ONE: OnceCell<Emulator> = OnceCell::const_new();
    ONE.get_or_init(emulators::new_ministack).await
}

/// A place to deploy from: files, an account, and the stack's bucket, which a scripted CloudFormation does not make.
pub(crate) struct Place {
    sandbox: Sandbox,
    pub(crate) cloudformation: CloudFormation,
    bucket: String,
    code: String,
}

impl Place {
    pub(crate) async fn new(name: &str) -> Self {
        Self::on(account().await, name).await
    }

    async fn on(ministack: &Emulator, name: &str) -> Self {
        let cloudformation = CloudFormation::open().await.unwrap();
        let account = Account { port: ministack.port };
        let bucket = format!("{name}-bucket-1");
        account.call("s3", &format!("PUT /{bucket}"), &Value::Null);
        account.image();
        cloudformation.outputs(&[("Bucket", bucket.as_str())]);
        let sandbox = Sandbox::new("[pool.local]\ncommand = [\"true\"]\n")
            .with("AWS_ACCESS_KEY_ID", "test")
            .with("AWS_SECRET_ACCESS_KEY", "test")
            .with("AWS_REGION", REGION)
            .with("AWS_ENDPOINT_URL", ministack.url())
            .with("AWS_ENDPOINT_URL_CLOUDFORMATION", cloudformation.url());
        sandbox.write("function.zip", b"zip");
        std::fs::create_dir(sandbox.path("worker")).unwrap();
        sandbox.write("worker/gpu-worker-x86_64.tar.gz", b"archive");
        std::fs::create_dir(sandbox.path("boot")).unwrap();
        sandbox.write("boot/first-boot.sh", b"true\n");
        Self { sandbox, cloudformation, bucket, code: format!("{name}-code") }
    }

    /// The stack is there, and complete.
    fn deployed(&self) -> &Self {
        self.is_in("CREATE_COMPLETE")
    }

    fn is_in(&self, status: &str) -> &Self {
        let keys = [
            ("CodeBucket", "gpuctl-code"),
            ("FunctionKey", "function/1.zip"),
            ("BootKey", "boot/1"),
            ("WorkerKey", "worker/1"),
            ("GpuBoxes", "launched"),
            ("Tick", "on"),
        ];
        self.cloudformation.put(status, &keys, &[("Bucket", self.bucket.as_str())]);
        self
    }

    fn arguments<'a>(&'a self, command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let code = ["--code-bucket", &self.code];
        let files = ["--function", "function.zip", "--worker", "worker", "--boot", "boot"];
        let mut all = vec![command];
        if command != "destroy" {
            all.extend(files);
            all.extend(code);
            all.extend(SET);
        }
        all.extend(more);
        all
    }

    pub(crate) fn run(&self, command: &str, more: &[&str]) -> Said {
        self.sandbox.run(&self.arguments(command, more))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_fails_says_why_and_leaves_nothing() {
    let place = Place::new("fails").await;
    place.cloudformation.ends(&[End::Fails {
        part: "GpuRole",
        reason: "User: arn:aws:iam::000000000000:user/ada is not authorized to perform: iam:CreateRole on resource: role x with an explicit deny in a service control policy",
    }]);
    let failed = place.run("deploy", &["--yes"]).expect(1);
    for words in [
        "error: stack gpuctl could not be made\n",
        "GpuRole: User: arn:aws:iam::000000000000:user/ada",
        "a service control policy denies `iam:CreateRole` to arn:aws:iam::000000000000:user/ada explicitly",
        "hint: nothing of it is left",
    ] {
        assert!(failed.stderr.contains(words), "{words}\n{}", failed.stderr);
    }
    assert_eq!(place.cloudformation.status().as_deref(), Some("DELETE_COMPLETE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_stack_is_removed_and_made_anew_aloud() {
    for (status, words) in [
        ("REVIEW_IN_PROGRESS", "was proposed and never made"),
        ("ROLLBACK_COMPLETE", "failed to be made, and can only be deleted"),
        ("ROLLBACK_FAILED", "failed to be made, and can only be deleted"),
        ("CREATE_FAILED", "failed to be made, and can only be deleted"),
    ] {
        let place = Place::new(&status.to_lowercase().replace('_', "-")).await;
        place.is_in(status);
        let made = place.run("deploy", &["--yes", "--json"]).expect(0);
        assert!(
            made.stderr.contains(&format!("warning: stack gpuctl ({status}) {words}")),
            "{}",
            made.stderr
        );
        let calls = place.cloudformation.calls();
        assert_eq!(calls, ["DeleteStack", "CreateChangeSet", "ExecuteChangeSet"], "{status}");
        assert_eq!(place.cloudformation.status().as_deref(), Some("CREATE_COMPLETE"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_waits_and_removes_nothing() {
    let place = Place::new("differs").await;
    place.is_in("UPDATE_IN_PROGRESS");
    let changed = place.run("diff", &["--json"]).expect(0).json();
    assert_eq!(changed["is_new"], false, "{changed}");
    assert_eq!(place.cloudformation.calls(), ["CreateChangeSet", "DeleteChangeSet"]);
    place.is_in("ROLLBACK_COMPLETE");
    let new = place.run("diff", &["--json"]).expect(0).json();
    assert_eq!(new["is_new"], true, "{new}");
    assert_eq!(place.cloudformation.calls(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_not_accepted_leaves_no_trace() {
    let place = Place::new("rejected").await;
    place.cloudformation.reject("Template format error");
    let rejected = place.run("deploy", &["--yes"]).expect(2);
    assert!(rejected.stderr.contains("Template format error"), "{}", rejected.stderr);
    let withdrawn = ["CreateChangeSet", "DeleteChangeSet", "DeleteStack"];
    assert_eq!(place.cloudformation.calls(), withdrawn);
    place.deployed();
    for command in ["deploy", "diff"] {
        place.run(command, &["--yes"]).expect(2);
        assert_eq!(place.cloudformation.calls(), ["CreateChangeSet", "DeleteChangeSet"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_someone_else_has_made_meanwhile_is_theirs() {
    let place = Place::new("overtaken").await;
    place.cloudformation.overtake();
    let refused = place.run("deploy", &["--yes"]).expect(2);
    assert!(refused.stderr.contains("already exists"), "{}", refused.stderr);
    assert_eq!(place.cloudformation.calls(), ["CreateChangeSet"]);
    assert_eq!(place.cloudformation.status().as_deref(), Some("CREATE_COMPLETE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_code_bucket_gets_every_file_anew() {
    let place = Place::new("moved").await;
    place.deployed();
    let other = [&["deploy", "--yes", "--code-bucket", "other"][..], &SET].concat();
    let missing = place.sandbox.run(&other).expect(2);
    assert!(missing.stderr.contains("the function's zip was not found"), "{}", missing.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_not_confirmed_leaves_no_trace() {
    let place = Place::new("declined").await;
    let declined = place.run("deploy", &[]).expect(2);
    assert!(declined.stderr.contains("hint: add --yes"), "{}", declined.stderr);
    assert!(declined.stderr.contains("a month in which nothing runs:"), "{}", declined.stderr);
    assert_eq!(place.cloudformation.calls(), Vec::<String>::new());
    place.deployed().cloudformation.changes(&[("Jobs", "AWS::SQS::Queue", "Modify")]);
    place.run("deploy", &[]).expect(2);
    assert_eq!(place.cloudformation.calls(), ["CreateChangeSet", "DeleteChangeSet"]);
    let shown = place.run("diff", &["--json"]).expect(0).json();
    assert_eq!(shown["changes"][0]["action"], "change", "{shown}");
    assert_eq!(place.cloudformation.calls(), ["CreateChangeSet", "DeleteChangeSet"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_under_way_is_waited_for() {
    let place = Place::new("busy").await;
    place.is_in("UPDATE_IN_PROGRESS");
    let edited = place.sandbox.write("gpuctl-gpuctl.toml", b"# mine");
    let done = place.run("deploy", &["--yes"]).expect(0);
    assert!(done.stderr.contains("gpuctl-gpuctl.toml is there already"), "{}", done.stderr);
    assert_eq!(std::fs::read_to_string(edited).unwrap(), "# mine");
    assert!(
        done.stderr.contains("stack gpuctl is UPDATE_IN_PROGRESS: waiting for it"),
        "{}",
        done.stderr
    );
    assert!(
        done.stdout.starts_with("stack gpuctl in us-east-1 is as it should be\n"),
        "{}",
        done.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_the_operation_and_the_next_deploy_takes_it_up() {
    let place = Place::new("interrupted").await;
    place.deployed().cloudformation.changes(&[("Jobs", "AWS::SQS::Queue", "Modify")]);
    place.cloudformation.ends(&[End::Hangs]);
    let arguments = place.arguments("deploy", &["--yes"]);
    let child = place
        .sandbox
        .command(&arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the update is under way", || {
        place.cloudformation.status().as_deref() == Some("UPDATE_IN_PROGRESS")
    });
    let pid = rustix::process::Pid::from_child(&child);
    let mut interrupted = None;
    let mut child = Some(child);
    wait_until("it ends", || {
        let mut one = child.take().unwrap();
        if one.try_wait().unwrap().is_some() {
            interrupted = Some(said(one.wait_with_output().unwrap()));
            return true;
        }
        child = Some(one);
        // It listens for the signal from its first pause on.
        place.cloudformation.looks() > 1 && rustix::process::kill_process(pid, Signal::INT).is_err()
    });
    let interrupted = interrupted.unwrap().expect(130);
    assert!(interrupted.stderr.contains("AWS continues without gpuctl"), "{}", interrupted.stderr);
    place.cloudformation.finish();
    place.cloudformation.changes(&[]);
    let taken_up = place.run("deploy", &["--yes"]).expect(0);
    assert!(
        taken_up.stderr.contains("is UPDATE_IN_PROGRESS: waiting for it"),
        "{}",
        taken_up.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_stack_says_how_to_get_it_going() {
    let place = Place::new("stuck").await;
    place.deployed().cloudformation.changes(&[("Jobs", "AWS::SQS::Queue", "Modify")]);
    place.cloudformation.ends(&[End::Sticks { part: "Table", reason: "Rate exceeded" }]);
    let failed = place.run("deploy", &["--yes"]).expect(1);
    assert!(failed.stderr.contains("Table: Rate exceeded"), "{}", failed.stderr);
    assert_eq!(place.cloudformation.status().as_deref(), Some("UPDATE_ROLLBACK_FAILED"));
    let again = place.run("deploy", &["--yes"]).expect(1);
    for words in [
        "is stuck: an update failed, and so did undoing it",
        "aws cloudformation continue-update-rollback --stack-name gpuctl",
        "--resources-to-skip Table",
    ] {
        for said in [&failed, &again] {
            assert!(said.stderr.contains(words), "{words}\n{}", said.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_update_is_undone_and_says_why() {
    let place = Place::new("undone").await;
    place.deployed().cloudformation.changes(&[("Jobs", "AWS::SQS::Queue", "Modify")]);
    place.cloudformation.ends(&[End::Fails { part: "Jobs", reason: "Invalid value" }]);
    let failed = place.run("deploy", &["--yes"]).expect(1);
    assert!(failed.stderr.contains("was not changed: the update was undone"), "{}", failed.stderr);
    assert!(failed.stderr.contains("Jobs: Invalid value"), "{}", failed.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_update_leaves_behind_is_told() {
    let place = Place::new("orphan").await;
    place.deployed().cloudformation.changes(&[("Jobs", "AWS::SQS::Queue", "Modify")]);
    place.cloudformation.ends(&[End::Leaves { part: "Vpc", reason: "has dependencies" }]);
    let done = place.run("deploy", &["--yes"]).expect(0);
    let words =
        "warning: physical-Vpc (AWS::Test::Part) is left behind, and may cost: has dependencies";
    assert!(done.stderr.contains(words), "{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn replacements_must_be_allowed_by_name() {
    let place = Place::new("gated").await;
    place.deployed().cloudformation.changes(&[("Jobs", "AWS::SQS::Queue", "True")]);
    let gated = place.run("deploy", &["--yes"]).expect(4);
    assert!(
        gated.stderr.contains("replace Jobs (AWS::SQS::Queue): what is in it is lost"),
        "{}",
        gated.stderr
    );
    assert!(gated.stderr.contains("--allow-replace Jobs"), "{}", gated.stderr);
    assert_eq!(place.cloudformation.calls(), ["CreateChangeSet", "DeleteChangeSet"]);
    place.run("deploy", &["--yes", "--allow-replace", "Jobs"]).expect(0);
    assert_eq!(place.cloudformation.calls(), ["CreateChangeSet", "ExecuteChangeSet"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_change_nothing_twice() {
    let place = Place::new("lost").await;
    for action in ["CreateChangeSet", "ExecuteChangeSet"] {
        place.cloudformation.lose_next(action);
    }
    place.run("deploy", &["--yes"]).expect(0);
    let made = place.cloudformation.calls();
    let executed = made.iter().filter(|call| *call == "ExecuteChangeSet").count();
    assert!(executed == 2 && made.len() == 4, "each lost call was sent once more: {made:?}");
    assert_eq!(place.cloudformation.status().as_deref(), Some("CREATE_COMPLETE"));
    place.cloudformation.lose_next("DeleteStack");
    place.run("destroy", &["--yes"]).expect(0);
    assert_eq!(place.cloudformation.status().as_deref(), Some("DELETE_COMPLETE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_named() {
    let place = Place::new("denied").await;
    place.cloudformation.deny(
        "CreateChangeSet",
        "User: arn:aws:iam::000000000000:user/ada is not authorized to perform: cloudformation:CreateChangeSet",
    );
    let denied = place.run("deploy", &["--yes"]).expect(4);
    assert!(denied.stderr.contains("user/ada is not authorized"), "{}", denied.stderr);
    assert!(denied.stderr.contains("allow `cloudformation:CreateChangeSet`"), "{}", denied.stderr);
    assert!(denied.stderr.contains("user/ada"), "{}", denied.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_stack_is_not_deleted() {
    let place = Place::new("protected").await;
    place.deployed().cloudformation.protect();
    let refused = place.run("destroy", &["--yes"]).expect(1);
    assert!(refused.stderr.contains("is protected from deletion"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("update-termination-protection --no-enable"),
        "{}",
        refused.stderr
    );
    assert_eq!(place.cloudformation.calls(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_tried_twice_and_names_what_stays() {
    let place = Place::new("undeleted").await;
    place.deployed().cloudformation.changes(&[("Schedule", "AWS::Scheduler::Schedule", "Modify")]);
    let fails = End::Fails { part: "Vpc", reason: "has dependencies and cannot be deleted" };
    // The first ends the update that switches the function off.
    place.cloudformation.ends(&[End::Succeeds, fails.clone(), fails.clone(), fails]);
    let failed = place.run("destroy", &["--yes"]).expect(1);
    assert!(failed.stderr.contains("Vpc: has dependencies"), "{}", failed.stderr);
    let calls = ["CreateChangeSet", "ExecuteChangeSet", "DeleteStack", "DeleteStack"];
    assert_eq!(place.cloudformation.calls(), calls);
    let half = place.run("deploy", &["--yes"]).expect(1);
    assert!(half.stderr.contains("is half deleted"), "{}", half.stderr);
    assert!(half.stderr.contains("hint: `gpuctl destroy` deletes the rest"), "{}", half.stderr);
    // Once more fails, and then it works.
    place.run("destroy", &["--yes"]).expect(0);
    assert_eq!(place.cloudformation.calls(), ["DeleteStack", "DeleteStack"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_with_jobs_is_not_deleted_unawares() {
    let place = Place::new("jobs").await;
    let ministack = account().await;
    let account = Account { port: ministack.port };
    let queue = account.sqs("CreateQueue", &json!({ "QueueName": "to-lose" }));
    let url = queue["QueueUrl"].as_str().unwrap().to_owned();
    account.sqs("SendMessage", &json!({ "QueueUrl": url, "MessageBody": "job" }));
    place.cloudformation.put("CREATE_COMPLETE", &[("Tick", "off")], &[("QueueUrl", url.as_str())]);
    let refused = place.run("destroy", &["--yes"]).expect(4);
    assert!(refused.stderr.contains("has jobs: 0 running, 1 waiting"), "{}", refused.stderr);
    account.sqs("ReceiveMessage", &json!({ "QueueUrl": url, "VisibilityTimeout": 600 }));
    let refused = place.run("destroy", &["--yes"]).expect(4);
    assert!(refused.stderr.contains("has jobs: 1 running, 0 waiting"), "{}", refused.stderr);
    let timed_out = place.run("destroy", &["--yes", "--drain", "1s"]).expect(5);
    assert!(
        timed_out.stderr.contains("1 jobs are left: nothing was deleted"),
        "{}",
        timed_out.stderr
    );
    assert_eq!(place.cloudformation.calls(), Vec::<String>::new());
    place.run("destroy", &["--yes", "--lose-jobs"]).expect(0);
    assert_eq!(place.cloudformation.calls(), ["DeleteStack"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_said_before_anything_is_asked() {
    let place = Place::new("invalid").await;
    for (arguments, words) in [
        (&["--set", "GpuMarket=cheap"][..], "GpuMarket: `cheap` is none of spot, on-demand, both"),
        (&["--set", "GpuVolumeGiB=1"][..], "GpuVolumeGiB: `1` is not from 30 to 16384"),
        (&["--set", "GpuMarkt=spot"][..], "did you mean `GpuMarket`?"),
        (&["--worker", "nowhere"][..], "nowhere cannot be read"),
        (&["--stack", "Upper"][..], "`Upper` is not a valid stack name"),
    ] {
        let said = place.sandbox.run(&[&["deploy", "--yes"][..], arguments].concat()).expect(2);
        assert!(said.stderr.contains(words), "{words}\n{}", said.stderr);
    }
    let missing = place.sandbox.run(&[&["deploy", "--yes"][..], &SET].concat()).expect(2);
    assert!(
        missing.stderr.contains("error: the function's zip was not found"),
        "{}",
        missing.stderr
    );
    let no_image = ["--set", "GpuAmi=resolve:ssm:/not/there"];
    let said = place.run("deploy", &[&["--yes"][..], &no_image].concat()).expect(1);
    assert!(
        said.stderr.contains("us-east-1 has no image resolve:ssm:/not/there"),
        "{}",
        said.stderr
    );
    let no_subnet = [
        "--set",
        "ExistingVpc=vpc-1",
        "--set",
        "ExistingSubnetA=subnet-1",
        "--set",
        "ExistingSubnetB=subnet-2",
    ];
    let said = place.run("deploy", &[&["--yes"][..], &no_subnet].concat()).expect(1);
    assert!(said.stderr.contains("us-east-1 has no subnet subnet-1"), "{}", said.stderr);
    let policy = "[cloud]\nkind = \"aws\"\n[pool.gpu]\ninstances = [\"i-0123456789abcdef0\"]\n# ";
    place.sandbox.write("gpuctl.toml", policy.to_owned() + &"x".repeat(1 << 20));
    let large = place.run("deploy", &["--yes"]).expect(2);
    assert!(large.stderr.contains("the function reads 1048576"), "{}", large.stderr);
    assert_eq!(place.cloudformation.calls(), Vec::<String>::new());
}

#[test]
fn an_export_has_template_parameters_and_commands() {
    let sandbox = Sandbox::new("[pool.local]\ncommand = [\"true\"]\n");
    sandbox.run(&["deploy", "--export", "out", "--set", "GpuMarket=on-demand"]).expect(0);
    let read = |name: &str| std::fs::read_to_string(sandbox.path("out").join(name)).unwrap();
    assert!(read("stack.yaml").contains("AWSTemplateFormatVersion"));
    let parameters: Value = serde_json::from_str(&read("parameters.json")).unwrap();
    let market = json!({ "ParameterKey": "GpuMarket", "ParameterValue": "on-demand" });
    assert!(parameters.as_array().unwrap().contains(&market), "{parameters}");
    assert!(read("commands.sh").contains("create-change-set --stack-name gpuctl"));
}

#[test]
fn the_bill_of_a_stack_is_a_table() {
    let sandbox = Sandbox::new("[pool.local]\ncommand = [\"true\"]\n");
    let bill = sandbox.run(&["cost", "stack", "--json"]).expect(0).json();
    let of = |name: &str| -> f64 {
        let parts = bill["parts"].as_array().unwrap().iter().filter(|part| part["name"] == name);
        parts.map(|part| part["usd_month"].as_f64().unwrap()).sum()
    };
    let disk = of("GpuKeptSpot");
    assert!((disk - 8.0).abs() < 0.001, "{bill}");
    let idle = bill["usd_month"].as_f64().unwrap() - disk;
    assert!(idle < 1.0, "the stack costs under a dollar besides disks: {bill}");
    let endpoints =
        sandbox.run(&["cost", "stack", "--set", "Addresses=endpoints", "--json"]).expect(0).json();
    assert!(endpoints["usd_month"].as_f64().unwrap() > 20.0, "{endpoints}");
    let said = sandbox.run(&["cost", "stack", "--region", "ap-northeast-1"]).expect(0);
    assert!(said.stdout.contains("100 GiB of disk, stopped or not"), "{}", said.stdout);
}

/// What the emulator has no type for is left out, as whole resources with the outputs that show them.
pub(crate) fn pruned() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/stack.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let (mut kept, mut section, mut skips) = (String::new(), "", false);
    for line in text.lines() {
        if line.starts_with(|c: char| c.is_ascii_alphabetic()) {
            section = line.split(':').next().unwrap();
            skips = false;
        }
        let name = line.strip_prefix("  ").filter(|rest| !rest.starts_with([' ', '#']));
        if let Some(name) = name.and_then(|rest| rest.split(':').next()) {
            skips = match section {
                "Resources" => ["AppAddress", "Budget"].contains(&name),
                "Outputs" => ["AppAddress", "AppAddressId"].contains(&name),
                _ => false,
            };
        }
        if !skips {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

/// The real template on an emulator.
struct Life {
    sandbox: Sandbox,
    ministack: Emulator,
}

impl Life {
    async fn new() -> Self {
        let ministack = emulators::new_ministack().await;
        let account = Account { port: ministack.port };
        account.image();
        let sandbox = Sandbox::new("")
            .with("AWS_ACCESS_KEY_ID", "test")
            .with("AWS_SECRET_ACCESS_KEY", "test")
            .with("AWS_REGION", REGION)
            .with("AWS_ENDPOINT_URL", ministack.url());
        std::fs::remove_file(sandbox.path("gpuctl.toml")).unwrap();
        sandbox.write("stack.yaml", pruned());
        sandbox.write("function.zip", b"zip");
        for folder in ["worker", "boot", "models/any"] {
            std::fs::create_dir_all(sandbox.path(folder)).unwrap();
        }
        sandbox.write("worker/gpu-worker-x86_64.tar.gz", b"archive");
        sandbox.write("boot/first-boot.sh", b"true\n");
        sandbox.write("models/any/model.toml", b"");
        Self { sandbox, ministack }
    }

    /// Makes a bucket with a file, tagged as that of a stack.
    fn bucket(&self, region: &str, name: &str, stack: &str) {
        let account = Account { port: self.ministack.port };
        let place = match region {
            REGION => String::new(),
            _ => format!(
                "<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
            ),
        };
        account.s3(region, &format!("PUT /{name}"), &place);
        account.s3(region, &format!("PUT /{name}/a-file"), "text");
        account.tag(region, name, stack);
    }

    fn run(&self, command: &str, stack: &str, more: &[&str]) -> Said {
        let url = self.ministack.url();
        let mut arguments = vec![command, "--stack", stack, "--endpoint-url", &url];
        if command != "destroy" {
            arguments.extend(["--template", "stack.yaml", "--function", "function.zip"]);
            arguments.extend(["--worker", "worker", "--boot", "boot"]);
            arguments.extend(&SET[2..]);
        }
        arguments.extend(more);
        let said = self.sandbox.run(&arguments);
        if command == "deploy" {
            Account { port: self.ministack.port }.buckets_of(stack);
        }
        said
    }
}

/// Made, changed, left alone, removed, made again.
#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_made_changed_removed_and_made_again() {
    let life = Life::new().await;
    let run = |command: &str, more: &[&str]| life.run(command, "life", more);
    let bare = run("deploy", &["--yes"]).expect(1);
    assert!(bare.stderr.contains("/models/ has no models: no GPU box was made"), "{}", bare.stderr);
    assert!(
        bare.stderr.contains("hint: the stack is complete; `gpuctl deploy --stack life --models")
    );
    // No worker boots on the emulator, so the box is told to stop.
    let with_models = ["--models", "models", "--yes", "--boot-timeout", "1s"];
    let made = run("deploy", &with_models).expect(5);
    assert!(made.stderr.contains("uploaded models/any/model.toml"), "{}", made.stderr);
    assert!(made.stderr.contains("from launch template life-gpu-spot"), "{}", made.stderr);
    assert!(made.stderr.contains("did not stop by itself after its first boot"), "{}", made.stderr);
    let policy = std::fs::read_to_string(life.sandbox.path("gpuctl.toml")).unwrap_or_default();
    assert!(policy.contains("\"gpuctl:stack\" = \"life\""), "{policy}");

    let again = run("deploy", &["--yes", "--json"]).expect(0).json();
    assert_eq!((&again["changes"], &again["boxes"]), (&json!(0), &json!([])), "{again}");
    let more = run("diff", &["--set", "GpuVolumeGiB=120", "--json"]).expect(0).json();
    let month = |when: &str| more[when]["usd_month"].as_f64().unwrap();
    assert!((month("after") - month("before") - 1.6).abs() < 0.001, "{more}");
    let changed = run("deploy", &["--set", "GpuVolumeGiB=120", "--yes"]).expect(0);
    assert!(changed.stdout.starts_with("stack life in us-east-1: "), "{}", changed.stdout);

    let gone = run("destroy", &["--yes", "--json"]).expect(0).json();
    assert_eq!(gone["boxes"].as_array().unwrap().len(), 1, "{gone}");
    let kept = gone["kept"].as_array().unwrap();
    let is_bucket = |one: &&Value| one["kind"] == "bucket";
    assert_eq!((&gone["left"], kept.iter().filter(is_bucket).count()), (&json!([]), 2), "{gone}");
    assert_eq!(run("destroy", &["--yes", "--json"]).expect(0).json()["was_there"], false);

    let made = run("deploy", &["--yes", "--set", "GpuBoxes=launched", "--set", "Efs=on"]).expect(0);
    let words = "/models/ has no models: each GPU box powers itself off at its boot";
    assert!(made.stderr.contains(words), "{}", made.stderr);
    let gone = run("destroy", &["--yes"]).expect(0);
    let kept = gone.stdout.lines().find(|line| line.starts_with("  file system ")).unwrap();
    assert!(kept.ends_with(" $0.00 a month"), "{}", gone.stdout);
    // Buckets of such a name may be anyone's; the list of an account has those of all regions.
    life.bucket(REGION, "life-bucket-photographs", "another");
    life.bucket("eu-west-1", "life-bucket-elsewhere", "life");
    let gone = run("destroy", &["--yes", "--everything"]).expect(0);
    assert!(gone.stderr.contains("deleted file system fs-"), "{}", gone.stderr);
    let gone = [gone, run("destroy", &["--everything", "--json"]).expect(0)];
    for other in ["photographs", "elsewhere"] {
        assert!(gone.iter().all(|said| !said.stderr.contains(other)), "{}", gone[0].stderr);
    }
    let last = gone[1].json();
    assert_eq!((&last["left"], &last["kept"]), (&json!([]), &json!([])), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_box_gets_its_address_also_where_an_earlier_deployment_ended_before() {
    // The emulator lists an address for every stack.
    let ministack = emulators::new_ministack().await;
    let place = Place::on(&ministack, "address").await;
    let port = ministack.port;
    let ec2 = |query: &str| {
        let headers = format!(
            "Content-Type: application/x-www-form-urlencoded\r\nAuthorization: AWS4-HMAC-SHA256 Credential=test/20261122/{REGION}/ec2/aws4_request\r\n"
        );
        let body = format!("Version=2016-11-15&Action={query}");
        emulators::request_with(port, "POST", "/", &headers, &body).unwrap()
    };
    let id = |answer: &str, name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    let data = "LaunchTemplateData.InstanceType=t3.large&LaunchTemplateData.ImageId=ami-1";
    ec2(&format!("CreateLaunchTemplate&LaunchTemplateName=address-app&{data}"));
    let address = id(&ec2("AllocateAddress&Domain=vpc"), "allocationId");
    let subnet = id(&ec2("DescribeSubnets"), "subnetId");
    let mut outputs = vec![("Bucket", place.bucket.as_str()), ("Subnets", subnet.as_str())];
    place.cloudformation.outputs(&outputs);
    std::fs::create_dir_all(place.sandbox.path("models/any")).unwrap();
    place.sandbox.write("models/any/model.toml", b"");
    let kept = ["--set", "GpuBoxes=kept", "--set", "Layout=gpu-and-app", "--models", "models"];
    let what = [&["--yes", "--stack", "address", "--boot-timeout", "1s"][..], &kept].concat();
    // No worker boots on the emulator, so the GPU box is told to stop.
    let made = place.run("deploy", &what).expect(5);
    assert!(made.stderr.contains("from launch template address-app;"), "{}", made.stderr);
    outputs.push(("AppAddressId", &address));
    place.cloudformation.outputs(&outputs);
    place.run("deploy", &what).expect(0);
    let held = ec2(&format!("DescribeAddresses&AllocationId.1={address}"));
    assert!(held.contains("<instanceId>i-"), "{held}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stacks_share_the_code_bucket_and_no_pool_of_launched_boxes() {
    let life = Life::new().await;
    let launched = ["--yes", "--set", "GpuBoxes=launched"];
    life.run("deploy", "one", &launched).expect(0);
    let refused = life.run("deploy", "two", &launched).expect(1);
    let words = "error: GpuPool: stack one has a pool `gpu` too, and launched boxes are known by their pool";
    assert!(refused.stderr.contains(words), "{}", refused.stderr);
    let other = [&launched[..], &["--set", "GpuPool=gpu-2"]].concat();
    let made = life.run("deploy", "two", &other).expect(0);
    assert!(made.stderr.contains("gpuctl.toml is of another stack"), "{}", made.stderr);
    let policy = std::fs::read_to_string(life.sandbox.path("gpuctl-two.toml")).unwrap();
    assert!(policy.contains("queue = \"two-jobs\""), "{policy}");
    let gone = life.run("destroy", "one", &["--yes", "--everything"]).expect(0);
    let code = "gpuctl-000000000000-us-east-1";
    let stays = format!("bucket {code} stays: stack two uses it");
    assert!(gone.stderr.contains(&stays), "{}", gone.stderr);
    assert_eq!(gone.stdout.matches("\n  bucket ").count(), 1, "{}", gone.stdout);
    assert!(gone.stdout.contains(code), "{}", gone.stdout);
    life.run("deploy", "two", &["--yes"]).expect(0);
    let all = ["--yes", "--everything", "--json"];
    let gone = life.run("destroy", "two", &all).expect(0).json();
    assert_eq!((&gone["left"], &gone["kept"]), (&json!([]), &json!([])), "{gone}");
}
