//! Microsoft 365 by an inbound connector: the tenant's own mail host, which knows this machine by its
//! address or its certificate. No mailbox, no licence, no login.
//! <https://learn.microsoft.com/exchange/mail-flow-best-practices/how-to-set-up-a-multifunction-device-or-application-to-send-email-using-microsoft-365-or-office-365>

pub mod refusals;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::contract::{Attempt, Capabilities, Connected, Delivery, EnhancedStatus, Failure, Probed, Provider, ProviderName};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Span};
use crate::smtp::pool::Keep;
use crate::smtp::relay::{Host, Login, Relay};
use crate::smtp::tls::ClientCertificate;
use crate::smtp::{Timeouts, Tls, default_idle_timeout, offer};

const PORT: u16 = 25;

/// Microsoft names no number; so many connections are reasonable.
const DEFAULT_CONCURRENCY: usize = 10;

/// `[provider.office365_connector.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The tenant's mail host: `contoso-com.mail.protection.outlook.com`.
    pub host: String,
    /// The port.
    pub port: Option<u16>,
    /// A PEM file with a certificate whose name is an accepted domain, for a connector that asks for one.
    pub certificate: Option<PathBuf>,
    /// The certificate's private key, a PEM file.
    pub private_key: Option<PathBuf>,
    /// A PEM file of authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a connection is kept for the next message; `"0s"` keeps none.
    #[serde(default = "default_idle_timeout")]
    pub idle_timeout: Span,
    /// How long to wait, for each phase.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What the administrator allows.
    #[serde(default)]
    pub limits: LimitSettings,
    /// In whose name mail is handed over.
    pub rewrite: Option<Rewrite>,
}

/// The provider.
struct Connector {
    relay: Relay,
    has_certificate: bool,
}

impl Config {
    fn port(&self) -> u16 {
        self.port.unwrap_or(PORT)
    }

    fn certificate(&self) -> Result<Option<ClientCertificate<'_>>, SettingsError> {
        match (&self.certificate, &self.private_key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(private_key)) => Ok(Some(ClientCertificate { certificate, private_key })),
            (Some(_), None) => Err(SettingsError::new("private_key", "a certificate needs its key: the path of a PEM file")),
            (None, Some(_)) => Err(SettingsError::new("certificate", "a key needs its certificate: the path of a PEM file")),
        }
    }
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        let certificate = self.certificate()?;
        let concurrency = self.limits.concurrency.and_then(|most| usize::try_from(most).ok()).unwrap_or(DEFAULT_CONCURRENCY);
        let host = Host {
            host: &self.host,
            port: self.port(),
            tls: Tls::Starttls,
            ca_file: self.ca_file.as_deref(),
            certificate,
            timeouts: self.timeouts,
            keep: Keep { idle_timeout: self.idle_timeout.0, max_messages: None, max_idle: concurrency, per_login: None },
            rules: refusals::RULES,
        };
        let provider = Arc::new(Connector { relay: Relay::new(&host, context)?, has_certificate: certificate.is_some() });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn certificate(&self) -> Option<&Path> {
        self.certificate.as_deref()
    }

    fn kind_capabilities() -> Capabilities {
        capable(offer::UNKNOWN, false)
    }

    fn destination(&self) -> String {
        format!("smtp://{}:{}", self.host.to_ascii_lowercase(), self.port())
    }
}

/// Without a certificate the sender's domain is what Exchange knows the tenant by, and `<>` has none.
/// <https://learn.microsoft.com/exchange/mail-flow-best-practices/updated-requirements-smtp-relay>
fn capable(offered: Capabilities, has_certificate: bool) -> Capabilities {
    Capabilities { null_sender: has_certificate, sender_identity: !has_certificate, ..offered }
}

/// By its address alone a connector knows this machine only together with a sender's domain that is the
/// tenant's. So a refusal to relay may be this sender's only, and must not stop everybody else's mail.
fn of_one_sender(failure: Failure) -> Failure {
    match failure {
        Failure::Unauthorized(diagnostic)
            if diagnostic.status == Some(EnhancedStatus(5, 7, 64)) || diagnostic.text.to_ascii_lowercase().contains("relay") =>
        {
            Failure::SenderRefused(diagnostic)
        }
        other => other,
    }
}

impl Provider for Connector {
    fn capabilities(&self) -> Capabilities {
        capable(self.relay.capabilities(), self.has_certificate)
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let delivery = self.relay.deliver(&attempt, &Login::Anonymous).await;
        if self.has_certificate { delivery } else { delivery.map_err(of_one_sender) }
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let probed = self.relay.probe(&Login::Anonymous).await?;
        Ok(probed.warning("whether a connector takes this machine for its own is known only when mail is sent"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_name_their_key() {
        let context = Context::new("relay.example").unwrap();
        for (json, key) in [
            (r#"{"host": "no host"}"#, "host"),
            (r#"{"host": "h", "certificate": "/nonexistent"}"#, "private_key"),
            (r#"{"host": "h", "private_key": "/nonexistent"}"#, "certificate"),
            (r#"{"host": "h", "certificate": "/nonexistent", "private_key": "/nonexistent"}"#, "certificate"),
            (r#"{"host": "h", "ca_file": "/nonexistent"}"#, "ca_file"),
        ] {
            let config: Config = serde_json::from_str(json).unwrap();
            assert_eq!(config.connect(ProviderName::new("office365_connector", "x"), &context).unwrap_err().key, key, "{json}");
        }
    }
}
