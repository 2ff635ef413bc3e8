//! The AWS SDK's HTTP client, over the gateway's own.
//!
//! So there is one pool of connections, one set of trusted authorities and one place to watch how
//! far a request got. Retries are not here: the caller has them.

use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::{Response, StatusCode};
use aws_smithy_types::body::SdkBody;

use crate::http::progress::{Progress, TrackedBody};

/// No answer of SES or of those who give credentials comes near it.
const LONGEST_ANSWER: usize = 4 << 20;

/// Sends the SDK's requests, and reports to a [`Progress`] how far they get.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    client: reqwest::Client,
    progress: Progress,
    /// How long an exchange may take; for messages, the [`Progress`] is watched instead.
    limit: Option<Duration>,
}

impl Transport {
    pub(super) fn new(client: reqwest::Client, progress: Progress) -> Self {
        Self { client, progress, limit: None }
    }
}

impl HttpClient for Transport {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        // The SDK sets these where it asks a metadata service, which is not there on most machines.
        let limit = settings.connect_timeout().zip(settings.read_timeout()).map(|(connect, read)| connect + read);
        SharedHttpConnector::new(Self { limit, ..self.clone() })
    }
}

impl HttpConnector for Transport {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { client, progress, limit } = self.clone();
        let exchange = async move { exchange(client, progress, request).await.map_err(ConnectorError::io) };
        HttpConnectorFuture::new(async move {
            match limit {
                None => exchange.await,
                Some(limit) => {
                    tokio::time::timeout(limit, exchange).await.unwrap_or_else(|elapsed| Err(ConnectorError::timeout(elapsed.into())))
                }
            }
        })
    }
}

async fn exchange(client: reqwest::Client, progress: Progress, request: HttpRequest) -> Result<HttpResponse, BoxError> {
    let request = request.try_into_http1x()?.map(|body| reqwest::Body::wrap(TrackedBody::new(body, progress)));
    let mut answer = client.execute(request.try_into()?).await?;
    let status = StatusCode::try_from(answer.status().as_u16())?;
    let headers = answer.headers().clone();
    // Answers are short, and an error while one is read is told from here.
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        if body.len() + piece.len() > LONGEST_ANSWER {
            return Err(format!("an answer of more than {LONGEST_ANSWER} octets").into());
        }
        body.extend_from_slice(&piece);
    }
    let mut response = Response::new(status, SdkBody::from(body));
    for (name, value) in &headers {
        // A header that is no text has nothing to say to the SDK.
        if let Ok(value) = value.to_str() {
            response.headers_mut().try_append(name.as_str().to_owned(), value.to_owned())?;
        }
    }
    Ok(response)
}
