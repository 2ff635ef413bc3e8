//! Twilio SendGrid through its API, version 3.
//!
//! It takes fields, not messages: [`crate::mime::fields`] says what that loses. The recipients are told in
//! one personalization, so all of them get the same.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use serde_json::{Map, Value, json};

use crate::contract::{Attempt, Capabilities, Connected, Delivery, Failure, Probed, Provider, ProviderName, RecipientIndex, SizeLimit};
use crate::http::api::{self, Answer, Part, Reading, Refused, Timeouts};
use crate::http::credential::credential;
use crate::http::parts::Turns;
use crate::http::retry_after::reset_at;
use crate::http::verdict::{Rule, Verdict};
use crate::mime::fields::{Addressed, Attachment, Calendar, Fields, Mailbox};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret};

/// Documented as less than 30 MB, and 1,000 recipients in to, cc and bcc together.
const CAPABILITIES: Capabilities =
    Capabilities { max_size: Some(SizeLimit::message(29_000_000)), max_recipients: Some(1000), ..Capabilities::FIELDS };

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 20;

/// Credits come back with the next day or with a larger plan.
pub const CREDITS_PAUSE: Duration = Duration::from_secs(3600);

/// The most categories of a message.
const MOST_CATEGORIES: usize = 10;

/// Header fields that it refuses, beside those that are never passed on, and one that would be an order to
/// it. <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send>
const RESERVED: &[&str] = &["x-sg-id", "x-sg-eid", "x-smtpapi"];

/// What its refusals mean.
/// <https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/responses>
///
/// That 451 is about the region is documented in
/// <https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/errors>; what else
/// it may be about is not.
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
    Rule::new(451, "", Verdict::Unauthorized).advice(
        "the account lives in another region: set `endpoint` to https://api.eu.sendgrid.com for an account in the EU, and leave it out otherwise",
    ),
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
    /// Whether SendGrid only checks each message, and sends none.
    #[serde(default)]
    pub sandbox: bool,
    /// Categories that its statistics count the mail under.
    #[serde(default)]
    pub categories: Vec<String>,
}

/// The provider.
struct SendGrid {
    http: reqwest::Client,
    endpoint: String,
    key: HeaderValue,
    timeouts: Timeouts,
    sandbox: bool,
    categories: Vec<String>,
}

impl Config {
    const ENDPOINT: &'static str = "https://api.sendgrid.com";
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        let key = credential("api_key", &self.api_key, "Bearer ")?;
        let endpoint = api::endpoint(self.endpoint.as_deref(), Self::ENDPOINT)?;
        check_categories(&self.categories).map_err(|message| SettingsError::new("categories", message))?;
        let provider = Arc::new(SendGrid {
            http: context.http.clone(),
            endpoint,
            key,
            timeouts: self.timeouts,
            sandbox: self.sandbox,
            categories: self.categories.clone(),
        });
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
        format!("{} (API key {})", self.endpoint.as_deref().unwrap_or(Self::ENDPOINT), self.api_key)
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }
}

fn check_categories(categories: &[String]) -> Result<(), String> {
    if categories.len() > MOST_CATEGORIES {
        return Err(format!("{} categories; SendGrid takes at most {MOST_CATEGORIES}", categories.len()));
    }
    match categories.iter().find(|one| one.is_empty() || one.len() > 255) {
        Some(odd) => Err(format!("{odd:?} has {} characters; SendGrid takes 1 to 255", odd.len())),
        None => Ok(()),
    }
}

impl SendGrid {
    async fn send(&self, attempt: &Attempt, body: &Value, recipients: &[RecipientIndex]) -> Part {
        let request = self.http.post(format!("{}/v3/mail/send", self.endpoint)).header(AUTHORIZATION, &self.key);
        let request = request.header(ACCEPT, "application/json").json(body);
        // The sandbox says 200, and only the sandbox does.
        let success = if self.sandbox { 200 } else { 202 };
        let read = |answer: &Answer| match answer.status == success {
            true => Reading::accepted(answer.header("x-message-id").map(str::to_owned)),
            false => Reading::Refused(refusal(answer, &body["personalizations"])),
        };
        api::hand_over("mail/send", request, self.timeouts, attempt, recipients, RULES, read).await
    }

    /// What all calls for a message have in common, and what does not fit into it as a note in `fields`.
    /// <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send>
    fn message(&self, fields: &mut Fields) -> Value {
        fields.require_subject();
        fields.keep_headers(|name| !RESERVED.contains(&name), "SendGrid does not take it");
        let (headers, lost) = fields.unique_headers();
        fields.lost.extend(lost);
        let calendar = fields.take_calendar();
        let mut message = json!({
            "from": mailbox(&fields.from),
            "subject": fields.subject,
            "content": content(fields, calendar.as_ref()),
            // Links and pictures stay as the sender wrote them.
            "tracking_settings": {
                "click_tracking": { "enable": false, "enable_text": false },
                "open_tracking": { "enable": false },
            },
        });
        if !fields.attachments.is_empty() {
            message["attachments"] = std::mem::take(&mut fields.attachments).iter().map(attachment).collect();
        }
        if !fields.reply_to.is_empty() {
            message["reply_to_list"] = fields.reply_to.iter().map(mailbox).collect();
        }
        if !headers.is_empty() {
            message["headers"] = headers.into();
        }
        if !self.categories.is_empty() {
            message["categories"] = self.categories.as_slice().into();
        }
        if self.sandbox {
            message["mail_settings"] = json!({ "sandbox_mode": { "enable": true } });
        }
        message
    }
}

/// Plain text first, then HTML, then others; none of them empty.
fn content(fields: &mut Fields, calendar: Option<&Calendar>) -> Value {
    let texts = [("text/plain", fields.text.as_deref()), ("text/html", fields.html.as_deref())];
    let mut content: Vec<Value> = texts
        .into_iter()
        .filter_map(|(kind, text)| Some(json!({ "type": kind, "value": text.filter(|text| !text.is_empty())? })))
        .collect();
    if content.is_empty() {
        content.push(json!({ "type": "text/plain", "value": " " }));
    }
    if let Some(calendar) = calendar {
        // Parameters of a type are refused, so its method stands only within it.
        // https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors
        content.push(json!({ "type": "text/calendar", "value": calendar.text }));
        fields.lost.push("text/calendar: the method beside it".to_owned());
    }
    content.into()
}

fn attachment(one: &Attachment) -> Value {
    let mut attachment = json!({ "filename": one.name, "type": one.media_type, "content": STANDARD.encode(&one.content) });
    if let Some(id) = &one.content_id {
        attachment["disposition"] = "inline".into();
        attachment["content_id"] = id.as_str().into();
    }
    attachment
}

/// Who gets it, in one personalization, so that all get the same.
fn personalization(addressed: &Addressed) -> Value {
    let lists = [("to", &addressed.to), ("cc", &addressed.cc), ("bcc", &addressed.bcc)];
    let shown = lists.into_iter().filter(|(_, list)| !list.is_empty());
    shown.map(|(name, list)| (name.to_owned(), list.iter().map(recipient).collect::<Value>())).collect::<Map<_, _>>().into()
}

fn mailbox(mailbox: &Mailbox) -> Value {
    match &mailbox.name {
        Some(name) => json!({ "email": mailbox.address, "name": name }),
        None => json!({ "email": mailbox.address }),
    }
}

/// Names of recipients must not have what separates addresses.
fn recipient(one: &Mailbox) -> Value {
    let name = one.name.as_ref().map(|name| name.split([';', ',']).map(str::trim).collect::<Vec<_>>().join(" "));
    mailbox(&Mailbox { name, address: one.address.clone() })
}

/// What an answer refuses. The code is `to` where it is about a recipient, who is named by a place in the
/// request's `personalizations`.
fn refusal(answer: &Answer, personalizations: &Value) -> Refused {
    let json = answer.json();
    let errors = json["errors"].as_array().map_or(&[][..], Vec::as_slice);
    let said: Vec<&str> = errors.iter().filter_map(|error| error["message"].as_str()).collect();
    let (mut about_recipients, mut recipients) = (false, Vec::new());
    for field in errors.iter().filter_map(|error| error["field"].as_str()) {
        let mut steps = field.split('.');
        let place = (steps.next(), steps.next(), steps.next());
        if let (Some("personalizations"), Some(which), Some(list @ ("to" | "cc" | "bcc"))) = place {
            about_recipients = true;
            let nth = |step: Option<&str>| step?.parse::<usize>().ok();
            if let (Some(which), Some(nth)) = (nth(Some(which)), nth(steps.next())) {
                recipients.extend(personalizations[which][list][nth]["email"].as_str().map(str::to_owned));
            }
        }
    }
    Refused {
        code: if about_recipients { "to" } else { "" }.to_owned(),
        text: said.join("; "),
        recipients,
        retry_after: reset_at(&answer.headers, "x-ratelimit-reset", SystemTime::now()),
    }
}

impl Provider for SendGrid {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let mut fields = Fields::of(&attempt).await?;
        fields.only_ascii(&attempt)?;
        let mut turns = Turns::new(fields.addressed(&attempt));
        let mut message = self.message(&mut fields);
        while let Some((recipients, addressed)) = turns.next_call() {
            message["personalizations"] = json!([personalization(&addressed)]);
            let part = self.send(&attempt, &message, &recipients).await;
            fields.done(&mut turns, &attempt, recipients, part);
        }
        fields.told(turns.end())
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let get = |path: &str| {
            self.http.get(format!("{}{path}", self.endpoint)).header(AUTHORIZATION, &self.key).header(ACCEPT, "application/json")
        };
        let read = |answer: &Answer| Some(refusal(answer, &Value::Null));
        let scopes = api::ask("scopes", get("/v3/scopes"), self.timeouts, RULES, read).await?.json();
        let may = |wanted: &str| scopes["scopes"].as_array().is_some_and(|scopes| scopes.iter().any(|scope| scope == wanted));
        let mut probed = match may("mail.send") {
            true => Probed::default().fact("the API key may send mail"),
            false => Probed::default().warning("the API key lacks the scope mail.send: give it Mail Send access"),
        };
        if self.sandbox {
            probed = probed.warning("`sandbox` is set: SendGrid checks every message and sends none");
        }
        // A key that may only send is the better one, and cannot see the account.
        if may("user.account.read") {
            let account = api::ask("user/account", get("/v3/user/account"), self.timeouts, RULES, read).await?.json();
            if let Some(plan) = account["type"].as_str() {
                probed = probed.fact(format!("the account's plan is {plan:?}"));
            }
            if let Some(reputation) = account["reputation"].as_f64() {
                probed = probed.fact(format!("the account's reputation is {reputation} of 100"));
            }
        }
        Ok(probed)
    }
}
