//! Any SMTP server as a provider: the smart host.
//!
//! A client of its own, because what a relay needs is what general clients hide: an answer for each
//! recipient, enhanced status codes, a body streamed from the spool, and above all the exact moment
//! from which an answer that fails to come leaves the message in doubt.

mod auth;
mod client;
mod dot;
mod dsn;
mod offer;
mod pool;
mod reply;
mod tls;
mod transaction;
mod verdict;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::time::Instant;

use self::auth::Credentials;
use self::client::Target;
use self::offer::Offers;
use self::pool::Pool;
pub use self::tls::Tls;
use self::transaction::{Stale, transact};
use crate::contract::{Attempt, Capabilities, Connected, Delivery, Diagnostic, Failure, Outcome, Probed, Provider, ProviderName};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret, Span};

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 20;

/// `[provider.smarthost.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The host's name or address. With TLS, its certificate must be valid for it.
    pub host: String,
    /// The port. By default 465 with `tls = "implicit"`, 587 with `"starttls"` and a user name, else 25.
    pub port: Option<u16>,
    /// `"off"`, `"starttls"`, `"opportunistic"` or `"implicit"`. By default `"starttls"` with a user
    /// name, else `"opportunistic"`.
    pub tls: Option<Tls>,
    /// A PEM file of authorities to trust beside the system's, for a certificate of your own.
    pub ca_file: Option<PathBuf>,
    /// The user name for AUTH. Absent: no AUTH.
    pub username: Option<String>,
    /// Its password. It is sent in clear text only where `tls = "off"` is written.
    pub password: Option<Secret>,
    /// How long a connection is kept for the next message; `"0s"` keeps none.
    #[serde(default = "default_idle_timeout")]
    pub idle_timeout: Span,
    /// How many messages one connection carries. Absent: any number.
    pub max_messages_per_connection: Option<u32>,
    /// How long to wait, for each phase.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What the administrator or the host allows.
    #[serde(default)]
    pub limits: LimitSettings,
    /// In whose name mail is handed over.
    pub rewrite: Option<Rewrite>,
}

/// `[provider.smarthost.<name>.timeouts]`
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

/// The provider.
struct SmartHost {
    target: Target,
    /// The host as notifications name it.
    name: Arc<str>,
    pool: Arc<Pool>,
    offers: Offers,
}

fn default_idle_timeout() -> Span {
    Span(Duration::from_secs(30))
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Self { connect: seconds(20), command: seconds(20), data: seconds(20), r#final: seconds(600) }
    }
}

impl Config {
    fn tls(&self) -> Tls {
        self.tls.unwrap_or(if self.username.is_some() { Tls::Starttls } else { Tls::Opportunistic })
    }

    fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls() {
            Tls::Implicit => 465,
            Tls::Starttls if self.username.is_some() => 587,
            _ => 25,
        })
    }

    fn credentials(&self) -> Result<Option<Credentials>, SettingsError> {
        match (&self.username, &self.password) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(SettingsError::new("username", "a user name needs a `password` beside it")),
            (None, Some(_)) => Err(SettingsError::new("password", "a password needs a `username` beside it")),
            (Some(username), Some(password)) => {
                let password = password.read().map_err(|error| SettingsError::new("password", error))?;
                Ok(Some(Credentials { username: username.clone(), password }))
            }
        }
    }

    fn check(&self) -> Result<ServerName<'static>, SettingsError> {
        if self.port == Some(0) {
            return Err(SettingsError::new("port", "0 is no port; expected 1 to 65535"));
        }
        if self.max_messages_per_connection == Some(0) {
            return Err(SettingsError::new("max_messages_per_connection", "0 would carry no message; leave it out for no limit"));
        }
        if self.ca_file.is_some() && matches!(self.tls(), Tls::Off | Tls::Opportunistic) {
            let message = "no certificate is checked with this `tls`; set tls = \"starttls\" or \"implicit\" to use it";
            return Err(SettingsError::new("ca_file", message));
        }
        for (key, span) in [
            ("timeouts.connect", self.timeouts.connect),
            ("timeouts.command", self.timeouts.command),
            ("timeouts.data", self.timeouts.data),
            ("timeouts.final", self.timeouts.r#final),
        ] {
            if span.0.is_zero() {
                return Err(SettingsError::new(key, "0 leaves the host no time to answer; expected a duration such as \"20s\""));
            }
        }
        ServerName::try_from(self.host.clone())
            .map_err(|_| SettingsError::new("host", format!("{:?} is no host name and no IP address", self.host)))
    }
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        let server_name = self.check()?;
        let target = Target {
            host: self.host.clone(),
            port: self.port(),
            tls: self.tls(),
            tls_config: tls::config(self.tls(), self.ca_file.as_deref(), context)?,
            server_name,
            hostname: context.hostname.clone(),
            credentials: self.credentials()?,
            timeouts: self.timeouts,
        };
        let concurrency = self.limits.concurrency.and_then(|most| usize::try_from(most).ok()).unwrap_or(DEFAULT_CONCURRENCY);
        let remote = match self.host.parse() {
            Ok(IpAddr::V4(address)) => format!("[{address}]"),
            Ok(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
            Err(_) => self.host.clone(),
        };
        let pool = Pool::new(self.idle_timeout.0, self.max_messages_per_connection, concurrency);
        Ok(Connected {
            name,
            default_concurrency: DEFAULT_CONCURRENCY,
            provider: Arc::new(SmartHost { target, name: remote.into(), pool, offers: Offers::default() }),
        })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn kind_capabilities() -> Capabilities {
        offer::UNKNOWN
    }

    fn destination(&self) -> String {
        let user = self.username.as_ref().map(|username| format!("{username}@")).unwrap_or_default();
        format!("smtp://{user}{}:{}", self.host.to_ascii_lowercase(), self.port())
    }
}

impl SmartHost {
    /// One transaction, after which the connection waits for the next one if it can.
    async fn hand_over(&self, mut connection: client::Connection, attempt: &Attempt) -> Result<Delivery, Stale> {
        self.offers.learn(&connection.extensions);
        let delivery = transact(&mut connection, attempt, &self.target.timeouts).await;
        self.pool.put(connection);
        delivery
    }
}

impl Provider for SmartHost {
    fn capabilities(&self) -> Capabilities {
        self.offers.capabilities()
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let mut delivery = self.try_connections(&attempt).await;
        self.sign(&mut delivery);
        delivery
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let timeouts = &self.target.timeouts;
        let connection = self.target.open(Instant::now() + timeouts.connect.0 + timeouts.command.0 * 8).await?;
        self.offers.learn(&connection.extensions);
        connection.quit().await;
        Ok(Probed::default())
    }
}

impl SmartHost {
    /// Hands the attempt over on an idle connection, if there is one that still stands, or a new one.
    async fn try_connections(&self, attempt: &Attempt) -> Delivery {
        if let Some(connection) = self.pool.take() {
            match self.hand_over(connection, attempt).await {
                Ok(delivery) => return delivery,
                // The host closed it while it was idle. It has taken in nothing, so this is no
                // retry of a handover.
                Err(Stale { failure, hung_up: true }) => {
                    tracing::debug!(message_id = %attempt.message.id, reason = %failure.diagnostic(), "an idle connection was gone");
                }
                // Silence has cost enough time already.
                Err(Stale { failure, hung_up: false }) => return Err(failure),
            }
        }
        let connection = self.target.open(attempt.deadline).await?;
        self.hand_over(connection, attempt).await.unwrap_or_else(|stale| Err(stale.failure))
    }

    /// Writes the host's name beside every reply, for notifications (RFC 3464 section 2.3.5).
    fn sign(&self, delivery: &mut Delivery) {
        let sign = |diagnostic: &mut Diagnostic| {
            if diagnostic.code.is_some() {
                diagnostic.remote = Some(Arc::clone(&self.name));
            }
        };
        match delivery {
            Err(failure) => sign(failure.diagnostic_mut()),
            Ok(report) => report.outcomes.iter_mut().for_each(|(_, outcome)| match outcome {
                Outcome::Relayed(receipt) => receipt.remote = Some(Arc::clone(&self.name)),
                Outcome::Deferred(diagnostic) | Outcome::Bounced(diagnostic) | Outcome::InDoubt(diagnostic) => sign(diagnostic),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_defaults_follow_from_what_is_configured() {
        for (json, tls, port) in [
            (r#"{"host": "h"}"#, Tls::Opportunistic, 25),
            (r#"{"host": "h", "username": "u", "password": "p"}"#, Tls::Starttls, 587),
            (r#"{"host": "h", "tls": "starttls"}"#, Tls::Starttls, 25),
            (r#"{"host": "h", "tls": "implicit", "username": "u", "password": "p"}"#, Tls::Implicit, 465),
            (r#"{"host": "h", "tls": "off", "username": "u", "password": "p"}"#, Tls::Off, 25),
            (r#"{"host": "h", "port": 2525}"#, Tls::Opportunistic, 2525),
        ] {
            assert_eq!((config(json).tls(), config(json).port()), (tls, port), "{json}");
        }
    }

    #[test]
    fn settings_that_cannot_work_name_their_key() {
        let context = Context::new("relay.example").unwrap();
        for (json, key) in [
            (r#"{"host": "no host"}"#, "host"),
            (r#"{"host": ""}"#, "host"),
            (r#"{"host": "h", "port": 0}"#, "port"),
            (r#"{"host": "h", "username": "u"}"#, "username"),
            (r#"{"host": "h", "password": "p"}"#, "password"),
            (r#"{"host": "h", "username": "u", "password": {"file": "/nonexistent"}}"#, "password"),
            (r#"{"host": "h", "tls": "starttls", "ca_file": "/nonexistent"}"#, "ca_file"),
            (r#"{"host": "h", "ca_file": "/nonexistent"}"#, "ca_file"),
            (r#"{"host": "h", "max_messages_per_connection": 0}"#, "max_messages_per_connection"),
            (r#"{"host": "h", "timeouts": {"command": "0s"}}"#, "timeouts.command"),
        ] {
            let error = config(json).connect(ProviderName::new("smarthost", "x"), &context).unwrap_err();
            assert_eq!(error.key, key, "{json}: {error}");
        }
    }

    #[test]
    fn two_configs_to_the_same_place_have_the_same_destination() {
        assert_eq!(config(r#"{"host": "MX.example"}"#).destination(), "smtp://mx.example:25");
        assert_eq!(config(r#"{"host": "mx.example", "username": "u", "password": "p"}"#).destination(), "smtp://u@mx.example:587");
    }
}
