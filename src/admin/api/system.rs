//! The gateway itself: how it is, a new config, its end.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::oneshot;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::By;
use super::super::operations::Order;
use super::super::problem::{self, Problem};
use super::super::wire::system::{Draining, ReloadDone, Status};
use super::super::{Office, convert};
use super::Problems;

pub(super) fn routes() -> OpenApiRouter<Office> {
    OpenApiRouter::new().routes(routes!(status)).routes(routes!(reload)).routes(routes!(drain))
}

/// What runs here, and how it is.
#[utoipa::path(get, path = "/api/v1/status", responses((status = 200, body = Status), Problems))]
async fn status(State(office): State<Office>) -> Result<Json<Status>, Problem> {
    let summary = office.operations.summary().await?;
    let troubled = |provider: &crate::dispatch::ProviderStatus| {
        provider.circuit.state != "closed" || provider.tripped.is_some() || provider.drained.is_some() || provider.paused.is_some()
    };
    let providers = office.operations.providers();
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: office.about.hostname.clone(),
        started: office.started.into(),
        listeners: office.about.listeners.iter().map(ToString::to_string).collect(),
        states: convert::states(&summary),
        oldest_seconds: convert::oldest_seconds(&summary, office.clock.now()),
        set_aside: summary.set_aside,
        troubled_providers: providers.iter().filter(|provider| troubled(provider)).map(|provider| provider.name.to_string()).collect(),
        draining: office.draining.is_cancelled(),
        config: convert::config(&office.about.last_reload.load()),
    }))
}

/// Reads the config again, and takes it into use if it is good; a bad one leaves everything as it is.
#[utoipa::path(post, path = "/api/v1/reload", request_body = serde_json::Value, responses((status = 200, body = ReloadDone), Problems))]
async fn reload(
    State(office): State<Office>,
    By(by): By,
    problem::Json(_nothing): problem::Json<serde_json::Map<String, serde_json::Value>>,
) -> Result<Json<ReloadDone>, Problem> {
    let (answer, answered) = oneshot::channel();
    office.order(Order::Reload { by, answer })?;
    match answered.await {
        Ok(Ok(changes)) => Ok(Json(ReloadDone { changes })),
        Ok(Err(why)) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why).help("correct the file; the running config stays in use")),
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping, and reads no config any more")),
    }
}

/// Takes no new mail, finishes what is at hand, and ends.
#[utoipa::path(post, path = "/api/v1/drain", request_body = serde_json::Value, responses((status = 202, body = Draining), Problems))]
async fn drain(
    State(office): State<Office>,
    By(by): By,
    problem::Json(_nothing): problem::Json<serde_json::Map<String, serde_json::Value>>,
) -> Result<(StatusCode, Json<Draining>), Problem> {
    office.order(Order::Drain { by })?;
    Ok((StatusCode::ACCEPTED, Json(Draining { draining: true })))
}
