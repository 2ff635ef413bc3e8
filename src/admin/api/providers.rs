//! Providers, and what a person decides about them, about routes and about senders.

use axum::Json;
use axum::extract::{Path, State};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::By;
use super::super::problem::{self, Problem};
use super::super::wire::providers::{ControlDone, ControlRequest, Provider, ProviderList};
use super::super::{Office, convert};
use super::Problems;

pub(super) fn routes() -> OpenApiRouter<Office> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one)).routes(routes!(control))
}

/// All providers, and what people have decided.
#[utoipa::path(get, path = "/api/v1/providers", responses((status = 200, body = ProviderList), Problems))]
async fn list(State(office): State<Office>) -> Json<ProviderList> {
    Json(ProviderList {
        providers: office.operations.providers().into_iter().map(|provider| convert::provider(provider, office.clock)).collect(),
        pauses: office.operations.pauses().into_iter().map(convert::pause).collect(),
        pins: office.operations.pins().into_iter().map(convert::pin).collect(),
    })
}

/// One provider.
#[utoipa::path(
    get, path = "/api/v1/providers/{name}",
    params(("name" = String, Path, description = "Its name in routes, as `ses.eu`.")),
    responses((status = 200, body = Provider), Problems)
)]
async fn one(State(office): State<Office>, Path(name): Path<String>) -> Result<Json<Provider>, Problem> {
    let found = office.operations.providers().into_iter().find(|provider| provider.name.as_str() == name);
    let found =
        found.ok_or_else(|| Problem::missing(format!("there is no provider \"{name}\"")).help("GET /api/v1/providers lists them"))?;
    Ok(Json(convert::provider(found, office.clock)))
}

/// Decides something about a provider, a route, a sending domain or an application. It holds until it is taken
/// back, also after a restart.
#[utoipa::path(post, path = "/api/v1/control", request_body = ControlRequest, responses((status = 200, body = ControlDone), Problems))]
async fn control(
    State(office): State<Office>,
    By(by): By,
    problem::Json(request): problem::Json<ControlRequest>,
) -> Result<Json<ControlDone>, Problem> {
    let command = request.command()?;
    let changed = office.operations.control(command, &by).await?;
    Ok(Json(ControlDone { changed }))
}
