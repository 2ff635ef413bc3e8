//! Amazon SES through its API, version 2, with raw content.
//!
//! The envelope goes into `Destination`, so headers neither add nor remove a recipient. SES takes no
//! reverse-path: `FromEmailAddress` is the closest thing, names the identity that is charged and
//! checked, and is where SES sends its bounces unless `feedback_address` says otherwise, so it is set to
//! the reverse-path. SES replaces Date and Message-ID.
//!
//! `EndpointId` (a global endpoint over several regions) is not offered: its requests are signed with
//! SigV4A, for which the SDK would bring a second implementation of elliptic curves.

mod account;
mod credentials;
mod identity;
mod rules;
mod settings;
mod transport;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::config::{IdentityCache, StalledStreamProtectionConfig};
use aws_sdk_sesv2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sesv2::operation::get_account::GetAccountOutput;
use aws_sdk_sesv2::primitives::Blob;
use aws_sdk_sesv2::types::{Destination, EmailContent, MessageTag, RawMessage};
use aws_smithy_runtime_api::http::Response;
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::credentials::{Role, Source};
use self::identity::{Fault, fault};
pub use self::rules::{QUOTA_PAUSE, RATE_PAUSE, RULES, SANDBOX};
pub use self::settings::Config;
use self::transport::Transport;
use crate::contract::{
    Allowance, Attempt, Capabilities, ContentForm, Delivery, Diagnostic, Failure, Outcome, Probed, Provider, Report, SizeLimit,
};
use crate::http::api::{Answer, Part, Reading, Refused, Timeouts, chain, conclude};
use crate::http::parts::combine;
use crate::http::progress::{Patience, Progress, Silence};
use crate::http::verdict::{Verdict, judge};
use crate::settings::Span;

/// SES takes 40 MB after base64, without saying which MB: this is the smaller reading. And 50 recipients
/// in one call. <https://docs.aws.amazon.com/ses/latest/dg/quotas.html>
const CAPABILITIES: Capabilities = Capabilities {
    content: ContentForm::RawMostly,
    reverse_path: false,
    max_size: Some(SizeLimit::base64(40_000_000)),
    max_recipients: Some(50),
    smtputf8: false,
    null_sender: false,
    sender_identity: true,
    ..Capabilities::EVERYTHING
};

/// The provider.
struct Ses {
    region: String,
    endpoint: Option<String>,
    source: Source,
    role: Option<Role>,
    timeouts: Timeouts,
    told: Told,
    http: reqwest::Client,
    /// Made at first use, and again when its credentials have expired; with the number of it.
    client: Mutex<(u64, Option<Client>)>,
}

/// What every message is handed over with.
struct Told {
    configuration_set: Option<String>,
    tags: Option<Vec<MessageTag>>,
    feedback_address: Option<String>,
    tenant: Option<String>,
    from_identity_arn: Option<String>,
}

/// An answer that is no success, or none.
struct Refusal {
    code: String,
    verdict: Option<Verdict>,
    answer: Option<Answer>,
    text: String,
}

impl Ses {
    /// The client to use now, and its number.
    async fn client(&self) -> (u64, Client) {
        let mut slot = self.client.lock().await;
        let (number, client) = &mut *slot;
        if let Some(client) = client {
            return (*number, client.clone());
        }
        *number += 1;
        let made = self.make_client().await;
        (*number, client.insert(made).clone())
    }

    /// Forgets the client with this number, and with it the credentials that it had. Says whether others
    /// may be had: a key in the config stays what it is.
    async fn forget(&self, expired: u64) -> bool {
        let mut slot = self.client.lock().await;
        if slot.0 == expired {
            slot.1 = None;
        }
        self.role.is_some() || !matches!(self.source, Source::Key(_))
    }

    async fn make_client(&self) -> Client {
        let transport = Transport::new(self.http.clone(), Progress::new());
        let credentials = credentials::provider(&self.source, self.role.as_ref(), &self.region, transport.clone()).await;
        let mut builder = aws_sdk_sesv2::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.region.clone()))
            .http_client(transport)
            .identity_cache(IdentityCache::lazy().load_timeout(self.timeouts.connect.0).build())
            // Only the queue retries: attempts behind its back could deliver twice.
            .retry_config(RetryConfig::disabled())
            // Silence is judged here, where it is known whether the message had left.
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        builder.set_credentials_provider(credentials);
        builder.set_endpoint_url(self.endpoint.clone());
        Client::from_conf(builder.build())
    }

    fn patience(&self, deadline: Option<Instant>) -> Patience {
        Patience { connect: self.timeouts.connect.0, answer: self.timeouts.answer.0, deadline }
    }

    /// Hands the message over. Says by which client, where its credentials have expired.
    async fn send(&self, attempt: &Attempt, content: &Bytes, raw: RawMessage) -> (Part, Option<u64>) {
        const DURING: &str = "SendEmail";
        let progress = Progress::new();
        let transport = Transport::new(self.http.clone(), progress.clone());
        let addresses = attempt.recipients().map(|(_, recipient)| recipient.address.as_str().to_owned()).collect();
        let reverse_path = attempt.message.envelope.reverse_path.address();
        let call = async {
            let (number, client) = self.client().await;
            let answer = client
                .send_email()
                .set_from_email_address(reverse_path.map(|address| address.as_str().to_owned()))
                .set_from_email_address_identity_arn(self.told.from_identity_arn.clone())
                .destination(Destination::builder().set_to_addresses(Some(addresses)).build())
                .content(EmailContent::builder().raw(raw).build())
                .set_feedback_forwarding_email_address(self.told.feedback_address.clone())
                .set_email_tags(self.told.tags.clone())
                .set_configuration_set_name(self.told.configuration_set.clone())
                .set_tenant_name(self.told.tenant.clone())
                .customize()
                .config_override(aws_sdk_sesv2::config::Builder::new().http_client(transport))
                .send()
                .await;
            (number, answer)
        };
        let conclude =
            |answer: &Answer, rules, reading| conclude(DURING, answer, progress.all_sent(), attempt, &attempt.recipients, rules, reading);
        let unanswered = |verdict: Verdict, text: String, advice| {
            let diagnostic = Diagnostic::during(DURING, text).advised(advice);
            match verdict.failure(diagnostic) {
                Ok(failure) => Part::Failed(failure),
                Err(diagnostic) => Part::Answered(Report::uniform(&attempt.recipients, &Outcome::InDoubt(diagnostic)).outcomes),
            }
        };
        let (number, refusal) = match progress.watch(self.patience(Some(attempt.deadline)), call).await {
            Err(Silence(silence)) => {
                let verdict = if progress.all_sent() { Verdict::InDoubt } else { Verdict::Unavailable };
                return (unanswered(verdict, format!("no answer for {}", Span(silence)), None), None);
            }
            Ok((_, Ok(output))) => {
                let answer = Answer { status: 200, headers: HeaderMap::new(), body: Bytes::new() };
                let reading = match output.message_id() {
                    Some(id) => Reading::accepted(Some(id.to_owned())),
                    // Whoever answers so may be no SES.
                    None => Reading::refused("", "an answer without the MessageId that SES gives to what it takes"),
                };
                return (conclude(&answer, RULES, reading), None);
            }
            Ok((number, Err(error))) => (number, Refusal::of(&error)),
        };
        let Some(answer) = &refusal.answer else {
            let verdict = match (progress.all_sent(), refusal.verdict) {
                (true, _) => Verdict::InDoubt,
                (false, Some(verdict)) => verdict,
                (false, None) => Verdict::Unavailable,
            };
            let advice = refusal.verdict.filter(|_| verdict == Verdict::Unauthorized).map(|_| credentials::ADVICE);
            return (unanswered(verdict, refusal.text, advice), None);
        };
        let expired = rules::is_expired(&refusal.code).then_some(number);
        let is_refused = judge(RULES, answer.status, &refusal.code, &refusal.text).0 == Verdict::SenderRefused;
        let fault = if is_refused { fault(&refusal.text, attempt, content) } else { Fault::Sender };
        let (rules, recipients) = match fault {
            Fault::Recipients => (SANDBOX, identity::recipients(&refusal.text, attempt)),
            Fault::Sender | Fault::From | Fault::Both => (RULES, Vec::new()),
        };
        let text = match fault.words() {
            Some(words) => format!("{} ({words})", refusal.text),
            None => refusal.text,
        };
        let refused = Refused { code: refusal.code, text, recipients, retry_after: None };
        (conclude(answer, rules, Reading::Refused(refused)), expired)
    }

    /// The account; `None` where it cannot be told: an endpoint that lacks the call.
    async fn account(&self) -> Result<Option<GetAccountOutput>, Failure> {
        const DURING: &str = "GetAccount";
        let limit = self.timeouts.connect.0 + self.timeouts.answer.0;
        let mut renewed = false;
        loop {
            let call = async {
                let (number, client) = self.client().await;
                (number, client.get_account().send().await)
            };
            let (number, refusal) = match tokio::time::timeout(limit, call).await {
                Err(_) => return Err(Failure::Unavailable(Diagnostic::during(DURING, format!("no answer for {}", Span(limit))))),
                Ok((_, Ok(account))) => return Ok(Some(account)),
                Ok((number, Err(error))) => (number, Refusal::of(&error)),
            };
            if rules::is_expired(&refusal.code) && !renewed && self.forget(number).await {
                renewed = true;
                continue;
            }
            let Some(answer) = &refusal.answer else {
                let verdict = refusal.verdict.unwrap_or(Verdict::Unavailable);
                let advice = (verdict == Verdict::Unauthorized).then_some(credentials::ADVICE);
                let diagnostic = Diagnostic::during(DURING, refusal.text).advised(advice);
                return Err(verdict.failure(diagnostic).unwrap_or_else(Failure::Unavailable));
            };
            if answer.status == 404 && refusal.code.is_empty() && self.endpoint.is_some() {
                return Ok(None);
            }
            let (verdict, advice) = judge(RULES, answer.status, &refusal.code, &refusal.text);
            let said = match refusal.code.as_str() {
                "" => answer.excerpt(),
                code => format!("{code}: {}", refusal.text),
            };
            let advice = if refusal.code.starts_with("AccessDenied") { Some(MAY_READ) } else { advice };
            let diagnostic = Diagnostic { code: Some(answer.status), ..Diagnostic::during(DURING, said) }.advised(advice);
            return Err(verdict.failure(diagnostic).unwrap_or_else(Failure::Unavailable));
        }
    }
}

/// What to do where a key may send and no more.
const MAY_READ: &str = "in the IAM console, let this user or role do ses:GetAccount, so that its quota and rate are known";

impl Refusal {
    fn of<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E, Response>) -> Self {
        let Some(raw) = error.raw_response() else {
            return Self { code: String::new(), verdict: credentials::verdict(error), answer: None, text: chain(error) };
        };
        let header = |(name, value): (&str, &str)| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?));
        let answer = Answer {
            status: raw.status().as_u16(),
            headers: raw.headers().iter().filter_map(header).collect(),
            body: Bytes::copy_from_slice(raw.body().bytes().unwrap_or_default()),
        };
        let code = rules::bare(error.code().unwrap_or_default()).to_owned();
        Self { code, verdict: None, answer: Some(answer), text: error.message().unwrap_or_default().to_owned() }
    }
}

impl Provider for Ses {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let envelope = &attempt.message.envelope;
        let unsuitable = |text: String| Err(Failure::Unsuitable(Diagnostic::during("SendEmail", text)));
        let foreign = attempt.recipients().map(|(_, recipient)| &recipient.address).chain(envelope.reverse_path.address());
        if let Some(address) = foreign.into_iter().find(|address| !address.is_ascii()) {
            return unsuitable(format!("SES takes no address outside ASCII: <{address}>"));
        }
        if envelope.reverse_path.address().is_none() {
            return unsuitable("SES takes no message with the null reverse-path".to_owned());
        }
        let (size, most) = (attempt.message.body.len(), CAPABILITIES.max_message_size().unwrap_or(u64::MAX));
        if size > most {
            return unsuitable(format!("the message has {size} octets, and SES takes {most}"));
        }
        let content = match attempt.message.body.bytes().await {
            Ok(content) => content,
            Err(error) => {
                let diagnostic = Diagnostic::local(format!("the message cannot be read from the spool: {error}"));
                return Ok(Report::uniform(&attempt.recipients, &Outcome::Deferred(diagnostic)));
            }
        };
        let mut renewed = false;
        loop {
            let raw = match RawMessage::builder().data(Blob::new(content.clone())).build() {
                Ok(raw) => raw,
                // `data` is all that a raw message has to have.
                Err(error) => return Err(Failure::Unavailable(Diagnostic::during("SendEmail", error.to_string()))),
            };
            let (part, expired) = self.send(&attempt, &content, raw).await;
            match expired {
                // Nothing was handed over, and the credentials were good once: one more try with others.
                Some(number) if !renewed && self.forget(number).await => renewed = true,
                _ => return combine(vec![(attempt.recipients.to_vec(), part)], &[]),
            }
        }
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        match self.account().await {
            Ok(Some(account)) => Ok(account::probed(&account)),
            Ok(None) => Ok(Probed::default().warning("this endpoint does not tell about the account, so its quota and rate are not known")),
            // A key that may send need not be allowed to read the account.
            Err(failure) if failure.diagnostic().advice == Some(MAY_READ) => {
                Ok(Probed::default().warning(format!("the key may not read the account, so its quota and rate are not known: {MAY_READ}")))
            }
            Err(failure) => Err(failure),
        }
    }

    async fn allowance(&self) -> Result<Option<Allowance>, Failure> {
        // An account that does not tell its quota now may tell it later.
        Ok(self.account().await?.map(|account| account::allowance(&account).unwrap_or_default()))
    }
}
