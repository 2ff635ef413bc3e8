//! The endpoints under `/api/v1`, and the document that describes them.

mod explain;
mod history;
mod providers;
mod queue;
mod system;

use axum::http::StatusCode;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::problem::Problem;
use super::{Office, wire};

/// What the document says beside the endpoints.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Postrider",
        description = "Looks at and operates a running gateway. Every POST needs a body of JSON and the header X-Postrider-By, which says who acts; where the gateway has a token, every request needs Authorization: Bearer."
    ),
    components(schemas(wire::ProblemBody))
)]
struct Document;

/// All endpoints.
pub(super) fn routes() -> OpenApiRouter<Office> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(system::routes())
        .merge(queue::routes())
        .merge(providers::routes())
        .merge(history::routes())
        .merge(explain::routes())
}

/// What every endpoint may answer instead.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "only the document is made of it")]
pub(super) enum Problems {
    /// The request is not followed; the answer says why, and what to do.
    #[response(status = "default", content_type = "application/problem+json")]
    Any(#[to_schema] wire::ProblemBody),
}

pub(super) async fn no_such_path() -> Problem {
    Problem::missing("there is nothing at this path").help("GET /api/openapi.json lists what there is")
}

pub(super) async fn no_such_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method").help("GET /api/openapi.json lists what there is")
}
