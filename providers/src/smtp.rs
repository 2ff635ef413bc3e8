//! SMTP as a client: what every provider that is reached by it has in common.
//!
//! A client of its own, because what a relay needs is what general clients hide: an answer for each
//! recipient, enhanced status codes, a body streamed from the spool, and above all the exact moment
//! from which an answer that fails to come leaves the message in doubt.
//!
//! A provider is a `Relay` with its settings, and a table of [`Rule`](rules::Rule)s for
//! what its service says in words of its own.

pub(crate) mod auth;
mod client;
mod dot;
mod dsn;
pub(crate) mod offer;
pub(crate) mod pool;
pub(crate) mod relay;
mod reply;
pub mod rules;
pub(crate) mod tls;
mod transaction;
pub mod verdict;

use std::time::Duration;

pub use self::tls::Tls;
use crate::registry::SettingsError;
use crate::settings::Span;

/// The `timeouts` table of a provider that is reached by SMTP.
///
/// Until the body has left, silence means that another provider may take the message, so patience
/// is short. Afterwards it would leave the message in doubt, so patience is as long as RFC 5321
/// section 4.5.3.2 asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Until the connection stands.
    pub connect: Span,
    /// For each answer up to the one to DATA.
    pub command: Span,
    /// While the content is written, without the host taking any of it.
    pub data: Span,
    /// For the answer to the content.
    pub r#final: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Self { connect: seconds(20), command: seconds(20), data: seconds(20), r#final: seconds(600) }
    }
}

impl Timeouts {
    /// Refuses those that leave no time.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        for (key, span) in [
            ("timeouts.connect", self.connect),
            ("timeouts.command", self.command),
            ("timeouts.data", self.data),
            ("timeouts.final", self.r#final),
        ] {
            if span.0.is_zero() {
                return Err(SettingsError::new(key, "0 leaves the host no time to answer; expected a duration such as \"20s\""));
            }
        }
        Ok(())
    }
}

/// How long a connection is kept for the next message, unless the settings say otherwise.
pub(crate) fn default_idle_timeout() -> Span {
    Span(Duration::from_secs(30))
}
