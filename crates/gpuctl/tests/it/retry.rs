//! `retry`, `cancel` and `jobs delete` on a used state: generations, and what stays.

use serde_json::{Value, json};

use crate::support::Sandbox;
use crate::used::{self, Texts};

fn sandbox() -> Sandbox {
    used::sandbox(&Texts { reason: "a test", result: "a page", error: "cut off" })
}

fn of_state(sandbox: &Sandbox, state: &str) -> Value {
    let jobs = sandbox.jobs();
    let found = jobs.iter().find(|job| job["state"] == state);
    found.unwrap_or_else(|| panic!("no {state} job in {jobs:?}")).clone()
}

fn id(job: &Value) -> &str {
    job["job_id"].as_str().unwrap()
}

/// The error that a command has printed with `--json`.
fn error(stderr: &str) -> Value {
    serde_json::from_str::<Value>(stderr).unwrap()["error"].clone()
}

fn retry(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    sandbox.run(&[&["retry"], arguments, &["--json"]].concat()).expect(0).json()
}

#[test]
fn a_failed_job_is_sent_again_once_and_its_first_result_stays() {
    let sandbox = sandbox();
    let failed = of_state(&sandbox, "failed");
    assert_eq!(failed["generation"], 0);
    let sent = retry(&sandbox, &[id(&failed)]);
    let line =
        json!({ "job_id": id(&failed), "generation": 1, "state": "failed", "outcome": "sent" });
    assert_eq!((&sent["sent"], &sent["jobs"]), (&json!(1), &json!([line])));
    let again = retry(&sandbox, &[id(&failed)]);
    assert_eq!((&again["sent"], &again["jobs"][0]["outcome"]), (&json!(0), &json!("left alone")));

    let job = sandbox.run(&["job", id(&failed), "--json"]).expect(0).json();
    assert_eq!((&job["state"], &job["generation"]), (&json!("queued"), &json!(1)), "{job}");
    assert_eq!(job["earlier"][0]["error"]["code"], "input.truncated", "{job}");

    let store = used::store(&sandbox);
    let received = used::receive_all(&store);
    let next = received.iter().find(|one| one.body.contains(id(&failed))).unwrap();
    let quiet = json!([{ "code": "audio.quiet", "message": "hardly to be heard" }]);
    used::commit(&store, next, Ok(json!({ "text": "whole", "warnings": quiet })));
    let job = sandbox.run(&["job", id(&failed), "--json"]).expect(0).json();
    assert_eq!((&job["state"], &job["output"]["text"]), (&json!("succeeded"), &json!("whole")));
    let text = sandbox.run(&["job", id(&failed)]).expect(0).stdout;
    assert!(text.contains("generation 1\n"), "{text}");
    assert!(text.contains("earlier   generation 0 failed at "), "{text}");
    assert!(text.contains("cut off [input.truncated]"), "{text}");
    assert!(text.contains("  warning   hardly to be heard [audio.quiet]\n"), "{text}");
}

#[test]
fn jobs_are_chosen_by_state_code_and_time_and_a_dry_run_sends_nothing() {
    let sandbox = sandbox();
    let dry = |arguments: &[&str]| {
        let all = [&["--state", "failed", "--dry-run"], arguments].concat();
        retry(&sandbox, &all)["sent"].as_u64().unwrap()
    };
    assert_eq!(dry(&[]), 1);
    assert_eq!(dry(&["--code", "input.truncated", "--code", "model.missing"]), 1);
    assert_eq!(dry(&["--code", "model.missing"]), 0);
    assert_eq!(dry(&["--since", "1h"]), 1);
    assert_eq!(dry(&["--since", "2099-01-01T00:00:00Z"]), 0);
    assert_eq!(dry(&["--limit", "0"]), 0);
    of_state(&sandbox, "failed");
    assert_eq!(retry(&sandbox, &["--state", "failed"])["sent"], 1);
    assert_eq!(retry(&sandbox, &["--state", "failed"])["sent"], 0);
}

#[test]
fn jobs_of_a_queue_that_was_removed_are_left_alone_and_the_others_are_sent() {
    let sandbox = sandbox();
    let failed = of_state(&sandbox, "failed");
    let removed = used::commit_failed(&sandbox, "removed", 1).remove(0);
    let said = sandbox.run(&["retry", "--state", "failed", "--json"]).expect(0);
    assert!(said.stderr.contains("no pool has the queue `removed`"), "{}", said.stderr);
    let outcomes = |document: &Value| {
        let of = |job: &Value| (id(job).to_owned(), job["outcome"].as_str().unwrap().to_owned());
        document["jobs"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    let expected =
        [(id(&failed).to_owned(), "sent".to_owned()), (removed.clone(), "left alone".to_owned())];
    assert_eq!(outcomes(&said.json()), expected);
    let named = sandbox.run(&["retry", &removed]);
    assert!(named.code != 0 && named.stderr.contains("`removed`"), "{}", named.stderr);
}

#[test]
fn a_code_is_found_behind_more_jobs_than_one_listing_has() {
    let sandbox = sandbox();
    used::commit_failed(&sandbox, "jobs", 10_001);
    let only = ["--state", "failed", "--code", "input.truncated"];
    assert_eq!(retry(&sandbox, &only)["sent"], 1, "it is older than all others");
}

#[test]
fn a_dead_job_is_sent_again_as_well() {
    let sandbox = sandbox();
    let dead = of_state(&sandbox, "dead");
    assert_eq!(retry(&sandbox, &["--state", "dead"])["jobs"][0]["generation"], 1);
    let job = sandbox.run(&["job", id(&dead), "--json"]).expect(0).json();
    assert_eq!((&job["state"], &job["generation"]), (&json!("queued"), &json!(1)), "{job}");
    let mut listed = sandbox.jobs();
    listed.retain(|job| job["job_id"] == dead["job_id"]);
    assert_eq!(listed.len(), 1, "two messages, one job: {listed:?}");
}

#[test]
fn finished_jobs_are_deleted_with_their_files_and_the_others_stay() {
    let sandbox = sandbox();
    let done = of_state(&sandbox, "succeeded");
    let folder = used::keep_file(&sandbox, id(&done));
    let refused = sandbox.run(&["jobs", "delete", "--before", "0s"]).expect(2);
    assert!(refused.stderr.contains("not confirmed"), "{}", refused.stderr);
    let earlier = ["jobs", "delete", "--before", "1h", "--yes", "--json"];
    assert_eq!(sandbox.run(&earlier).expect(0).json()["jobs"], 0);
    assert!(folder.exists());
    let all = ["jobs", "delete", "--before", "0s", "--yes"];
    let said = sandbox.run(&all).expect(0);
    assert!(said.stdout.starts_with("2 jobs deleted"), "{}", said.stdout);
    assert!(!folder.exists(), "{} stays", folder.display());
    let left: Vec<Value> = sandbox.jobs().into_iter().map(|job| job["state"].clone()).collect();
    assert_eq!(left, ["queued", "dead"], "a dead job can still be sent again");
}

#[test]
fn a_waiting_job_is_cancelled_once_and_can_be_sent_again() {
    let sandbox = sandbox();
    let waiting = of_state(&sandbox, "queued");
    let said = sandbox.run(&["cancel", id(&waiting), "--json"]).expect(0).json();
    let line = json!({ "job_id": id(&waiting), "generation": 0, "state": "cancelled", "outcome": "cancelled" });
    assert_eq!(said["jobs"], json!([line]), "{said}");
    let again = sandbox.run(&["cancel", id(&waiting)]).expect(0).stdout;
    assert_eq!(again, format!("{}  cancelled\n", id(&waiting)));
    assert!(used::receive_all(&used::store(&sandbox)).is_empty(), "no worker receives it");
    let job = sandbox.run(&["job", id(&waiting), "--json"]).expect(0).json();
    assert_eq!(
        (&job["state"], &job["error"]["code"]),
        (&json!("cancelled"), &json!("job.cancelled")),
        "{job}"
    );
    assert!(job["error"]["message"].as_str().unwrap().ends_with(" cancelled it"), "{job}");
    assert!(
        job["box"].is_null() && job["run_seconds"].is_null() && !job["finished_at"].is_null(),
        "{job}"
    );
    let listed = sandbox.run(&["jobs", "--state", "cancelled", "--json"]).expect(0).json();
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 1, "{listed}");
    let report = sandbox.run(&["cost", "report", "--json"]).expect(0).json();
    assert_eq!(
        (&report["jobs"]["cancelled"], &report["jobs"]["open"]),
        (&json!(1), &json!(0)),
        "{report}"
    );
    assert_eq!(retry(&sandbox, &["--state", "cancelled"])["sent"], 1);
    let text = sandbox.run(&["job", id(&waiting)]).expect(0).stdout;
    assert!(text.contains("earlier   generation 0 cancelled at "), "{text}");
}

#[test]
fn a_job_that_has_ended_is_not_cancelled_and_keeps_none_of_the_others() {
    let sandbox = sandbox();
    for state in ["succeeded", "failed", "dead"] {
        let said = sandbox.run(&["cancel", id(&of_state(&sandbox, state)), "--json"]).expect(1);
        let error = error(&said.stderr);
        assert_eq!(error["code"], "job.ended", "{error}");
        let wanted = format!("has already ended: it is {state}");
        assert!(error["message"].as_str().unwrap().ends_with(&wanted), "{error}");
    }
    let (done, waiting) = (of_state(&sandbox, "succeeded"), of_state(&sandbox, "queued"));
    let said = sandbox.run(&["cancel", id(&done), id(&waiting), "--json"]).expect(1);
    assert!(said.stderr.contains("it is succeeded"), "{}", said.stderr);
    let outcomes: Vec<Value> =
        said.json()["jobs"].as_array().unwrap().iter().map(|job| job["outcome"].clone()).collect();
    assert_eq!(outcomes, ["left alone", "cancelled"]);
    sandbox.run(&["cancel", "nowhere"]).expect(1);
    assert_eq!(of_state(&sandbox, "succeeded")["job_id"], done["job_id"]);
}

#[test]
fn a_job_of_a_higher_priority_comes_first_and_says_so() {
    let sandbox = sandbox();
    for (name, priority) in [("low.png", "low"), ("high.png", "high")] {
        sandbox.write(name, "x");
        sandbox.run(&["submit", "vision.ocr", name, "--priority", priority]).expect(0);
    }
    sandbox.run(&["submit", "vision.ocr", "high.png", "--priority", "urgent"]).expect(2);
    let came = used::receive_all(&used::store(&sandbox));
    let name = |body: &str| {
        let message: Value = serde_json::from_str(body).unwrap();
        message["input"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
    };
    let names: Vec<String> = came.iter().map(|one| name(&one.body)).collect();
    assert_eq!(names, ["high.png", "waiting.png", "low.png"]);
    let listed = sandbox.jobs();
    let high = listed.iter().find(|job| job["priority"] == "high").unwrap();
    let text = sandbox.run(&["job", id(high)]).expect(0).stdout;
    assert!(text.contains("  priority  high\n"), "{text}");
}

#[test]
fn a_job_with_less_patience_than_its_pool_starts_a_box_and_is_named() {
    let sandbox = sandbox();
    sandbox.write("urgent.png", "x");
    let submit = |more: &[&str]| {
        sandbox.run(&[&["submit", "vision.ocr", "urgent.png", "--json"], more].concat())
    };
    let past = error(&submit(&["--deadline", "2026-01-01T00:00:00Z"]).expect(2).stderr);
    assert_eq!(past["code"], "deadline.passed", "{past}");
    let long = error(&submit(&["--max-wait", "15d"]).expect(2).stderr);
    assert_eq!(long["code"], "usage.invalid_value", "{long}");
    let plan = |sandbox: &Sandbox| sandbox.run(&["plan", "gpu"]).expect(0).stdout;
    assert!(!plan(&sandbox).contains("its own max_wait"), "{}", plan(&sandbox));
    let sent = submit(&["--max-wait", "40m"]).expect(0).json();
    let job = sent["job_ids"][0].as_str().unwrap();
    let text = plan(&sandbox);
    assert!(text.contains(&format!("job {job} needs a box to keep its own max_wait")), "{text}");
    let text = sandbox.run(&["explain", "gpu"]).expect(0).stdout;
    assert!(text.contains(&format!("job {job} may wait until ")), "{text}");
    let shown = sandbox.run(&["job", job]).expect(0).stdout;
    assert!(shown.contains("  max_wait  2400 s, its own\n"), "{shown}");
}

#[test]
fn a_start_until_the_queue_is_empty_says_so_and_needs_a_queue() {
    let sandbox = sandbox();
    for (command, code) in
        [(["stop", "gpu"], "usage.conflict"), (["start", "app"], "pool.no_queue")]
    {
        let said = sandbox.run(&[&command[..], &["--until-empty", "--json"]].concat()).expect(2);
        assert_eq!(error(&said.stderr)["code"], code);
    }
    sandbox.run(&["start", "gpu", "--until-empty", "--for", "3h"]);
    let status = sandbox.run(&["status", "gpu", "--json"]).expect(0).json();
    let hold = &status["pools"][0]["hold"];
    assert_eq!(
        (&hold["wants"], &hold["until_empty"]),
        (&json!("running"), &json!(true)),
        "{status}"
    );
    let text = sandbox.run(&["status", "gpu"]).expect(0).stdout;
    assert!(text.contains("running until its queue is empty, at most until "), "{text}");
    let text = sandbox.run(&["explain", "gpu"]).expect(0).stdout;
    assert!(text.contains("wants it running until its queue is empty, for "), "{text}");
    sandbox.run(&["stop", "gpu"]).expect(0);
}
