//! Google Workspace's SMTP relay: knows this machine by its address, or by a login.
//! <https://support.google.com/a/answer/2956491>

pub mod refusals;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::contract::{Attempt, Capabilities, Connected, Delivery, Failure, Probed, Provider, ProviderName};
use crate::oauth::google::{Refresh, ServiceAccount};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret, Span};
use crate::smtp::pool::Keep;
use crate::smtp::relay::{Host, Login, Relay};
use crate::smtp::{Timeouts, Tls, default_idle_timeout, offer};

const HOST: &str = "smtp-relay.gmail.com";
const PORT: u16 = 587;

/// <https://developers.google.com/workspace/gmail/imap/xoauth2-protocol>
const SCOPE: &str = "https://mail.google.com/";

/// Recipients of one transaction.
const MAX_RECIPIENTS: usize = 100;

/// Google names no number; so many connections are reasonable.
const DEFAULT_CONCURRENCY: usize = 10;

/// `[provider.workspace.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The user to log in as. Absent: Google knows this machine by its address.
    pub username: Option<String>,
    /// An app password of that user.
    pub password: Option<Secret>,
    /// Instead of it: the JSON key file of a service account that may act for the user.
    pub credentials_file: Option<PathBuf>,
    /// Or a refresh token: the application that the user has signed in to,
    pub client_id: Option<String>,
    /// its secret,
    pub client_secret: Option<Secret>,
    /// and the token.
    pub refresh_token: Option<Secret>,
    /// The token service.
    pub token_endpoint: Option<String>,
    /// The host; `smtp.gmail.com` for a single account. Its certificate must be valid for it.
    pub host: Option<String>,
    /// The port, with STARTTLS.
    pub port: Option<u16>,
    /// A PEM file of authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a connection is kept for the next message; `"0s"` keeps none.
    #[serde(default = "default_idle_timeout")]
    pub idle_timeout: Span,
    /// How long to wait, for each phase.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What the administrator or the service allows.
    #[serde(default)]
    pub limits: LimitSettings,
    /// In whose name mail is handed over.
    pub rewrite: Option<Rewrite>,
}

/// The provider.
struct Workspace {
    relay: Relay,
    login: Login,
}

impl Config {
    fn host(&self) -> &str {
        self.host.as_deref().unwrap_or(HOST)
    }

    fn port(&self) -> u16 {
        self.port.unwrap_or(PORT)
    }

    fn login(&self, name: &ProviderName, context: &Context) -> Result<Login, SettingsError> {
        const ONE: &str = "expected one of `password`, `credentials_file`, or `client_id`, `client_secret` and `refresh_token`";
        let by_refresh = self.client_id.is_some() || self.client_secret.is_some() || self.refresh_token.is_some();
        let given = usize::from(self.password.is_some()) + usize::from(self.credentials_file.is_some()) + usize::from(by_refresh);
        let Some(username) = &self.username else {
            return match given {
                0 => Ok(Login::Anonymous),
                _ => Err(SettingsError::new("username", "a credential needs the user whose it is: the mailbox's address")),
            };
        };
        if given != 1 {
            return Err(SettingsError::new("username", format!("{given} ways to log in are given; {ONE}")));
        }
        if let Some(password) = &self.password {
            // As Google shows them, app passwords have spaces in them that are no part of it.
            let password = password.read().map_err(|error| SettingsError::new("password", error))?;
            return Ok(Login::password(username, password.replace(' ', "")));
        }
        let (endpoint, patience) = (self.token_endpoint.as_deref(), self.timeouts.command.0);
        let tokens = if let Some(path) = &self.credentials_file {
            ServiceAccount::read(path, SCOPE, endpoint, patience, context)?.tokens(username)?
        } else {
            let missing = |key| SettingsError::new(key, "`client_id`, `client_secret` and `refresh_token` belong together");
            let refresh = Refresh {
                client_id: self.client_id.as_deref().ok_or_else(|| missing("client_id"))?,
                client_secret: self.client_secret.as_ref().ok_or_else(|| missing("client_secret"))?,
                refresh_token: self.refresh_token.as_ref().ok_or_else(|| missing("refresh_token"))?,
                token_endpoint: endpoint,
                patience,
            };
            refresh.tokens(name, context)?
        };
        Ok(Login::Token { user: username.as_str().into(), tokens })
    }
}

/// Google hangs up on a client that greets it as `localhost` or the like.
fn check_hostname(hostname: &str) -> Result<(), SettingsError> {
    let name = hostname.trim_end_matches('.').to_ascii_lowercase();
    let is_local = ["localhost", "localdomain", "local", "lan"].iter().any(|last| name.rsplit('.').next() == Some(last));
    if name.contains('.') && !is_local && name.parse::<IpAddr>().is_err() && !name.starts_with('[') {
        return Ok(());
    }
    let text = format!(
        "Google refuses clients that greet it as {hostname:?}; set `hostname` in [server] to this machine's full name in the DNS, such as \"relay.example.com\""
    );
    Err(SettingsError::new("", text))
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        check_hostname(&context.hostname)?;
        let concurrency = self.limits.concurrency.and_then(|most| usize::try_from(most).ok()).unwrap_or(DEFAULT_CONCURRENCY);
        let host = Host {
            host: self.host(),
            port: self.port(),
            tls: Tls::Starttls,
            ca_file: self.ca_file.as_deref(),
            certificate: None,
            timeouts: self.timeouts,
            keep: Keep { idle_timeout: self.idle_timeout.0, max_messages: None, max_idle: concurrency, per_login: None },
            rules: refusals::RULES,
        };
        let relay = Relay::new(&host, context)?;
        let provider = Arc::new(Workspace { relay, login: self.login(&name, context)? });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn kind_capabilities() -> Capabilities {
        capable(offer::UNKNOWN)
    }

    fn destination(&self) -> String {
        let user = self.username.as_ref().map(|username| format!("{username}@")).unwrap_or_default();
        format!("smtp://{user}{}:{}", self.host().to_ascii_lowercase(), self.port())
    }
}

fn capable(offered: Capabilities) -> Capabilities {
    Capabilities { max_recipients: Some(MAX_RECIPIENTS), sender_identity: true, ..offered }
}

impl Provider for Workspace {
    fn capabilities(&self) -> Capabilities {
        capable(self.relay.capabilities())
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        self.relay.deliver(&attempt, &self.login).await
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let probed = self.relay.probe(&self.login).await?;
        Ok(match self.login {
            Login::Anonymous => probed.warning("whether Google knows this machine's address is known only when mail is sent"),
            _ => probed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_name_their_key() {
        let context = Context::new("relay.example").unwrap();
        for (json, key) in [
            (r#"{"username": "u@x"}"#, "username"),
            (r#"{"password": "p"}"#, "username"),
            (r#"{"username": "u@x", "password": "p", "credentials_file": "/nonexistent"}"#, "username"),
            (r#"{"username": "u@x", "credentials_file": "/nonexistent"}"#, "credentials_file"),
            (r#"{"username": "u@x", "refresh_token": "r"}"#, "client_id"),
            (r#"{"username": "u@x", "client_id": "c", "refresh_token": "r"}"#, "client_secret"),
            (r#"{"host": "no host"}"#, "host"),
        ] {
            let config: Config = serde_json::from_str(json).unwrap();
            let error = config.connect(ProviderName::new("workspace", "x"), &context).unwrap_err();
            assert_eq!(error.key, key, "{json}: {error}");
        }
    }

    #[test]
    fn a_gateway_without_a_full_name_is_told_before_google_hangs_up() {
        for hostname in ["localhost", "relay", "localhost.localdomain", "127.0.0.1", "[127.0.0.1]", "box.local", "Mail.LAN."] {
            let context = Context::new(hostname).unwrap();
            let error = Config::connect(&serde_json::from_str("{}").unwrap(), ProviderName::new("workspace", "x"), &context).unwrap_err();
            assert!(error.message.contains(hostname) && error.message.contains("[server]"), "{error}");
        }
        assert!(check_hostname("relay.example.com").is_ok());
    }
}
