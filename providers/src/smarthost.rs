//! Any SMTP server as a provider: the smart host.

use std::path::PathBuf;
use std::sync::Arc;

use crate::contract::{Attempt, Capabilities, Connected, Delivery, Failure, Probed, Provider, ProviderName};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret, Span};
use crate::smtp::pool::Keep;
use crate::smtp::relay::{Host, Login, Relay};
pub use crate::smtp::{Timeouts, Tls};
use crate::smtp::{default_idle_timeout, offer};

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

/// The provider.
struct SmartHost {
    relay: Relay,
    login: Login,
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

    fn login(&self) -> Result<Login, SettingsError> {
        match (&self.username, &self.password) {
            (None, None) => Ok(Login::Anonymous),
            (Some(_), None) => Err(SettingsError::new("username", "a user name needs a `password` beside it")),
            (None, Some(_)) => Err(SettingsError::new("password", "a password needs a `username` beside it")),
            (Some(username), Some(password)) => {
                let password = password.read().map_err(|error| SettingsError::new("password", error))?;
                Ok(Login::password(username, password))
            }
        }
    }
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        if self.ca_file.is_some() && matches!(self.tls(), Tls::Off | Tls::Opportunistic) {
            let message = "no certificate is checked with this `tls`; set tls = \"starttls\" or \"implicit\" to use it";
            return Err(SettingsError::new("ca_file", message));
        }
        let concurrency = self.limits.concurrency.and_then(|most| usize::try_from(most).ok()).unwrap_or(DEFAULT_CONCURRENCY);
        let host = Host {
            host: &self.host,
            port: self.port(),
            tls: self.tls(),
            ca_file: self.ca_file.as_deref(),
            certificate: None,
            timeouts: self.timeouts,
            keep: Keep {
                idle_timeout: self.idle_timeout.0,
                max_messages: self.max_messages_per_connection,
                max_idle: concurrency,
                per_login: None,
            },
            rules: &[],
        };
        let relay = Relay::new(&host, context)?;
        let provider = Arc::new(SmartHost { relay, login: self.login()? });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
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

impl Provider for SmartHost {
    fn capabilities(&self) -> Capabilities {
        self.relay.capabilities()
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        self.relay.deliver(&attempt, &self.login).await
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        self.relay.probe(&self.login).await
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
