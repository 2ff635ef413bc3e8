//! The sandbox SES endpoint: SendEmail with raw content and GetAccount of the v2 API, over HTTP.
//!
//! It holds to what the service says about itself: a signed request, at most 50 recipients, 40 MB
//! after base64, and errors named in a header. It checks that a signature is there, not its value:
//! the sandbox knows no secret.

mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use self::wire::{CutListener, Wire};
use super::Recorder;
use super::port::Port;
use super::switch::{Order, Switch, Switched};

/// The service's limit on one message's recipients.
const MAX_RECIPIENTS: usize = 50;

/// The service's limit on a message, counted after base64.
const MAX_ENCODED: usize = 40_000_000;

/// How long requests may take to end when the endpoint goes down.
const GRACE: Duration = Duration::from_millis(500);

/// How a [`SandboxSes`] behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SesMode {
    /// Takes mail.
    Up,
    /// Refuses connections; those that exist have been closed.
    Down,
    /// Reads requests and says nothing. A request that hung is dropped with the mode, and takes nothing.
    Hang,
    /// Answers 429 TooManyRequestsException.
    Throttle,
    /// Answers 500 InternalServiceErrorException.
    Error,
    /// Takes the message, and closes the connection instead of saying so.
    DropAfterBody,
}

/// How a [`SandboxSes`] is set up.
#[derive(Debug, Clone)]
pub struct SesSettings {
    /// Where it listens; port 0 takes any free one.
    pub address: SocketAddr,
    /// The mode it begins in.
    pub mode: SesMode,
    /// Whether to keep the content of messages.
    pub keep_bodies: bool,
    /// How long it takes over the answer to a message.
    pub latency: Duration,
    /// The account's recipients in 24 hours, as GetAccount tells it.
    pub max_24_hour_send: f64,
    /// The account's recipients in a second, as GetAccount tells it.
    pub max_send_rate: f64,
}

impl Default for SesSettings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            mode: SesMode::Up,
            keep_bodies: false,
            latency: Duration::ZERO,
            max_24_hour_send: 50_000.0,
            max_send_rate: 1000.0,
        }
    }
}

/// An SES endpoint that takes every message, until told otherwise. Stops when dropped.
#[derive(Debug)]
pub struct SandboxSes {
    address: SocketAddr,
    switch: Switch<SesMode>,
    recorder: Recorder,
    _task: AbortOnDropHandle<()>,
}

/// What the handlers share.
struct Service {
    settings: SesSettings,
    recorder: Recorder,
    mode: watch::Receiver<Order<SesMode>>,
}

impl SandboxSes {
    /// Starts it.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    pub async fn start(settings: SesSettings) -> io::Result<Self> {
        let port = Port::reserve(settings.address)?;
        let address = port.address();
        let (switch, switched) = Switch::new(settings.mode);
        let recorder = Recorder::new(settings.keep_bodies);
        // The first listener is opened here, so that an error is the caller's.
        let listener = if switch.mode() == SesMode::Down { None } else { Some(port.listen()?) };
        let service = Arc::new(Service { settings, recorder: recorder.clone(), mode: switched.watch() });
        let task = tokio::spawn(run(port, listener, switched, service));
        Ok(Self { address, switch, recorder, _task: AbortOnDropHandle::new(task) })
    }

    /// Where it listens, whatever its mode.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL, for the `endpoint` of a provider.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it received.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Its present mode.
    #[must_use]
    pub fn mode(&self) -> SesMode {
        self.switch.mode()
    }

    /// Changes the mode. When this returns it is in effect: after [`SesMode::Down`], no connection is
    /// left, and every message that was taken has been answered.
    pub async fn set_mode(&self, mode: SesMode) {
        self.switch.set(mode).await;
    }
}

async fn run(port: Port, mut listener: Option<TcpListener>, mut switched: Switched<SesMode>, service: Arc<Service>) {
    let mut server: Option<Server> = None;
    loop {
        let order = switched.order();
        if order.mode == SesMode::Down {
            if let Some(server) = server.take() {
                server.stop().await;
            }
        } else if server.is_none() {
            let listener = match listener.take().map_or_else(|| port.listen(), Ok) {
                Ok(listener) => listener,
                // The port is reserved, so this is a shortage of file descriptors or the like.
                Err(error) => {
                    tracing::warn!(%error, "the sandbox SES endpoint cannot listen yet");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            server = Some(Server::start(listener, Arc::clone(&service)));
        }
        switched.applied(order);
        if !switched.changed().await {
            return;
        }
    }
}

/// One period of listening.
struct Server {
    stop: CancellationToken,
    /// Cuts every connection, also when the server is dropped.
    cut: DropGuard,
    task: AbortOnDropHandle<io::Result<()>>,
}

impl Server {
    fn start(listener: TcpListener, service: Arc<Service>) -> Self {
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let app = Router::new()
            .route("/v2/email/outbound-emails", post(send_email))
            .route("/v2/email/account", get(get_account))
            .layer(DefaultBodyLimit::max(MAX_ENCODED + (1 << 20)))
            .with_state(service);
        let listener = CutListener::new(listener, cut.clone());
        let serve = axum::serve(listener, app.into_make_service_with_connect_info::<Wire>());
        let task = tokio::spawn(serve.with_graceful_shutdown(stop.clone().cancelled_owned()).into_future());
        Self { stop, cut: cut.drop_guard(), task: AbortOnDropHandle::new(task) }
    }

    /// Stops listening at once, lets requests end, and cuts what takes too long.
    async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(GRACE, &mut self.task).await.is_err() {
            drop(self.cut);
            let _ = self.task.await;
        }
    }
}

/// SendEmail, as far as raw content goes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendEmail {
    #[serde(default)]
    from_email_address: String,
    #[serde(default)]
    destination: Destination,
    content: Content,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Destination {
    to_addresses: Vec<String>,
    cc_addresses: Vec<String>,
    bcc_addresses: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    raw: Raw,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Raw {
    data: String,
}

/// An error as the REST-JSON protocol carries it: its kind in a header, its words in the body.
struct Refusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &serde_json::json!({ "message": self.message }));
        response.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static(self.kind));
        response
    }
}

async fn send_email(
    State(service): State<Arc<Service>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    service.check_signature(&headers)?;
    let (recipients, from, content) = service.check_email(&body)?;
    tokio::time::sleep(service.settings.latency).await;
    if service.hung().await {
        return Ok(wire.cut());
    }
    // The mode is held while the message is taken, so that it is taken before a change or not at all.
    let mode = service.mode.borrow();
    refusal(mode.mode)?;
    let id = service.recorder.record(from, recipients, Vec::new(), content);
    if mode.mode == SesMode::DropAfterBody {
        return Ok(wire.cut());
    }
    Ok(json(StatusCode::OK, &serde_json::json!({ "MessageId": id })))
}

async fn get_account(
    State(service): State<Arc<Service>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    service.check_signature(&headers)?;
    if service.hung().await {
        return Ok(wire.cut());
    }
    refusal(service.mode.borrow().mode)?;
    let sent: usize = service.recorder.received().iter().map(|received| received.recipients.len()).sum();
    let account = serde_json::json!({
        "DedicatedIpAutoWarmupEnabled": false,
        "EnforcementStatus": "HEALTHY",
        "ProductionAccessEnabled": true,
        "SendingEnabled": true,
        "SendQuota": {
            "Max24HourSend": service.settings.max_24_hour_send,
            "MaxSendRate": service.settings.max_send_rate,
            "SentLast24Hours": sent,
        },
    });
    Ok(json(StatusCode::OK, &account))
}

impl Service {
    /// Checks that there is a signature of version 4 for this service.
    fn check_signature(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let authorization = value("authorization");
        let signed = authorization.starts_with("AWS4-HMAC-SHA256 ")
            && ["Credential=", "/ses/aws4_request", "SignedHeaders=", "Signature="].iter().all(|part| authorization.contains(part))
            && !value("x-amz-date").is_empty();
        if signed {
            Ok(())
        } else {
            Err(self.violated(StatusCode::FORBIDDEN, "MissingAuthenticationTokenException", "The request is not signed for SES".to_owned()))
        }
    }

    /// The recipients, the sender and the decoded content of a SendEmail.
    fn check_email(&self, body: &[u8]) -> Result<(Vec<String>, String, Vec<u8>), Refusal> {
        let bad = |message: String| self.violated(StatusCode::BAD_REQUEST, "BadRequestException", message);
        let email: SendEmail = serde_json::from_slice(body).map_err(|error| bad(format!("Not a SendEmail with raw content: {error}")))?;
        let Destination { to_addresses, cc_addresses, bcc_addresses } = email.destination;
        let recipients = [to_addresses, cc_addresses, bcc_addresses].concat();
        if recipients.is_empty() {
            return Err(bad("The envelope has no recipient: Destination is missing or empty".to_owned()));
        }
        if recipients.len() > MAX_RECIPIENTS {
            return Err(bad(format!("Recipient count exceeds {MAX_RECIPIENTS}")));
        }
        if let Some(recipient) = recipients.iter().find(|recipient| !recipient.is_ascii() || !recipient.contains('@')) {
            return Err(bad(format!("Not an address that SES takes: {recipient:?}")));
        }
        if email.content.raw.data.len() > MAX_ENCODED {
            return Err(bad("The message is larger than 40 MB after base64".to_owned()));
        }
        let content = STANDARD.decode(&email.content.raw.data).map_err(|error| bad(format!("Content.Raw.Data is not base64: {error}")))?;
        Ok((recipients, email.from_email_address, content))
    }

    /// Waits while the mode is to hang; whether it was.
    async fn hung(&self) -> bool {
        let mut mode = self.mode.clone();
        if mode.borrow().mode != SesMode::Hang {
            return false;
        }
        // An error means that the endpoint has been dropped.
        let _ = mode.wait_for(|order| order.mode != SesMode::Hang).await;
        true
    }

    /// The answer to what the client should not have asked.
    fn violated(&self, status: StatusCode, kind: &'static str, message: String) -> Refusal {
        self.recorder.violation(format!("{kind}: {message}"));
        Refusal { status, kind, message }
    }
}

/// How the mode answers in place of taking a message.
fn refusal(mode: SesMode) -> Result<(), Refusal> {
    let (status, kind, message) = match mode {
        SesMode::Throttle => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", "Maximum sending rate exceeded."),
        SesMode::Error => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServiceErrorException", "Something went wrong."),
        // A request that arrived while the endpoint goes down or begins to hang is not taken.
        SesMode::Down | SesMode::Hang => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", "Going down."),
        SesMode::Up | SesMode::DropAfterBody => return Ok(()),
    };
    Err(Refusal { status, kind, message: message.to_owned() })
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests;
