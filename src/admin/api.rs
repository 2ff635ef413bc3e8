//! The endpoints under `/api/v1`, and the document that describes them.

mod explain;
mod history;
mod providers;
mod queue;
mod system;

use axum::http::StatusCode;
use utoipa::OpenApi;
use utoipa::openapi::Required;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use super::problem::Problem;
use super::{Office, guard, wire};

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

/// Says in the document what callers have to show: the token, where there is one, and with every POST who acts.
pub(super) fn describe_callers(document: &mut utoipa::openapi::OpenApi, needs_token: bool) {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("What `[admin] token` says.")).build();
    document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    let with_token = SecurityRequirement::new("token", Vec::<String>::new());
    document.security = Some(if needs_token { vec![with_token] } else { vec![SecurityRequirement::default(), with_token] });
    let name = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(guard::LONGEST_NAME));
    let by = ParameterBuilder::new()
        .name("X-Postrider-By")
        .parameter_in(ParameterIn::Header)
        .required(Required::True)
        .description(Some("Who acts, in printable characters. The history keeps it."))
        .schema(Some(name))
        .build();
    for operation in document.paths.paths.values_mut().filter_map(|path| path.post.as_mut()) {
        operation.parameters.get_or_insert_default().push(by.clone().into());
    }
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
