//! Postmark through its API.
//!
//! It takes fields, not messages: [`crate::mime::fields`] says what that loses. Its errors have codes of
//! their own, beside the HTTP status; recipients that it knows to be dead are told by name in a text.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, HeaderValue};
use serde_json::{Value, json};

use crate::contract::{Attempt, Capabilities, Connected, Delivery, Failure, Probed, Provider, ProviderName, RecipientIndex, SizeLimit};
use crate::http::api::{self, Accepted, Answer, Part, Reading, Refused, Timeouts};
use crate::http::credential::credential;
use crate::http::parts::Turns;
use crate::http::verdict::{Rule, Verdict};
use crate::mime::fields::{Addressed, Attachment, Fields, Mailbox};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret};

/// Documented: 10 MB for a message with its attachments, and 50 recipients in To, Cc and Bcc together.
/// <https://postmarkapp.com/developer/api/overview>
const CAPABILITIES: Capabilities =
    Capabilities { max_size: Some(SizeLimit::message(10_000_000)), max_recipients: Some(50), ..Capabilities::FIELDS };

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 20;

/// The longest tag, in characters.
const LONGEST_TAG: usize = 1000;

const SENDER: &str = "add the sender's address or domain in Postmark under Sender Signatures and confirm it, or set `rewrite`";
const APPROVAL: &str = "ask Postmark to approve the account: until then it sends only within the account's own domain";

/// What its refusals mean, by its own code.
/// <https://postmarkapp.com/developer/api/overview>
///
/// Which words code 300 uses for more than 50 recipients is not documented; it names the number, and never
/// more are sent in one call. 403 without a code comes from the network before the API.
/// <https://postmarkapp.com/support/article/getting-a-403-that-doesnt-look-like-a-postmark-error>
pub const RULES: &[Rule] = &[
    Rule::new(0, "100", Verdict::InDoubt),
    Rule::new(401, "10", Verdict::Unauthorized)
        .advice("copy a server's token (not the account's) from Postmark: the server, then API Tokens"),
    Rule::new(403, "html", Verdict::Unavailable)
        .advice("if it stays: this machine's address is blocked before Postmark's API; write to Postmark's support"),
    Rule::new(422, "300", Verdict::SenderRefused).says("'from'").advice(SENDER),
    Rule::new(422, "300", Verdict::RecipientsRefused).says("'to'"),
    Rule::new(422, "300", Verdict::RecipientsRefused).says("'cc'"),
    Rule::new(422, "300", Verdict::RecipientsRefused).says("'bcc'"),
    Rule::new(422, "300", Verdict::Unsuitable).says("50 recipients"),
    Rule::new(422, "300", Verdict::Rejected),
    Rule::new(422, "400", Verdict::SenderRefused).advice(SENDER),
    Rule::new(422, "401", Verdict::SenderRefused).advice(SENDER),
    Rule::new(422, "402", Verdict::Rejected),
    Rule::new(422, "403", Verdict::Rejected),
    Rule::new(422, "405", Verdict::Unauthorized).advice("the account has no messages left, or may not send: look at Billing in Postmark"),
    Rule::new(422, "406", Verdict::RecipientsRefused).advice(
        "the recipient bounced or complained before: reactivate it in Postmark under the stream's Suppressions, if that was a mistake",
    ),
    Rule::new(422, "409", Verdict::Rejected),
    Rule::new(422, "410", Verdict::Unsuitable),
    Rule::new(422, "411", Verdict::Unsuitable),
    Rule::new(422, "412", Verdict::Unauthorized).advice(APPROVAL),
    Rule::new(422, "413", Verdict::Unauthorized).advice(APPROVAL),
    // 1226 or 1235: `message_stream` is wrong, which no message is to blame for.
    Rule::new(422, "", Verdict::Unauthorized)
        .says("message stream")
        .advice("check `message_stream`: the server's page in Postmark lists the IDs under Message Streams"),
];

/// `[provider.postmark.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The token of a server of the account.
    pub server_token: Secret,
    /// The message stream; the server's default transactional one, unless it is set.
    pub message_stream: Option<String>,
    /// The tag that Postmark's statistics count the mail under.
    pub tag: Option<String>,
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
struct Postmark {
    http: reqwest::Client,
    endpoint: String,
    token: HeaderValue,
    stream: Option<String>,
    tag: Option<String>,
    timeouts: Timeouts,
}

impl Config {
    const ENDPOINT: &'static str = "https://api.postmarkapp.com";
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        let token = credential("server_token", &self.server_token, "")?;
        let endpoint = api::endpoint(self.endpoint.as_deref(), Self::ENDPOINT)?;
        if self.message_stream.as_deref() == Some("") {
            return Err(SettingsError::new("message_stream", "it is empty; expected a stream's ID such as \"outbound\", or no such line"));
        }
        if let Some(tag) = self.tag.as_ref().filter(|tag| tag.is_empty() || tag.chars().count() > LONGEST_TAG) {
            let length = tag.chars().count();
            return Err(SettingsError::new("tag", format!("it has {length} characters; Postmark takes 1 to {LONGEST_TAG}")));
        }
        let provider = Arc::new(Postmark {
            http: context.http.clone(),
            endpoint,
            token,
            stream: self.message_stream.clone(),
            tag: self.tag.clone(),
            timeouts: self.timeouts,
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
        let stream = self.message_stream.as_deref().unwrap_or("outbound");
        format!("{} (server token {}, stream {stream:?})", self.endpoint.as_deref().unwrap_or(Self::ENDPOINT), self.server_token)
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }
}

impl Postmark {
    async fn send(&self, attempt: &Attempt, body: &Value, recipients: &[RecipientIndex]) -> Part {
        let request = self.http.post(format!("{}/email", self.endpoint)).header("X-Postmark-Server-Token", &self.token);
        let request = request.header(ACCEPT, "application/json").json(body);
        api::hand_over("email", request, self.timeouts, attempt, recipients, RULES, |answer| read(answer, attempt, recipients)).await
    }

    /// What all calls for a message have in common, and what does not fit into it as a note in `fields`.
    /// <https://postmarkapp.com/developer/api/email-api>
    fn message(&self, fields: &mut Fields) -> Value {
        fields.keep_headers(|name| !name.starts_with("x-pm-"), "it would be an order to Postmark");
        let mut headers: Vec<Value> = fields.headers.iter().map(|(name, value)| header(name, value)).collect();
        if let Some(id) = fields.take_message_id() {
            // Without the second it gives one of its own.
            // https://postmarkapp.com/developer/user-guide/send-email-with-smtp
            headers.extend([header("Message-ID", &id), header("X-PM-KeepID", "true")]);
        }
        let mut message = json!({
            "From": fields.from.encoded(),
            "Subject": fields.subject,
            // Links and pictures stay as the sender wrote them.
            "TrackOpens": false,
            "TrackLinks": "None",
        });
        for (name, text) in [("TextBody", &fields.text), ("HtmlBody", &fields.html)] {
            if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
                message[name] = text.as_str().into();
            }
        }
        if fields.is_empty() {
            // One of them is wanted, with something in it.
            message["TextBody"] = " ".into();
        }
        if !fields.reply_to.is_empty() {
            message["ReplyTo"] = list(&fields.reply_to).into();
        }
        if !headers.is_empty() {
            message["Headers"] = headers.into();
        }
        if !fields.attachments.is_empty() {
            message["Attachments"] = std::mem::take(&mut fields.attachments).iter().map(attachment).collect();
        }
        for (name, setting) in [("MessageStream", &self.stream), ("Tag", &self.tag)] {
            if let Some(setting) = setting {
                message[name] = setting.as_str().into();
            }
        }
        message
    }
}

fn header(name: &str, value: &str) -> Value {
    json!({ "Name": name, "Value": value })
}

fn list(mailboxes: &[Mailbox]) -> String {
    mailboxes.iter().map(Mailbox::encoded).collect::<Vec<_>>().join(", ")
}

fn attachment(one: &Attachment) -> Value {
    let mut attachment = json!({ "Name": one.name, "ContentType": one.media_type, "Content": STANDARD.encode(&one.content) });
    if let Some(id) = &one.content_id {
        attachment["ContentID"] = format!("cid:{id}").into();
    }
    attachment
}

fn address(message: &mut Value, addressed: &Addressed) {
    for (name, mailboxes) in [("To", &addressed.to), ("Cc", &addressed.cc), ("Bcc", &addressed.bcc)] {
        match mailboxes.is_empty() {
            true => drop(message.as_object_mut().and_then(|message| message.remove(name))),
            false => message[name] = list(mailboxes).into(),
        }
    }
}

/// What an answer says. Among those that a message was taken for may be recipients that will not get it.
fn read(answer: &Answer, attempt: &Attempt, recipients: &[RecipientIndex]) -> Reading {
    let json = answer.json();
    let id = json["MessageID"].as_str().filter(|_| answer.status == 200 && matches!(json["ErrorCode"].as_i64(), None | Some(0)));
    let Some(id) = id else { return Reading::Refused(refusal(answer)) };
    let text = json["Message"].as_str().unwrap_or_default();
    let inactive = inactive(text);
    let is_ours = |named: &String| {
        attempt.recipients().any(|(index, one)| recipients.contains(&index) && one.address.as_str().eq_ignore_ascii_case(named))
    };
    let refused = inactive.into_iter().filter(is_ours).map(|named| (named, text.to_owned())).collect();
    Reading::Accepted(Accepted { remote_id: Some(id.to_owned()), refused })
}

/// What an answer refuses.
fn refusal(answer: &Answer) -> Refused {
    let json = answer.json();
    let text = json["Message"].as_str().unwrap_or_default();
    match json["ErrorCode"].as_i64() {
        Some(code) => Refused { code: code.to_string(), text: text.to_owned(), recipients: inactive(text), ..Refused::default() },
        // Not from the API itself.
        None if answer.excerpt().to_lowercase().contains("html") => {
            Refused { code: "html".to_owned(), text: answer.excerpt(), ..Refused::default() }
        }
        None => Refused::default(),
    }
}

/// The addresses that a text lists as inactive: "… inactive addresses: a@b.example, c@d.example. Inactive
/// recipients are …"
fn inactive(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let Some((_, list)) = lower.split_once("inactive addresses:") else { return Vec::new() };
    let list = list.split_once("inactive recipients").map_or(list, |(list, _)| list);
    list.split([',', ' ', '\n', '\r'])
        .map(|one| one.trim_matches(|c: char| c == '.' || c.is_whitespace()))
        .filter(|one| one.contains('@'))
        .map(str::to_owned)
        .collect()
}

impl Provider for Postmark {
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
        let request = self.http.get(format!("{}/server", self.endpoint)).header("X-Postmark-Server-Token", &self.token);
        let request = request.header(ACCEPT, "application/json");
        let server = api::ask("server", request, self.timeouts, RULES, |answer| Some(refusal(answer))).await?.json();
        let mut probed = Probed::default();
        if let Some(name) = server["Name"].as_str() {
            probed = probed.fact(format!("the token is of the server {name:?}"));
        }
        if server["DeliveryType"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("sandbox")) {
            probed = probed.warning("the server is a sandbox: Postmark takes mail and delivers none; use the token of a live server");
        }
        Ok(probed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inactive_addresses_are_found_in_what_people_are_meant_to_read() {
        for (text, expected) in [
            ("Message OK, but will not deliver to these inactive addresses: a@b.example, C@d.example", vec!["a@b.example", "c@d.example"]),
            (
                "You tried to send to recipient(s) that have been marked as inactive. Found inactive addresses: a@b.example. \
                 Inactive recipients are ones that have generated a hard bounce, a spam complaint, or a manual suppression.",
                vec!["a@b.example"],
            ),
            ("Found inactive addresses: a@b.example.\nInactive recipients are ones", vec!["a@b.example"]),
            ("OK", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(inactive(text), expected, "{text}");
        }
    }
}
