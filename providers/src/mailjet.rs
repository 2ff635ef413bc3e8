//! Mailjet through its Send API, version 3.1.
//!
//! It takes fields, not messages: [`crate::mime::fields`] says what that loses. A call may hold several
//! messages, each with its own status; here it holds one, so that an answer is about that one.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::contract::{Attempt, Capabilities, Connected, Delivery, Failure, Probed, Provider, ProviderName, RecipientIndex, SizeLimit};
use crate::http::api::{self, Answer, Part, Reading, Refused, Timeouts};
use crate::http::parts::Turns;
use crate::http::verdict::{Rule, Verdict};
use crate::mime::fields::{Addressed, Attachment, Fields, Mailbox};
use crate::mime::narrow;
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret};

/// 15 MB of attachments, counted here with everything else, and 50 recipients.
const CAPABILITIES: Capabilities =
    Capabilities { max_size: Some(SizeLimit::message(15_000_000)), max_recipients: Some(50), ..Capabilities::FIELDS };

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 10;

/// The longest subject, in characters.
const LONGEST_SUBJECT: usize = 255;

/// Header fields that have a property of their own; the API refuses them among the others.
const STANDARD_HEADERS: &[&str] = &["from", "sender", "subject", "to", "cc", "bcc", "return-path", "reply-to", "dkim-signature"];

const VERIFY_SENDER: &str =
    "add the sender's address or domain in Mailjet under Account settings > Sender domains & addresses and validate it, or set `rewrite`";

/// What its refusals mean. The status stands in the answer's body, too, so codes decide.
/// <https://dev.mailjet.com/email/guides/send-api-v31/>
pub const RULES: &[Rule] = &[
    Rule::new(0, "mj-0015", Verdict::Unauthorized)
        .advice("check both keys (API key and secret key) in Mailjet under Account settings > API key management"),
    Rule::new(0, "mj-0001", Verdict::Unauthorized).advice("the API key is suspended: write to Mailjet's support"),
    Rule::new(0, "send-0006", Verdict::SenderRefused).advice(VERIFY_SENDER),
    Rule::new(0, "send-0007", Verdict::SenderRefused).advice(VERIFY_SENDER),
    Rule::new(0, "send-0008", Verdict::SenderRefused).advice(VERIFY_SENDER),
    Rule::new(0, "mj-0013", Verdict::SenderRefused).says("[\"from").advice(VERIFY_SENDER),
    Rule::new(0, "mj-0013", Verdict::RecipientsRefused),
    Rule::new(0, "send-0015", Verdict::Unsuitable),
    Rule::new(0, "send-0010", Verdict::Unsuitable),
    Rule::new(0, "send-0011", Verdict::Unsuitable),
    Rule::new(0, "mj-0011", Verdict::Unsuitable),
    Rule::new(0, "send-0003", Verdict::Rejected),
    Rule::new(0, "mj-0002", Verdict::Rejected),
    Rule::new(0, "mj-0003", Verdict::Rejected),
    Rule::new(0, "mj-0004", Verdict::Rejected),
    Rule::new(0, "mj-0005", Verdict::Rejected),
    Rule::new(0, "mj-0006", Verdict::Rejected),
    Rule::new(0, "mj-0007", Verdict::Rejected),
    Rule::new(0, "mj-0008", Verdict::Rejected),
    Rule::new(0, "mj-0012", Verdict::Rejected),
];

/// `[provider.mailjet.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The API key: the public one of the pair.
    pub api_key: Secret,
    /// The secret key.
    pub secret_key: Secret,
    /// The service's URL; `https://api.us.mailjet.com` for an account that was moved to the US.
    /// <https://github.com/mailjet/mailjet-apiv3-nodejs#base-url>
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
struct Mailjet {
    http: reqwest::Client,
    endpoint: String,
    user: String,
    password: String,
    timeouts: Timeouts,
}

impl Config {
    const ENDPOINT: &'static str = "https://api.mailjet.com";
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        let user = self.api_key.read().map_err(|error| SettingsError::new("api_key", error))?;
        let password = self.secret_key.read().map_err(|error| SettingsError::new("secret_key", error))?;
        let endpoint = api::endpoint(self.endpoint.as_deref(), Self::ENDPOINT)?;
        let provider = Arc::new(Mailjet { http: context.http.clone(), endpoint, user, password, timeouts: self.timeouts });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
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

impl Mailjet {
    async fn send(&self, attempt: &Attempt, body: &mut Value, recipients: &[RecipientIndex], addressed: &Addressed) -> Part {
        narrow::address(&mut body["Messages"][0], lists(addressed), mailbox);
        let request = self.http.post(format!("{}/v3.1/send", self.endpoint)).basic_auth(&self.user, Some(&self.password)).json(body);
        api::hand_over("send", request, self.timeouts, attempt, recipients, RULES, |answer| read(answer, addressed)).await
    }
}

fn lists(addressed: &Addressed) -> [(&'static str, &[Mailbox]); 3] {
    [("To", &addressed.to), ("Cc", &addressed.cc), ("Bcc", &addressed.bcc)]
}

/// The message, without recipients.
fn message(fields: &mut Fields, attempt: &Attempt) -> Value {
    narrow::one_reply_to(fields);
    shorten_subject(fields);
    fields.keep_headers(|name| !is_its_own(name), "Mailjet has a property of its own for it, or takes it for an order");
    let (headers, more_lost) = fields.unique_headers();
    fields.lost.extend(more_lost);
    let mut message = json!({
        "From": mailbox(&fields.from),
        "CustomID": attempt.message.id.to_string(),
        // Links and pictures stay as the sender wrote them.
        "TrackOpens": "disabled",
        "TrackClicks": "disabled",
    });
    if !fields.subject.is_empty() {
        message["Subject"] = fields.subject.as_str().into();
    }
    for (name, text) in [("TextPart", &fields.text), ("HTMLPart", &fields.html)] {
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
            message[name] = text.as_str().into();
        }
    }
    if message["TextPart"].is_null() && message["HTMLPart"].is_null() {
        fields.lost.push("the empty body, for which a space stands".to_owned());
        message["TextPart"] = " ".into();
    }
    let taken = std::mem::take(&mut fields.attachments);
    let (inline, others): (Vec<_>, Vec<_>) = taken.iter().partition(|one| one.content_id.is_some());
    for (name, list) in [("Attachments", others), ("InlinedAttachments", inline)] {
        if !list.is_empty() {
            message[name] = list.into_iter().map(attachment).collect();
        }
    }
    if let Some(reply_to) = fields.reply_to.first() {
        message["ReplyTo"] = mailbox(reply_to);
    }
    if !headers.is_empty() {
        message["Headers"] = headers.into();
    }
    message
}

/// Cuts the subject where the API would refuse the whole message: what it says at its end is worth less
/// than the message.
fn shorten_subject(fields: &mut Fields) {
    let characters = fields.subject.chars().count();
    if characters > LONGEST_SUBJECT {
        fields.subject = fields.subject.chars().take(LONGEST_SUBJECT - 1).chain(['…']).collect();
        fields.lost.push(format!("the end of the Subject: it has {characters} characters, and {LONGEST_SUBJECT} are taken"));
    }
}

/// Header fields, in lower case, that it has a property for, or that are orders to it.
fn is_its_own(name: &str) -> bool {
    STANDARD_HEADERS.contains(&name) || name.starts_with("x-mj-") || name.starts_with("x-mailjet-")
}

fn attachment(one: &Attachment) -> Value {
    let mut attachment = json!({ "Filename": one.name, "ContentType": one.media_type, "Base64Content": STANDARD.encode(&one.content) });
    if let Some(id) = &one.content_id {
        attachment["ContentID"] = id.as_str().into();
    }
    attachment
}

fn mailbox(mailbox: &Mailbox) -> Value {
    match narrow::name(mailbox) {
        Some(name) => json!({ "Email": mailbox.address, "Name": name }),
        None => json!({ "Email": mailbox.address }),
    }
}

/// What an answer says about the one message.
fn read(answer: &Answer, addressed: &Addressed) -> Reading {
    let json = answer.json();
    let message = &json["Messages"][0];
    // Examples write it in both ways.
    if answer.status == 200 && message["Status"].as_str().is_some_and(|status| status.eq_ignore_ascii_case("success")) {
        // Each recipient has an id of its own; the first leads to the others through CustomID.
        let first = ["To", "Cc", "Bcc"].iter().find_map(|list| message[list].get(0));
        return Reading::accepted(first.and_then(|one| id(&one["MessageID"])));
    }
    let mut refused = refusal(answer).unwrap_or_default();
    refused.recipients = at_fault(&refused.text, addressed);
    Reading::Refused(refused)
}

/// An id is a number in the service's examples, and may be a text.
fn id(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_u64().map(|number| number.to_string()))
}

/// The first error, of the message or of the call as a whole; what it is related to stands behind its
/// words, as it was listed.
fn refusal(answer: &Answer) -> Option<Refused> {
    let json = answer.json();
    let errors: Vec<&Value> = match json["Messages"][0]["Errors"].as_array() {
        Some(errors) => errors.iter().collect(),
        None => vec![&json],
    };
    let code = errors.iter().find_map(|error| error["ErrorCode"].as_str())?.to_owned();
    let said = errors.iter().filter_map(|error| {
        let text = error["ErrorMessage"].as_str()?;
        let related = &error["ErrorRelatedTo"];
        Some(if related.get(0).is_some() { format!("{text} {related}") } else { text.to_owned() })
    });
    Some(Refused { code, text: said.collect::<Vec<_>>().join("; "), ..Refused::default() })
}

/// The recipients that an error is related to by their place, as in `To[1].Email`.
fn at_fault(text: &str, addressed: &Addressed) -> Vec<String> {
    let named = |(name, list): (&str, &[Mailbox])| -> Vec<String> {
        let places = list.iter().enumerate().filter(|(place, _)| text.contains(&format!("\"{name}[{place}]")));
        places.map(|(_, one)| one.address.clone()).collect()
    };
    lists(addressed).into_iter().flat_map(named).collect()
}

impl Provider for Mailjet {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let mut fields = Fields::of(&attempt).await?;
        fields.only_ascii(&attempt)?;
        let mut body = Map::from_iter([("Messages".to_owned(), Value::Array(vec![message(&mut fields, &attempt)]))]).into();
        let mut turns = Turns::new(fields.addressed(&attempt));
        while let Some((recipients, addressed)) = turns.next_call() {
            let part = self.send(&attempt, &mut body, &recipients, &addressed).await;
            fields.done(&mut turns, &attempt, recipients, part);
        }
        fields.told(turns.end())
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let request = self.http.get(format!("{}/v3/REST/sender?Limit=1000", self.endpoint)).basic_auth(&self.user, Some(&self.password));
        let answer = api::ask("sender", request, self.timeouts, RULES, refusal).await?;
        let senders = answer.json();
        let active: Vec<&str> = senders["Data"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|sender| sender["Status"] == "Active")
            .filter_map(|sender| sender["Email"].as_str())
            .collect();
        let probed = Probed::default().fact("the keys are accepted");
        Ok(match active.is_empty() {
            true => probed.warning(format!("no sender is active: {VERIFY_SENDER}")),
            false => probed.fact(format!("active senders: {}", active.join(", "))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_that_is_too_long_is_cut_and_that_is_told() {
        let cut = |length| {
            let mut fields = Fields { subject: "ü".repeat(length), ..Fields::default() };
            shorten_subject(&mut fields);
            (fields.subject, fields.lost.len())
        };
        assert_eq!(cut(255), ("ü".repeat(255), 0));
        assert_eq!(cut(256), (format!("{}…", "ü".repeat(254)), 1));
    }

    #[test]
    fn recipients_at_fault_are_found_by_their_place() {
        let list = |addresses: &[&str]| addresses.iter().map(|one| Mailbox { name: None, address: (*one).to_owned() }).collect();
        let addressed = Addressed { to: list(&["a@x", "b@x"]), cc: list(&["c@x"]), bcc: list(&["d@x"]) };
        assert_eq!(at_fault(r#"it is invalid ["To[1].Email","Cc[0]"]"#, &addressed), ["b@x", "c@x"]);
        assert_eq!(at_fault(r#"it is invalid ["Bcc[0].Email"]"#, &addressed), ["d@x"]);
        assert!(at_fault(r#"it is invalid ["From.Email"]"#, &addressed).is_empty());
    }
}
