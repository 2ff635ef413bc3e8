//! What a person decides about providers, routes and senders while the gateway runs.

mod status;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use postrider_providers::contract::ProviderName;

pub use status::{CircuitStatus, Pause, Pin, ProviderError, ProviderStatus, RefusedSender};

use super::Dispatcher;
use crate::spool::{Spool, SpoolError};

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Opens the circuit of a provider, until a reset: its mail goes to the next one, or waits.
    Trip(ProviderName),
    /// Closes the circuit of a provider, and forgets which senders it refused and that it asked to slow down.
    Reset(ProviderName),
    /// Gives a provider no new mail, until it is resumed. What is in doubt there may be repeated.
    Drain(ProviderName),
    /// Keeps mail from going, until it is resumed. The time does not age it.
    Pause(Subject),
    /// Ends a pause; of a provider, also that it is drained.
    Resume(Subject),
    /// Lets a route ask only this one of its providers.
    Pin {
        /// The route.
        route: Arc<str>,
        /// The provider.
        provider: ProviderName,
    },
    /// Lets a route ask all its providers again.
    Unpin(Arc<str>),
}

/// What can be paused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A provider.
    Provider(ProviderName),
    /// A route, by name.
    Route(Arc<str>),
    /// Mail from a sending domain, in lower case.
    Domain(Arc<str>),
    /// Mail of an application, by name.
    Application(Arc<str>),
}

/// Who has decided, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub who: Arc<str>,
    /// When.
    pub at: SystemTime,
}

/// Why a command was not followed. Nothing has changed then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// There is nothing by that name.
    #[error("there is no {what} \"{name}\"")]
    Unknown {
        /// `provider`, `route` or `application`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A route cannot be pinned to a provider that it does not name.
    #[error("route \"{route}\" does not name {provider}, so it cannot be pinned to it")]
    NotOfRoute {
        /// The route.
        route: Arc<str>,
        /// The provider.
        provider: ProviderName,
    },
    /// It could not be recorded.
    #[error("{0}")]
    Spool(#[from] SpoolError),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(name) => write!(f, "provider {name}"),
            Self::Route(name) => write!(f, "route {name}"),
            Self::Domain(name) => write!(f, "sending domain {name}"),
            Self::Application(name) => write!(f, "application {name}"),
        }
    }
}

impl<S: Spool> Dispatcher<S> {
    /// How each provider is doing, by name.
    #[must_use]
    pub fn providers(&self) -> Vec<ProviderStatus> {
        Vec::new()
    }

    /// What people have paused, providers included.
    #[must_use]
    pub fn pauses(&self) -> Vec<Pause> {
        Vec::new()
    }

    /// The routes that people have pinned.
    #[must_use]
    pub fn pins(&self) -> Vec<Pin> {
        Vec::new()
    }

    /// Follows a command of the person `by`. It is recorded durably, in the history as well, and holds from
    /// now on, also after a restart. Says in words what has changed; that may be nothing.
    ///
    /// # Errors
    /// [`ControlError`]; then nothing has changed.
    pub async fn control(&self, command: Command, by: &str) -> Result<String, ControlError> {
        let _ = (command, by);
        Ok(String::new())
    }

    /// Takes up what was decided and seen before a restart. Call it before [`Dispatcher::run`].
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub async fn restore(&self) -> Result<(), SpoolError> {
        Ok(())
    }
}
