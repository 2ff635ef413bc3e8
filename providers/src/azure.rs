//! Azure Communication Services Email through its API.
//!
//! It takes fields, not messages: [`crate::mime::fields`] says what that loses. A message is accepted first,
//! as an operation that says later whether it is sent; waiting for that, for a short time, is part of the
//! handover. The operation's id is ours, so where an answer is lost, the operation is asked about.
//!
//! That a repeated id is recognised is not documented, so no such capability is claimed. An older page has
//! headers for repeatable requests, valid for five minutes from a time that must be told again as it was;
//! today's reference of the call knows them no more.
//! <https://learn.microsoft.com/rest/api/communication/repeatable-requests>

mod credential;
mod operation;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, RequestBuilder, Url};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::contract::{
    Attempt, Capabilities, Connected, Delivery, Diagnostic, Failure, Outcome, Probed, Provider, ProviderName, Receipt, RecipientIndex,
    SizeLimit,
};
use crate::http::api::{self, Answer, Part, Reading, Timeouts, Unanswered};
use crate::http::parts::Turns;
use crate::http::retry_after::retry_after;
use crate::http::verdict::{Rule, Verdict};
use crate::mime::fields::{Addressed, Fields, Mailbox};
use crate::mime::narrow;
use crate::oauth::Token;
use crate::oauth::entra::Entra;
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{Counted, LimitSettings, Rate, Rewrite, Secret, Size, Span};
use credential::{ConnectionString, Credential};
use operation::{State, next_wait, refusal};

/// 10 MB for a request and 50 recipients.
/// <https://learn.microsoft.com/azure/communication-services/concepts/service-limits>
const CAPABILITIES: Capabilities =
    Capabilities { max_size: Some(SizeLimit::message(10_000_000)), max_recipients: Some(50), ..Capabilities::FIELDS };

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 5;

/// The version of the API that this is written to; the first in which attachments have a Content-ID.
const API_VERSION: &str = "api-version=2025-09-01";

/// What tokens of Entra are for, written as the vendor's own clients do.
const SCOPE: &str = "https://communication.azure.com//.default";

/// What is kept back of an attempt's time, so that a lost answer can be asked about.
const LOOK_UP: Duration = Duration::from_secs(5);

const LINK_DOMAIN: &str = "verify the sender's domain, connect it to the Communication Services resource under Email > Domains, and add the \
                           sender as a MailFrom address of that domain; or set `rewrite`";

/// What its refusals mean. A list of codes is not published; these were seen.
/// <https://github.com/Azure/azure-sdk-for-net/issues/56805>, <https://github.com/Azure/azure-sdk-for-java/issues/39910>
pub const RULES: &[Rule] = &[
    Rule::new(0, "EmailDroppedAllRecipientsSuppressed", Verdict::RecipientsRefused)
        .advice("these addresses bounced before and are on Azure's suppression list; they leave it by themselves after some time"),
    Rule::new(0, "EmailDropped", Verdict::Rejected),
    // Of the sender alone: other domains may be linked.
    Rule::new(0, "DomainNotLinked", Verdict::SenderRefused).advice(LINK_DOMAIN),
    Rule::new(400, "", Verdict::SenderRefused).says("sender").advice(LINK_DOMAIN),
    Rule::new(404, "", Verdict::SenderRefused).says("sender").advice(LINK_DOMAIN),
    Rule::new(0, "InvalidEmailAddress", Verdict::RecipientsRefused),
    Rule::new(401, "", Verdict::Unauthorized).advice(
        "compare the access key with the resource's Settings > Keys, and this host's clock with the time: signatures are valid for minutes",
    ),
    Rule::new(403, "", Verdict::Unauthorized)
        .advice("give the application the role Communication and Email Service Owner on the resource, under Access control (IAM)"),
    // There is an operation with our id; what it is about is asked next.
    Rule::new(409, "", Verdict::InDoubt),
];

/// `[provider.azure.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The resource's URL, as in `https://<resource>.communication.azure.com`.
    pub endpoint: Option<String>,
    /// One of the resource's access keys.
    pub access_key: Option<Secret>,
    /// URL and access key in one.
    pub connection_string: Option<Secret>,
    /// The tenant of an application in Entra.
    pub tenant: Option<String>,
    /// The application.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<Secret>,
    /// Its certificate, a PEM file.
    pub certificate: Option<PathBuf>,
    /// The certificate's key, a PEM file.
    pub private_key: Option<PathBuf>,
    /// Where tokens come from, in a national cloud.
    pub authority: Option<String>,
    /// How long to wait until an accepted message is said to be sent; 0 for not at all.
    #[serde(default = "half_a_minute")]
    pub wait: Span,
    /// The largest message, where Azure's support has raised it.
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

fn half_a_minute() -> Span {
    Span(Duration::from_secs(30))
}

/// The provider.
struct Azure {
    http: reqwest::Client,
    name: ProviderName,
    endpoint: Url,
    credential: Credential,
    wait: Duration,
    timeouts: Timeouts,
    capabilities: Capabilities,
}

/// One call: a message for these recipients.
struct Call {
    attempt: Attempt,
    recipients: Vec<RecipientIndex>,
    addressed: Addressed,
    body: Vec<u8>,
    id: Uuid,
}

impl Config {
    /// Where the resource is, and what proves who calls.
    fn access(&self, name: &ProviderName, context: &Context) -> Result<(Url, Credential), SettingsError> {
        const ONE: &str = "set one of `access_key`, `connection_string`, and `tenant` with `client_id`";
        let named = self.endpoint.as_deref();
        let (endpoint, credential) = match (&self.connection_string, &self.access_key, &self.tenant) {
            (Some(text), None, None) => {
                let text = text.read().map_err(|error| SettingsError::new("connection_string", error))?;
                let Some(parsed) = ConnectionString::parse(&text) else {
                    let expected =
                        "it is no connection string; expected endpoint=https://…/;accesskey=…, from the resource's Settings > Keys";
                    return Err(SettingsError::new("connection_string", expected));
                };
                (Some(named.map_or(parsed.endpoint, str::to_owned)), Credential::key("connection_string", &parsed.key)?)
            }
            (None, Some(key), None) => {
                let key = key.read().map_err(|error| SettingsError::new("access_key", error))?;
                (named.map(str::to_owned), Credential::key("access_key", &key)?)
            }
            (None, None, Some(tenant)) => (named.map(str::to_owned), self.entra(tenant, name, context)?),
            (None, None, None) => return Err(SettingsError::new("", format!("there is no credential: {ONE}"))),
            _ => return Err(SettingsError::new("", format!("there is more than one credential: {ONE}"))),
        };
        let Some(endpoint) = endpoint else {
            let expected = "it is missing; expected the resource's URL, as in \"https://contoso.communication.azure.com\"";
            return Err(SettingsError::new("endpoint", expected));
        };
        let endpoint = api::endpoint(Some(&endpoint), "https://contoso.communication.azure.com")?;
        let url = Url::parse(&endpoint).map_err(|error| SettingsError::new("endpoint", format!("{endpoint:?}: {error}")))?;
        Ok((url, credential))
    }

    fn entra(&self, tenant: &str, name: &ProviderName, context: &Context) -> Result<Credential, SettingsError> {
        let Some(client_id) = &self.client_id else {
            return Err(SettingsError::new("client_id", "it is missing; expected the Application (client) ID of the app registration"));
        };
        let entra = Entra {
            tenant,
            client_id,
            client_secret: self.client_secret.as_ref(),
            certificate: self.certificate.as_deref(),
            private_key: self.private_key.as_deref(),
            refresh_token: None,
            authority: self.authority.as_deref(),
            app_scope: SCOPE,
            user_scope: SCOPE,
            patience: self.timeouts.connect.0,
        };
        Ok(Credential::Entra(entra.tokens(name, context)?))
    }
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        let (endpoint, credential) = self.access(&name, context)?;
        let mut capabilities = CAPABILITIES;
        if let Some(size) = self.max_size {
            capabilities.max_size = Some(SizeLimit::message(size.0));
        }
        let (http, wait, timeouts) = (context.http.clone(), self.wait.0, self.timeouts);
        let provider = Arc::new(Azure { http, name: name.clone(), endpoint, credential, wait, timeouts, capabilities });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    /// Those of a domain of one's own, until they are raised: 30 a minute and 100 an hour.
    fn default_limits(&self) -> LimitSettings {
        let rate = |count, seconds| Some(Rate { count, counted: Counted::Messages, period: Duration::from_secs(seconds) });
        LimitSettings { rate: rate(30, 60), quota: rate(100, 3600).into(), ..LimitSettings::default() }
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn destination(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("Azure Communication Services at {endpoint}"),
            None => format!("Azure Communication Services ({:?})", self.connection_string),
        }
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }
}

impl Azure {
    fn request(&self, method: Method, path: &str, body: Vec<u8>, token: Option<&Token>) -> RequestBuilder {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        url.set_query(Some(API_VERSION));
        self.credential.request(&self.http, method, url, body, token)
    }

    /// Hands over, and asks about the operation where the answer leaves a doubt.
    async fn send(&self, call: &Call, token: Option<Token>) -> Part {
        let token = token.as_ref();
        let left = call.attempt.deadline.saturating_duration_since(Instant::now());
        let until = call.attempt.deadline - LOOK_UP.min(left / 4);
        let request = self.request(Method::POST, "/emails:send", call.body.clone(), token).header("Operation-Id", call.id.to_string());
        let part = match api::exchange("emails:send", request, self.timeouts, Some(until)).await {
            Ok((answer, _)) if answer.status == 202 => return self.follow(call, &answer, token).await,
            Ok((answer, all_sent)) => call.conclude(&answer, all_sent, Reading::Refused(refusal(&answer).unwrap_or_default())),
            Err(Unanswered { all_sent: false, diagnostic }) => Part::Failed(Failure::Unavailable(diagnostic)),
            Err(Unanswered { all_sent: true, diagnostic }) => call.uniform(&Outcome::InDoubt(diagnostic)),
        };
        let is_in_doubt = matches!(&part, Part::Answered(all) if all.iter().any(|(_, outcome)| matches!(outcome, Outcome::InDoubt(_))));
        if !is_in_doubt {
            return part;
        }
        // It is not documented that an id which is not found stands for a message that was not taken, so
        // then the doubt stays.
        match self.look_up(call, call.attempt.deadline, token).await {
            Ok(answer) if State::read(&answer).is_some() => self.follow(call, &answer, token).await,
            _ => part,
        }
    }

    /// Asks about the operation.
    async fn look_up(&self, call: &Call, until: Instant, token: Option<&Token>) -> Result<Answer, Diagnostic> {
        let request = self.request(Method::GET, &format!("/emails/operations/{}", call.id), Vec::new(), token);
        match api::exchange("emails/operations", request, self.timeouts, Some(until)).await {
            Ok((answer, _)) if answer.status == 200 => Ok(answer),
            Ok((answer, _)) => Err(Diagnostic { code: Some(answer.status), ..Diagnostic::during("emails/operations", answer.excerpt()) }),
            Err(Unanswered { diagnostic, .. }) => Err(diagnostic),
        }
    }

    /// Waits for the end of an operation that was accepted. Azure is responsible for the message from here:
    /// what is not known in time, or cannot be asked, is handed over all the same.
    async fn follow(&self, call: &Call, first: &Answer, token: Option<&Token>) -> Part {
        let until = call.attempt.deadline.min(Instant::now() + self.wait);
        let said = |answer: &Answer| retry_after(&answer.headers, SystemTime::now());
        let mut state = State::read(first);
        let mut wait = next_wait(said(first), Duration::from_millis(500));
        loop {
            match state {
                Some(State::Succeeded) => return call.relayed("Succeeded"),
                Some(State::Failed(mut refused)) => {
                    if refused.code == "EmailDroppedAllRecipientsSuppressed" {
                        refused.recipients = call.addresses();
                    }
                    // It is judged as if the call had been refused with this at once.
                    let answer = Answer { status: 400, headers: first.headers.clone(), body: first.body.clone() };
                    return call.conclude(&answer, true, Reading::Refused(refused));
                }
                Some(State::Running) | None => {}
            }
            if Instant::now() + wait >= until {
                return call.relayed("accepted, and not at its end when it was asked about last");
            }
            tokio::time::sleep(wait).await;
            state = match self.look_up(call, until, token).await {
                Ok(answer) => {
                    wait = next_wait(said(&answer), wait);
                    State::read(&answer)
                }
                Err(diagnostic) => return call.relayed(&format!("accepted; its end cannot be asked about: {diagnostic}")),
            };
        }
    }
}

impl Call {
    fn uniform(&self, outcome: &Outcome) -> Part {
        Part::Answered(self.recipients.iter().map(|&index| (index, outcome.clone())).collect())
    }

    fn relayed(&self, state: &str) -> Part {
        let reply = format!("202 operation {} {state}", self.id);
        self.uniform(&Outcome::Relayed(Receipt { remote_id: Some(self.id.to_string()), reply, ..Receipt::default() }))
    }

    fn conclude(&self, answer: &Answer, all_sent: bool, reading: Reading) -> Part {
        api::conclude("emails:send", answer, all_sent, &self.attempt, &self.recipients, RULES, reading)
    }

    fn addresses(&self) -> Vec<String> {
        let Addressed { to, cc, bcc } = &self.addressed;
        [to, cc, bcc].into_iter().flatten().map(|one| one.address.clone()).collect()
    }
}

/// The request's body, without recipients.
/// <https://learn.microsoft.com/rest/api/communication/email/email/send>
fn body(fields: &mut Fields) -> Value {
    fields.require_subject();
    narrow::require_text(fields);
    if let Some(name) = narrow::name(&fields.from) {
        fields.lost.push(format!("the name {name:?} in From: Azure shows that of the MailFrom address"));
    }
    let (headers, more_lost) = fields.unique_headers();
    fields.lost.extend(more_lost);
    let mut content = Map::new();
    content.insert("subject".to_owned(), fields.subject.as_str().into());
    for (name, text) in [("plainText", &fields.text), ("html", &fields.html)] {
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
            content.insert(name.to_owned(), text.as_str().into());
        }
    }
    let mut body = json!({
        "senderAddress": fields.from.address,
        "content": content,
        // Links and pictures stay as the sender wrote them.
        "userEngagementTrackingDisabled": true,
    });
    if !fields.reply_to.is_empty() {
        body["replyTo"] = fields.reply_to.iter().map(mailbox).collect();
    }
    if !headers.is_empty() {
        body["headers"] = headers.into();
    }
    if !fields.attachments.is_empty() {
        let taken = std::mem::take(&mut fields.attachments);
        let attachments = taken.iter().map(|one| {
            let mut attachment =
                json!({ "name": one.name, "contentType": one.media_type, "contentInBase64": STANDARD.encode(&one.content) });
            if let Some(id) = &one.content_id {
                attachment["contentId"] = id.as_str().into();
            }
            attachment
        });
        body["attachments"] = attachments.collect();
    }
    body
}

fn mailbox(mailbox: &Mailbox) -> Value {
    match narrow::name(mailbox) {
        Some(name) => json!({ "address": mailbox.address, "displayName": name }),
        None => json!({ "address": mailbox.address }),
    }
}

/// The recipients' part of the body.
fn recipients(addressed: &Addressed) -> Value {
    let mut recipients = Map::new();
    for (name, list) in [("to", &addressed.to), ("cc", &addressed.cc), ("bcc", &addressed.bcc)] {
        if !list.is_empty() {
            recipients.insert(name.to_owned(), list.iter().map(mailbox).collect());
        }
    }
    recipients.into()
}

/// The operation's id: the same whenever this message is handed over here for these recipients.
fn operation_id(key: [u8; 32]) -> Uuid {
    let mut first = [0; 16];
    first.copy_from_slice(&key[..16]);
    uuid::Builder::from_random_bytes(first).into_uuid()
}

impl Provider for Azure {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let mut fields = Fields::of(&attempt).await?;
        fields.only_ascii(&attempt)?;
        let mut body = body(&mut fields);
        let mut turns = Turns::new(fields.addressed(&attempt));
        while let Some((told, addressed)) = turns.next_call() {
            body["recipients"] = recipients(&addressed);
            let id = operation_id(attempt.idempotency_key(&self.name, &told));
            let call = Call { attempt: attempt.clone(), recipients: told, addressed, body: body.to_string().into_bytes(), id };
            let part = match &self.credential {
                Credential::Key(_) => self.send(&call, None).await,
                Credential::Entra(tokens) => {
                    let call = &call;
                    tokens.call(attempt.deadline, |token| self.send(call, Some(token))).await
                }
            };
            fields.done(&mut turns, &attempt, call.recipients, part);
        }
        fields.told(turns.end())
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let token = match &self.credential {
            Credential::Key(_) => None,
            Credential::Entra(tokens) => Some(tokens.get().await?),
        };
        // There is no such operation; that it is looked for shows that the credential is good.
        let request = self.request(Method::GET, &format!("/emails/operations/{}", Uuid::nil()), Vec::new(), token.as_ref());
        let mut is_azure = false;
        let answer = api::ask("emails/operations", request, self.timeouts, RULES, |answer| {
            let refused = refusal(answer);
            is_azure = refused.is_some();
            refused
        });
        match answer.await {
            Err(failure) if is_azure && failure.diagnostic().code == Some(404) => {}
            Ok(answer) if State::read(&answer).is_some() => {}
            Ok(answer) => {
                let text = format!("an answer that this service does not give: {}", answer.excerpt());
                return Err(Failure::Unavailable(Diagnostic {
                    code: Some(answer.status),
                    ..Diagnostic::during("emails/operations", text)
                }));
            }
            Err(failure) => return Err(failure),
        }
        Ok(Probed::default().fact("the credential is accepted").fact(
            "nothing can be asked about domains and quotas here; the portal shows them under Email > Domains and in the service's limits",
        ))
    }
}

#[cfg(test)]
mod tests;
