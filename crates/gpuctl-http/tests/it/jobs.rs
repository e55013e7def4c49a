//! Jobs from request to result.

use gpuctl_control::job::InputLocation;
use gpuctl_control::ports::Purge;
use serde_json::json;

use crate::place::{FORM, POLICY, Place, form, json_request, queue, request};

const WAV: &[u8] = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0";

#[tokio::test]
async fn a_job_is_submitted_waited_for_and_read() {
    let place = Place::new(POLICY);
    let job = json!({ "task": "text.embed", "text": "a cat", "params": { "as": "query" } });
    let created = place.post("/v1/jobs", &job).await.expect(202);
    let shown = created.json();
    let own = created.header("location").to_owned();
    assert_eq!(own, format!("/v1/jobs/{}", shown["job_id"].as_str().unwrap()));
    assert_eq!((&shown["state"], &shown["input"]), (&json!("queued"), &json!("data:,a%20cat")));
    assert!(created.header("retry-after").parse::<u64>().unwrap() > 0);
    let waiting = &shown["waiting"];
    assert_eq!((&waiting["rule"], &waiting["blocked"]), (&json!("demand"), &json!(null)));
    assert!(waiting["box_expected_at"].is_string() && waiting["since"].is_string(), "{waiting}");
    let poll = format!("{own}?wait=20");
    let (answer, _) = tokio::join!(place.get(&poll), place.work(json!({ "vector": [1.0] }), &[]));
    let done = answer.expect(200).json();
    assert_eq!((&done["state"], &done["output"]["vector"]), (&json!("succeeded"), &json!([1.0])));
    assert_eq!((&done["waiting"], &done["box"]), (&json!(null), &json!("gpu-1")));
    // Of a box on this machine without a price it is not known.
    assert_eq!(done["cost_usd"], json!(null));
    let again = place.post(&format!("{own}/retry"), &json!({})).await.expect(202).json();
    assert_eq!((&again["state"], &again["generation"]), (&json!("queued"), &json!(1)));
    assert_eq!(again["waiting"]["since"], json!(null));
    let open = place.post(&format!("{own}/retry"), &json!({})).await.expect(409).json();
    assert_eq!(open["code"], "job.open");
}

#[tokio::test]
async fn who_prefers_to_wait_gets_the_result_at_once() {
    let place = Place::new(POLICY);
    let job = json!({ "task": "text.embed", "text": "a cat" });
    let wait = json_request("POST", "/v1/jobs", &[("prefer", "wait=20")], &job);
    let (answer, _) = tokio::join!(place.send(wait), place.work(json!({ "vector": [0.5] }), &[]));
    let done = answer.expect(200).json();
    assert_eq!(done["output"]["vector"], json!([0.5]));
    // Its box is not to wait for other jobs, as those of the pool may.
    let id = done["job_id"].as_str().unwrap().parse().unwrap();
    let entry = place.ports.ledger.job(&id).await.unwrap().unwrap();
    assert_eq!(entry.job.urgency.max_wait, Some(chrono::TimeDelta::zero()));
    let unknown = json_request("POST", "/v1/jobs", &[("prefer", "waiting")], &job);
    place.send(unknown).await.expect(202);
    let short = json_request("POST", "/v1/jobs", &[("prefer", "respond-async, wait=0")], &job);
    assert_eq!(place.send(short).await.expect(202).json()["state"], "queued");
}

#[tokio::test]
async fn a_client_says_itself_how_soon_its_job_is_to_be_done() {
    let place = Place::new(POLICY);
    let path = "/v1/jobs/0192a1b2-0000-7000-8000-000000000001";
    let put = |more: &[(&str, &str)], headers: &[(&str, &str)]| {
        let mut job = json!({ "task": "text.embed", "text": "a cat" });
        job.as_object_mut().unwrap().extend(more.iter().map(|(k, v)| ((*k).into(), (*v).into())));
        place.send(json_request("PUT", path, headers, &job))
    };
    let wait = [("max_wait", "90s")];
    let shown = put(&wait, &[("prefer", "wait=0")]).await.expect(202).json();
    assert_eq!((&shown["priority"], &shown["max_wait_seconds"]), (&json!("normal"), &json!(90.0)));
    // It is the same job also for who says nothing of its wait.
    assert_eq!(put(&wait, &[]).await.expect(202).header("idempotent-replay"), "true");
    assert_eq!(put(&[], &[]).await.expect(202).header("idempotent-replay"), "true");
    let other = put(&[("max_wait", "91s")], &[]).await.expect(409).json();
    assert_eq!((&other["code"], place.queued().await), (&json!("job.differs"), 1));
    put(&[("priority", "high")], &[]).await.expect(409);
}

#[tokio::test]
async fn an_upload_is_the_input_and_no_path_of_the_server_is_shown() {
    let place = Place::new(POLICY);
    let body = form(
        &[("task", "voice.convert"), ("params", "{\"tau\": 0.5}")],
        &[("file", "../a b.wav", WAV), ("reference", "voice.wav", WAV)],
    );
    let created = place.send(request("POST", "/v1/jobs", &[FORM], body)).await.expect(202).json();
    assert_eq!(created["input"], "a b.wav");
    assert_eq!(created["params"], json!({ "tau": 0.5, "reference": "voice.wav" }));
    let job = place.work(json!({ "audio_seconds": 1.0 }), &[("speech.wav", b"0123456789")]).await;
    let InputLocation::File(path) = job.input.location() else { panic!("{:?}", job.input) };
    assert_eq!(std::fs::read(path).unwrap(), WAV);
    let own = format!("/v1/jobs/{}", job.id);
    let done = place.get(&own).await.expect(200);
    let folder = place.folder.path().display().to_string();
    assert!(!done.text().contains(&folder), "{}", done.text());
    let uri = done.json()["output"]["files"][0]["uri"].as_str().unwrap().to_owned();
    let whole = place.get(&uri).await.expect(200);
    assert_eq!((whole.text().as_str(), whole.header("content-type")), ("0123456789", "audio/wav"));
    assert_eq!(whole.header("content-disposition"), "attachment; filename=\"speech.wav\"");
    let part = place.send(request("GET", &uri, &[("range", "bytes=2-4")], "")).await.expect(206);
    assert_eq!((part.text().as_str(), part.header("content-range")), ("234", "bytes 2-4/10"));
    let beyond = request("GET", &uri, &[("range", "bytes=10-")], "");
    assert_eq!(place.send(beyond).await.expect(416).json()["code"], "request.range");
    place.send(request("GET", &uri, &[("if-none-match", "\"ab12\"")], "")).await.expect(304);
    let old = [("range", "bytes=2-4"), ("if-range", "\"other\"")];
    assert_eq!(place.send(request("GET", &uri, &old, "")).await.expect(200).text(), "0123456789");
    let known = request("GET", &uri, &[("if-none-match", "*")], "");
    assert_eq!(place.send(known).await.expect(304).header("etag"), "\"ab12\"");
    let none = place.get(&format!("{own}/files/other")).await.expect(404).json();
    assert_eq!(
        (&none["code"], &none["hint"]),
        (&json!("file.unknown"), &json!("it has speech.wav"))
    );
}

#[tokio::test]
async fn a_thousand_posts_with_one_key_are_one_job() {
    let place = std::sync::Arc::new(Place::new(POLICY));
    let job = json!({ "task": "text.embed", "text": "a cat" });
    let posts: Vec<_> = (0..1_000)
        .map(|_| {
            let request = json_request("POST", "/v1/jobs", &[("idempotency-key", "k-1")], &job);
            let place = std::sync::Arc::clone(&place);
            tokio::spawn(async move { place.send(request).await })
        })
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    let mut replays = 0;
    for post in posts {
        let answer = post.await.unwrap().expect(202);
        replays += u32::from(answer.header("idempotent-replay") == "true");
        ids.insert(answer.json()["job_id"].as_str().unwrap().to_owned());
    }
    assert_eq!((ids.len(), replays, place.queued().await), (1, 999, 1));
    let other = json!({ "task": "text.embed", "text": "a dog" });
    let other = json_request("POST", "/v1/jobs", &[("idempotency-key", "k-1")], &other);
    assert_eq!(place.send(other).await.expect(422).json()["code"], "job.differs");
}

#[tokio::test]
async fn a_key_names_another_job_once_its_time_is_over_and_no_third_one() {
    let place = Place::new(POLICY);
    let (ledger, now) = (&place.ports.ledger, place.ports.clock.now());
    let (day, never) = (chrono::TimeDelta::days(1), chrono::TimeDelta::zero());
    let micros = |at: chrono::DateTime<chrono::Utc>| at.timestamp_micros();
    let first = ledger.first_seen("k", now, day).await.unwrap();
    let later = now + chrono::TimeDelta::hours(1);
    assert_eq!(micros(ledger.first_seen("k", later, day).await.unwrap()), micros(first));
    // What lasts no time is over.
    assert_eq!(micros(ledger.first_seen("k", later, never).await.unwrap()), micros(later));
    let much_later = now + chrono::TimeDelta::hours(2);
    assert_eq!(micros(ledger.first_seen("k", much_later, day).await.unwrap()), micros(later));
}

#[tokio::test]
async fn files_that_clients_sent_have_a_limit_in_all_and_a_retry_needs_its_input() {
    let place = Place::new(&format!("{POLICY}[cloud]\nresults_mib_max = 1\n"));
    let upload = |bytes: usize| {
        let text = vec![b'a'; bytes];
        let body = form(&[("task", "text.classify")], &[("file", "a.txt", &text)]);
        place.send(request("POST", "/v1/jobs", &[FORM], body))
    };
    let kept = upload(1 << 20).await.expect(202).header("location").to_owned();
    assert_eq!(upload(3 << 20).await.expect(507).json()["code"], "uploads.full");
    assert_eq!(place.queued().await, 1);
    let job = place.work(json!({ "label": "txt" }), &[]).await;
    std::fs::remove_dir_all(place.folder.path().join("state/results").join(job.id.as_str()))
        .unwrap();
    let gone = place.post(&format!("{kept}/retry"), &json!({})).await.expect(410).json();
    assert_eq!((&gone["code"], place.queued().await), (&json!("input.missing"), 0));
}

#[tokio::test]
async fn a_job_under_an_id_of_the_client_is_submitted_once() {
    let place = Place::new(POLICY);
    let path = "/v1/jobs/0192a1b2-0000-7000-8000-000000000001";
    let put = |text: &'static [u8]| {
        let body = form(&[("task", "text.embed")], &[("file", "a.txt", text)]);
        request("PUT", path, &[FORM], body)
    };
    let first = place.send(put(b"a cat")).await.expect(202);
    let again = place.send(put(b"a cat")).await.expect(202);
    assert_eq!(
        (first.header("idempotent-replay"), again.header("idempotent-replay")),
        ("", "true")
    );
    let other = place.send(put(b"a dog")).await.expect(409).json();
    assert_eq!((&other["code"], place.queued().await), (&json!("job.differs"), 1));
    // The file that was refused was not kept.
    let kept = place.folder.path().join("state/results/0192a1b2-0000-7000-8000-000000000001");
    assert_eq!(std::fs::read_dir(kept).unwrap().count(), 1);
    // A number that is stored otherwise than it was sent.
    let number = json_request(
        "PUT",
        "/v1/jobs/0192a1b2-0000-7000-8000-000000000002",
        &[],
        &serde_json::from_str(
            r#"{"task": "voice.synthesize", "text": "a", "params": {"speed": 1.1500000000000001}}"#,
        )
        .unwrap(),
    );
    place.send(number).await.expect(202);
    let number = request(
        "PUT",
        "/v1/jobs/0192a1b2-0000-7000-8000-000000000002",
        &[("content-type", "application/json")],
        r#"{"task": "voice.synthesize", "text": "a", "params": {"speed": 1.1500000000000001}}"#,
    );
    assert_eq!(place.send(number).await.expect(202).header("idempotent-replay"), "true");
    let bad = place.send(json_request("PUT", "/v1/jobs/mine", &[], &json!({}))).await.expect(400);
    assert_eq!(bad.json()["code"], "job.id");
}

#[tokio::test]
async fn a_job_is_cancelled_once_and_one_that_is_over_is_not() {
    let place = Place::new(POLICY);
    let job = json!({ "task": "text.embed", "text": "a cat" });
    let over = place.post("/v1/jobs", &job).await.expect(202).header("location").to_owned();
    place.work(json!({ "vector": [1.0] }), &[]).await;
    let ended = place.send(request("DELETE", &over, &[], "")).await.expect(409).json();
    assert_eq!(ended["code"], "job.ended");
    let own = place.post("/v1/jobs", &job).await.expect(202).header("location").to_owned();
    for _ in 0..2 {
        let gone = place.post(&format!("{own}/cancel"), &json!({})).await.expect(200).json();
        assert_eq!((&gone["state"], &gone["waiting"]), (&json!("cancelled"), &json!(null)));
    }
    assert_eq!(place.get(&own).await.expect(200).json()["state"], "cancelled");
    let again = place.post(&format!("{own}/retry"), &json!({})).await.expect(202).json();
    assert_eq!((&again["state"], &again["generation"]), (&json!("queued"), &json!(1)));
}

#[tokio::test]
async fn jobs_are_listed_page_by_page() {
    let place = Place::new(POLICY);
    for n in 0..5 {
        place
            .post("/v1/jobs", &json!({ "task": "text.embed", "text": format!("{n}") }))
            .await
            .expect(202);
    }
    place.post("/v1/jobs", &json!({ "task": "voice.synthesize", "text": "5" })).await.expect(202);
    let mut path = "/v1/jobs?limit=2&task=text.embed&state=queued".to_owned();
    let mut inputs = Vec::new();
    let mut pages = 0;
    loop {
        let answer = place.get(&path).await.expect(200);
        let page = answer.json();
        inputs.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["input"].clone()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        let link = answer.header("link");
        path = link[1..link.find('>').unwrap()].to_owned();
        assert!(path.contains(next) && path.contains("task=text.embed"), "{link}");
    }
    assert_eq!(
        (inputs, pages),
        (["4", "3", "2", "1", "0"].map(|n| json!(format!("data:,{n}"))).into(), 3)
    );
}

#[tokio::test]
async fn a_job_is_followed_by_events() {
    let place = Place::new(POLICY);
    let job = json!({ "task": "text.embed", "text": "a cat" });
    let own = place.post("/v1/jobs", &job).await.expect(202).header("location").to_owned();
    let path = format!("{own}/events");
    let mut body = place.open(request("GET", &path, &[], "")).await;
    let mut text = String::new();
    while !text.contains("event: waiting") {
        text.push_str(&body.next().await.unwrap());
    }
    place.work(json!({ "vector": [1.0] }), &[]).await;
    while let Some(more) = body.next().await {
        text.push_str(&more);
    }
    let names: Vec<String> =
        text.lines().filter_map(|line| Some(line.strip_prefix("event: ")?.to_owned())).collect();
    assert_eq!(names[..2], ["state", "waiting"], "{names:?}");
    assert_eq!(names[names.len() - 2..], ["state", "result"], "{names:?}");
    let known = request("GET", &path, &[("last-event-id", "0.succeeded")], "");
    let rest = place.send(known).await.expect(200).text();
    assert!(!rest.contains("event: state") && rest.contains("event: result"), "{rest}");
}

#[tokio::test]
async fn a_start_that_is_refused_is_told_at_once() {
    let place = Place::new("[pool.gpu]\nqueue = \"jobs\"\n[cost]\nusd_hour = 1\n");
    let hold = gpuctl_core::observation::Hold {
        pool: "gpu".parse().unwrap(),
        wants: gpuctl_core::observation::HoldWants::Stopped,
        since: place.ports.clock.now(),
        until: place.ports.clock.now() + chrono::TimeDelta::hours(1),
        by: "ada".to_owned(),
        why: None,
        over_budget: None,
        until_empty: false,
    };
    place.ports.ledger.set_hold(&hold).await.unwrap();
    let job = json!({ "task": "text.embed", "text": "a cat" });
    let wait = json_request("POST", "/v1/jobs", &[("prefer", "wait=500")], &job);
    // A wait of 500 s would outlast the test.
    let waiting = place.send(wait).await.expect(202).json()["waiting"].clone();
    assert_eq!((&waiting["blocked"], &waiting["rule"]), (&json!("pool.held"), &json!("hold")));
    // When the hold ends.
    assert!(waiting["box_expected_at"].is_string() && waiting["queue_length"] == 1, "{waiting}");
}

#[tokio::test]
async fn a_full_queue_takes_no_job_and_says_when_to_try_again() {
    let place = Place::new(&format!("{POLICY}[http]\nqueued_max = 1\n"));
    let job = json!({ "task": "text.embed", "text": "a cat" });
    place.post("/v1/jobs", &job).await.expect(202);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    // What is known of the queue may be a moment old.
    loop {
        let answer = place.post("/v1/jobs", &job).await;
        if answer.status.as_u16() == 429 {
            assert_eq!(
                (&answer.json()["code"], answer.header("retry-after")),
                (&json!("queue.full"), "60")
            );
            break;
        }
        assert!(std::time::Instant::now() < deadline);
    }
    place.ports.queue.purge(&queue(), Purge::Live).await.unwrap();
}
