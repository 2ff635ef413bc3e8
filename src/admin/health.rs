//! Is it alive, can it take mail, and what do the meters say: for load balancers, supervisors, Prometheus.
//!
//! `/healthz` is about progress: a gateway that has nothing to do is well, one whose tasks stand still is
//! not, and restarting it helps. `/readyz` is about accepting: a message could be made durable now. Whether
//! a provider can be reached has no say in either: mail waits, and no restart would change it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dispatch::Dispatcher;
use crate::dispatch::rate::LimitStatus;
use crate::queue::Queue;
use crate::spool::Spool;
use crate::spool::view::QueueState;

/// How long the storage may take to prove itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// For so long an answer about the storage is good.
const PROOF: Duration = Duration::from_secs(1);

/// For so long the depth of the queue is good: counting millions takes a moment.
const DEPTH: Duration = Duration::from_secs(5);

/// The most lanes that have a line of their own.
const LANES: usize = 50;

/// The most limits that have a meter.
const LIMITS: usize = 100;

/// What is asked about a gateway's health, without the type of its store.
pub(super) trait Vital: Send + Sync + 'static {
    /// What stands still, in words.
    fn stuck(&self) -> Option<String>;
    /// Proves that a message could be stored.
    fn prove(&self) -> BoxFuture<'_, Result<(), String>>;
    /// Looks at the queue, for the meters.
    fn count(&self) -> BoxFuture<'_, ()>;
    /// The meters' text.
    fn text(&self) -> String;
}

/// The real thing.
pub(super) struct Body<S: Spool> {
    pub(super) queue: Queue<S>,
    pub(super) dispatcher: Arc<Dispatcher<S>>,
}

impl<S: Spool> Vital for Body<S> {
    fn stuck(&self) -> Option<String> {
        self.queue.stands_still()
    }

    fn prove(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async {
            if let Some(why) = self.queue.failure() {
                return Err(why);
            }
            match tokio::time::timeout(PATIENCE, self.queue.spool().check()).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("the spool has not answered for {} s", PATIENCE.as_secs())),
            }
        })
    }

    fn count(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let (metrics, now) = (self.queue.metrics(), self.queue.clock().now());
            if let Ok(records) = self.queue.spool().journal_length().await {
                metrics.set_journal(records);
            }
            let Ok(summary) = self.queue.summary().await else { return };
            for state in QueueState::ALL {
                let of_state = summary.lanes.iter().filter(|lane| lane.state == state);
                let oldest = of_state.map(|lane| lane.oldest).min().map(|oldest| now.duration_since(oldest).unwrap_or_default());
                metrics.set_queue(state.as_str(), summary.count(state), oldest);
            }
            let mut lanes: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
            for lane in &summary.lanes {
                *lanes.entry(format!("{} {}", lane.lane.priority, lane.lane.route)).or_default() += lane.messages;
            }
            let mut lanes: Vec<_> = lanes.into_iter().collect();
            lanes.sort_by_key(|(_, messages)| std::cmp::Reverse(*messages));
            metrics.set_lanes(lanes.iter().take(LANES).map(|(lane, messages)| (lane.as_str(), *messages)));
        })
    }

    fn text(&self) -> String {
        let metrics = self.queue.metrics();
        metrics.set_window(self.queue.in_window());
        let circuits = self.dispatcher.circuits();
        metrics.set_circuits(circuits.iter().map(|(provider, circuit)| (provider.as_str(), circuit.state().to_string())));
        let limits: Vec<_> = self.dispatcher.limits().into_iter().filter(has_meter).collect();
        let left = limits.iter().map(|limit| (limit.reason.to_string(), limit.left as f64)).take(LIMITS);
        metrics.set_limits(left.collect::<Vec<_>>().iter().map(|(name, left)| (name.as_str(), *left)));
        let (resident, descriptors) = process();
        metrics.set_process(resident, descriptors);
        metrics.text()
    }
}

/// Whether a limit has a meter of its own: those of providers and of applications, which the config names. The
/// domains of senders are no labels.
fn has_meter(limit: &LimitStatus) -> bool {
    if limit.provider.is_some() { limit.key.is_none() } else { limit.setting.starts_with("app.") }
}

/// What the process takes: resident octets, and descriptors.
fn process() -> (u64, u64) {
    let resident = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = resident.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    (resident.unwrap_or(0) * 1024, descriptors)
}

/// What the storage proved, and when.
type Proof = (Instant, Result<(), String>);

/// The answers, and what is remembered of the last ones.
#[derive(Clone)]
pub(super) struct Health {
    vital: Arc<dyn Vital>,
    draining: CancellationToken,
    proved: Arc<Mutex<Option<Proof>>>,
    counted: Arc<Mutex<Option<Instant>>>,
}

impl Health {
    pub(super) fn new(vital: Arc<dyn Vital>, draining: CancellationToken) -> Self {
        Self { vital, draining, proved: Arc::default(), counted: Arc::default() }
    }

    /// Whether a message could be stored. However many ask, the storage proves itself once a second.
    async fn proof(&self) -> Result<(), String> {
        let mut proved = self.proved.lock().await;
        match &*proved {
            Some((at, result)) if at.elapsed() < PROOF => result.clone(),
            _ => {
                let result = self.vital.prove().await;
                *proved = Some((Instant::now(), result.clone()));
                result
            }
        }
    }
}

/// `/healthz` and `/readyz`, which anybody may ask.
pub(super) fn open(health: Health) -> Router {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).with_state(health)
}

/// `/metrics`, which is behind the token where there is one.
pub(super) fn metered(health: Health) -> Router {
    Router::new().route("/metrics", get(meters)).with_state(health)
}

async fn alive(State(health): State<Health>) -> Response {
    match health.vital.stuck() {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(stuck) => (StatusCode::SERVICE_UNAVAILABLE, format!("{stuck}\n")).into_response(),
    }
}

async fn ready(State(health): State<Health>) -> Response {
    if health.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining: no new mail is taken\n").into_response();
    }
    match health.proof().await {
        Ok(()) => (StatusCode::OK, "ready\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn meters(State(health): State<Health>) -> Response {
    {
        let mut counted = health.counted.lock().await;
        if counted.is_none_or(|at| at.elapsed() >= DEPTH) {
            health.vital.count().await;
            *counted = Some(Instant::now());
        }
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], health.vital.text()).into_response()
}
