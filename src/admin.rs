//! The admin API: a small HTTP server by which people and programs look at the gateway and operate it.
//!
//! It is HTTP without TLS: on loopback, or behind a tunnel or a proxy that encrypts. Everything about it is
//! bounded: connections, the time and the size of a request, the length of an answer. It only calls the queue,
//! the dispatcher and the history; what it cannot do by itself, it orders from whoever owns the gateway.

mod api;
mod connection;
mod convert;
mod guard;
mod health;
mod operations;
mod problem;
pub mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use guard::BY;
pub use operations::{LastReload, Order};

/// The terms that a filter of the queue may have, for help texts.
pub use crate::spool::filter::KEYS as FILTER_KEYS;

use crate::clock::Clock;
use crate::dispatch::Dispatcher;
use crate::history::History;
use crate::queue::Queue;
use crate::spool::Spool;
use guard::Guard;
use health::Health;
use operations::{Operations, Orders, Parts};
use problem::Problem;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How large its body may be.
const MAX_BODY: usize = 64 << 10;

/// What is known of the gateway as a whole.
#[derive(Debug, Clone)]
pub struct About {
    /// How it calls itself.
    pub hostname: String,
    /// Where it takes mail.
    pub listeners: Vec<SocketAddr>,
    /// What came of reloads so far, now and later.
    pub last_reload: Arc<ArcSwap<LastReload>>,
}

/// The API of one gateway.
pub struct Admin {
    office: Office,
    guard: Arc<Guard>,
    health: Health,
}

/// What every handler works with. Clones share it.
#[derive(Clone)]
struct Office {
    operations: Arc<dyn Operations>,
    orders: Orders,
    about: Arc<About>,
    clock: Clock,
    started: SystemTime,
    draining: CancellationToken,
}

impl Admin {
    /// The API of the gateway with these parts, and where the orders come out that it gives. Without a
    /// `token`, callers on loopback need none.
    #[must_use]
    pub fn new<S: Spool>(
        about: About,
        queue: Queue<S>,
        dispatcher: Arc<Dispatcher<S>>,
        history: History,
        token: Option<&str>,
    ) -> (Self, mpsc::Receiver<Order>) {
        let clock = queue.clock();
        let (orders, receiver) = mpsc::channel(4);
        let draining = CancellationToken::new();
        let vital = Arc::new(health::Body { queue: queue.clone(), dispatcher: Arc::clone(&dispatcher) });
        let health = Health::new(vital, draining.clone());
        let office = Office {
            operations: Arc::new(Parts { queue, dispatcher, history }),
            orders,
            about: Arc::new(about),
            clock,
            started: clock.now(),
            draining,
        };
        (Self { office, guard: Arc::new(Guard::new(token)), health }, receiver)
    }

    /// Cancel it when the gateway begins to drain: then the API says so.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.office.draining.clone()
    }

    /// Answers on `listener` until `shutdown`, and finishes the requests at hand then.
    pub async fn serve(self, listener: tokio::net::TcpListener, shutdown: CancellationToken) {
        let stopped = async move { shutdown.cancelled().await };
        let served = axum::serve(connection::Bounded::new(listener), self.router()).with_graceful_shutdown(stopped).await;
        if let Err(error) = served {
            warn!(%error, "the admin API ended");
        }
    }

    fn router(self) -> Router {
        let Self { office, guard, health } = self;
        let (api, mut document) = api::routes().split_for_parts();
        api::describe_callers(&mut document, guard.needs_token());
        let document = Arc::new(document);
        let described = move || async move { Json(document) };
        api.route("/api/openapi.json", get(described))
            .fallback(api::no_such_path)
            .method_not_allowed_fallback(api::no_such_method)
            .with_state(office)
            .merge(health::metered(health.clone()))
            .layer(middleware::from_fn_with_state(guard, guard::check))
            .merge(health::open(health))
            .layer(middleware::from_fn_with_state((), in_time))
            .layer(DefaultBodyLimit::max(MAX_BODY))
    }
}

impl Office {
    fn order(&self, order: Order) -> Result<(), Problem> {
        let busy = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway follows no orders now").help("try again in a moment");
        self.orders.try_send(order).map_err(busy)
    }
}

/// Gives up on a request that takes too long.
async fn in_time(State(()): State<()>, request: Request, next: Next) -> Response {
    let late = |_| {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("no answer within {} seconds", PATIENCE.as_secs()));
        problem.help("ask for less, or try again").into_response()
    };
    tokio::time::timeout(PATIENCE, next.run(request)).await.unwrap_or_else(late)
}
