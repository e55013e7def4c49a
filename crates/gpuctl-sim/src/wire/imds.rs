//! IMDSv2 of one instance: its identity, its tags, and whether it will be interrupted.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use chrono::SecondsFormat;

use super::Shared;
use super::server::Server;

const TOKEN: &str = "a-simulated-token";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// The metadata service of one instance, until it is dropped.
pub struct Imds {
    server: Server,
}

#[derive(Clone)]
struct Metadata {
    shared: Arc<Shared>,
    id: String,
}

impl Imds {
    pub(super) async fn open(shared: Arc<Shared>, instance: &str) -> std::io::Result<Self> {
        let state = Metadata { shared, id: instance.to_owned() };
        let router = Router::new()
            .route("/latest/api/token", put(token))
            .route("/latest/{*path}", get(read))
            .with_state(state);
        Ok(Self { server: Server::open(router).await? })
    }

    /// The value of `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }
}

async fn token(
    headers: HeaderMap,
) -> Result<([(&'static str, String); 1], &'static str), StatusCode> {
    let ttl = headers.get(TTL_HEADER).and_then(|ttl| ttl.to_str().ok()?.parse::<u32>().ok());
    match ttl {
        Some(seconds @ 1..=21_600) => Ok(([(TTL_HEADER, seconds.to_string())], TOKEN)),
        _ => Err(StatusCode::BAD_REQUEST),
    }
}

async fn read(
    State(metadata): State<Metadata>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    if headers.get(TOKEN_HEADER).is_none_or(|token| token != TOKEN) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let now = metadata.shared.now();
    let mut ec2 = metadata.shared.ec2();
    ec2.advance(now);
    let id = &metadata.id;
    let one = ec2.instance(id).ok_or(StatusCode::NOT_FOUND)?;
    let when = |at: gpuctl_core::units::Timestamp| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let found = match path.as_str() {
        "meta-data/instance-id" => Some(id.clone()),
        "meta-data/instance-type" => Some(one.instance_type.clone()),
        "meta-data/placement/availability-zone" => Some(one.zone.clone()),
        "meta-data/placement/region" => {
            Some(one.zone.trim_end_matches(|c: char| c.is_ascii_lowercase()).to_owned())
        }
        "meta-data/spot/instance-action" => ec2.spot_action(id).map(|action| {
            format!("{{\"action\":\"{}\",\"time\":\"{}\"}}", action.action, when(action.at))
        }),
        "meta-data/events/recommendations/rebalance" => {
            ec2.rebalance_notice(id).map(|at| format!("{{\"noticeTime\":\"{}\"}}", when(at)))
        }
        "dynamic/instance-identity/document" => Some(format!(
            "{{\"instanceId\":\"{id}\",\"instanceType\":\"{}\",\"pendingTime\":\"{}\"}}",
            one.instance_type,
            when(one.launch_time)
        )),
        _ => {
            path.strip_prefix("meta-data/tags/instance/").and_then(|key| one.tags.get(key).cloned())
        }
    };
    found.ok_or(StatusCode::NOT_FOUND)
}
