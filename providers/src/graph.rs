//! Exchange Online through Microsoft Graph: `sendMail` with the message as it is.
//!
//! Graph has no envelope: the recipients are those of To, Cc and Bcc, so [`crate::mime::readdress`] writes
//! the header for it. What is too large for one request goes as a draft with uploads.

pub mod answer;
mod upload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::{Method, RequestBuilder, Url};

use crate::contract::{
    Attempt, Capabilities, Connected, ContentForm, Delivery, Diagnostic, EnvelopeForm, Failure, Probed, Provider, ProviderName,
    RecipientIndex, SizeLimit,
};
use crate::http::api::{self, Part, Timeouts};
use crate::http::parts::combine;
use crate::mime::fields::Fields;
use crate::mime::readdress;
use crate::oauth::entra::Entra;
use crate::oauth::{Token, Tokens};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{Counted, LimitSettings, Rate, Rewrite, Secret, Size};
use answer::{RULES, read, refusal};

/// Exchange Online's defaults: 35 MB and 500 recipients, which administrators can change.
/// <https://learn.microsoft.com/office365/servicedescriptions/exchange-online-service-description/exchange-online-limits>
const MAX_SIZE: u64 = 35_000_000;

/// A request may have 4 MB, and the message is in it as base64, with recipients added to its header.
/// <https://learn.microsoft.com/graph/outlook-send-mime-message>
const MIME_SIZE: u64 = 2_900_000;

const CAPABILITIES: Capabilities = Capabilities {
    content: ContentForm::RawMostly,
    envelope: EnvelopeForm::Header,
    reverse_path: false,
    max_size: Some(SizeLimit::message(MAX_SIZE)),
    max_recipients: Some(500),
    eight_bit: true,
    // Whether it takes such addresses in a header is not documented.
    smtputf8: false,
    // The mailbox becomes the sender, to which reports on reports would go.
    null_sender: false,
    idempotency: None,
    sender_identity: true,
};

/// Requests at the same time for one application and one mailbox.
/// <https://learn.microsoft.com/graph/throttling-limits#outlook-service-limits>
const DEFAULT_CONCURRENCY: usize = 4;

/// `[provider.graph.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory: its id, or one of its domains.
    pub tenant: String,
    /// The application's id.
    pub client_id: String,
    /// The application's secret.
    pub client_secret: Option<Secret>,
    /// The application's certificate, a PEM file, in place of a secret.
    pub certificate: Option<PathBuf>,
    /// The certificate's key, a PEM file.
    pub private_key: Option<PathBuf>,
    /// The refresh token of a user who has signed in; mail goes out in that user's name.
    pub refresh_token: Option<Secret>,
    /// The mailbox that sends; absent: each sender's own.
    pub mailbox: Option<String>,
    /// Graph's URL; another one for national clouds.
    pub endpoint: Option<String>,
    /// The token service's URL; another one for national clouds.
    pub authority: Option<String>,
    /// Up to this size a message goes out as it is; a larger one as a draft with uploads.
    pub mime_size: Option<Size>,
    /// The largest message.
    pub max_size: Option<Size>,
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
struct Graph {
    http: reqwest::Client,
    endpoint: Url,
    tokens: Tokens,
    mailbox: Option<String>,
    mime_size: u64,
    max_size: u64,
    timeouts: Timeouts,
}

impl Config {
    const ENDPOINT: &'static str = "https://graph.microsoft.com";

    /// The clouds where tokens are for Graph under another name.
    /// <https://learn.microsoft.com/graph/deployments>
    const CLOUDS: [&'static str; 3] =
        ["https://graph.microsoft.us", "https://dod-graph.microsoft.us", "https://microsoftgraph.chinacloudapi.cn"];
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        let endpoint = api::endpoint(self.endpoint.as_deref(), Self::ENDPOINT)?;
        let cloud = Self::CLOUDS.into_iter().find(|cloud| *cloud == endpoint).unwrap_or(Self::ENDPOINT);
        if let Some(mailbox) = self.mailbox.as_deref().filter(|mailbox| !mailbox.contains('@') || mailbox.contains(char::is_whitespace)) {
            return Err(SettingsError::new("mailbox", format!("{mailbox:?} is no address; expected one such as \"relay@corp.example\"")));
        }
        let (mime_size, max_size) = (self.mime_size.map_or(MIME_SIZE, |size| size.0), self.max_size.map_or(MAX_SIZE, |size| size.0));
        let credential = Entra {
            tenant: &self.tenant,
            client_id: &self.client_id,
            client_secret: self.client_secret.as_ref(),
            certificate: self.certificate.as_deref(),
            private_key: self.private_key.as_deref(),
            refresh_token: self.refresh_token.as_ref(),
            authority: self.authority.as_deref(),
            app_scope: &format!("{cloud}/.default"),
            user_scope: &format!("{cloud}/.default"),
            patience: self.timeouts.connect.0,
        };
        let tokens = credential.tokens(&name, context)?;
        let endpoint = Url::parse(&endpoint).map_err(|error| SettingsError::new("endpoint", error.to_string()))?;
        let (http, mailbox, timeouts) = (context.http.clone(), self.mailbox.clone(), self.timeouts);
        let provider = Arc::new(Graph { http, endpoint, tokens, mailbox, mime_size, max_size, timeouts });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    /// 10,000 recipients in 24 hours for each mailbox, so only where all goes through one.
    /// <https://learn.microsoft.com/office365/servicedescriptions/exchange-online-service-description/exchange-online-limits>
    fn default_limits(&self) -> LimitSettings {
        let day = Duration::from_secs(86_400);
        let quota = self.mailbox.as_ref().map(|_| Rate { count: 10_000, counted: Counted::Recipients, period: day });
        LimitSettings { quota: quota.into(), ..LimitSettings::default() }
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn destination(&self) -> String {
        let endpoint = self.endpoint.as_deref().unwrap_or(Self::ENDPOINT);
        let mailbox = self.mailbox.as_deref().unwrap_or("each sender's own mailbox");
        format!("{endpoint} through {mailbox} (tenant {}, application {})", self.tenant, self.client_id)
    }

    fn certificate(&self) -> Option<&Path> {
        self.certificate.as_deref()
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }
}

impl Graph {
    /// A request about a mailbox, whose address is escaped as a part of the path must be.
    fn request(&self, method: Method, mailbox: &str, path: &[&str], token: &Token, attempt: Option<&Attempt>) -> RequestBuilder {
        let mut url = self.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["v1.0", "users", mailbox]).extend(path);
        }
        let request = self.http.request(method, url).bearer_auth(token.as_str());
        match attempt {
            // By which Microsoft's support finds it again.
            Some(attempt) => request.header("client-request-id", uuid::Uuid::from_bytes(*attempt.message.id.as_bytes()).to_string()),
            None => request,
        }
    }

    /// The mailbox that is to send.
    fn mailbox(&self, attempt: &Attempt) -> Result<String, Failure> {
        let own = || attempt.message.envelope.reverse_path.address().map(ToString::to_string);
        self.mailbox.clone().or_else(own).ok_or_else(|| {
            Failure::Unsuitable(Diagnostic::local("the message has no sender whose mailbox could send it, and no `mailbox` is set"))
        })
    }

    /// The message as it is, in one request.
    async fn send_mime(&self, attempt: &Attempt, recipients: &[RecipientIndex], mailbox: &str) -> Result<Part, Failure> {
        let message = readdress::of(attempt, Some(mailbox)).await?;
        let body = Bytes::from(STANDARD.encode(message));
        let body = &body;
        let call = |token: Token| async move {
            let request = self.request(Method::POST, mailbox, &["sendMail"], &token, Some(attempt));
            let request = request.header("Content-Type", "text/plain").body(body.clone());
            api::hand_over("sendMail", request, self.timeouts, attempt, recipients, RULES, read).await
        };
        Ok(self.tokens.call(attempt.deadline, call).await)
    }
}

/// What is refused of a mailbox says nothing of the others, where each sender uses its own.
fn of_the_sender(part: Part) -> Part {
    match part {
        Part::Failed(Failure::Unauthorized(diagnostic)) if diagnostic.during != "token" && matches!(diagnostic.code, Some(403 | 404)) => {
            Part::Failed(Failure::SenderRefused(diagnostic))
        }
        // The message waits by the retry schedule, and nobody else.
        Part::Failed(Failure::Throttled { diagnostic, .. }) if answer::is_of_one_mailbox(&diagnostic) => {
            Part::Failed(Failure::Throttled { retry_after: Some(Duration::ZERO), diagnostic })
        }
        other => other,
    }
}

impl Provider for Graph {
    fn capabilities(&self) -> Capabilities {
        Capabilities { max_size: Some(SizeLimit::message(self.max_size)), ..CAPABILITIES }
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let mailbox = self.mailbox(&attempt)?;
        let recipients = attempt.recipients.to_vec();
        let (part, fields) = match attempt.message.body.len() <= self.mime_size {
            true => (self.send_mime(&attempt, &recipients, &mailbox).await?, Fields::default()),
            false => self.send_large(&attempt, &recipients, &mailbox).await?,
        };
        let part = if self.mailbox.is_none() { of_the_sender(part) } else { part };
        fields.told(combine(vec![(recipients, part)], &[]))
    }

    /// Asks for a token, and for the drafts of the mailbox. The right to send is enough to send, and does not
    /// open any folder: that this is refused says that Graph is there and takes the token.
    async fn probe(&self) -> Result<Probed, Failure> {
        let token = self.tokens.get().await?;
        let probed = Probed::default().fact("Entra gives out tokens for the application");
        let Some(mailbox) = &self.mailbox else {
            return Ok(probed.fact("each sender uses a mailbox of its own, so none was looked at"));
        };
        let request = self.request(Method::GET, mailbox, &["mailFolders", "drafts"], &token, None);
        match api::ask("drafts", request, self.timeouts, RULES, refusal).await {
            Ok(_) => Ok(probed.fact(format!("Graph opens the mailbox {mailbox}, so that large messages can be uploaded"))),
            Err(Failure::Unauthorized(diagnostic)) if diagnostic.code == Some(403) => {
                let probed = probed.fact("Graph takes the token; whether it may send is seen only when mail is sent");
                Ok(probed.warning(format!(
                    "the application may not open {mailbox}: messages above `mime_size` need the permission Mail.ReadWrite beside Mail.Send"
                )))
            }
            Err(failure) => Err(failure),
        }
    }
}
