//! What is answered to a request that is not followed (RFC 9457), and the extractors that answer so.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::wire::ProblemBody;
use crate::dispatch::ControlError;
use crate::spool::SpoolError;

/// Why a request is not followed.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    help: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), help: None }
    }

    /// What to do about it.
    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The request is not as it must be.
    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// There is no such thing.
    pub(crate) fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, detail, help } = self;
        let title = status.canonical_reason().unwrap_or("Problem").to_owned();
        let body = ProblemBody { kind: "about:blank".to_owned(), title, status: status.as_u16(), detail, help };
        // Texts and a number: nothing here can fail to be JSON.
        let mut response = (status, serde_json::to_vec(&body).unwrap_or_default()).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl From<SpoolError> for Problem {
    fn from(error: SpoolError) -> Self {
        let help = match error {
            SpoolError::Full(_) => "free space on the file system of server.data_dir",
            SpoolError::Unavailable(_) => "look into the gateway's log, and at the permissions of server.data_dir",
            SpoolError::LeaseLost(_) => "ask again",
            SpoolError::Closed => "the gateway is stopping; ask again when it runs",
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).help(help)
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Spool(error) => error.into(),
            ControlError::Unknown { what: "provider", .. } => {
                Self::missing(error.to_string()).help("GET /api/v1/providers lists what there is")
            }
            ControlError::Unknown { .. } => Self::missing(error.to_string()).help("the config has the names of routes and applications"),
            ControlError::NotOfRoute { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        }
    }
}

/// A body of JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(body)) => Ok(Self(body)),
            Err(JsonRejection::MissingJsonContentType(_)) => {
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json"))
            }
            Err(error) => Err(Problem::new(error.status(), error.body_text()).help("/api/openapi.json says what the body must be")),
        }
    }
}

/// The part of the address behind `?`.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let asked = Query::<T>::from_request_parts(parts, state).await;
        let Query(asked) = asked.map_err(|error: QueryRejection| Problem::bad(error.body_text()))?;
        Ok(Self(asked))
    }
}
