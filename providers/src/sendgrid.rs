//! Twilio SendGrid through its API, version 3.
//!
//! It takes fields, not messages: [`crate::mime::fields`] says what that loses. The recipients are told in
//! one personalization, so all of them get the same.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::contract::{Attempt, Capabilities, Connected, Delivery, Failure, Probed, Provider, ProviderName, RecipientIndex, SizeLimit};
use crate::http::api::{self, Answer, Part, Reading, Refused, Timeouts};
use crate::http::parts::Turns;
use crate::http::verdict::{Rule, Verdict};
use crate::mime::fields::{Addressed, Fields, Mailbox};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret};

/// Documented as less than 30 MB, and 1,000 recipients in to, cc and bcc together.
const CAPABILITIES: Capabilities =
    Capabilities { max_size: Some(SizeLimit::message(29_000_000)), max_recipients: Some(1000), ..Capabilities::FIELDS };

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 20;

/// Credits come back with the next day or with a larger plan.
pub const CREDITS_PAUSE: Duration = Duration::from_secs(3600);

/// What its refusals mean.
/// <https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/responses>
pub const RULES: &[Rule] = &[
    Rule::new(400, "to", Verdict::RecipientsRefused),
    Rule::new(400, "", Verdict::Rejected),
    Rule::new(401, "", Verdict::Throttled(Some(CREDITS_PAUSE))).says("maximum credits exceeded").advice(
        "the plan's messages are used up: enlarge the plan in SendGrid under Settings > Account Details, or wait for the next period",
    ),
    Rule::new(401, "", Verdict::Unauthorized).advice("make a new API key in SendGrid under Settings > API Keys, with Mail Send access"),
    Rule::new(403, "", Verdict::SenderRefused)
        .says("verified sender identity")
        .advice("authenticate the sender's domain in SendGrid under Settings > Sender Authentication, or set `rewrite`"),
    Rule::new(403, "", Verdict::Throttled(None)).says("temporarily blocked"),
];

/// `[provider.sendgrid.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The API key, which begins with `SG.`.
    pub api_key: Secret,
    /// The service's URL; `https://api.eu.sendgrid.com` for an account in the EU.
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
struct SendGrid {
    http: reqwest::Client,
    endpoint: String,
    key: String,
    timeouts: Timeouts,
}

impl Config {
    const ENDPOINT: &'static str = "https://api.sendgrid.com";
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        let key = self.api_key.read().map_err(|error| SettingsError::new("api_key", error))?;
        let endpoint = api::endpoint(self.endpoint.as_deref(), Self::ENDPOINT)?;
        let provider = Arc::new(SendGrid { http: context.http.clone(), endpoint, key, timeouts: self.timeouts });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn destination(&self) -> String {
        // Two keys may be of one account, and nobody can tell by looking at them.
        format!("{} (API key {:?})", self.endpoint.as_deref().unwrap_or(Self::ENDPOINT), self.api_key)
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }
}

impl SendGrid {
    async fn send(&self, attempt: &Attempt, fields: &Fields, recipients: &[RecipientIndex], addressed: &Addressed) -> Part {
        let request = self.http.post(format!("{}/v3/mail/send", self.endpoint)).bearer_auth(&self.key).json(&body(fields, addressed));
        api::hand_over("mail/send", request, self.timeouts, attempt, recipients, RULES, read).await
    }
}

/// The request's body.
/// <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send>
fn body(fields: &Fields, addressed: &Addressed) -> Value {
    let mut personalization = Map::new();
    for (name, list) in [("to", &addressed.to), ("cc", &addressed.cc), ("bcc", &addressed.bcc)] {
        if !list.is_empty() {
            personalization.insert(name.to_owned(), list.iter().map(mailbox).collect());
        }
    }
    let texts = [("text/plain", &fields.text), ("text/html", &fields.html)];
    let content: Vec<Value> = texts.into_iter().filter_map(|(kind, text)| Some(json!({ "type": kind, "value": text.as_ref()? }))).collect();
    let mut body = json!({
        "personalizations": [personalization],
        "from": mailbox(&fields.from),
        "subject": fields.subject,
        "content": content,
        // Links and pictures stay as the sender wrote them.
        "tracking_settings": {
            "click_tracking": { "enable": false, "enable_text": false },
            "open_tracking": { "enable": false },
        },
    });
    if !fields.attachments.is_empty() {
        body["attachments"] = fields
            .attachments
            .iter()
            .map(|one| {
                let mut attachment = json!({ "filename": one.name, "type": one.media_type, "content": STANDARD.encode(&one.content) });
                if let Some(id) = &one.content_id {
                    attachment["disposition"] = "inline".into();
                    attachment["content_id"] = id.as_str().into();
                }
                attachment
            })
            .collect();
    }
    if !fields.reply_to.is_empty() {
        body["reply_to_list"] = fields.reply_to.iter().map(mailbox).collect();
    }
    body
}

fn mailbox(mailbox: &Mailbox) -> Value {
    match &mailbox.name {
        // Refused in names.
        Some(name) => json!({ "email": mailbox.address, "name": name.replace([';', ','], " ") }),
        None => json!({ "email": mailbox.address }),
    }
}

/// What an answer says. The code is the list of recipients that an error is about, if it is about one.
fn read(answer: &Answer) -> Reading {
    if answer.status == 202 {
        return Reading::accepted(answer.header("x-message-id").map(str::to_owned));
    }
    Reading::Refused(refusal(answer).unwrap_or_default())
}

fn refusal(answer: &Answer) -> Option<Refused> {
    let json = answer.json();
    let errors = json["errors"].as_array()?;
    let said: Vec<&str> = errors.iter().filter_map(|error| error["message"].as_str()).collect();
    let about_recipients = errors.iter().any(|error| {
        let field = error["field"].as_str().unwrap_or_default();
        field.starts_with("personalizations") && [".to", ".cc", ".bcc"].iter().any(|list| field.contains(list))
    });
    let code = if about_recipients { "to" } else { "" };
    Some(Refused { code: code.to_owned(), text: said.join("; "), ..Refused::default() })
}

impl Provider for SendGrid {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let fields = Fields::of(&attempt).await?;
        let mut turns = Turns::new(fields.addressed(&attempt));
        while let Some((recipients, addressed)) = turns.next_call() {
            let part = self.send(&attempt, &fields, &recipients, &addressed).await;
            turns.done(recipients, part);
        }
        fields.told(turns.end())
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let request = self.http.get(format!("{}/v3/scopes", self.endpoint)).bearer_auth(&self.key);
        let answer = api::ask("scopes", request, self.timeouts, RULES, refusal).await?;
        let scopes = answer.json();
        let may_send = scopes["scopes"].as_array().is_some_and(|scopes| scopes.iter().any(|scope| scope == "mail.send"));
        Ok(match may_send {
            true => Probed::default().fact("the API key may send mail"),
            false => Probed::default().warning("the API key lacks the scope mail.send: give it Mail Send access"),
        })
    }
}
