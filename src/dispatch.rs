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
pub mod explain;
mod failover;
mod group;
mod intent;
mod notebook;
mod observe;
pub mod rate;
mod rewrite;
mod rules;
mod senders;
mod stand_in;
mod suitable;
mod transport;
mod vitals;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use postrider_providers::contract::{Connected, ProviderName};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{error, warn};

pub use breaker::{Circuit, CircuitState};
pub use control::{Command, ControlError, ProviderStatus, Subject};
pub use rules::{Rules, Successor};
pub use transport::{Guarded, Refusal, Transport, Try};

use crate::config::{Failover, Rewrite};
use crate::queue::{Lease, Queue};
use crate::route::Router;
use crate::spool::Spool;
use accounts::Accounts;
use control::Holds;
use notebook::Notebook;
use rate::{LimitStatus, ProviderLimits, SenderLimits};

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
    rules: ArcSwap<Rules>,
    /// There are other rules.
    replaced: Notify,
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
        let rules = Rules::new(&queue, &notebook, router, endpoints, failover, sender_limits);
        Self { queue, rules: ArcSwap::from_pointee(rules), replaced: Notify::new(), notebook, holds: Holds::default() }
    }

    /// What it works by now.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Works by this from now on. Attempts at hand keep what they began with.
    pub fn replace(&self, router: Arc<Router>, successors: Vec<Successor>, failover: &Failover, sender_limits: SenderLimits) {
        let next = self.rules.load().next(&self.queue, &self.notebook, router, successors, failover, sender_limits);
        self.rules.store(Arc::new(next));
        self.replaced.notify_one();
    }

    /// How each limit stands: of providers, of applications, of sending domains.
    #[must_use]
    pub fn limits(&self) -> Vec<LimitStatus> {
        let rules = self.rules();
        let mut names: Vec<_> = rules.transports.keys().collect();
        names.sort_unstable();
        let of_providers = names.into_iter().flat_map(|name| rules.transports[name].limits.status());
        let mut routes: Vec<_> = rules.route_limits.iter().collect();
        routes.sort_unstable_by_key(|(name, _)| Arc::clone(name));
        let of_senders = [&rules.application_limits, &rules.domain_limits].into_iter().chain(routes.into_iter().map(|(_, limits)| limits));
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
        let rules = self.rules();
        let pass = rules.pass(route, application, domain, rate::Paid::default());
        rules.transports.get(provider)?.limits.look(&pass, &recipients)
    }

    /// The circuits, to be looked at.
    #[must_use]
    pub fn circuits(&self) -> Vec<(ProviderName, Circuit)> {
        let rules = self.rules.load();
        let mut circuits: Vec<_> = rules.transports.iter().map(|(name, guarded)| (name.clone(), guarded.circuit.clone())).collect();
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
        let mut accounts = Accounts::default();
        accounts.follow(&self.rules(), &self.queue);
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
                () = self.replaced.notified() => {
                    accounts.follow(&self.rules(), &self.queue);
                    continue;
                }
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
        // A provider's panic ends its call alone; one elsewhere must cost one attempt, not the dispatcher.
        if std::panic::AssertUnwindSafe(failover::deliver(self, lease)).catch_unwind().await.is_err() {
            error!(message_id = %id, "an attempt panicked; its message is in doubt");
        }
    }
}

#[cfg(test)]
mod tests;
