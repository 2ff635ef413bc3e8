//! The composition root: builds every part from the config, owns every task, drains on shutdown.

mod build;
mod cautions;
mod changes;
mod listeners;
mod reload;
mod vital;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use postrider_providers::contract::{Connected, ProviderName};
use postrider_providers::http::ContextError;
use postrider_providers::registry::Context;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::access::Access;
use crate::admin::{About, Admin, Order};
use crate::clock::Clock;
use crate::config::{Config, ConfigErrors};
use crate::dispatch::rate::{ProviderLimits, SenderLimits};
use crate::dispatch::{Circuit, Dispatcher, Endpoint};
use crate::history::History;
use crate::queue::{self, Queue};
use crate::route::Router;
use crate::smtp::census::{Census, Habit};
use crate::smtp::{self, FrontEnd, Sessions};
use crate::spool::sqlite::{self, Committed, Doubted, SqliteSpool};
use crate::spool::{Recovered, Spool, SpoolCounts, SpoolError};
use crate::telemetry::metrics::Metrics;
use crate::tls::{CertificateStore, Looked, TlsError};
use build::{queue_settings, smtp_settings};
use listeners::{Listeners, Opening};
use reload::Reloads;

pub use crate::admin::LastReload;
pub use cautions::cautions;
pub use changes::Changes;
pub use reload::ReloadError;
pub use watch::FileWatch;

/// How long open sessions get to finish the message they are in.
const SESSIONS_GRACE: Duration = Duration::from_secs(10);

/// How long attempts at hand get after that. With the sessions' share it stays within the 30 seconds
/// that service managers commonly wait before they kill.
const ATTEMPTS_GRACE: Duration = Duration::from_secs(15);

/// How long the spool may take for its last commit.
const SPOOL_GRACE: Duration = Duration::from_secs(3);

/// How long requests to the admin API that are at hand get before that.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// A running gateway.
pub struct Gateway<S: Spool> {
    handle: Handle<S>,
    office: Option<Office>,
    attempts: Task,
    feeding: Task,
    recording: Task,
}

/// A gateway with its spool on disk.
pub type DurableGateway = Gateway<SqliteSpool>;

/// A hold on a running gateway, for those who look at it and reload it. Clones share it.
pub struct Handle<S: Spool>(Arc<Parts<S>>);

/// What lives as long as the gateway; a reload changes what is inside.
struct Parts<S: Spool> {
    queue: Queue<S>,
    history: History,
    dispatcher: Arc<Dispatcher<S>>,
    front_end: Arc<ArcSwap<FrontEnd<S>>>,
    sessions: Arc<Sessions>,
    certificates: Arc<CertificateStore>,
    census: Arc<Census>,
    listeners: Listeners,
    doors: Mutex<Task>,
    /// What it runs by.
    config: ArcSwap<Config>,
    reloads: Reloads,
}

/// The admin API, as it runs.
struct Office {
    address: Option<SocketAddr>,
    orders: mpsc::Receiver<Order>,
    draining: CancellationToken,
    task: Task,
}

/// Tasks with one switch.
struct Task {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A provider's settings cannot work.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// TLS or the HTTP client could not be set up.
    #[error("TLS cannot be set up: {0}")]
    Context(#[from] ContextError),
    /// The spool could not be opened.
    #[error("{0}")]
    Spool(#[from] SpoolError),
    /// A listener cannot encrypt.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// A listener's address could not be bound.
    #[error("cannot listen on {address}: {source}{}", bind_hint(source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The token of the admin API cannot be read.
    #[error("the token of the admin API cannot be had: {0}")]
    Token(String),
}

fn bind_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "; another program has it, which `ss -ltnp` names",
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need the capability CAP_NET_BIND_SERVICE",
        std::io::ErrorKind::AddrNotAvailable => "; this host has no such address",
        _ => "",
    }
}

impl Gateway<SqliteSpool> {
    /// Starts the gateway that the config describes, with its spool in `server.data_dir`.
    ///
    /// # Errors
    /// [`StartError`] says which part could not be had. Nothing is left running then.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        // What can be wrong with the config comes first, before anything on disk is touched.
        let context = Context::new(&config.server.hostname)?.with_state(config.server.data_dir.join("providers"));
        let (connected, witnessed): (Vec<_>, Vec<_>) = config.connect_witnessed(&context)?.into_iter().unzip();
        let witnessed = connected.iter().map(|connected| connected.name.clone()).zip(witnessed).collect();
        for caution in cautions(config, &connected) {
            warn!("{caution}");
        }
        let metrics = Metrics::new();
        let told = metrics.clone();
        let settings = sqlite::Settings {
            inline_max: config.queue.inline_max,
            committed: Some(Committed(Arc::new(move |jobs, took| told.committed(jobs, took)))),
            doubted: config.history.keep.map(|_| Doubted(Arc::new(|doubt| queue::record_of_doubt(doubt, SystemTime::now())))),
            ..sqlite::Settings::new(&config.server.data_dir)
        };
        let (spool, recovered) = SqliteSpool::open(settings).await?;
        let history = History::at(&config.server.data_dir, config.history, Clock::system());
        let gateway = Self::start_over(config, spool, connected, Clock::system(), metrics, history, &recovered).await?;
        gateway.handle.0.reloads.know(context, witnessed).await;
        Ok(gateway)
    }
}

impl<S: Spool> Gateway<S> {
    /// Starts the gateway over a spool and providers that the caller made. Its history is in memory, and
    /// ends with it.
    ///
    /// # Errors
    /// When a listener cannot be bound or the spool cannot be read.
    pub async fn start_with(config: &Config, spool: S, connected: Vec<Connected>, clock: Clock) -> Result<Self, StartError> {
        let history = History::in_memory(config.history, clock);
        Self::start_over(config, spool, connected, clock, Metrics::new(), history, &Recovered::default()).await
    }

    async fn start_over(
        config: &Config,
        spool: S,
        connected: Vec<Connected>,
        clock: Clock,
        metrics: Metrics,
        history: History,
        recovered: &Recovered,
    ) -> Result<Self, StartError> {
        let queue = Queue::new(spool, queue::Settings { metrics, ..queue_settings(config) }, clock);
        // Before anybody is asked again.
        queue.recovered(recovered).await;
        let router = Arc::new(Router::new(config.routes.clone()).with_providers(&connected));
        queue.use_router(Arc::clone(&router));

        let mut endpoints = Vec::new();
        for connected in connected {
            let configured = config.providers.iter().find(|provider| provider.name == connected.name);
            let limits = configured.map(|provider| provider.limits.clone()).unwrap_or_default();
            let rewrite = configured.and_then(|provider| provider.rewrite.clone());
            let concurrency = limits.concurrency.map_or(connected.default_concurrency, |concurrency| concurrency as usize);
            let limits = ProviderLimits::restore(&connected.name, &limits, &queue).await?;
            endpoints.push(Endpoint { connected, limits, concurrency, rewrite });
        }
        let sender_limits = SenderLimits::new(&config.applications, &config.sending_domain_limits);
        let dispatcher = Arc::new(Dispatcher::new(queue.clone(), Arc::clone(&router), endpoints, &config.failover, sender_limits));
        dispatcher.restore().await?;

        let certificates = Arc::new(CertificateStore::new(clock));
        let (listeners, opening) = (Listeners::default(), Opening::prepare(&[], &config.listeners, &certificates)?);
        let reloads = Reloads::new(clock);
        let office = config
            .admin
            .as_ref()
            .map(|admin| Office::open(admin, config, &opening.addresses(), &queue, &dispatcher, &history, &reloads))
            .transpose()?;

        let census = Arc::new(Census::default());
        let front_end = Arc::new(ArcSwap::from_pointee(FrontEnd {
            settings: smtp_settings(config),
            access: Access::new(config.access.clone(), config.applications.clone()),
            router,
            queue: queue.clone(),
            clock,
            census: Arc::clone(&census),
        }));
        let (mut doors, mut recording) = (Task::new(), Task::new());
        let (kept, indexed, stop) = (history.clone(), queue.clone(), recording.stop.clone());
        recording.tasks.spawn(async move { kept.run(indexed.spool().clone(), indexed.journaled(), stop).await });
        let metrics = queue.metrics().clone();
        reloads.tell(&metrics);
        build::tell_credentials(config, &metrics);
        doors.tasks.spawn(Arc::clone(&certificates).watch(doors.stop.clone(), move |store| {
            let ends: Vec<_> = store.ends().into_iter().map(|(file, end)| (file, build::seconds(end))).collect();
            metrics.set_certificates(ends.iter().map(|(file, end)| (file.as_str(), *end)));
        }));
        let attempts = Task::vital(&queue, "the dispatcher", |stop| Arc::clone(&dispatcher).run(stop, ATTEMPTS_GRACE));
        let fed = queue.clone();
        let mut feeding = Task::vital(&queue, "the feeder of the queue", |stop| async move { fed.run(stop).await });
        let stored = queue.clone();
        feeding.tasks.spawn(async move { stored.fail(stored.spool().failure().await) });
        let parts = Parts {
            queue,
            history,
            dispatcher,
            front_end,
            sessions: Arc::new(Sessions::default()),
            certificates,
            census,
            listeners,
            doors: Mutex::new(doors),
            config: ArcSwap::from_pointee(config.clone()),
            reloads,
        };
        // Nothing was open before, so there is nothing to wait for.
        drop(parts.take_listeners(opening));
        Ok(Self { handle: Handle(Arc::new(parts)), office, attempts, feeding, recording })
    }

    /// A hold on this gateway.
    #[must_use]
    pub fn handle(&self) -> Handle<S> {
        self.handle.clone()
    }

    /// Where the admin API answers, if there is one.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.office.as_ref().and_then(|office| office.address)
    }

    /// Waits for what somebody orders by the admin API; without one, for ever.
    pub async fn order(&mut self) -> Order {
        if let Some(office) = &mut self.office
            && let Some(order) = office.orders.recv().await
        {
            return order;
        }
        std::future::pending().await
    }

    /// Stops accepting, lets sessions and attempts finish within a bounded time, gives leases back and
    /// closes the spool. What is still in the queue stays there.
    pub async fn drain(self) {
        let Self { handle, office, mut attempts, feeding, mut recording } = self;
        let Parts { queue, census, reloads, .. } = &*handle.0;
        info!("draining: no new mail is taken, attempts at hand are finished");
        if let Some(office) = &office {
            office.draining.cancel();
        }
        // One that is under way is waited for; none comes after it.
        reloads.close().await;
        let mut doors = std::mem::replace(&mut *handle.0.doors.lock(), Task::new());
        // Sessions first: what they accept now is still stored.
        doors.stop.cancel();
        if tokio::time::timeout(SESSIONS_GRACE, doors.join()).await.is_err() {
            warn!("open sessions did not end in time; they are cut off, and their clients still have their messages");
            doors.tasks.shutdown().await;
        }
        census.summarize();
        attempts.stop.cancel();
        attempts.join().await;
        // It answers until the last attempt has ended, so that one can look at what is still at hand.
        if let Some(mut office) = office {
            office.task.stop.cancel();
            let _ = tokio::time::timeout(ADMIN_GRACE, office.task.join()).await;
        }
        feeding.stop.cancel();
        drop(feeding);
        // What happened last goes into the history now, if that is quick; otherwise at the next start.
        recording.stop.cancel();
        recording.join().await;
        match queue.spool().close(SPOOL_GRACE).await {
            Ok(()) => info!("drained"),
            Err(error) => error!(%error, "the spool did not close in order; the next start recovers what is in it"),
        }
    }
}

impl<S: Spool> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Spool> std::ops::Deref for Gateway<S> {
    type Target = Handle<S>;

    fn deref(&self) -> &Handle<S> {
        &self.handle
    }
}

impl<S: Spool> Handle<S> {
    /// Where mail is taken, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.listeners.addresses()
    }

    /// Each provider's circuit.
    #[must_use]
    pub fn circuits(&self) -> Vec<(ProviderName, Circuit)> {
        self.0.dispatcher.circuits()
    }

    /// Reads certificate files again, as is otherwise done every ten seconds; the log says what was found.
    /// Where a new one is no good, the old one stays in use.
    pub async fn reload_certificates(&self) -> Looked {
        self.0.certificates.reload().await
    }

    /// Which client does what oddly and is put up with, since the start.
    #[must_use]
    pub fn oddities(&self) -> Vec<Habit> {
        self.0.census.list()
    }

    /// What happened to messages.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// Counts what is in the spool.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub async fn counts(&self) -> Result<SpoolCounts, SpoolError> {
        self.0.queue.counts().await
    }

    /// Waits until a part has failed without which the gateway only looks alive, and says which. It has to
    /// be drained and started anew then.
    pub async fn failed(&self) -> String {
        self.0.queue.failed().await
    }

    /// What the gateway runs by now.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.0.config.load_full()
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &Queue<S> {
        &self.0.queue
    }

    /// The dispatcher.
    #[must_use]
    pub fn dispatcher(&self) -> &Arc<Dispatcher<S>> {
        &self.0.dispatcher
    }
}

impl Office {
    /// Opens the API, and begins to answer.
    fn open<S: Spool>(
        settings: &crate::config::Admin,
        config: &Config,
        listeners: &[SocketAddr],
        queue: &Queue<S>,
        dispatcher: &Arc<Dispatcher<S>>,
        history: &History,
        reloads: &Reloads,
    ) -> Result<Self, StartError> {
        let address = settings.bind;
        let token = settings.token.as_ref().map(postrider_providers::settings::Secret::read).transpose().map_err(StartError::Token)?;
        let listener = smtp::bind(address).map_err(|source| StartError::Bind { address, source })?;
        let about = About { hostname: config.server.hostname.to_string(), listeners: listeners.to_vec(), last_reload: reloads.last() };
        let (admin, orders) = Admin::new(about, queue.clone(), Arc::clone(dispatcher), history.clone(), token.as_deref());
        let (draining, mut task) = (admin.draining(), Task::new());
        let address = listener.local_addr().ok();
        task.tasks.spawn(admin.serve(listener, task.stop.clone()));
        Ok(Self { address, orders, draining, task })
    }
}

impl Task {
    fn new() -> Self {
        Self { stop: CancellationToken::new(), tasks: JoinSet::new() }
    }

    async fn join(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                error!(%error, "a task of the gateway ended badly");
            }
        }
    }
}
