//! The AWS SDK's HTTP client, over the gateway's own.
//!
//! So there is one pool of connections, one set of trusted authorities and one place to watch how
//! far a request got. Retries and time-outs are not here: the caller has them.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::{Response, StatusCode};
use aws_smithy_types::body::SdkBody;

use crate::http::progress::{Progress, TrackedBody};

/// Sends the SDK's requests, and reports to a [`Progress`] how far they get.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    client: reqwest::Client,
    progress: Progress,
}

impl Transport {
    pub(super) fn new(client: reqwest::Client, progress: Progress) -> Self {
        Self { client, progress }
    }
}

impl HttpClient for Transport {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Transport {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { client, progress } = self.clone();
        HttpConnectorFuture::new(async move { exchange(client, progress, request).await.map_err(ConnectorError::io) })
    }
}

async fn exchange(client: reqwest::Client, progress: Progress, request: HttpRequest) -> Result<HttpResponse, BoxError> {
    let request = request.try_into_http1x()?.map(|body| reqwest::Body::wrap(TrackedBody::new(body, progress)));
    let answer = client.execute(request.try_into()?).await?;
    let status = StatusCode::try_from(answer.status().as_u16())?;
    let headers = answer.headers().clone();
    // Answers are short, and an error while one is read is told from here.
    let body = answer.bytes().await?;
    let mut response = Response::new(status, SdkBody::from(body));
    for (name, value) in &headers {
        // A header that is no text has nothing to say to the SDK.
        if let Ok(value) = value.to_str() {
            response.headers_mut().try_append(name.as_str().to_owned(), value.to_owned())?;
        }
    }
    Ok(response)
}
