//! The trait that every provider implements, and what it tells about itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{Allowance, Attempt, Capabilities, Delivery, Failure, Probed};

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

    /// Checks endpoint, TLS, credentials and the state of the account, without sending mail.
    fn probe(&self) -> impl Future<Output = Result<Probed, Failure>> + Send;

    /// What the account allows and has used, where the provider can be asked; the gateway asks now and
    /// then, and keeps to it. `None`, the default: it cannot be asked.
    fn allowance(&self) -> impl Future<Output = Result<Option<Allowance>, Failure>> + Send {
        async { Ok(None) }
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The object-safe twin of [`Provider`]; implemented for every one of them.
pub trait DynProvider: Send + Sync + 'static {
    /// See [`Provider::capabilities`].
    fn capabilities(&self) -> Capabilities;
    /// See [`Provider::deliver`].
    fn deliver(&self, attempt: Attempt) -> BoxFuture<'_, Delivery>;
    /// See [`Provider::probe`].
    fn probe(&self) -> BoxFuture<'_, Result<Probed, Failure>>;
    /// See [`Provider::allowance`].
    fn allowance(&self) -> BoxFuture<'_, Result<Option<Allowance>, Failure>>;
}

impl<P: Provider> DynProvider for P {
    fn capabilities(&self) -> Capabilities {
        Provider::capabilities(self)
    }

    fn deliver(&self, attempt: Attempt) -> BoxFuture<'_, Delivery> {
        Box::pin(Provider::deliver(self, attempt))
    }

    fn probe(&self) -> BoxFuture<'_, Result<Probed, Failure>> {
        Box::pin(Provider::probe(self))
    }

    fn allowance(&self) -> BoxFuture<'_, Result<Option<Allowance>, Failure>> {
        Box::pin(Provider::allowance(self))
    }
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
