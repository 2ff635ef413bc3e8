//! Microsoft 365 by client submission: SMTP with an access token, in the name of a mailbox.
//!
//! The token is the application's, and `user=` of XOAUTH2 says which mailbox it acts for, so a connection
//! belongs to one mailbox. Exchange allows three at a time for each.
//! <https://learn.microsoft.com/exchange/client-developer/legacy-protocols/how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth>

pub mod refusals;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::contract::{
    Address, Attempt, Capabilities, Connected, Delivery, Diagnostic, Failure, Probed, Provider, ProviderName, ReversePath,
};
use crate::exchange;
use crate::oauth::Tokens;
use crate::oauth::entra::Entra;
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{Counted, LimitSettings, Rate, Rewrite, Secret, Span};
use crate::smtp::pool::Keep;
use crate::smtp::relay::{Host, Login, Relay};
use crate::smtp::{Timeouts, Tls, default_idle_timeout};

const HOST: &str = "smtp.office365.com";
const PORT: u16 = 587;

/// For an application in its own name. National clouds have another one.
const APP_SCOPE: &str = "https://outlook.office365.com/.default";
/// In the name of a user.
const USER_SCOPE: &str = "https://outlook.office.com/SMTP.Send";

/// Connections that a mailbox may have at a time.
const PER_MAILBOX: usize = 3;
/// Recipients of a message, unless the tenant's administrator has set another number (1 to 1000).
/// <https://learn.microsoft.com/office365/servicedescriptions/exchange-online-service-description/exchange-online-limits>
const MAX_RECIPIENTS: usize = 500;
/// Connections that are kept for all mailboxes together.
const MAX_IDLE: usize = 60;

/// `[provider.office365.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory (tenant) ID, or a domain of the tenant.
    pub tenant: String,
    /// The application (client) ID.
    pub client_id: String,
    /// The value of a client secret.
    pub client_secret: Option<Secret>,
    /// Instead of a secret: a PEM file with the certificate that the application has in Entra.
    pub certificate: Option<PathBuf>,
    /// The certificate's private key, a PEM file.
    pub private_key: Option<PathBuf>,
    /// Instead of both: the refresh token of a user who has signed in. It needs a `mailbox`.
    pub refresh_token: Option<Secret>,
    /// The mailbox to log in as. Absent: the envelope sender of each message.
    pub mailbox: Option<String>,
    /// The token service, for national clouds.
    pub authority: Option<String>,
    /// What the token is for, for national clouds.
    pub scope: Option<String>,
    /// The host, for national clouds. Its certificate must be valid for it.
    pub host: Option<String>,
    /// The port.
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
struct Office365 {
    relay: Relay,
    tokens: Tokens,
    /// `None`: that of each message's sender.
    mailbox: Option<Arc<str>>,
}

impl Config {
    fn host(&self) -> &str {
        self.host.as_deref().unwrap_or(HOST)
    }

    fn port(&self) -> u16 {
        self.port.unwrap_or(PORT)
    }

    fn mailbox(&self) -> Result<Option<Arc<str>>, SettingsError> {
        let Some(mailbox) = &self.mailbox else {
            return match self.refresh_token {
                None => Ok(None),
                Some(_) => Err(SettingsError::new("mailbox", "a `refresh_token` is one user's: write that user's address here")),
            };
        };
        let address = Address::parse(mailbox).map_err(|error| SettingsError::new("mailbox", format!("{mailbox:?}: {error}")))?;
        Ok(Some(address.as_str().into()))
    }

    fn tokens(&self, name: &ProviderName, context: &Context) -> Result<Tokens, SettingsError> {
        let scope = self.scope.as_deref();
        let entra = Entra {
            tenant: &self.tenant,
            client_id: &self.client_id,
            client_secret: self.client_secret.as_ref(),
            certificate: self.certificate.as_deref(),
            private_key: self.private_key.as_deref(),
            refresh_token: self.refresh_token.as_ref(),
            authority: self.authority.as_deref(),
            app_scope: scope.unwrap_or(APP_SCOPE),
            user_scope: scope.unwrap_or(USER_SCOPE),
            patience: self.timeouts.command.0,
        };
        entra.tokens(name, context)
    }
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        let mailbox = self.mailbox()?;
        let host = Host {
            host: self.host(),
            port: self.port(),
            tls: Tls::Starttls,
            ca_file: self.ca_file.as_deref(),
            certificate: None,
            timeouts: self.timeouts,
            keep: Keep { idle_timeout: self.idle_timeout.0, max_messages: None, max_idle: MAX_IDLE, per_login: Some(PER_MAILBOX) },
            rules: refusals::RULES,
        };
        let relay = Relay::new(&host, context)?;
        let provider = Arc::new(Office365 { relay, tokens: self.tokens(&name, context)?, mailbox });
        Ok(Connected { name, default_concurrency: PER_MAILBOX, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    /// What one mailbox may send. Where each sender has its own, the administrator raises them.
    fn default_limits(&self) -> LimitSettings {
        LimitSettings {
            rate: Some(Rate { count: 30, counted: Counted::Messages, period: Duration::from_secs(60) }),
            quota: Some(Rate { count: 10_000, counted: Counted::Recipients, period: Duration::from_secs(86_400) }).into(),
            concurrency: Some(3),
            ..LimitSettings::default()
        }
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn certificate(&self) -> Option<&Path> {
        self.certificate.as_deref()
    }

    fn kind_capabilities() -> Capabilities {
        capable(crate::smtp::offer::UNKNOWN)
    }

    fn destination(&self) -> String {
        let mailbox = self.mailbox.as_deref().unwrap_or("each sender").to_ascii_lowercase();
        format!("smtp://{}:{} as {mailbox} (application {})", self.host().to_ascii_lowercase(), self.port(), self.client_id)
    }
}

fn capable(offered: Capabilities) -> Capabilities {
    Capabilities { max_recipients: Some(MAX_RECIPIENTS), sender_identity: true, ..offered }
}

impl Office365 {
    /// As whom a message is handed over.
    fn login(&self, sender: &ReversePath) -> Result<Login, Failure> {
        let user = match (&self.mailbox, sender) {
            (Some(mailbox), _) => Arc::clone(mailbox),
            // Mailboxes have no case; connections are kept by the name. Beyond ASCII, another letter is another
            // mailbox, whatever Unicode has as its lower case.
            (None, ReversePath::Mailbox(address)) => address.as_str().to_ascii_lowercase().into(),
            (None, ReversePath::Null) => {
                let text = "a notification has no sender whose mailbox could be logged in to";
                return Err(Failure::Unsuitable(Diagnostic::local(text).advised(Some("set `mailbox`, or route notifications elsewhere"))));
            }
        };
        Ok(Login::Token { user, tokens: self.tokens.clone() })
    }
}

/// Where each sender logs in to a mailbox of its own, a refused login may be this sender's only, and so may be a
/// quota that is used up. It must not stop everybody else's mail: nobody is asked to wait but this message, which
/// does so by the retry schedule.
fn of_one_sender(failure: Failure) -> Failure {
    match failure {
        // Without a reply it is about our own connections of this mailbox.
        Failure::Throttled { diagnostic, .. } if diagnostic.code.is_none() || exchange::is_of_one_mailbox(&diagnostic) => {
            Failure::Throttled { retry_after: Some(Duration::ZERO), diagnostic }
        }
        Failure::Unauthorized(diagnostic)
            if diagnostic.during == "AUTH"
                && diagnostic.code == Some(535)
                && (diagnostic.status.is_none_or(|status| status.2 != 139)
                    || diagnostic.text.to_lowercase().contains("disabled for the mailbox")) =>
        {
            Failure::SenderRefused(diagnostic)
        }
        other => other,
    }
}

impl Provider for Office365 {
    fn capabilities(&self) -> Capabilities {
        // Whether Exchange takes the null reverse-path from a mailbox is documented nowhere. If it does
        // not it says so, and another provider may be asked.
        Capabilities { null_sender: self.mailbox.is_some(), ..capable(self.relay.capabilities()) }
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let login = self.login(&attempt.message.envelope.reverse_path)?;
        let delivery = self.relay.deliver(&attempt, &login).await;
        if self.mailbox.is_some() { delivery } else { delivery.map_err(of_one_sender) }
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        if let Some(mailbox) = &self.mailbox {
            return self.relay.probe(&Login::Token { user: Arc::clone(mailbox), tokens: self.tokens.clone() }).await;
        }
        self.tokens.get().await?;
        let probed = self.relay.probe(&Login::Anonymous).await?.fact("Entra gives the application its tokens");
        Ok(probed.warning("without `mailbox` no login was tried: each sender's mailbox must have allowed the application"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(json: serde_json::Value) -> Result<Connected, SettingsError> {
        let context = Context::new("relay.example").unwrap();
        serde_json::from_value::<Config>(json).unwrap().connect(ProviderName::new("office365", "x"), &context)
    }

    #[test]
    fn settings_that_cannot_work_name_their_key() {
        for (more, key) in [
            (serde_json::json!({}), "client_secret"),
            (serde_json::json!({ "client_secret": "s", "mailbox": "nobody" }), "mailbox"),
            (serde_json::json!({ "refresh_token": "r" }), "mailbox"),
            (serde_json::json!({ "client_secret": "s", "host": "no host" }), "host"),
            (serde_json::json!({ "client_secret": "s", "port": 0 }), "port"),
            (serde_json::json!({ "client_secret": "s", "ca_file": "/nonexistent" }), "ca_file"),
            (serde_json::json!({ "client_secret": "s", "timeouts": { "final": "0s" } }), "timeouts.final"),
        ] {
            let mut json = serde_json::json!({ "tenant": "contoso.example", "client_id": "app" });
            json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert_eq!(connect(json.clone()).unwrap_err().key, key, "{json}");
        }
    }

    #[test]
    fn the_limits_are_those_of_one_mailbox() {
        let json = serde_json::json!({ "tenant": "t", "client_id": "app", "client_secret": "s" });
        let limits = serde_json::from_value::<Config>(json).unwrap().default_limits();
        let written = |rate: Option<Rate>| rate.map(|rate| rate.to_string());
        assert_eq!(written(limits.rate).as_deref(), Some("30/min"));
        assert_eq!((written(limits.quota.first().copied()).as_deref(), limits.concurrency), (Some("10000 recipients/day"), Some(3)));
    }
}
