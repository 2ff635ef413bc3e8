//! Gmail and Google Workspace through the Gmail API: `messages.send` with the message as it is.
//!
//! The API has no envelope: the recipients are those of To, Cc and Bcc, so [`crate::mime::readdress`] writes
//! the header for it. Either a service account acts for the mailbox that sends, or a user who has signed in
//! has left a refresh token.

mod answer;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::contract::{
    Attempt, Capabilities, Connected, ContentForm, Delivery, Diagnostic, EnvelopeForm, Failure, Probed, Provider, ProviderName, SizeLimit,
};
use crate::http::api::{self, Part, Timeouts};
use crate::http::parts::combine;
use crate::mime::readdress;
use crate::oauth::google::{Refresh, ServiceAccount};
use crate::oauth::{Token, Tokens};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{Counted, LimitSettings, Rate, Rewrite, Secret};
pub use answer::{LIMIT_PAUSE, RULES};

/// <https://support.google.com/a/answer/166852>; the size is `maxSize` of the upload in the API's discovery
/// document.
const CAPABILITIES: Capabilities = Capabilities {
    content: ContentForm::RawMostly,
    envelope: EnvelopeForm::Header,
    reverse_path: false,
    max_size: Some(SizeLimit::message(36_700_160)),
    max_recipients: Some(100),
    eight_bit: true,
    // Whether the API takes such addresses in a header is not documented.
    smtputf8: false,
    // The mailbox becomes the sender, to which reports on reports would go.
    null_sender: false,
    idempotency: None,
    sender_identity: true,
};

/// How many handovers run at the same time, unless the limits say otherwise. How many one user may have is not
/// documented; too many are answered with 429.
const DEFAULT_CONCURRENCY: usize = 4;

/// The least that sending needs.
const SCOPE: &str = "https://www.googleapis.com/auth/gmail.send";

/// How many mailboxes have their tokens kept at the same time.
const MAILBOXES: usize = 1000;

/// `[provider.gmail.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A service account's JSON key file; the account has domain-wide delegation.
    pub credentials_file: Option<PathBuf>,
    /// The mailbox that sends, where a service account acts; absent: each sender's own.
    pub mailbox: Option<String>,
    /// The id of the application that a user has signed in to.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<Secret>,
    /// That user's refresh token.
    pub refresh_token: Option<Secret>,
    /// The API's URL.
    pub endpoint: Option<String>,
    /// The token service's URL.
    pub token_endpoint: Option<String>,
    /// How long to wait, for each phase.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What the administrator or the account allows.
    #[serde(default)]
    pub limits: LimitSettings,
    /// In whose name mail is handed over.
    pub rewrite: Option<Rewrite>,
}

/// The provider.
struct Gmail {
    http: reqwest::Client,
    endpoint: String,
    credential: Credential,
    timeouts: Timeouts,
}

/// In whose name mail is sent.
enum Credential {
    /// Of the one user who has signed in.
    User(Tokens),
    /// Of a mailbox for which a service account acts.
    Account { account: ServiceAccount, mailbox: Option<String>, tokens: Mutex<HashMap<String, Tokens>> },
}

impl Config {
    const ENDPOINT: &'static str = "https://gmail.googleapis.com";

    fn credential(&self, name: &ProviderName, context: &Context) -> Result<Credential, SettingsError> {
        const EXPECTED: &str = "expected `credentials_file`, or `client_id`, `client_secret` and `refresh_token`";
        let patience = self.timeouts.connect.0;
        match (&self.credentials_file, &self.client_id, &self.client_secret, &self.refresh_token) {
            (Some(path), None, None, None) => {
                if let Some(mailbox) = self.mailbox.as_deref().filter(|mailbox| !mailbox.contains('@')) {
                    return Err(SettingsError::new(
                        "mailbox",
                        format!("{mailbox:?} is no address; expected one such as \"relay@corp.example\""),
                    ));
                }
                let account = ServiceAccount::read(path, SCOPE, self.token_endpoint.as_deref(), patience, context)?;
                Ok(Credential::Account { account, mailbox: self.mailbox.clone(), tokens: Mutex::default() })
            }
            (Some(_), ..) => Err(SettingsError::new("credentials_file", format!("there is more than one credential; {EXPECTED}"))),
            (None, Some(client_id), Some(client_secret), Some(refresh_token)) => {
                if self.mailbox.is_some() {
                    return Err(SettingsError::new("mailbox", "a refresh token is of one user already; leave it out"));
                }
                let token_endpoint = self.token_endpoint.as_deref();
                let settings = Refresh { client_id, client_secret, refresh_token, token_endpoint, patience };
                Ok(Credential::User(settings.tokens(name, context)?))
            }
            (None, None, None, None) => Err(SettingsError::new("credentials_file", format!("no credential; {EXPECTED}"))),
            (None, None, ..) => Err(SettingsError::new("client_id", format!("it is missing; {EXPECTED}"))),
            (None, _, None, _) => Err(SettingsError::new("client_secret", format!("it is missing; {EXPECTED}"))),
            (None, ..) => Err(SettingsError::new("refresh_token", format!("it is missing; {EXPECTED}"))),
        }
    }
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        let endpoint = api::endpoint(self.endpoint.as_deref(), Self::ENDPOINT)?;
        let credential = self.credential(&name, context)?;
        let provider = Arc::new(Gmail { http: context.http.clone(), endpoint, credential, timeouts: self.timeouts });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    /// 2,000 messages in 24 hours for each user, so only where all goes through one.
    /// <https://support.google.com/a/answer/166852>
    fn default_limits(&self) -> LimitSettings {
        let day = Duration::from_secs(86_400);
        let is_one_user = self.mailbox.is_some() || self.refresh_token.is_some();
        let quota = is_one_user.then_some(Rate { count: 2000, counted: Counted::Messages, period: day });
        LimitSettings { quota: quota.into(), ..LimitSettings::default() }
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn destination(&self) -> String {
        let endpoint = self.endpoint.as_deref().unwrap_or(Self::ENDPOINT);
        match (&self.credentials_file, &self.mailbox, &self.refresh_token) {
            (Some(path), Some(mailbox), _) => format!("{endpoint} through {mailbox} (service account {})", path.display()),
            (Some(path), None, _) => format!("{endpoint} through each sender's own mailbox (service account {})", path.display()),
            // Two tokens may be of one user, and nobody can tell by looking at them.
            (None, _, Some(token)) => {
                format!("{endpoint} (refresh token {token} of {})", self.client_id.as_deref().unwrap_or("no application"))
            }
            (None, _, None) => endpoint.to_owned(),
        }
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }
}

impl Credential {
    fn is_each_senders(&self) -> bool {
        matches!(self, Self::Account { mailbox: None, .. })
    }

    /// Where the tokens of the mailbox come from that is to send, and its address where it is known.
    fn of(&self, sender: Option<&str>) -> Result<(Tokens, Option<String>), Failure> {
        let (account, configured, kept) = match self {
            Self::User(tokens) => return Ok((tokens.clone(), None)),
            Self::Account { account, mailbox, tokens } => (account, mailbox.as_deref(), tokens),
        };
        let Some(mailbox) = configured.or(sender) else {
            let text = "the message has no sender whose mailbox could send it, and no `mailbox` is set";
            return Err(Failure::Unsuitable(Diagnostic::local(text)));
        };
        let mut kept = kept.lock();
        let tokens = match kept.get(&mailbox.to_ascii_lowercase()) {
            Some(tokens) => tokens.clone(),
            None => {
                if kept.len() >= MAILBOXES {
                    // Whoever sends again gets a new one.
                    kept.clear();
                }
                let unusable = |error: SettingsError| Failure::Unauthorized(Diagnostic::during("token", error.message));
                let tokens = account.tokens(mailbox).map_err(unusable)?;
                kept.insert(mailbox.to_ascii_lowercase(), tokens.clone());
                tokens
            }
        };
        Ok((tokens, Some(mailbox.to_owned())))
    }
}

impl Provider for Gmail {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let sender = attempt.message.envelope.reverse_path.address().map(ToString::to_string);
        let (tokens, mailbox) = self.credential.of(sender.as_deref())?;
        let body = &Bytes::from(readdress::of(&attempt, mailbox.as_deref().or(sender.as_deref())).await?);
        let recipients = &attempt.recipients.to_vec();
        let attempt = &attempt;
        // As an upload, a message is not blown up by base64.
        let url = &format!("{}/upload/gmail/v1/users/me/messages/send?uploadType=media", self.endpoint);
        let call = |token: Token| async move {
            let request = self.http.post(url).bearer_auth(token.as_str()).header("Content-Type", "message/rfc822").body(body.clone());
            api::hand_over("messages.send", request, self.timeouts, attempt, recipients, RULES, answer::read).await
        };
        let part = match tokens.call(attempt.deadline, call).await {
            // Whether a service account may act for one mailbox, and there is one, says nothing of the others.
            Part::Failed(Failure::Unauthorized(diagnostic))
                if self.credential.is_each_senders()
                    && ["unauthorized_client", "failedPrecondition"].iter().any(|code| diagnostic.text.starts_with(code)) =>
            {
                Part::Failed(Failure::SenderRefused(diagnostic))
            }
            // The message waits by the retry schedule, and nobody else.
            Part::Failed(Failure::Throttled { diagnostic, .. })
                if self.credential.is_each_senders() && answer::is_of_one_user(&diagnostic) =>
            {
                Part::Failed(Failure::Throttled { retry_after: Some(Duration::ZERO), diagnostic })
            }
            part => part,
        };
        combine(vec![(recipients.clone(), part)], &[])
    }

    /// Asks for a token, and for the profile of the user. The right to send is enough to send, and does not
    /// open that: a refusal by the scope says that the API is there, is enabled, and takes the token.
    async fn probe(&self) -> Result<Probed, Failure> {
        let probed = match &self.credential {
            Credential::Account { account, mailbox: None, .. } => {
                let fact =
                    format!("the key of {} can be read; each sender uses a mailbox of its own, so none was looked at", account.email());
                return Ok(Probed::default().fact(fact));
            }
            Credential::Account { account, mailbox: Some(mailbox), .. } => {
                Probed::default().fact(format!("{} may act for {mailbox}", account.email()))
            }
            Credential::User(_) => Probed::default().fact("the refresh token is valid"),
        };
        let (tokens, _) = self.credential.of(None)?;
        let token = tokens.get().await?;
        let request = self.http.get(format!("{}/gmail/v1/users/me/profile", self.endpoint)).bearer_auth(token.as_str());
        match api::ask("profile", request, self.timeouts, RULES, answer::refusal).await {
            Ok(_) => Ok(probed.fact("the API answers")),
            Err(Failure::Unauthorized(diagnostic)) if diagnostic.code == Some(403) && answer::is_scope(&diagnostic.text) => {
                Ok(probed.fact("the API answers, and the token is for sending only, as it should be"))
            }
            Err(failure) => Err(failure),
        }
    }
}
