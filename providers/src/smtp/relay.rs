//! A host that takes mail by SMTP: its settings, its connections, and one handover.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::time::{Instant, timeout_at};

use super::Timeouts;
use super::auth::Credentials;
use super::client::{Connection, Target};
use super::offer::Offers;
use super::pool::{Keep, Pool};
use super::rules::Rule;
use super::tls::{self, ClientCertificate, Tls};
use super::transaction::{Stale, transact};
use crate::contract::{Attempt, Capabilities, Delivery, Diagnostic, Failure, Outcome, Probed};
use crate::oauth::Tokens;
use crate::registry::{Context, SettingsError};
use crate::settings::Size;

/// How long to leave a login alone whose connections are all in use.
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// A host as it stands in the settings.
pub(crate) struct Host<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) tls: Tls,
    /// Authorities to trust beside the system's.
    pub(crate) ca_file: Option<&'a Path>,
    /// What we show of ourselves in the TLS handshake.
    pub(crate) certificate: Option<ClientCertificate<'a>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) keep: Keep,
    /// What this service says in words of its own.
    pub(crate) rules: &'static [&'static [Rule]],
}

/// As whom to log in.
#[derive(Debug, Clone)]
pub(crate) enum Login {
    /// Not at all.
    Anonymous,
    /// With a password.
    Password {
        /// The user name.
        user: Arc<str>,
        /// Its password, and how it is told.
        credentials: Arc<Credentials>,
    },
    /// With an access token.
    Token {
        /// The mailbox.
        user: Arc<str>,
        /// Where the token comes from.
        tokens: Tokens,
    },
}

/// A host, its connections, and what it offered of late.
pub(crate) struct Relay {
    target: Target,
    /// The host as notifications name it.
    name: Arc<str>,
    pool: Arc<Pool>,
    offers: Offers,
}

impl Login {
    /// With a user name and its password.
    pub(crate) fn password(user: &str, password: String) -> Self {
        Self::Password { user: user.into(), credentials: Arc::new(Credentials::Password { username: user.to_owned(), password }) }
    }

    /// Whose connections these are.
    fn user(&self) -> Arc<str> {
        match self {
            Self::Anonymous => "".into(),
            Self::Password { user, .. } | Self::Token { user, .. } => Arc::clone(user),
        }
    }
}

impl Relay {
    /// Checks the settings; opens no connection.
    pub(crate) fn new(host: &Host<'_>, context: &Context) -> Result<Self, SettingsError> {
        if host.port == 0 {
            return Err(SettingsError::new("port", "0 is no port; expected 1 to 65535"));
        }
        if host.keep.max_messages == Some(0) {
            return Err(SettingsError::new("max_messages_per_connection", "0 would carry no message; leave it out for no limit"));
        }
        host.timeouts.check()?;
        let server_name = ServerName::try_from(host.host.to_owned())
            .map_err(|_| SettingsError::new("host", format!("{:?} is no host name and no IP address", host.host)))?;
        let name = match host.host.parse() {
            Ok(IpAddr::V4(address)) => format!("[{address}]"),
            Ok(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
            Err(_) => host.host.to_owned(),
        };
        let target = Target {
            host: host.host.to_owned(),
            port: host.port,
            tls: host.tls,
            tls_config: tls::config(host.tls, host.ca_file, host.certificate.as_ref(), context)?,
            server_name,
            hostname: context.hostname.clone(),
            timeouts: host.timeouts,
            rules: host.rules,
        };
        Ok(Self { target, name: name.into(), pool: Pool::new(host.keep), offers: Offers::default() })
    }

    /// What can be handed over, as far as the host has said so of late.
    pub(crate) fn capabilities(&self) -> Capabilities {
        self.offers.capabilities()
    }

    /// Hands the attempt over, logged in as `login`.
    pub(crate) async fn deliver(&self, attempt: &Attempt, login: &Login) -> Delivery {
        let user = login.user();
        let Some(_place) = self.pool.place(&user) else {
            let diagnostic = Diagnostic::local(format!("all connections that {} allows {user} are in use", self.name));
            return Err(Failure::Throttled { retry_after: Some(BUSY_PAUSE), diagnostic });
        };
        let mut delivery = self.try_connections(attempt, login, &user).await;
        self.sign(&mut delivery);
        delivery
    }

    /// Opens a connection up to the point where mail could be sent.
    pub(crate) async fn probe(&self, login: &Login) -> Result<Probed, Failure> {
        let timeouts = &self.target.timeouts;
        let connection = self.open(login, Instant::now() + timeouts.connect.0 + timeouts.command.0 * 8).await?;
        self.offers.learn(&connection.extensions);
        let encrypted = if connection.is_encrypted() { " under TLS" } else { ", in clear text" };
        let mut probed = Probed::default().fact(format!("{}:{} answers{encrypted}", self.target.host, self.target.port));
        if !matches!(login, Login::Anonymous) {
            probed = probed.fact(format!("logged in as {}", login.user()));
        }
        if let Some(size) = connection.extensions.size.filter(|size| *size > 0) {
            probed = probed.fact(format!("takes messages of up to {}", Size(size)));
        }
        connection.quit().await;
        Ok(probed)
    }

    /// Hands the attempt over on an idle connection, if there is one that still stands, or a new one.
    async fn try_connections(&self, attempt: &Attempt, login: &Login, user: &Arc<str>) -> Delivery {
        if let Some(connection) = self.pool.take(user) {
            match self.hand_over(connection, attempt, user).await {
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
        let connection = self.open(login, attempt.deadline).await?;
        self.hand_over(connection, attempt, user).await.unwrap_or_else(|stale| Err(stale.failure))
    }

    /// One transaction, after which the connection waits for the next one if it can.
    async fn hand_over(&self, mut connection: Connection, attempt: &Attempt, user: &Arc<str>) -> Result<Delivery, Stale> {
        self.offers.learn(&connection.extensions);
        let delivery = transact(&mut connection, attempt, &self.target).await;
        self.pool.put(user, connection);
        delivery
    }

    /// A new connection, logged in. A token that the host refuses is replaced once: it may have been
    /// revoked before its time, and nothing has been handed over.
    async fn open(&self, login: &Login, deadline: Instant) -> Result<Connection, Failure> {
        let (user, tokens) = match login {
            Login::Anonymous => return self.target.open(None, deadline).await,
            Login::Password { credentials, .. } => return self.target.open(Some(credentials), deadline).await,
            Login::Token { user, tokens } => (user, tokens),
        };
        let mut renewed = false;
        loop {
            let token = timeout_at(deadline, tokens.get()).await.map_err(|_| {
                Failure::Unavailable(Diagnostic::during("token", "no access token was to be had before the attempt's time was over"))
            })??;
            let credentials = Credentials::Token { username: user.to_string(), token };
            match self.target.open(Some(&credentials), deadline).await {
                Err(failure) if !renewed && credentials.were_refused(&failure, tokens) => renewed = true,
                opened => return opened,
            }
        }
    }

    /// Writes the host's name beside every reply, for notifications (RFC 3464 section 2.3.5).
    fn sign(&self, delivery: &mut Delivery) {
        let sign = |diagnostic: &mut Diagnostic| {
            // The token service is another host, and speaks no SMTP.
            if diagnostic.code.is_some() && diagnostic.during != "token" {
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
