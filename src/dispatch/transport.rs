//! A provider inside its guards, erased to one type.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use postrider_providers::contract::{
    Attempt, Capabilities, Connected, Diagnostic, DynProvider, Failure, Outcome, ProviderName, RecipientIndex, Report,
};
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder};
use tracing::error;

use super::Endpoint;
use super::breaker::{BreakerLayer, Circuit};
use super::concurrency::ConcurrencyLayer;
use super::intent::IntentLayer;
use super::notebook::Notebook;
use super::observe::ObserveLayer;
use super::rate::{Pass, ProviderLimits, RateLayer};
use super::rules::Successor;
use super::senders::Senders;
use super::vitals::Vitals;
use crate::config::{Failover, Rewrite};
use crate::queue::{Queue, WaitReason};
use crate::spool::{Spool, SpoolError};

/// One try: an attempt with what the guards need to know about its message.
#[derive(Clone)]
pub struct Try {
    /// What the provider gets.
    pub attempt: Attempt,
    /// The limits on its sender and its way, to be passed with those of the provider.
    pub pass: Arc<Pass>,
    /// Records that the provider is about to be asked.
    pub ledger: Arc<dyn Ledger>,
}

impl fmt::Debug for Try {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Try").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

/// Where intents are recorded durably: the lease of the message.
pub trait Ledger: Send + Sync {
    /// Records that `provider` is about to be asked for `recipients`.
    fn begin<'a>(&'a self, provider: &'a ProviderName, recipients: &'a [RecipientIndex]) -> BoxFuture<'a, Result<(), SpoolError>>;
}

/// Why there is no report.
#[derive(Debug)]
pub enum Refusal {
    /// The provider was asked, and nothing was handed over.
    Failed(Failure),
    /// Not asked: its circuit is open until then.
    CircuitOpen {
        /// What to wait for.
        reason: WaitReason,
        /// When to come again.
        until: Instant,
    },
    /// Not asked: a limit of ours is reached until then.
    Limited {
        /// What to wait for.
        reason: WaitReason,
        /// When to come again.
        until: Instant,
    },
    /// Not asked: the intent could not be recorded.
    Spool(SpoolError),
}

/// A provider with its guards, whatever their types are.
pub type Transport = BoxCloneSyncService<Try, Report, Refusal>;

/// A transport and what may be asked about it.
#[derive(Debug)]
pub struct Guarded {
    connected: Connected,
    /// Its limits.
    pub(super) limits: Arc<ProviderLimits>,
    /// In whose name mail is handed over to it; `None` leaves that to the route.
    pub rewrite: Option<Arc<Rewrite>>,
    /// Its circuit.
    pub circuit: Circuit,
    /// How it is doing.
    pub(super) vitals: Arc<Vitals>,
    /// Whom it has refused.
    pub(super) senders: Senders,
    /// How many handovers are under way.
    hands: ConcurrencyLayer,
    /// The stack.
    pub transport: Transport,
}

impl Guarded {
    /// The provider itself, to be asked about its account.
    pub(super) fn provider(&self) -> Arc<dyn DynProvider> {
        Arc::clone(&self.connected.provider)
    }

    /// The provider as it was built.
    pub(super) fn connected(&self) -> &Connected {
        &self.connected
    }

    /// What the provider can carry, as it knows now: some learn it from what they talk to.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.connected.provider.capabilities()
    }

    /// The most recipients in one call of `route`, by its capabilities and its limits as they are now.
    #[must_use]
    pub fn max_recipients(&self, route: &str) -> usize {
        self.limits.max_recipients(route).min(self.capabilities().max_recipients.unwrap_or(usize::MAX))
    }

    /// What a message would wait for, for whose turn there is no hand free now.
    pub(super) fn is_full(&self) -> Option<WaitReason> {
        self.hands.look()
    }

    /// The same, and not more than may go at this moment.
    #[must_use]
    pub fn room(&self, route: &str) -> usize {
        self.max_recipients(route).min(self.limits.room(route))
    }
}

/// Puts the guards around one provider.
pub(super) fn guard<S: Spool>(endpoint: Endpoint, failover: &Failover, queue: &Queue<S>, notebook: &Notebook) -> Guarded {
    let Endpoint { connected, limits, concurrency, rewrite } = endpoint;
    let name = connected.name.clone();
    let limits = Arc::new(limits);
    let (waiting, woken) = (queue.clone(), queue.clone());
    let wake = Arc::new(move |reason: &WaitReason, count| woken.wake(reason, count));
    let circuit = Circuit::new(name.clone(), failover.of(&name), concurrency, queue.clock(), notebook.clone(), wake);
    limits.throttle().note_in(notebook.clone(), queue.clock());
    let senders = Senders::new(name.clone(), queue.clock(), notebook.clone());
    let vitals = Arc::new(Vitals::new(concurrency, queue.clock()));
    let hands = ConcurrencyLayer::new(&name, concurrency, move |reason: &WaitReason| waiting.wake(reason, 1));
    let transport = stack(&connected, queue, &vitals, &circuit, &hands, &limits);
    Guarded { connected, limits, rewrite, circuit, vitals, senders, hands, transport }
}

/// The same around what follows on a provider, with what is known about it. Where nothing is different,
/// neither is this.
pub(super) fn guard_again<S: Spool>(before: &Arc<Guarded>, successor: Successor, queue: &Queue<S>) -> Arc<Guarded> {
    let Successor { connected, limits, concurrency, rewrite } = successor;
    let is_same_provider = Arc::ptr_eq(&connected.provider, &before.connected.provider);
    before.hands.change(concurrency);
    before.vitals.change(concurrency);
    if is_same_provider && limits.is_none() && rewrite == before.rewrite {
        return Arc::clone(before);
    }
    let limits = limits.map_or_else(|| Arc::clone(&before.limits), |limits| Arc::new(limits.after(&before.limits)));
    let Guarded { circuit, vitals, senders, hands, .. } = &**before;
    let (circuit, vitals, senders, hands) = (circuit.clone(), Arc::clone(vitals), senders.clone(), hands.clone());
    let transport = stack(&connected, queue, &vitals, &circuit, &hands, &limits);
    Arc::new(Guarded { connected, limits, rewrite, circuit, vitals, senders, hands, transport })
}

/// Builds the stack, outermost guard first.
fn stack<S: Spool>(
    connected: &Connected,
    queue: &Queue<S>,
    vitals: &Arc<Vitals>,
    circuit: &Circuit,
    hands: &ConcurrencyLayer,
    limits: &Arc<ProviderLimits>,
) -> Transport {
    let transport = ServiceBuilder::new()
        // Sees every try, those that the other guards refuse included.
        .layer(ObserveLayer::new(connected.name.clone(), Arc::clone(vitals), queue.metrics().clone()))
        // Next, so that a provider that is down costs neither a permit nor a token.
        .layer(BreakerLayer(circuit.clone()))
        // Before the rate: a permit can always be given back, a token not always.
        .layer(hands.clone())
        // The last to say no, so that every token taken is used. Looks at the sender's limits as well: all
        // or none.
        .layer(RateLayer::new(Arc::clone(limits)))
        // Innermost: only what really goes to the provider is recorded as begun.
        .layer(IntentLayer::new(connected.name.clone()))
        .service(ProviderService { name: connected.name.clone(), provider: Arc::clone(&connected.provider) });
    BoxCloneSyncService::new(transport)
}

/// The provider as a tower service.
#[derive(Clone)]
pub(super) struct ProviderService {
    name: ProviderName,
    provider: Arc<dyn DynProvider>,
}

impl Service<Try> for ProviderService {
    type Response = Report;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Report, Refusal>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Try) -> Self::Future {
        let Self { name, provider } = self.clone();
        let (id, recipients) = (request.attempt.message.id, Arc::clone(&request.attempt.recipients));
        Box::pin(async move {
            match AssertUnwindSafe(provider.deliver(request.attempt)).catch_unwind().await {
                Ok(delivery) => delivery.map_err(Refusal::Failed),
                // Nobody knows how far it came. What others in this attempt have answered still counts.
                Err(_) => {
                    error!(message_id = %id, provider = %name, "a defect in the provider's code ended the call; it is in doubt");
                    let why = Diagnostic::local("a defect in the provider's code ended the call");
                    Ok(Report::uniform(&recipients, &Outcome::InDoubt(why)))
                }
            }
        })
    }
}
