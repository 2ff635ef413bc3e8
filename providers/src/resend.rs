//! Resend through its API.
//!
//! It takes fields, not messages: [`crate::mime::fields`] says what that loses. Each call carries a key by
//! which it recognises for 24 hours what it has taken already, so a call in doubt can be repeated.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Value, json};

use crate::contract::{Attempt, Capabilities, Connected, Delivery, Failure, Probed, Provider, ProviderName, RecipientIndex, SizeLimit};
use crate::http::api::{self, Answer, Part, Reading, Refused, Timeouts};
use crate::http::credential::credential;
use crate::http::parts::Turns;
use crate::http::retry_after::reset_in;
use crate::http::verdict::{Rule, Verdict};
use crate::mime::fields::{Addressed, Attachment, Fields, Mailbox};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{Counted, LimitSettings, Rate, Rewrite, Secret};

/// Documented: 40 MB after base64, as attachments stand in a message anyway; 50 in `to`, and nothing about
/// `cc` and `bcc`, so 50 in all. <https://resend.com/docs/api-reference/emails/send-email>
const CAPABILITIES: Capabilities = Capabilities {
    max_size: Some(SizeLimit::message(39_000_000)),
    max_recipients: Some(50),
    idempotency: Some(Duration::from_secs(24 * 3600)),
    ..Capabilities::FIELDS
};

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 5;

/// Requests of a team, unless more was agreed. <https://resend.com/docs/api-reference/rate-limit>
const RATE: Rate = Rate { count: 5, counted: Counted::Messages, period: Duration::from_secs(1) };

/// A quota comes back with the next day or month, or with a larger plan.
pub const QUOTA_PAUSE: Duration = Duration::from_secs(3600);

const QUOTA: &str = "the plan's messages are used up: enlarge the plan in Resend under Settings > Billing, or wait for the next period";
const KEY: &str = "make a new API key in Resend under API Keys, with Sending access";

/// What its refusals mean, by its own name for them.
/// <https://resend.com/docs/api-reference/errors>
///
/// A key that was used with another payload means that an earlier call for the same message and recipients
/// has been received; whether it was taken is not said. A key whose first call still runs means the same.
pub const RULES: &[Rule] = &[
    Rule::new(400, "invalid_idempotency_key", Verdict::Rejected),
    Rule::new(0, "validation_error", Verdict::SenderRefused)
        .says("domain is not verified")
        .advice("add the sender's domain in Resend under Domains and verify it, or set `rewrite`"),
    Rule::new(403, "validation_error", Verdict::Unauthorized)
        .says("testing emails")
        .advice("until a domain is verified, Resend sends only to the account's own address: add one under Domains"),
    Rule::new(0, "validation_error", Verdict::SenderRefused)
        .says("`from` field")
        .advice("Resend does not take this From: correct it in the application, or set `rewrite`"),
    Rule::new(0, "validation_error", Verdict::RecipientsRefused).says("`to` field"),
    Rule::new(0, "validation_error", Verdict::RecipientsRefused).says("`cc` field"),
    Rule::new(0, "validation_error", Verdict::RecipientsRefused).says("`bcc` field"),
    Rule::new(400, "validation_error", Verdict::Rejected),
    Rule::new(422, "validation_error", Verdict::Rejected),
    Rule::new(422, "missing_required_field", Verdict::Rejected),
    Rule::new(422, "missing_required_parameter", Verdict::Rejected),
    Rule::new(422, "invalid_parameter", Verdict::Rejected),
    Rule::new(422, "invalid_attachment", Verdict::Rejected),
    Rule::new(401, "missing_api_key", Verdict::Unauthorized).advice(KEY),
    Rule::new(401, "restricted_api_key", Verdict::Unauthorized).advice(KEY),
    Rule::new(403, "invalid_api_key", Verdict::Unauthorized).advice(KEY),
    Rule::new(403, "suspended_api_key", Verdict::Unauthorized)
        .advice("Resend has suspended the key or the account: look at the dashboard and write to their support"),
    Rule::new(403, "invalid_permission", Verdict::Unauthorized).advice(KEY),
    Rule::new(409, "invalid_idempotent_request", Verdict::InDoubt)
        .advice("the provider's settings were changed between two tries at one message: look in Resend under Emails whether it left"),
    Rule::new(409, "concurrent_idempotent_requests", Verdict::InDoubt),
    Rule::new(409, "resource_locked", Verdict::InDoubt),
    Rule::new(429, "daily_quota_exceeded", Verdict::Throttled(Some(QUOTA_PAUSE))).advice(QUOTA),
    Rule::new(429, "monthly_quota_exceeded", Verdict::Throttled(Some(QUOTA_PAUSE))).advice(QUOTA),
    Rule::new(451, "security_error", Verdict::Unsuitable),
];

/// `[provider.resend.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The API key, which begins with `re_`.
    pub api_key: Secret,
    /// Tags of every message, for its events.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The service's URL.
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
struct Resend {
    name: ProviderName,
    http: reqwest::Client,
    endpoint: String,
    key: HeaderValue,
    tags: BTreeMap<String, String>,
    timeouts: Timeouts,
}

impl Config {
    const ENDPOINT: &'static str = "https://api.resend.com";
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        let key = credential("api_key", &self.api_key, "Bearer ")?;
        let endpoint = api::endpoint(self.endpoint.as_deref(), Self::ENDPOINT)?;
        let is_tag = |text: &String| {
            (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        if let Some(odd) = self.tags.iter().flat_map(|(name, value)| [name, value]).find(|text| !is_tag(text)) {
            let message = format!("{odd:?}: Resend takes 1 to 256 ASCII letters, digits, underscores and dashes");
            return Err(SettingsError::new("tags", message));
        }
        let provider = Arc::new(Resend {
            name: name.clone(),
            http: context.http.clone(),
            endpoint,
            key,
            tags: self.tags.clone(),
            timeouts: self.timeouts,
        });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    fn default_limits(&self) -> LimitSettings {
        LimitSettings { rate: Some(RATE), ..LimitSettings::default() }
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn destination(&self) -> String {
        format!("{} (API key {})", self.endpoint.as_deref().unwrap_or(Self::ENDPOINT), self.api_key)
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }
}

impl Resend {
    async fn send(&self, attempt: &Attempt, body: &Value, recipients: &[RecipientIndex]) -> Part {
        let key = hex(&attempt.idempotency_key(&self.name, recipients));
        let request = self.http.post(format!("{}/emails", self.endpoint)).header(AUTHORIZATION, &self.key);
        let request = request.header("Idempotency-Key", key).json(body);
        api::hand_over("emails", request, self.timeouts, attempt, recipients, RULES, read).await
    }

    /// What all calls for a message have in common, and what does not fit into it as a note in `fields`.
    /// <https://resend.com/docs/api-reference/emails/send-email>
    fn message(&self, fields: &mut Fields) -> Value {
        fields.require_subject();
        fields.keep_headers(|name| name != "resend-idempotency-key", "it would be an order to Resend");
        let (headers, lost) = fields.unique_headers();
        fields.lost.extend(lost);
        let mut message = json!({ "from": sender(fields), "subject": fields.subject });
        // Where there is HTML and no `text`, it makes one from the HTML; an empty one says that there is none.
        message["text"] = match (&fields.text, fields.is_empty()) {
            (_, true) => " ".into(),
            (text, false) => text.as_deref().unwrap_or_default().into(),
        };
        if let Some(html) = fields.html.as_ref().filter(|html| !html.is_empty()) {
            message["html"] = html.as_str().into();
        }
        if !fields.reply_to.is_empty() {
            message["reply_to"] = fields.reply_to.iter().map(Mailbox::encoded).collect();
        }
        if !headers.is_empty() {
            message["headers"] = headers.into();
        }
        if !fields.attachments.is_empty() {
            message["attachments"] = std::mem::take(&mut fields.attachments).iter().map(attachment).collect();
        }
        if !self.tags.is_empty() {
            message["tags"] = self.tags.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        }
        message
    }
}

/// From. It takes neither quoted strings nor encoded words in it, so what would need either is left out.
/// <https://github.com/anymail/django-anymail/blob/main/anymail/backends/resend.py>
fn sender(fields: &mut Fields) -> String {
    let Some(name) = &fields.from.name else { return fields.from.address.clone() };
    let is_plain = |c: char| c.is_alphanumeric() || " -_'&+".contains(c);
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { ' ' }).collect();
    let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if plain != *name {
        fields.lost.push(format!("From: the name {name:?} is shown as {plain:?}"));
    }
    match plain.is_empty() {
        true => fields.from.address.clone(),
        false => format!("{plain} <{}>", fields.from.address),
    }
}

fn attachment(one: &Attachment) -> Value {
    let mut attachment = json!({ "filename": one.name, "content_type": one.media_type, "content": STANDARD.encode(&one.content) });
    if let Some(id) = &one.content_id {
        attachment["content_id"] = id.as_str().into();
    }
    attachment
}

fn address(message: &mut Value, addressed: &Addressed) {
    for (name, mailboxes) in [("to", &addressed.to), ("cc", &addressed.cc), ("bcc", &addressed.bcc)] {
        match mailboxes.is_empty() {
            true => drop(message.as_object_mut().and_then(|message| message.remove(name))),
            false => message[name] = mailboxes.iter().map(Mailbox::encoded).collect(),
        }
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        // Writing to a string does not fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

fn read(answer: &Answer) -> Reading {
    match answer.json()["id"].as_str().filter(|_| answer.status == 200) {
        Some(id) => Reading::accepted(Some(id.to_owned())),
        None => Reading::Refused(refusal(answer)),
    }
}

fn refusal(answer: &Answer) -> Refused {
    let json = answer.json();
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    Refused {
        code: text("name"),
        text: text("message"),
        // The budget of a second; quotas are not in it.
        retry_after: reset_in(&answer.headers, "ratelimit-reset").filter(|_| json["name"] == "rate_limit_exceeded"),
        ..Refused::default()
    }
}

impl Provider for Resend {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let mut fields = Fields::of(&attempt).await?;
        fields.only_ascii(&attempt)?;
        let mut turns = Turns::new(fields.addressed(&attempt));
        let mut message = self.message(&mut fields);
        while let Some((recipients, addressed)) = turns.next_call() {
            address(&mut message, &addressed);
            let part = self.send(&attempt, &message, &recipients).await;
            fields.done(&mut turns, &attempt, recipients, part);
        }
        fields.told(turns.end())
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let request = self.http.get(format!("{}/domains", self.endpoint)).header(AUTHORIZATION, &self.key);
        let answer = match api::ask("domains", request, self.timeouts, RULES, |answer| Some(refusal(answer))).await {
            Ok(answer) => answer,
            // As it should be: the key may do nothing else.
            Err(Failure::Unauthorized(diagnostic)) if diagnostic.text.starts_with("restricted_api_key") => {
                return Ok(Probed::default().fact("the API key may send mail, and nothing else"));
            }
            Err(failure) => return Err(failure),
        };
        let json = answer.json();
        let domains = json["data"].as_array().map_or(&[][..], Vec::as_slice);
        let mut probed = Probed::default().fact("the API key has full access");
        for domain in domains {
            let (name, status) = (domain["name"].as_str().unwrap_or("?"), domain["status"].as_str().unwrap_or("unknown"));
            probed = match status {
                "verified" => probed.fact(format!("{name} is verified")),
                _ => probed.warning(format!("{name} is not verified ({status}): finish it in Resend under Domains")),
            };
        }
        if domains.is_empty() {
            probed = probed.warning("no domain: until one is verified, Resend sends only to the account's own address");
        }
        Ok(probed)
    }
}
