//! The trait that every provider implements, and what it tells about itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{Attempt, Delivery, Failure};

/// One external service that takes mail.
///
/// Authors write plain `async` code: rate limits, concurrency, circuit breaking and failover stand
/// around it in the gateway, and a provider never retries by itself.
pub trait Provider: Send + Sync + 'static {
    /// What this provider can carry; asked before a message is offered.
    fn capabilities(&self) -> Capabilities;

    /// Hands the attempt over, and classifies whatever happens. Must answer by the attempt's
    /// deadline, and gives exactly one outcome for each of its recipients.
    fn deliver(&self, attempt: Attempt) -> impl Future<Output = Delivery> + Send;

    /// Checks endpoint and credentials without sending mail.
    fn probe(&self) -> impl Future<Output = Result<(), Failure>> + Send;
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The object-safe twin of [`Provider`]; implemented for every one of them.
pub trait DynProvider: Send + Sync + 'static {
    /// See [`Provider::capabilities`].
    fn capabilities(&self) -> Capabilities;
    /// See [`Provider::deliver`].
    fn deliver(&self, attempt: Attempt) -> BoxFuture<'_, Delivery>;
    /// See [`Provider::probe`].
    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>>;
}

impl<P: Provider> DynProvider for P {
    fn capabilities(&self) -> Capabilities {
        Provider::capabilities(self)
    }

    fn deliver(&self, attempt: Attempt) -> BoxFuture<'_, Delivery> {
        Box::pin(Provider::deliver(self, attempt))
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(Provider::probe(self))
    }
}

/// What a provider can carry, as far as it is known before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The largest message in octets, before any encoding; `None` when the provider says itself.
    pub max_message_size: Option<u64>,
    /// The most recipients in one call; the gateway splits beyond it.
    pub max_recipients: Option<usize>,
    /// Whether addresses outside ASCII can be handed over.
    pub smtputf8: bool,
    /// Whether it takes messages with the null reverse-path.
    pub null_sender: bool,
}

/// A provider's name: its kind and the key in the config, as in `ses.eu`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProviderName(Arc<str>);

impl ProviderName {
    /// The name of `[provider.<kind>.<key>]`.
    #[must_use]
    pub fn new(kind: &str, key: &str) -> Self {
        Self(format!("{kind}.{key}").into())
    }

    /// The name as written in routes and logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ProviderName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A provider that was built from the config, ready to be dispatched to.
#[derive(Clone)]
pub struct Connected {
    /// Its name in routes, logs and the spool.
    pub name: ProviderName,
    /// How many handovers it takes at the same time, unless the config says otherwise.
    pub default_concurrency: usize,
    /// The provider itself.
    pub provider: Arc<dyn DynProvider>,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("name", &self.name).finish_non_exhaustive()
    }
}
