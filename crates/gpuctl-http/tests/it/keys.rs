//! Who may call, once there are keys.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use gpuctl_control::keys::{ApiKey, KeyChange, Scope};
use serde_json::json;

use crate::place::{Answer, POLICY, Place, json_request, request};

/// A new key of these scopes.
async fn key(place: &Place, name: &str, scopes: &[Scope]) -> String {
    let scopes: BTreeSet<Scope> = scopes.iter().copied().collect();
    let (key, secret) = ApiKey::new(name.parse().unwrap(), scopes, place.ports.clock.now());
    place.ports.ledger.add_key(&key).await.unwrap();
    secret
}

fn get(path: &str, key: &str) -> Request<Body> {
    request("GET", path, &[("authorization", &format!("Bearer {key}"))], "")
}

fn post(key: &str) -> Request<Body> {
    let body = json!({ "task": "text.embed", "text": "a cat" });
    json_request("POST", "/v1/jobs", &[("authorization", &format!("Bearer {key}"))], &body)
}

/// The answer once it has this status: what is known of keys may be a moment old.
async fn until(place: &Place, status: u16, request: impl Fn() -> Request<Body>) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = place.send(request()).await;
        if answer.status.as_u16() == status {
            return answer;
        }
        assert!(Instant::now() < deadline, "{} {}", answer.status, answer.text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn each_key_may_do_what_its_scopes_allow_and_no_other_may_call() {
    let place = Place::new(POLICY);
    let reads = key(&place, "reader", &[Scope::Read]).await;
    let submits = key(&place, "app", &[Scope::Submit]).await;
    place.send(get("/v1/jobs", &reads)).await.expect(200);
    place.send(post(&submits)).await.expect(202);
    for (request, status, code) in [
        (post(&reads), 403, "key.scope"),
        (get("/v1/jobs", &submits), 403, "key.scope"),
        (get("/v1/jobs", "gpuctl_0000"), 401, "key.unknown"),
        (get("/v1/jobs", ""), 401, "key.unknown"),
        (request("GET", "/v1/jobs", &[("authorization", "Basic YTpi")], ""), 401, "key.missing"),
        (request("GET", "/v1/jobs", &[], ""), 401, "key.missing"),
        (request("GET", "/openapi.json", &[], ""), 401, "key.missing"),
        (request("GET", "/nothing", &[], ""), 401, "key.missing"),
    ] {
        let what = format!("{} {:?}", request.uri(), request.headers());
        let answer = place.send(request).await.expect(status);
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{what}");
        assert!(problem["hint"].as_str().is_some_and(|hint| hint.len() > 10), "{problem}");
        let wanted = if status == 401 { "Bearer" } else { "" };
        assert_eq!(answer.header("www-authenticate"), wanted, "{what}");
        assert!(!answer.text().contains(&reads) && !answer.text().contains(&submits));
    }
    // OpenAI's clients read their own shape, on their own paths.
    let call = json_request("POST", "/v1/embeddings", &[], &json!({ "model": "m", "input": "a" }));
    let error = place.send(call).await.expect(401).json()["error"].clone();
    assert_eq!(
        (&error["code"], &error["type"]),
        (&json!("key.missing"), &json!("authentication_error"))
    );
    // A program with a key may call by any name, and a load balancer has none.
    let other = [("host", "gpu.example"), ("authorization", &format!("Bearer {reads}"))];
    place.send(request("GET", "/v1/jobs", &other, "")).await.expect(200);
    place.send(request("GET", "/healthz", &[("host", "10.0.0.7")], "")).await.expect(200);
    assert_eq!(place.queued().await, 1);
}

#[tokio::test]
async fn a_revoked_key_ends_and_the_last_one_opens_nothing() {
    let place = Place::new(POLICY);
    // Without keys any will do, and a foreign host will not.
    place.send(get("/v1/jobs", "sk-anything")).await.expect(200);
    let foreign = || request("GET", "/v1/jobs", &[("host", "gpu.example")], "");
    place.send(foreign()).await.expect(403);
    let secret = key(&place, "app", &Scope::ALL).await;
    until(&place, 401, || get("/v1/jobs", "sk-anything")).await;
    place.send(get("/v1/jobs", &secret)).await.expect(200);
    // Its use is noted beside the request.
    let deadline = Instant::now() + Duration::from_secs(60);
    while place.ports.ledger.keys().await.unwrap()[0].used_at.is_none() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let now = place.ports.clock.now();
    let name = "app".parse().unwrap();
    place.ports.ledger.change_key(&name, KeyChange::Revoked(now)).await.unwrap();
    let revoked = until(&place, 401, || get("/v1/jobs", &secret)).await.json();
    assert_eq!(revoked["code"], "key.revoked");
    place.send(request("GET", "/v1/jobs", &[], "")).await.expect(401);
    place.send(foreign()).await.expect(401);
}

#[tokio::test]
async fn a_server_that_others_can_reach_needs_a_key_also_where_there_is_none() {
    let place = Place::public(POLICY);
    place.send(get("/v1/jobs", "sk-anything")).await.expect(401);
    place.get("/healthz").await.expect(200);
}

#[tokio::test]
async fn each_key_has_its_own_idempotency_keys() {
    let place = Place::new(POLICY);
    let secrets = [key(&place, "a", &Scope::ALL).await, key(&place, "b", &Scope::ALL).await];
    for secret in secrets.iter().chain(&secrets) {
        let mut request = post(secret);
        request.headers_mut().insert("idempotency-key", "one".parse().unwrap());
        place.send(request).await.expect(202);
    }
    assert_eq!(place.queued().await, 2);
}
