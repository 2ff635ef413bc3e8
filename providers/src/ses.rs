//! Amazon SES through its API, version 2, with raw content.
//!
//! The envelope goes into `Destination`, so headers neither add nor remove a recipient. SES takes no
//! reverse-path: `FromEmailAddress` is the closest thing, names the identity that is charged and
//! checked, and is where SES sends its bounces, so it is set to the reverse-path. SES replaces Date
//! and Message-ID, and takes 50 recipients in one call; more are split here.

mod parts;
mod transport;
mod verdict;

use std::sync::Arc;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::config::{Credentials, SharedCredentialsProvider, StalledStreamProtectionConfig};
use aws_sdk_sesv2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sesv2::primitives::Blob;
use aws_sdk_sesv2::types::{Destination, EmailContent, RawMessage};
use aws_smithy_runtime_api::http::Response;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use self::parts::unverified_recipients;
use self::transport::Transport;
use self::verdict::Verdict;
use crate::contract::{
    Attempt, Capabilities, Connected, ContentForm, Delivery, Diagnostic, Failure, Outcome, Probed, Provider, ProviderName, Receipt,
    RecipientIndex, Report, SizeLimit,
};
use crate::http::api::{Part, Timeouts, chain, endpoint};
use crate::http::parts::combine;
use crate::http::progress::{Patience, Progress, Silence};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret, Span};

/// The most recipients in one call.
const MAX_RECIPIENTS: usize = 50;

/// SES takes 40 MB after base64, without saying which MB: this is the smaller reading.
const CAPABILITIES: Capabilities = Capabilities {
    content: ContentForm::RawMostly,
    reverse_path: false,
    max_size: Some(SizeLimit::base64(40_000_000)),
    smtputf8: false,
    null_sender: false,
    sender_identity: true,
    ..Capabilities::EVERYTHING
};

/// The largest message, in octets.
const MAX_SIZE: u64 = 40_000_000 / 4 * 3;

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 20;

/// `[provider.ses.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The AWS region, as in `"eu-west-1"`.
    pub region: String,
    /// The access key's id. Absent: the AWS default chain (environment, profile, container, instance).
    pub access_key_id: Option<Secret>,
    /// The access key's secret.
    pub secret_access_key: Option<Secret>,
    /// The token of temporary credentials.
    pub session_token: Option<Secret>,
    /// The configuration set that messages are sent with.
    pub configuration_set: Option<String>,
    /// Another URL than the region's own, for tests and private links.
    pub endpoint: Option<String>,
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
struct Ses {
    config: Config,
    credentials: Option<Credentials>,
    http: reqwest::Client,
    /// Made at first use: the default chain may have to ask the network.
    client: OnceCell<Client>,
}

impl Config {
    fn credentials(&self) -> Result<Option<Credentials>, SettingsError> {
        let read = |key, secret: &Secret| secret.read().map_err(|error| SettingsError::new(key, error));
        match (&self.access_key_id, &self.secret_access_key) {
            (None, None) if self.session_token.is_some() => {
                Err(SettingsError::new("session_token", "a session token needs `access_key_id` and `secret_access_key` beside it"))
            }
            (None, None) => Ok(None),
            (Some(_), None) => Err(SettingsError::new("access_key_id", "an access key needs `secret_access_key` beside it")),
            (None, Some(_)) => Err(SettingsError::new("secret_access_key", "a secret access key needs `access_key_id` beside it")),
            (Some(id), Some(secret)) => {
                let token = self.session_token.as_ref().map(|token| read("session_token", token)).transpose()?;
                let (id, secret) = (read("access_key_id", id)?, read("secret_access_key", secret)?);
                Ok(Some(Credentials::new(id, secret, token, None, "postrider")))
            }
        }
    }

    fn check(&self) -> Result<(), SettingsError> {
        if self.region.is_empty() || !self.region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(SettingsError::new("region", format!("{:?} is no AWS region; expected one such as \"eu-west-1\"", self.region)));
        }
        endpoint(self.endpoint.as_deref(), "https://email.amazonaws.com")?;
        self.timeouts.check()
    }
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.check()?;
        let credentials = self.credentials()?;
        let ses = Ses { config: self.clone(), credentials, http: context.http.clone(), client: OnceCell::new() };
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider: Arc::new(ses) })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }

    fn destination(&self) -> String {
        let place = self.endpoint.clone().unwrap_or_else(|| format!("https://email.{}.amazonaws.com", self.region));
        let account = match &self.access_key_id {
            None => "default credentials".to_owned(),
            // The id of an access key is a name, no secret.
            Some(Secret::Literal(id)) => format!("access key {id}"),
            Some(other) => format!("access key {other:?}"),
        };
        let set = self.configuration_set.as_ref().map(|set| format!(", configuration set {set}")).unwrap_or_default();
        format!("{place} ({}, {account}{set})", self.region)
    }
}

impl Ses {
    async fn client(&self) -> &Client {
        self.client.get_or_init(|| self.make_client()).await
    }

    async fn make_client(&self) -> Client {
        let transport = Transport::new(self.http.clone(), Progress::new());
        let credentials = match &self.credentials {
            Some(credentials) => Some(SharedCredentialsProvider::new(credentials.clone())),
            None => {
                let region = Region::new(self.config.region.clone());
                let shared = aws_config::defaults(BehaviorVersion::latest()).http_client(transport.clone()).region(region);
                shared.load().await.credentials_provider()
            }
        };
        let mut builder = aws_sdk_sesv2::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.config.region.clone()))
            .http_client(transport)
            // Only the queue retries: attempts behind its back could deliver twice.
            .retry_config(RetryConfig::disabled())
            // Silence is judged here, where it is known whether the message had left.
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        builder.set_credentials_provider(credentials);
        builder.set_endpoint_url(self.config.endpoint.clone());
        Client::from_conf(builder.build())
    }

    /// Whether a probe that was refused has still shown what it is for. A key that may send need not
    /// be allowed to read the account, and stand-ins for SES at another endpoint may lack that call.
    fn is_reached<E: ProvideErrorMetadata>(&self, error: &SdkError<E, Response>) -> bool {
        let status = error.raw_response().map(|response| response.status().as_u16());
        match (status, error.code()) {
            (Some(403), Some(code)) => code.starts_with("AccessDenied"),
            (Some(404), None) => self.config.endpoint.is_some(),
            _ => false,
        }
    }

    fn patience(&self, deadline: Option<Instant>) -> Patience {
        Patience { connect: self.config.timeouts.connect.0, answer: self.config.timeouts.answer.0, deadline }
    }

    /// One call, for at most [`MAX_RECIPIENTS`].
    async fn send(&self, attempt: &Attempt, part: &[(RecipientIndex, &str)], raw: RawMessage) -> Part {
        let progress = Progress::new();
        let transport = Transport::new(self.http.clone(), progress.clone());
        let addresses = part.iter().map(|(_, address)| (*address).to_owned()).collect();
        let reverse_path = attempt.message.envelope.reverse_path.address();
        let call = async {
            self.client()
                .await
                .send_email()
                .set_from_email_address(reverse_path.map(|address| address.as_str().to_owned()))
                .destination(Destination::builder().set_to_addresses(Some(addresses)).build())
                .content(EmailContent::builder().raw(raw).build())
                .set_configuration_set_name(self.config.configuration_set.clone())
                .customize()
                .config_override(aws_sdk_sesv2::config::Builder::new().http_client(transport))
                .send()
                .await
        };
        let uniform = |outcome: &Outcome| Part::Answered(part.iter().map(|(index, _)| (*index, outcome.clone())).collect());
        let answer = progress.watch(self.patience(Some(attempt.deadline)), call).await;
        let (verdict, diagnostic) = match answer {
            Ok(Ok(output)) => {
                let remote_id = output.message_id().map(str::to_owned);
                let reply = format!("200 {}", remote_id.as_deref().unwrap_or("without a MessageId"));
                return uniform(&Outcome::Relayed(Receipt { remote_id, reply, ..Receipt::default() }));
            }
            Ok(Err(error)) => judge(&error, progress.all_sent(), "SendEmail"),
            Err(Silence(silence)) => {
                let verdict = if progress.all_sent() { Verdict::InDoubt } else { Verdict::Unavailable };
                (verdict, Diagnostic::during("SendEmail", format!("no answer for {}", Span(silence))))
            }
        };
        if verdict == Verdict::SenderRefused
            && let Some(outcomes) = unverified_recipients(attempt, part, &diagnostic)
        {
            return Part::Answered(outcomes);
        }
        match verdict.failure(diagnostic) {
            Ok(failure) => Part::Failed(failure),
            Err(diagnostic) => uniform(&Outcome::InDoubt(diagnostic)),
        }
    }
}

/// What an error of the SDK means, given whether the whole request had left.
fn judge<E: ProvideErrorMetadata + std::error::Error + 'static>(
    error: &SdkError<E, Response>,
    all_sent: bool,
    during: &'static str,
) -> (Verdict, Diagnostic) {
    let Some(response) = error.raw_response() else {
        let text = chain(error);
        // The chain of credential providers is asked before anything is sent, and its errors come
        // without a type of their own.
        let verdict = match all_sent {
            true => Verdict::InDoubt,
            false if text.contains("redential") => Verdict::Unauthorized,
            false => Verdict::Unavailable,
        };
        return (verdict, Diagnostic::during(during, text));
    };
    let status = response.status().as_u16();
    let (code, message) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
    let mut verdict = verdict::classify(status, code, message);
    if verdict == Verdict::InDoubt && !all_sent {
        // Answered before it could have read the message, as a load balancer does.
        verdict = Verdict::Unavailable;
    }
    let text = match (code, message) {
        ("", "") => "an answer that SES does not give; is the endpoint right?".to_owned(),
        _ => format!("{code}: {message}"),
    };
    (verdict, Diagnostic { code: Some(status), ..Diagnostic::during(during, text) })
}

impl Provider for Ses {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let envelope = &attempt.message.envelope;
        let foreign = attempt.recipients().map(|(_, recipient)| &recipient.address).chain(envelope.reverse_path.address());
        if let Some(address) = foreign.into_iter().find(|address| !address.is_ascii()) {
            return Err(Failure::Unsuitable(Diagnostic::during("SendEmail", format!("SES takes no address outside ASCII: <{address}>"))));
        }
        if envelope.reverse_path.address().is_none() {
            return Err(Failure::Unsuitable(Diagnostic::during("SendEmail", "SES takes no message with the null reverse-path")));
        }
        let size = attempt.message.body.len();
        if size > MAX_SIZE {
            return Err(Failure::Unsuitable(Diagnostic::during(
                "SendEmail",
                format!("the message has {size} octets, and SES takes {MAX_SIZE}"),
            )));
        }
        let raw = match attempt.message.body.bytes().await {
            Ok(bytes) => RawMessage::builder().data(Blob::new(bytes)).build(),
            Err(error) => {
                let diagnostic = Diagnostic::local(format!("the message cannot be read from the spool: {error}"));
                return Ok(Report::uniform(&attempt.recipients, &Outcome::Deferred(diagnostic)));
            }
        };
        // `data` is all that a raw message has to have.
        let raw = match raw {
            Ok(raw) => raw,
            Err(error) => return Err(Failure::Unavailable(Diagnostic::during("SendEmail", error.to_string()))),
        };
        let recipients: Vec<_> = attempt.recipients().map(|(index, recipient)| (index, recipient.address.as_str())).collect();
        let mut parts = Vec::new();
        let mut rest = recipients.chunks(MAX_RECIPIENTS);
        for part in rest.by_ref() {
            let answer = self.send(&attempt, part, raw.clone()).await;
            // A rejection may be about one recipient of this part. After any other failure, and in
            // doubt, the following parts would fare no better.
            let go_on = match &answer {
                Part::Answered(outcomes) => !outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::InDoubt(_))),
                Part::Failed(failure) => matches!(failure, Failure::Rejected(_)),
            };
            parts.push((part.iter().map(|(index, _)| *index).collect(), answer));
            if !go_on {
                break;
            }
        }
        let unasked: Vec<RecipientIndex> = rest.flatten().map(|(index, _)| *index).collect();
        combine(parts, &unasked)
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let progress = Progress::new();
        let transport = Transport::new(self.http.clone(), progress.clone());
        let call = async {
            let customized = self.client().await.get_account().customize();
            customized.config_override(aws_sdk_sesv2::config::Builder::new().http_client(transport)).send().await
        };
        let limit = self.config.timeouts.connect.0 + self.config.timeouts.answer.0;
        let (verdict, diagnostic) = match tokio::time::timeout(limit, call).await {
            Ok(Ok(_)) => return Ok(Probed::default()),
            Ok(Err(error)) if self.is_reached(&error) => return Ok(Probed::default()),
            Ok(Err(error)) => judge(&error, false, "GetAccount"),
            Err(_) => (Verdict::Unavailable, Diagnostic::during("GetAccount", format!("no answer for {}", Span(limit)))),
        };
        Err(verdict.failure(diagnostic).unwrap_or_else(Failure::Unavailable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn settings_that_cannot_work_name_their_key() {
        let context = Context::new("relay.example").unwrap();
        for (json, key) in [
            (r#"{"region": ""}"#, "region"),
            (r#"{"region": "eu west"}"#, "region"),
            (r#"{"region": "eu-west-1", "endpoint": "localhost"}"#, "endpoint"),
            (r#"{"region": "eu-west-1", "endpoint": "ftp://x"}"#, "endpoint"),
            (r#"{"region": "eu-west-1", "access_key_id": "a"}"#, "access_key_id"),
            (r#"{"region": "eu-west-1", "secret_access_key": "a"}"#, "secret_access_key"),
            (r#"{"region": "eu-west-1", "session_token": "a"}"#, "session_token"),
            (r#"{"region": "eu-west-1", "access_key_id": "a", "secret_access_key": {"file": "/nonexistent"}}"#, "secret_access_key"),
            (r#"{"region": "eu-west-1", "timeouts": {"answer": "0s"}}"#, "timeouts.answer"),
        ] {
            let error = config(json).connect(ProviderName::new("ses", "x"), &context).unwrap_err();
            assert_eq!(error.key, key, "{json}: {error}");
        }
    }

    #[test]
    fn a_destination_tells_accounts_apart_and_no_secret() {
        let shown = config(r#"{"region": "eu-west-1", "access_key_id": "AKIA1", "secret_access_key": "hush"}"#).destination();
        assert_eq!(shown, "https://email.eu-west-1.amazonaws.com (eu-west-1, access key AKIA1)");
    }
}
