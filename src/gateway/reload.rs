//! Takes another config into use while mail flows: everything that can go wrong comes first, and then all
//! of it is swapped.
//!
//! Sessions keep what they began with, and so do attempts at hand. What is in the queue follows the new
//! routes. A config that is no good leaves everything as it was.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use postrider_providers::contract::{Connected, ProviderName};
use postrider_providers::registry::Context;
use postrider_providers::settings::Witness;
use tracing::{error, info, warn};

use super::changes::Changes;
use super::listeners::Opening;
use super::{Handle, Parts, StartError, build, cautions};
use crate::admin::LastReload;
use crate::clock::Clock;
use crate::config::{Config, ConfigErrors, ProviderConfig};
use crate::dispatch::Successor;
use crate::dispatch::rate::{ProviderLimits, SenderLimits};
use crate::queue;
use crate::route::Router;
use crate::smtp::FrontEnd;
use crate::spool::Spool;
use crate::telemetry::metrics::Metrics;

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file has mistakes, which are drawn.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// Something that the config asks for cannot be had.
    #[error("{0}")]
    Start(#[from] StartError),
    /// The gateway is draining.
    #[error("the gateway is draining, and takes no other config any more")]
    Draining,
}

/// One reload at a time, and what came of it.
pub(super) struct Reloads {
    clock: Clock,
    /// `None` once the gateway drains.
    turn: tokio::sync::Mutex<Option<Built>>,
    last: Arc<ArcSwap<LastReload>>,
}

/// What the providers were built from.
#[derive(Default)]
struct Built {
    /// What was read of the secrets of each.
    witnessed: HashMap<ProviderName, Witness>,
    /// One HTTP client and one TLS configuration for all that are built later.
    context: Option<Context>,
}

impl Built {
    fn context(&mut self, config: &Config, running: &Config) -> Result<Context, StartError> {
        if let Some(context) = self.context.as_ref().filter(|context| context.hostname == config.server.hostname) {
            return Ok(context.clone());
        }
        let context = Context::new(&config.server.hostname)?.with_state(running.server.data_dir.join("providers"));
        Ok(self.context.insert(context).clone())
    }
}

impl Reloads {
    pub(super) fn new(clock: Clock) -> Self {
        let last = LastReload { generation: 1, taken: clock.now(), failure: None };
        Self { clock, turn: tokio::sync::Mutex::new(Some(Built::default())), last: Arc::new(ArcSwap::from_pointee(last)) }
    }

    /// What came of reloads so far, now and later.
    pub(super) fn last(&self) -> Arc<ArcSwap<LastReload>> {
        Arc::clone(&self.last)
    }

    /// Tells the meters.
    pub(super) fn tell(&self, metrics: &Metrics) {
        let last = self.last.load();
        metrics.set_config(last.generation, build::seconds(last.taken), last.failure.is_none());
    }

    /// Knows with what providers were built, and what was read of their secrets then.
    pub(super) async fn know(&self, context: Context, witnessed: HashMap<ProviderName, Witness>) {
        if let Some(built) = &mut *self.turn.lock().await {
            *built = Built { witnessed, context: Some(context) };
        }
    }

    /// Lets no other reload begin, and waits for the one that is under way.
    pub(super) async fn close(&self) {
        *self.turn.lock().await = None;
    }

    fn note(&self, result: &Result<Changes, ReloadError>) {
        let (last, now) = (self.last.load(), self.clock.now());
        self.last.store(Arc::new(match result {
            Ok(_) => LastReload { generation: last.generation + 1, taken: now, failure: None },
            Err(error) => LastReload { failure: Some((now, error.to_string().into())), ..(**last).clone() },
        }));
    }
}

impl<S: Spool> Handle<S> {
    /// Takes the config file at `path` into use, its secrets and certificates included. Says what is
    /// different, which the log does, too.
    ///
    /// # Errors
    /// [`ReloadError`]; then everything is as it was.
    pub async fn reload_file(&self, path: &Path) -> Result<Changes, ReloadError> {
        let from = path.to_owned();
        // Files may be on a network that hangs.
        let loaded = tokio::task::spawn_blocking(move || Config::load(&from)).await;
        let result = match loaded {
            Ok(Ok((config, warnings))) => {
                for warning in warnings {
                    warn!("{}", warning.title());
                }
                self.0.take(config).await
            }
            Ok(Err(errors)) => Err(errors.into()),
            // It panicked, or the runtime ends.
            Err(_) => Err(ReloadError::Draining),
        };
        self.0.conclude(result)
    }

    /// Takes a config into use that was checked already, as [`Handle::reload_file`] does.
    ///
    /// # Errors
    /// [`ReloadError`]; then everything is as it was.
    pub async fn reload(&self, config: Config) -> Result<Changes, ReloadError> {
        let result = self.0.take(config).await;
        self.0.conclude(result)
    }

    /// What came of reloads so far.
    #[must_use]
    pub fn last_reload(&self) -> Arc<LastReload> {
        self.0.reloads.last.load_full()
    }
}

impl<S: Spool> Parts<S> {
    fn conclude(&self, result: Result<Changes, ReloadError>) -> Result<Changes, ReloadError> {
        self.reloads.note(&result);
        let last = self.reloads.last.load();
        self.reloads.tell(self.queue.metrics());
        match &result {
            Ok(changes) => {
                for line in changes.lines() {
                    info!("config: {line}");
                }
                for line in changes.after_restart() {
                    warn!("config: {line}, which takes a restart; until then, the old one holds");
                }
                info!(generation = last.generation, changes = changes.lines().len(), "the config was read again, and is in use");
            }
            Err(error) => error!("the new config is not taken, and the old one stays in use\n{error}"),
        }
        result
    }

    async fn take(&self, mut config: Config) -> Result<Changes, ReloadError> {
        let mut turn = self.reloads.turn.lock().await;
        let Some(known) = &mut *turn else { return Err(ReloadError::Draining) };
        let before = self.config.load_full();

        // What can go wrong.
        let context = known.context(&config, &before)?;
        let built = config.connect_witnessed(&context)?;
        let (mut successors, mut rebuilt, mut seen) = (Vec::new(), HashSet::new(), HashMap::new());
        for (connected, witness) in built {
            let name = connected.name.clone();
            let has_same_secrets = known.witnessed.get(&name).is_none_or(|before| *before == witness);
            let (successor, is_rebuilt) = self.succeed(&before, &config, connected, has_same_secrets).await?;
            if is_rebuilt {
                rebuilt.insert(name.clone());
            }
            seen.insert(name, witness);
            successors.push(successor);
        }
        let opening = Opening::prepare(&self.listeners.open(), &config.listeners, &self.certificates);
        let opening =
            opening.inspect_err(|_| self.certificates.keep(before.listeners.iter().flat_map(|listener| &listener.certificates)))?;

        // What cannot.
        let changes = Changes::between(&before, &config, |name| rebuilt.contains(name));
        config.keep_until_restart(&before);
        let connected: Vec<Connected> = successors.iter().map(|successor| successor.connected.clone()).collect();
        for caution in cautions(&config, &connected) {
            warn!("{caution}");
        }
        let router = Arc::new(Router::new(config.routes.clone()).with_providers(&connected));
        let sender_limits = SenderLimits::new(&config.applications, &config.sending_domain_limits);
        let metrics = self.queue.metrics().clone();
        build::tell_credentials(&config, &metrics);
        self.queue.change(queue::Settings { metrics, ..build::queue_settings(&config) });
        self.queue.use_router(Arc::clone(&router));
        self.dispatcher.replace(Arc::clone(&router), successors, &config.failover, sender_limits);
        let front_end = self.front_end.load_full();
        self.front_end.store(Arc::new(FrontEnd {
            settings: build::smtp_settings(&config),
            access: front_end.access.next(config.access.clone(), config.applications.clone()),
            router,
            queue: self.queue.clone(),
            clock: front_end.clock,
            census: Arc::clone(&self.census),
        }));
        let closed = self.take_listeners(opening);
        self.certificates.keep(config.listeners.iter().flat_map(|listener| &listener.certificates));
        self.config.store(Arc::new(config));
        known.witnessed = seen;
        // What messages wait for may not be there any more.
        self.queue.wake_all();
        closed.await;
        Ok(changes)
    }

    /// The provider of the rules that follow, and whether it is another than before: the one of before where
    /// neither its settings nor its secrets are different, so that it keeps its connections.
    async fn succeed(
        &self,
        before: &Config,
        config: &Config,
        connected: Connected,
        has_same_secrets: bool,
    ) -> Result<(Successor, bool), StartError> {
        let name = connected.name.clone();
        let find = |config: &Config| config.providers.iter().find(|provider| provider.name == name).cloned();
        let (old, new) = (find(before), find(config));
        let running = self.dispatcher.rules().connected(&name).cloned();
        let is_same = before.server.hostname == config.server.hostname
            && has_same_secrets
            && old.as_ref().zip(new.as_ref()).is_some_and(|(old, new)| old.has_same_settings(new));
        let is_known = running.is_some();
        let connected = running.filter(|_| is_same).unwrap_or(connected);
        let settings = new.as_ref().map(|provider| provider.limits.clone()).unwrap_or_default();
        let limits = match old.filter(|old| is_known && old.limits == settings) {
            Some(_) => None,
            None => Some(ProviderLimits::restore(&name, &settings, &self.queue).await?),
        };
        let concurrency = settings.concurrency.map_or(connected.default_concurrency, |concurrency| concurrency as usize);
        let rewrite = new.as_ref().and_then(|provider: &ProviderConfig| provider.rewrite.clone());
        Ok((Successor { connected, limits, concurrency, rewrite }, is_known && !is_same))
    }
}
