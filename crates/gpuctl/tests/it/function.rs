//! The deployed function, asked from the command line: the real `bootstrap` in an emulator's Lambda, its ledger beside it.

use gpuctl_sim::wire::Front;
use gpuctl_sim::world::ec2::InstanceState;
use serde_json::json;

use crate::aws::{ec2, state};
use crate::deployment::{Account, REGION, bootstrap, zip_of};
use crate::emulators::{self, Emulator};
use crate::support::{Sandbox, wait_until};

/// Deploys the real function under this name: the zip holds a script that runs the program that was built.
fn deploy(ministack: &Emulator, front: &Front, name: &str, policy: &str) {
    let script = format!("#!/bin/sh\nexec {}\n", bootstrap().display());
    let zip = zip_of(&[("bootstrap", script.as_bytes())]);
    let variables = [("AWS_ENDPOINT_URL_EC2", &*front.url()), ("GPUCTL_POLICY", policy)];
    Account { port: ministack.port }.make_function(name, &zip, &variables);
}

/// A folder whose configuration names the function, and that is the function's policy as well.
fn sandbox(ministack: &Emulator, front: &Front, id: &str, name: &str) -> Sandbox {
    let sandbox = Sandbox::new("");
    let config = format!(
        "[cloud]\nkind = \"aws\"\nregion = \"{REGION}\"\ntable = \"{name}\"\nfunction = \"{name}\"\nmetrics = true\n\
         [pool.app]\ninstances = [\"{id}\"]\n"
    );
    sandbox.write("gpuctl.toml", config);
    sandbox
        .with("AWS_ACCESS_KEY_ID", "test")
        .with("AWS_SECRET_ACCESS_KEY", "test")
        .with("AWS_ENDPOINT_URL", ministack.url())
        .with("AWS_ENDPOINT_URL_EC2", front.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deployed_function_starts_and_stops_a_box_when_it_is_asked_to() {
    let ministack = emulators::ministack().await;
    let (front, id) = ec2().await;
    let sandbox = sandbox(ministack, &front, &id, "asked");
    sandbox.run(&["doctor", "--fix"]);
    deploy(ministack, &front, "asked", &sandbox.path("gpuctl.toml").display().to_string());

    let said = sandbox.run(&["invoke", "start", "app", "--for", "45m", "--show-calls"]).expect(0);
    assert!(said.stdout.starts_with(&format!("start {id} because ")), "{}", said.stdout);
    assert!(
        said.stdout.contains("app: stopped, before that") && said.stdout.contains("by ada"),
        "{}",
        said.stdout
    );
    assert!(said.stderr.contains("aws lambda invoke --function-name asked"), "{}", said.stderr);
    wait_until("the box is on", || state(&front, &id) == InstanceState::Running);

    let answer = sandbox.run(&["invoke", "status", "--json"]).expect(0).json();
    assert_eq!((&answer["schema"], &answer["statusCode"]), (&json!("gpuctl.status"), &json!(200)));
    assert_eq!(answer["pools"][0]["hold"]["wants"], "running", "{answer}");
    let said = sandbox.run(&["invoke", "stop"]).expect(0);
    assert!(said.stdout.starts_with(&format!("stop {id} because ")), "{}", said.stdout);
    let answer = sandbox.run(&["invoke", "release", "app", "--json"]).expect(0).json();
    assert!(answer["pools"][0]["hold"].is_null(), "{answer}");

    let said = sandbox.run(&["logs"]).expect(0);
    assert!(said.stdout.contains(" INFO  a command trigger=command\n"), "{}", said.stdout);
    assert!(!said.stdout.contains("_aws"), "{}", said.stdout);
    let json = sandbox.run(&["logs", "--limit", "1000", "--json"]).expect(0).json();
    let lines = json["lines"].as_array().unwrap();
    assert!(lines.iter().any(|line| line["text"].as_str().unwrap().contains("_aws")), "{json}");

    let said = sandbox.run(&["invoke", "start", "batch"]).expect(1);
    assert!(
        said.stdout
            .contains("error: there is no pool `batch` (the configuration has these pools: app)"),
        "{}",
        said.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_the_function_from_answering_is_one_line_and_a_hint() {
    let ministack = emulators::ministack().await;
    let (front, id) = ec2().await;
    let sandbox = sandbox(ministack, &front, &id, "broken");
    let missing = sandbox.run(&["invoke", "status"]).expect(1);
    assert!(
        missing.stderr.contains("error: there is no function broken in us-east-1\n")
            && missing.stderr.contains("hint: check `function` under [cloud]"),
        "{}",
        missing.stderr
    );
    deploy(ministack, &front, "broken", "/nowhere/gpuctl.toml");
    let broken = sandbox.run(&["invoke", "status"]).expect(1);
    assert!(
        broken.stderr.contains("error: the function broken crashed or timed out\n")
            && broken.stderr.contains("cannot read /nowhere/gpuctl.toml")
            && broken.stderr.contains("hint: `gpuctl logs` shows"),
        "{}",
        broken.stderr
    );
    let long = sandbox.run(&["invoke", "stop", "--for", "8d"]).expect(2);
    assert!(long.stderr.contains("at most 7d"), "{}", long.stderr);
    sandbox.run(&["invoke", "status", "--for", "1h"]).expect(2);
    sandbox.write(
        "gpuctl.toml",
        format!("[cloud]\nkind = \"aws\"\n[pool.app]\ninstances = [\"{id}\"]\n"),
    );
    let unnamed = sandbox.run(&["invoke", "status"]).expect(2);
    assert!(unnamed.stderr.contains("error: no function is configured"), "{}", unnamed.stderr);
    sandbox.write("gpuctl.toml", "[pool.app]\ncommand = [\"true\"]\n");
    let local = sandbox.run(&["invoke", "status"]).expect(2);
    assert!(local.stderr.contains("`[cloud] kind` is not \"aws\""), "{}", local.stderr);
}

/// An answer in the words of Lambda's own refusal, which emulators that check no permissions never give.
#[tokio::test(flavor = "multi_thread")]
async fn l14_a_missing_permission_to_invoke_is_named() {
    let (front, id) = ec2().await;
    let ministack = emulators::ministack().await;
    let denied = emulators::faults(ministack).await;
    denied.break_by(&json!([{
        "service": "lambda",
        "operation": "Invoke",
        "error": { "code": "AccessDeniedException", "status": 403 },
    }]));
    let sandbox = sandbox(&denied, &front, &id, "denied");
    let said = sandbox.run(&["invoke", "status"]).expect(4);
    assert!(
        said.stderr.contains("error: the function denied could not be invoked\n")
            && said.stderr.contains("hint: allow `lambda:InvokeFunction`"),
        "{}",
        said.stderr
    );
}
