//! Takes messages from the queue and hands them to providers. The only place that knows tower.
//!
//! The way of the data: [`Dispatcher::run`] leases a message, `failover` groups its recipients by
//! route and asks the candidates in order, each through its `transport`: the provider inside its
//! guards (`observe`, `breaker`, `concurrency`, `rate`, `intent`). A guard never sleeps; it says why
//! and until when, and the queue does the waiting.

mod accounts;
pub mod breaker;
mod concurrency;
pub mod control;
mod doubt;
mod failover;
mod intent;
mod notebook;
mod observe;
pub mod rate;
mod rewrite;
mod senders;
mod stand_in;
mod suitable;
mod transport;
mod vitals;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use postrider_providers::contract::{Connected, ProviderName};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{error, warn};

pub use breaker::{Circuit, CircuitState};
pub use control::{Command, ControlError, ProviderStatus, Subject};
pub use transport::{Guarded, Refusal, Transport, Try};

use crate::config::{Failover, Rewrite};
use crate::queue::{Lease, Queue};
use crate::route::Router;
use crate::spool::Spool;
use control::Holds;
use notebook::Notebook;
use rate::{KeyedLimits, LimitStatus, Pass, ProviderLimits, SenderLimits, Turnstile};

/// Messages that may be in the hands of dispatch at the same time, over all providers. Each holds
/// little more than its place; how many reach a provider is that provider's concurrency.
const MAX_IN_HAND: usize = 1024;

/// A provider as the gateway dispatches to it.
#[derive(Debug)]
pub struct Endpoint {
    /// The provider as it was built.
    pub connected: Connected,
    /// Its limits.
    pub limits: ProviderLimits,
    /// Handovers at the same time.
    pub concurrency: usize,
    /// In whose name mail is handed over to it.
    pub rewrite: Option<Arc<Rewrite>>,
}

/// Everything that an attempt needs.
pub struct Dispatcher<S: Spool> {
    queue: Queue<S>,
    router: Arc<Router>,
    transports: HashMap<ProviderName, Guarded>,
    /// Limits on applications, over all routes.
    application_limits: Arc<KeyedLimits>,
    /// Limits on sending domains, over all routes.
    domain_limits: Arc<KeyedLimits>,
    /// Limits on sending domains of a route, by the route's name.
    route_limits: HashMap<Arc<str>, Arc<KeyedLimits>>,
    /// Lets one message at a time pass its limits.
    turnstile: Turnstile,
    /// Waiting times between attempts, by the provider that was asked last.
    retry: HashMap<ProviderName, Arc<[Duration]>>,
    /// What a restart should not forget.
    notebook: Notebook,
    /// What people have decided.
    holds: Holds,
}

impl<S: Spool> Dispatcher<S> {
    /// Puts the guards around each provider.
    #[must_use]
    pub fn new(queue: Queue<S>, router: Arc<Router>, endpoints: Vec<Endpoint>, failover: &Failover, sender_limits: SenderLimits) -> Self {
        let notebook = Notebook::default();
        for endpoint in &endpoints {
            endpoint.limits.set_reserves(router.routes().iter().map(|route| &**route));
        }
        let transports = endpoints
            .into_iter()
            .map(|endpoint| (endpoint.connected.name.clone(), transport::guard(endpoint, failover, &queue, &notebook)))
            .collect();
        let route_limits = router
            .routes()
            .iter()
            .filter_map(|route| Some((route.name.clone(), Arc::new(KeyedLimits::of_route(&route.name, route.per_sending_domain?)))))
            .collect();
        let retry = failover.providers.iter().filter_map(|(name, own)| Some((name.clone(), own.retry.as_deref()?.into()))).collect();
        let SenderLimits { applications, domains } = sender_limits;
        let (application_limits, domain_limits) = (Arc::new(applications), Arc::new(domains));
        Self {
            queue,
            router,
            transports,
            retry,
            application_limits,
            domain_limits,
            route_limits,
            turnstile: Turnstile::default(),
            notebook,
            holds: Holds::default(),
        }
    }

    /// How each limit stands: of providers, of applications, of sending domains.
    #[must_use]
    pub fn limits(&self) -> Vec<LimitStatus> {
        let mut names: Vec<_> = self.transports.keys().collect();
        names.sort_unstable();
        let of_providers = names.into_iter().flat_map(|name| self.transports[name].limits.status());
        let mut routes: Vec<_> = self.route_limits.iter().collect();
        routes.sort_unstable_by_key(|(name, _)| Arc::clone(name));
        let of_senders = [&self.application_limits, &self.domain_limits].into_iter().chain(routes.into_iter().map(|(_, limits)| limits));
        of_providers.chain(of_senders.flat_map(|limits| limits.status())).collect()
    }

    /// What keeps a message of `application` from `domain` away from `provider` for longest, if it came now by
    /// `route` to so many recipients, and until when. Nothing is taken.
    #[must_use]
    pub fn would_wait(
        &self,
        provider: &ProviderName,
        route: &Arc<str>,
        application: Option<&str>,
        domain: Option<&str>,
        recipients: u32,
    ) -> Option<(crate::queue::WaitReason, tokio::time::Instant)> {
        let recipients: Vec<_> = (0..recipients).map(postrider_providers::contract::RecipientIndex).collect();
        let pass = self.pass(route, application, domain, rate::Paid::default());
        self.transports.get(provider)?.limits.look(&pass, &recipients)
    }

    /// What whoever sends a message by `route` has to pass.
    fn pass(&self, route: &Arc<str>, application: Option<&str>, domain: Option<&str>, paid: rate::Paid) -> Pass {
        let application = application.map(|name| (Arc::clone(&self.application_limits), name.into()));
        let domain: Option<Arc<str>> = domain.map(Into::into);
        let of_domain = self.route_limits.get(route).into_iter().chain([&self.domain_limits]);
        let of_domain = domain.iter().flat_map(|domain| of_domain.clone().map(|limits| (Arc::clone(limits), Arc::clone(domain))));
        let limits: Vec<_> = application.into_iter().chain(of_domain).collect();
        Pass::new(self.turnstile.clone(), limits, paid, Arc::clone(route), domain)
    }

    /// The circuits, to be looked at.
    #[must_use]
    pub fn circuits(&self) -> Vec<(ProviderName, Circuit)> {
        let mut circuits: Vec<_> = self.transports.iter().map(|(name, guarded)| (name.clone(), guarded.circuit.clone())).collect();
        circuits.sort_by(|one, other| one.0.cmp(&other.0));
        circuits
    }

    /// Attempts whatever the queue lends until `shutdown`; then waits up to `grace` for the attempts
    /// at hand. What is cut off then is in doubt at the next start.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken, grace: Duration) {
        let tasks = TaskTracker::new();
        let hands = Arc::new(Semaphore::new(MAX_IN_HAND));
        let aborted = CancellationToken::new();
        // Ends with this.
        let _accounts = accounts::follow(&self.transports, &self.queue);
        let (noted, spool) = (self.notebook.clone(), self.queue.spool().clone());
        let notes = AbortOnDropHandle::new(tokio::spawn(async move { noted.run(&spool).await }));
        loop {
            let next = async {
                let hand = Arc::clone(&hands).acquire_owned().await;
                (hand, self.queue.lease().await)
            };
            let (hand, lease) = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                next = next => next,
            };
            let (this, aborted) = (Arc::clone(&self), aborted.clone());
            tasks.spawn(async move {
                let _hand = hand;
                tokio::select! {
                    () = this.attempt(lease) => {}
                    () = aborted.cancelled() => {}
                }
            });
        }
        tasks.close();
        if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
            warn!(attempts = tasks.len(), "attempts at hand did not end in time; they are cut off and in doubt");
            aborted.cancel();
            tasks.wait().await;
        }
        drop(notes);
        if let Err(error) = self.notebook.flush(self.queue.spool()).await {
            warn!(%error, "what was learned about providers last could not be recorded");
        }
    }

    async fn attempt(&self, lease: Lease<S>) {
        let id = lease.message().id;
        // A panic in a provider must cost one attempt, not the dispatcher.
        if std::panic::AssertUnwindSafe(failover::deliver(self, lease)).catch_unwind().await.is_err() {
            error!(message_id = %id, "an attempt panicked; its message is in doubt");
        }
    }
}

#[cfg(test)]
mod tests;
