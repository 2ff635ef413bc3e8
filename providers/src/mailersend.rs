//! MailerSend through its API, version 1.
//!
//! It takes fields, not messages: [`crate::mime::fields`] says what that loses. Header fields of the
//! sender's own are taken on the largest plan only, and the subject and texts are templates.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Value, json};

use crate::contract::{Attempt, Capabilities, Connected, Delivery, Failure, Probed, Provider, ProviderName, RecipientIndex, SizeLimit};
use crate::http::api::{self, Accepted, Answer, Part, Reading, Refused, Timeouts};
use crate::http::credential::credential;
use crate::http::parts::Turns;
use crate::http::verdict::{Rule, Verdict};
use crate::mime::fields::{Addressed, Attachment, Fields, Mailbox};
use crate::mime::narrow;
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{Counted, LimitSettings, Rate, Rewrite, Secret};

/// The most in cc, and in bcc; `to` has room for 50.
const MOST_COPIES: usize = 10;

/// One `to` is in each call, so with 11 recipients there are at most 10 copies, however they are spread.
/// 25 MB are not confirmed.
const CAPABILITIES: Capabilities =
    Capabilities { max_size: Some(SizeLimit::message(25_000_000)), max_recipients: Some(1 + MOST_COPIES), ..Capabilities::FIELDS };

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 5;

/// Both of its template languages. There is no setting that switches them off, and no way to write such
/// marks as themselves that its documentation knows.
/// <https://developers.mailersend.com/api/v1/email.html>
const PLACEHOLDERS: &[&str] = &["{{", "{%", "{#", "{$"];

const SUPPRESSED: &str = "take them off the suppression list in MailerSend under Email > Suppressions, if they are there by mistake";

/// What its refusals mean. <https://developers.mailersend.com/general.html>,
/// <https://www.mailersend.com/help/rate-limits-how-to-reduce-403-422-429-errors>,
/// <https://www.mailersend.com/help/managing-api-tokens>
pub const RULES: &[Rule] = &[
    Rule::new(202, "ALL_SUPPRESSED", Verdict::RecipientsRefused).advice(SUPPRESSED),
    Rule::new(401, "", Verdict::Unauthorized)
        .advice("make a new API token in MailerSend under Integrations > MailerSend API > Manage, with full access to Email"),
    Rule::new(403, "", Verdict::Unauthorized).advice(
        "look whether the MailerSend account is approved and not suspended, whether the token may send, and whether its list of IP \
         addresses has this machine's",
    ),
    // Its maintenance: nothing was taken.
    Rule::new(421, "", Verdict::Unavailable),
    Rule::new(422, "from", Verdict::SenderRefused)
        .advice("add and verify the sender's domain in MailerSend under Domains, with the token's access to it, or set `rewrite`"),
    Rule::new(422, "to", Verdict::RecipientsRefused),
    Rule::new(422, "headers", Verdict::Unsuitable)
        .advice("set `custom_headers = false`: MailerSend takes them on its Enterprise plan only"),
    Rule::new(422, "attachments", Verdict::Unsuitable),
    Rule::new(422, "", Verdict::Rejected),
];

/// `[provider.mailersend.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The API token, which begins with `mlsn.`.
    pub api_token: Secret,
    /// Whether header fields of the sender's own go along, which the Enterprise plan allows.
    #[serde(default)]
    pub custom_headers: bool,
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
struct MailerSend {
    http: reqwest::Client,
    endpoint: String,
    token: HeaderValue,
    custom_headers: bool,
    timeouts: Timeouts,
}

impl Config {
    const ENDPOINT: &'static str = "https://api.mailersend.com";
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        let token = credential("api_token", &self.api_token, "Bearer ")?;
        let endpoint = api::endpoint(self.endpoint.as_deref(), Self::ENDPOINT)?;
        let (custom_headers, timeouts) = (self.custom_headers, self.timeouts);
        let provider = Arc::new(MailerSend { http: context.http.clone(), endpoint, token, custom_headers, timeouts });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    /// 120 calls a minute; how many a day depends on the plan.
    fn default_limits(&self) -> LimitSettings {
        let rate = Rate { count: 120, counted: Counted::Messages, period: std::time::Duration::from_secs(60) };
        LimitSettings { rate: Some(rate), ..LimitSettings::default() }
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn destination(&self) -> String {
        format!("{} (API token {})", self.endpoint.as_deref().unwrap_or(Self::ENDPOINT), self.api_token)
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }
}

impl MailerSend {
    async fn send(&self, attempt: &Attempt, body: &mut Value, recipients: &[RecipientIndex], addressed: &Addressed) -> Part {
        narrow::address(body, addressed.lists(), mailbox);
        let request = self.http.post(format!("{}/v1/email", self.endpoint)).header(AUTHORIZATION, &self.token).json(body);
        api::hand_over("email", request, self.timeouts, attempt, recipients, RULES, |answer| read(answer, addressed)).await
    }
}

/// The request's body, without recipients.
fn body(fields: &mut Fields, custom_headers: bool) -> Result<Value, Failure> {
    narrow::refuse_placeholders(fields, PLACEHOLDERS, "MailerSend")?;
    fields.require_subject();
    narrow::require_text(fields);
    narrow::one_reply_to(fields);
    let mut body = json!({ "from": mailbox(&fields.from), "subject": fields.subject });
    for (name, text) in [("text", &fields.text), ("html", &fields.html)] {
        if let Some(text) = text.as_ref().filter(|text| !text.trim().is_empty()) {
            body[name] = text.as_str().into();
        }
    }
    if let Some(reply_to) = fields.reply_to.first() {
        body["reply_to"] = mailbox(reply_to);
    }
    if !fields.attachments.is_empty() {
        body["attachments"] = std::mem::take(&mut fields.attachments).iter().map(attachment).collect();
    }
    let (headers, more_lost) = fields.unique_headers();
    fields.lost.extend(more_lost);
    let mut own = Vec::new();
    for (name, value) in headers {
        match name.to_ascii_lowercase().as_str() {
            // These two have members of their own on every plan.
            "in-reply-to" => body["in_reply_to"] = value,
            "precedence" if value == "bulk" => body["precedence_bulk"] = true.into(),
            _ if custom_headers => own.push(json!({ "name": name, "value": value })),
            _ => fields.lost.push(format!("{name}: MailerSend takes it on its Enterprise plan only")),
        }
    }
    if !own.is_empty() {
        body["headers"] = own.into();
    }
    Ok(body)
}

fn attachment(one: &Attachment) -> Value {
    let mut attachment = json!({ "filename": one.name, "content": STANDARD.encode(&one.content), "disposition": "attachment" });
    if let Some(id) = &one.content_id {
        attachment["disposition"] = "inline".into();
        attachment["id"] = id.as_str().into();
    }
    attachment
}

fn mailbox(mailbox: &Mailbox) -> Value {
    match narrow::name(mailbox) {
        // Refused in names.
        Some(name) => json!({ "email": mailbox.address, "name": name.replace([';', ','], " ") }),
        None => json!({ "email": mailbox.address }),
    }
}

/// What an answer says. A success may carry warnings: recipients on the account's suppression list, who
/// do not get the message.
fn read(answer: &Answer, addressed: &Addressed) -> Reading {
    let json = answer.json();
    if answer.status != 202 {
        let mut refused = refusal(answer).unwrap_or_default();
        refused.recipients = at_fault(&json["errors"], addressed);
        return Reading::Refused(refused);
    }
    let warnings = json["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(all) = warnings.iter().find(|warning| warning["type"] == "ALL_SUPPRESSED") {
        let text = all["warning"].as_str().unwrap_or_default().to_owned();
        let recipients = addressed.lists().into_iter().flat_map(|(_, list)| list).map(|one| one.address.clone()).collect();
        return Reading::Refused(Refused { code: "ALL_SUPPRESSED".to_owned(), text, recipients, ..Refused::default() });
    }
    let suppressed = warnings.iter().filter(|warning| warning["type"] == "SOME_SUPPRESSED");
    let refused = suppressed.flat_map(|warning| warning["recipients"].as_array().into_iter().flatten()).filter_map(|one| {
        let reasons: Vec<&str> = one["reason"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        Some((one["email"].as_str()?.to_owned(), format!("on MailerSend's suppression list: {}", reasons.join(", "))))
    });
    Reading::Accepted(Accepted { remote_id: answer.header("x-message-id").map(str::to_owned), refused: refused.collect() })
}

/// The code is the member that an error is about: `from`, `to` for all recipients, or its name.
fn refusal(answer: &Answer) -> Option<Refused> {
    let json = answer.json();
    let mut said: Vec<&str> = json["message"].as_str().into_iter().collect();
    let mut code = "";
    for (member, texts) in json["errors"].as_object().into_iter().flatten() {
        let member = member.split('.').next().unwrap_or_default();
        match member {
            "from" => code = "from",
            "to" | "cc" | "bcc" if code.is_empty() => code = "to",
            "headers" | "attachments" if code.is_empty() => code = if member == "headers" { "headers" } else { "attachments" },
            _ => {}
        }
        said.extend(texts.as_array().into_iter().flatten().filter_map(Value::as_str));
    }
    (!said.is_empty()).then(|| Refused { code: code.to_owned(), text: said.join(" "), ..Refused::default() })
}

/// The recipients that errors are about by their place, as in `to.1.email`.
fn at_fault(errors: &Value, addressed: &Addressed) -> Vec<String> {
    let members = errors.as_object().into_iter().flatten().map(|(member, _)| member);
    let address = |member: &String| {
        let mut steps = member.split('.');
        let (list, place) = (steps.next()?, steps.next()?.parse::<usize>().ok()?);
        Some(addressed.at(list, place)?.address.clone())
    };
    members.filter_map(address).collect()
}

impl Provider for MailerSend {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let mut fields = Fields::of(&attempt).await?;
        fields.only_ascii(&attempt)?;
        let mut body = body(&mut fields, self.custom_headers)?;
        let mut turns = Turns::new(fields.addressed(&attempt));
        while let Some((recipients, addressed)) = turns.next_call() {
            let part = self.send(&attempt, &mut body, &recipients, &addressed).await;
            fields.done(&mut turns, &attempt, recipients, part);
        }
        fields.told(turns.end())
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let request = self.http.get(format!("{}/v1/domains?limit=100", self.endpoint)).header(AUTHORIZATION, &self.token);
        let answer = match api::ask("domains", request, self.timeouts, RULES, refusal).await {
            // A token for sending alone may not read domains, and is all that is needed.
            Err(Failure::Unauthorized(diagnostic)) if diagnostic.code == Some(403) => {
                return Ok(Probed::default()
                    .fact("the API token is known")
                    .warning("the token may not read domains, so whether the sender's is verified was not looked up"));
            }
            answer => answer?,
        };
        let mut probed = Probed::default().fact("the API token is accepted");
        let domains = answer.json();
        let domains = domains["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        for domain in domains {
            let name = domain["name"].as_str().unwrap_or("?");
            probed = match (domain["is_verified"].as_bool(), domain["domain_settings"]["send_paused"].as_bool()) {
                (Some(false), _) => probed.warning(format!("{name} is not verified: set its DNS records as MailerSend shows them")),
                (_, Some(true)) => probed.warning(format!("sending is paused for {name}: resume it in the domain's settings")),
                _ => probed.fact(format!("{name} is verified")),
            };
        }
        Ok(if domains.is_empty() { probed.warning("there is no domain in this account: add one under Domains") } else { probed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_go_along_only_where_the_plan_allows_it() {
        let headers = [("In-Reply-To", "<a@b>"), ("Precedence", "bulk"), ("X-Mailer", "m")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        for (custom, lost) in [(false, 1), (true, 0)] {
            let mut fields = Fields { headers: headers.clone(), text: Some("t".to_owned()), subject: "s".to_owned(), ..Fields::default() };
            let body = body(&mut fields, custom).unwrap();
            assert_eq!((&body["in_reply_to"], &body["precedence_bulk"]), (&json!("<a@b>"), &json!(true)));
            assert_eq!((body["headers"].is_array(), fields.lost.len()), (custom, lost), "{:?}", fields.lost);
        }
    }

    #[test]
    fn recipients_at_fault_are_found_by_their_place() {
        let list = |addresses: &[&str]| addresses.iter().map(|one| Mailbox { name: None, address: (*one).to_owned() }).collect();
        let addressed = Addressed { to: list(&["a@x", "b@x"]), cc: list(&["c@x"]), bcc: Vec::new() };
        assert_eq!(at_fault(&json!({ "to.1.email": ["x"], "cc.0.email": ["x"], "to.9.email": ["x"] }), &addressed), ["c@x", "b@x"]);
        assert!(at_fault(&json!({ "from.email": ["x"], "to": ["x"] }), &addressed).is_empty());
    }
}
