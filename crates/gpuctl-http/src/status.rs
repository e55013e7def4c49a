//! What is up and why: the documents of `gpuctl status` and `gpuctl explain`, the health of the server, and of the GPUs.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use gpuctl_control::pools;
use gpuctl_control::wire::Versioned;
use gpuctl_control::wire::explain::ExplainDocument;
use gpuctl_control::wire::status::StatusDocument;
use gpuctl_control::wire::time;
use schemars::JsonSchema;
use serde::Serialize;

use crate::Shared;
use crate::problem::Problem;

/// `GET /v1/status`.
pub(crate) async fn status(State(api): State<Shared>) -> Json<Versioned<StatusDocument>> {
    let snapshot = api.snapshot().await;
    Json(StatusDocument::of(
        &snapshot.observation,
        &snapshot.plan,
        &api.policy.cost,
        snapshot.errors.clone(),
    ))
}

/// `GET /v1/explain/{pool}`.
pub(crate) async fn explain(
    State(api): State<Shared>,
    Path(pool): Path<String>,
) -> Result<Json<Versioned<ExplainDocument>>, Problem> {
    let pool = pools::named(&api.policy, &pool).map_err(|error| {
        Problem::new(StatusCode::NOT_FOUND, "pool.unknown", error.to_string()).hint(error.hint())
    })?;
    let snapshot = api.snapshot().await;
    let (seen, plan) = snapshot.pool(&pool.id).ok_or_else(|| {
        let detail = format!("pool `{}` could not be read", pool.id);
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "pool.unread", detail)
            .hint("try again; `GET /v1/status` has the errors")
    })?;
    let at = snapshot.observation.at;
    Ok(Json(ExplainDocument::of(seen, plan, at, snapshot.errors.clone()).versioned()))
}

/// `GET /healthz`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct HealthDocument {
    /// `ok`.
    status: &'static str,
    /// When a controller last looked; `null` if none has yet.
    last_reconcile_at: Option<String>,
}

/// `GET /healthz`: whether the ledger can be read.
pub(crate) async fn health(State(api): State<Shared>) -> Result<Response, Problem> {
    let last = api.ports.ledger.last_reconcile().await?;
    let document = HealthDocument { status: "ok", last_reconcile_at: last.map(time) };
    Ok(Json(document).into_response())
}

/// `GET /api/v1/monitoring/gpu`. What no box reports is `null`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GpusDocument {
    /// One for each box that is up.
    gpus: Vec<GpuDocument>,
    health: GpuHealth,
}

/// A GPU.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GpuDocument {
    index: usize,
    /// The box that has it.
    r#box: String,
    name: Option<String>,
    memory: GpuMemory,
    utilization_percent: Option<f64>,
    temperature_c: Option<f64>,
    processes: GpuProcesses,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct GpuMemory {
    used_gb: Option<f64>,
    total_gb: Option<f64>,
    utilization_percent: Option<f64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GpuProcesses {
    count: Option<u32>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GpuHealth {
    /// Whether every box that is up takes jobs.
    healthy: bool,
    /// What could not be read.
    warnings: Vec<String>,
    /// Why boxes take no jobs.
    issues: Vec<String>,
}

/// `GET /api/v1/monitoring/gpu`.
pub(crate) async fn gpus(State(api): State<Shared>) -> Json<GpusDocument> {
    let snapshot = api.snapshot().await;
    let pools = snapshot.observation.pools.values();
    let boxes = pools.flat_map(|pool| pool.boxes.value.as_deref().unwrap_or_default());
    let up: Vec<_> = boxes.filter(|one| one.is_up()).collect();
    let gpu = |(index, one): (usize, &&gpuctl_core::observation::SeenBox)| GpuDocument {
        index,
        r#box: one.id.to_string(),
        name: None,
        memory: GpuMemory::default(),
        utilization_percent: None,
        temperature_c: None,
        processes: GpuProcesses { count: None },
    };
    let issues: Vec<String> =
        up.iter().filter_map(|one| Some(format!("{}: {}", one.id, one.fault()?.message))).collect();
    let health =
        GpuHealth { healthy: issues.is_empty(), warnings: snapshot.errors.clone(), issues };
    Json(GpusDocument { gpus: up.iter().enumerate().map(gpu).collect(), health })
}
