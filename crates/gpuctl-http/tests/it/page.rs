//! The page for people: what is on it without scripts, what runs on it of what others wrote, and who may press its buttons.

use chrono::TimeDelta;
use gpuctl_control::hold::{HoldRequest, set};
use gpuctl_control::job::{InputUri, Job, JobFailure, JobId, JobResult, JobState};
use gpuctl_control::ports::NewMessage;
use gpuctl_control::submit::submit;
use gpuctl_core::observation::HoldWants;
use serde_json::{Value, json};

use crate::place::{Answer, FORM, POLICY, Place, form, queue, request};

const PRICED: &str = "[pool.gpu]\nqueue = \"jobs\"\nmax_wait = \"1h\"\n[cost]\nusd_hour = 0.526\n";

/// What would run if it were not escaped, wherever it stands.
const SCRIPT: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";

async fn text(place: &Place, path: &str) -> String {
    place.get(path).await.expect(200).text()
}

/// Submits a job with this input.
async fn sent(place: &Place, input: &str) -> Job {
    let now = place.ports.clock.now();
    let job = Job {
        id: JobId::new(now),
        queue: queue(),
        task: "text.embed".to_owned(),
        model: None,
        input: input.parse().unwrap(),
        params: serde_json::Map::new(),
        submitted_at: now,
        generation: 0,
        urgency: gpuctl_control::job::Urgency::default(),
    };
    submit(&place.ports, std::slice::from_ref(&job)).await.unwrap();
    job
}

async fn fail(place: &Place, job: &Job, message: &str) {
    let now = place.ports.clock.now();
    let failure = JobFailure {
        code: "input.wrong_kind".into(),
        message: message.into(),
        hint: Some(message.into()),
    };
    let result = JobResult {
        outcome: Err(failure),
        model: Some(SCRIPT.to_owned()),
        device: Some(SCRIPT.to_owned()),
        box_id: "gpu-1".parse().unwrap(),
        attempt: 1,
        received_at: now,
        finished_at: now,
        inference: TimeDelta::zero(),
        worked: None,
        job: job.clone(),
    };
    place.ports.ledger.commit_one(&result).await.unwrap();
}

/// Every tag of the page by its name, with its attributes.
fn tags(page: &str) -> Vec<&str> {
    page.split('<').skip(1).filter_map(|rest| rest.split('>').next()).collect()
}

#[track_caller]
fn assert_nothing_runs(page: &str) {
    let mut scripts = 0;
    for tag in tags(page) {
        let tag = tag.to_ascii_lowercase();
        scripts += usize::from(tag.starts_with("script"));
        // The tag without the values of its attributes.
        let names = tag.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        let attribute = |name: &str| names.contains(&format!(" {name}"));
        assert!(!attribute("on") && !attribute("style=") && !tag.starts_with("style"), "<{tag}>");
        assert!(
            !tag.contains("javascript:") && !names.contains('\'') && !names.contains("src=x"),
            "<{tag}>"
        );
    }
    assert_eq!(scripts, 1, "the page's own file");
    assert!(page.contains("<script src=\"/assets/page.js\" defer></script>"));
}

#[tokio::test]
async fn the_first_screen_says_without_scripts_what_is_on_why_until_when_and_what_it_costs() {
    let place = Place::new(PRICED);
    let empty = text(&place, "/").await;
    for part in ["No job yet. Send the first one", "No box was on", "None in <code>jobs</code>"] {
        assert!(empty.contains(part), "{part}: {empty}");
    }
    sent(&place, "data:,hello").await;
    let page = text(&place, "/").await;
    let first = page.split("id=\"timeline\"").next().unwrap();
    for part in [
        "<h1>",
        "stopped",
        "<dt>Until</dt>",
        "$0.00 / h",
        "This month",
        "Today",
        "Waiting jobs",
        "times in UTC",
    ] {
        assert!(first.contains(part), "{part}: {first}");
    }
    assert!(page.contains("Find") && page.contains("&#34;hello&#34;"), "{page}");
    assert!(!page.contains("<form method=\"post\""), "a page that only shows has no buttons");
    assert!(page.len() < 100_000, "{} bytes", page.len());
}

#[tokio::test]
async fn nothing_that_a_job_a_result_an_error_or_a_hold_says_can_run() {
    let place = Place::new(POLICY);
    let done = sent(&place, InputUri::of_text(SCRIPT).unwrap().as_str()).await;
    let output = json!({ "text": SCRIPT, "label": SCRIPT, "labels": [{ "label": SCRIPT, "score": 0.5 }],
        "segments": [{ "start_seconds": 1, "text": SCRIPT, "speaker": SCRIPT }], "width_pixels": 4, "height_pixels": 4,
        "objects": [{ "label": SCRIPT, "edges_pixels": [0, 0, 1, 1] }], "tensors": [{ "name": SCRIPT, "dtype": SCRIPT }],
        "warnings": [{ "code": SCRIPT, "message": SCRIPT }] });
    place.work(output, &[(&SCRIPT.replace('/', "_"), b"x")]).await;
    let name = format!("/in/{}.wav", SCRIPT.replace('/', "_"));
    let failed = sent(&place, InputUri::of_path(std::path::Path::new(&name)).as_str()).await;
    fail(&place, &failed, SCRIPT).await;
    let request = HoldRequest {
        wants: HoldWants::Stopped,
        since: place.ports.clock.now(),
        until: place.ports.clock.now() + TimeDelta::hours(1),
        by: SCRIPT.to_owned(),
        why: Some(SCRIPT.to_owned()),
        over_budget: None,
        until_empty: false,
    };
    set(&*place.ports.ledger, &["gpu".parse().unwrap()], &request).await.unwrap();
    bury(&place, SCRIPT, SCRIPT).await;
    let search = "/?q=%3Cscript%3Ealert(1)%3C/script%3E&state=%22%3E&task=%3Cscript%3E&t=%3Cscript%3E&after=%3Cscript%3E";
    for path in ["/", search, &format!("/jobs/{}", done.id), &format!("/jobs/{}", failed.id)] {
        let page = text(&place, path).await;
        assert_nothing_runs(&page);
        assert!(page.contains("&#60;script&#62;alert(1)"), "{path} shows it: {page}");
    }
    let unknown = place.get("/jobs/%3Cscript%3Ealert(1)%3C%2Fscript%3E").await.expect(404);
    assert_nothing_runs(&unknown.text());
    assert_eq!(unknown.header("content-type"), "text/html; charset=utf-8");
    for answer in [place.get("/").await, unknown] {
        let policy = answer.header("content-security-policy").to_owned();
        // By `no-referrer` a browser would send `Origin: null` with the page's own forms.
        assert_eq!(answer.header("referrer-policy"), "same-origin");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(
            !policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
    }
}

/// Puts a message into the dead letters.
async fn bury(place: &Place, body: &str, reason: &str) {
    let message =
        NewMessage { body: body.to_owned(), attributes: vec![], delay: TimeDelta::zero() };
    place.ports.queue.send(&queue(), &[message]).await.unwrap();
    let request = gpuctl_control::ports::ReceiveRequest {
        max: 10,
        visibility: TimeDelta::minutes(1),
        wait: TimeDelta::zero(),
    };
    for held in place.ports.queue.receive(&queue(), request).await.unwrap() {
        if held.body == body {
            place.ports.queue.bury(&queue(), &held, reason).await.unwrap();
        } else {
            place.ports.queue.give_back(&[held.receipt]).await.remove(0).unwrap();
        }
    }
}

#[tokio::test]
async fn dead_letters_are_shown_with_their_bodies_also_those_that_are_no_jobs() {
    let place = Place::acting(POLICY);
    bury(&place, "{\"not\": \"a job\"}", "the message is not a job").await;
    let page = text(&place, "/").await;
    for part in [
        "1 dead letter in",
        "received once: the message is not a job",
        "{&#34;not&#34;: &#34;a job&#34;}",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    press(&place, &[("do", "redrive"), ("pool", "gpu")]).await.expect(303);
    assert!(text(&place, "/").await.contains("None in <code>jobs</code>"));
}

#[tokio::test]
async fn jobs_are_found_by_what_they_say_and_every_view_is_a_link() {
    let place = Place::new(POLICY);
    let first = sent(&place, "file:///in/a%20cat%20%26%20100%25.wav").await;
    fail(&place, &first, "/in/a cat & 100%.wav is a text, not a recording").await;
    for n in 0..30 {
        sent(&place, &format!("data:,number%20{n}")).await;
    }
    let row = format!("href=\"/jobs/{}\"", first.id);
    for found in [
        "?q=cat",
        "?q=CAT+%26",
        "?q=100%25",
        "?q=wrong_kind",
        "?q=not+a+recording",
        "?state=failed",
        &format!("?q={}", &first.id.as_str()[..13]),
    ] {
        assert!(text(&place, &format!("/{found}")).await.contains(&row), "{found}");
    }
    for other in
        ["?q=dog", "?q=100_", "?state=succeeded", "?task=vision.ocr", "?q=cat&state=queued"]
    {
        let page = text(&place, &format!("/{other}")).await;
        assert!(page.contains("No job is like that"), "{other}");
    }
    assert!(!text(&place, "/?q=cat").await.contains("/in/"), "folders of the server stay there");
    let newest = text(&place, "/?t=7d&task=text.embed").await;
    assert!(!newest.contains(&row));
    let older = newest.split("href=\"/?t=7d&#38;task=text.embed&#38;after=").nth(1).expect(&newest);
    let older = older.split('#').next().unwrap();
    let page = text(&place, &format!("/?t=7d&task=text.embed&after={older}")).await;
    assert!(page.contains(&row) && page.contains("newest") && page.contains("The last 7 days"));
}

#[tokio::test]
async fn a_picture_or_recording_is_shown_and_no_other_input_nor_another_file() {
    let place = Place::new(POLICY);
    let png = b"\x89PNG\r\n\x1a\n0123456789";
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
    let mut ids = Vec::new();
    for bytes in [&png[..], &svg[..]] {
        let fields = form(&[("task", "vision.embed")], &[("file", "a.png", bytes)]);
        let job = place.send(request("POST", "/v1/jobs", &[FORM], fields)).await.expect(202).json();
        ids.push(job["job_id"].as_str().unwrap().to_owned());
    }
    let path = format!("/jobs/{}/input", ids[0]);
    let whole = place.get(&path).await.expect(200);
    assert_eq!((whole.header("content-type"), whole.body.as_slice()), ("image/png", &png[..]));
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    let part = place.send(request("GET", &path, &[("range", "bytes=0-3")], "")).await.expect(206);
    assert_eq!(part.body, &png[..4]);
    place.get(&format!("/jobs/{}/input", ids[1])).await.expect(415);
    for path in [
        "/assets/..%2Fpage.css",
        "/assets/%2e%2e%2fCargo.toml",
        "/jobs/..%2f..%2fetc%2fpasswd/input",
        "/jobs/%2e%2e/input",
        &format!("/v1/jobs/{}/files/..%2F..%2Fgpuctl.toml", ids[0]),
    ] {
        place.get(path).await.expect(404);
    }
    let style = place.get("/assets/page.css").await.expect(200);
    assert_eq!(style.header("content-type"), "text/css; charset=utf-8");
}

/// A form as the page's own buttons send it, with these headers in place of the page's.
async fn post(place: &Place, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
    let body: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let headers = [&[("content-type", "application/x-www-form-urlencoded")], headers].concat();
    place.send(request("POST", "/act", &headers, body.join("&"))).await
}

const OWN: [(&str, &str); 2] = [("origin", "http://localhost"), ("sec-fetch-site", "same-origin")];

/// Presses a button of the page.
async fn press(place: &Place, fields: &[(&str, &str)]) -> Answer {
    let page = text(place, "/").await;
    let token = page.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    post(place, &OWN, &[&[("token", token)], fields].concat()).await
}

async fn state(place: &Place, job: &Job) -> JobState {
    place.ports.ledger.job(&job.id).await.unwrap().unwrap().state
}

#[tokio::test]
async fn the_buttons_retry_cancel_hold_and_release_and_show_what_came_of_it() {
    let place = Place::acting(POLICY);
    let job = sent(&place, "data:,hello").await;
    let id = job.id.as_str();
    let answer = press(&place, &[("do", "cancel"), ("job", id)]).await.expect(303);
    assert_eq!(answer.header("location"), format!("/jobs/{id}"));
    assert_eq!(state(&place, &job).await, JobState::Cancelled);
    assert!(
        text(&place, &format!("/jobs/{id}")).await.contains("someone on the page cancelled it")
    );
    press(&place, &[("do", "retry"), ("job", id)]).await.expect(303);
    assert_eq!(state(&place, &job).await, JobState::Queued);
    press(&place, &[("do", "retry"), ("job", id)]).await.expect(409);
    let held = [("do", "stop"), ("pool", "gpu"), ("minutes", "60"), ("why", "rack+moves")];
    press(&place, &held).await.expect(303);
    let page = text(&place, "/").await;
    assert!(page.contains("by someone on the page: rack moves"), "{page}");
    press(&place, &[("do", "release"), ("pool", "gpu")]).await.expect(303);
    assert!(!text(&place, "/").await.contains("rack moves"));
    let other = sent(&place, "data:,other").await;
    press(&place, &[("do", "cancel-all"), ("q", "hello"), ("state", "queued")]).await.expect(303);
    assert_eq!(state(&place, &job).await, JobState::Cancelled);
    assert_eq!(state(&place, &other).await, JobState::Queued);
    press(&place, &[("do", "retry-all"), ("q", "hello")]).await.expect(303);
    assert_eq!(state(&place, &job).await, JobState::Queued);
    press(&place, &[("do", "stop"), ("pool", "other"), ("minutes", "60")]).await.expect(404);
}

#[tokio::test]
async fn a_form_of_another_site_of_another_name_or_without_the_token_does_nothing() {
    let place = Place::acting(POLICY);
    let job = sent(&place, "data:,hello").await;
    let cancel =
        |token: &'static str| [("token", token), ("do", "cancel"), ("job", job.id.as_str())];
    let page = text(&place, "/").await;
    let token = page.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let token: &'static str = Box::leak(token.to_owned().into_boxed_str());
    for (headers, fields, code) in [
        (&OWN[..], &cancel("")[..], "not of this server"),
        (&OWN[..], &cancel("0123456789abcdef0123456789abcdef")[..], "not of this server"),
        (&OWN[..], &cancel(token)[1..], "not of this server"),
        (&[("origin", "http://other.invalid")], &cancel(token)[..], "may not call"),
        (&[("origin", "http://localhost:3000")], &cancel(token)[..], "another site"),
        (&[("origin", "null")], &cancel(token)[..], "may not call"),
        (
            &[("origin", "http://localhost"), ("sec-fetch-site", "cross-site")],
            &cancel(token)[..],
            "another site",
        ),
        (&[], &cancel(token)[..], "another site"),
        // A name that was made to lead here.
        (
            &[("host", "rebound.invalid"), ("origin", "http://rebound.invalid")],
            &cancel(token)[..],
            "may not be called",
        ),
    ] {
        let answer = post(&place, headers, fields).await.expect(403);
        assert!(answer.text().contains(code), "{headers:?}: {}", answer.text());
    }
    place.send(request("GET", "/", &[("host", "rebound.invalid")], "")).await.expect(403);
    place.send(request("GET", "/act?do=cancel", &[], "")).await.expect(405);
    let shows = Place::new(POLICY);
    let answer = post(&shows, &OWN, &cancel(token)).await.expect(403);
    assert!(answer.text().contains("--allow-actions"), "{}", answer.text());
    assert_eq!(state(&place, &job).await, JobState::Queued);
}

#[tokio::test]
async fn a_page_that_is_followed_comes_again_when_it_is_another() {
    let place = Place::new(POLICY);
    let mut live = place.open(request("GET", "/live", &[], "")).await;
    let job = sent(&place, "data:,hello").await;
    let mut all = String::new();
    while !all.contains(job.id.as_str()) {
        all.push_str(&live.next().await.unwrap());
    }
    assert!(all.starts_with("event: page\ndata: <!doctype html>"), "{all}");
    let mut live = place.open(request("GET", &format!("/live?job={}", job.id), &[], "")).await;
    place.work(json!({ "text": "done" }), &[]).await;
    let mut all = String::new();
    while !all.contains("the job is succeeded") {
        all.push_str(&live.next().await.unwrap());
    }
}

#[tokio::test]
async fn each_kind_of_result_has_its_form() {
    let place = Place::new(POLICY);
    type Case<'a> = (Value, &'a [(&'a str, &'a [u8])], &'a [&'a str]);
    let cases: [Case<'_>; 6] = [
        (json!({ "text": "two\nlines" }), &[], &["<pre class=\"prose\">two\nlines</pre>"]),
        (json!({ "vector": vec![0.5; 384] }), &[], &["384 numbers: 0.5000, 0.5000"]),
        (
            json!({ "label": "png", "labels": [{ "label": "png", "score": 0.75 }] }),
            &[],
            &["75.0 %", "<meter value=\"0.750\""],
        ),
        (
            json!({ "width_pixels": 8, "height_pixels": 6, "objects": [{ "label": "cat", "score": 0.5, "edges_pixels": [1, 2, 3, 4] }] }),
            &[],
            &[
                "/input\" width=\"8\" height=\"6\"",
                "<polygon points=\"1,2 3,2 3,4 1,4\"><title>cat 0.50</title>",
            ],
        ),
        (
            json!({ "audio_seconds": 1.0 }),
            &[("speech.wav", b"RIFF")],
            &[
                "<audio controls preload=\"metadata\" src=\"/v1/jobs/",
                "/files/speech.wav\" aria-label",
            ],
        ),
        (
            json!({ "text": "a b", "segments": [{ "start_seconds": 61.5, "text": "a b" }] }),
            &[],
            &["data-seconds=\"61.5\">1:01.5</a>", "/input\" aria-label=\"The recording\""],
        ),
    ];
    for (output, files, parts) in cases {
        sent(&place, "file:///in/a.wav").await;
        let job = place.work(output, files).await;
        let page = text(&place, &format!("/jobs/{}", job.id)).await;
        for part in parts {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("file:///"), "places on the server stay there");
    }
}
