//! Brevo through its API, version 3.
//!
//! It takes fields, not messages: [`crate::mime::fields`] says what that loses. It wants HTML, shows no
//! pictures inside it, and takes attachments by their extension.
//!
//! A call carries a key by which Brevo recognises what it has taken: within 15 minutes by its
//! [announcement](https://developers.brevo.com/changelog/email-api-now-supports-idempotency), within 30 by its
//! [guide](https://developers.brevo.com/docs/heterogenous-versions-batch-emails), which also names the answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use reqwest::header::HeaderValue;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::contract::{
    Attempt, Capabilities, Connected, Delivery, Diagnostic, Failure, Outcome, Probed, Provider, ProviderName, RecipientIndex, SizeLimit,
};
use crate::http::api::{self, Answer, Part, Reading, Refused, Timeouts};
use crate::http::credential::credential;
use crate::http::parts::Turns;
use crate::http::retry_after::reset_in;
use crate::http::verdict::{Rule, Verdict};
use crate::mime::fields::{Addressed, Attachment, Fields, Mailbox};
use crate::mime::narrow;
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret};

/// 20 MB for a message is the number of a help page; that it binds the API is not confirmed. 99 recipients.
const CAPABILITIES: Capabilities = Capabilities {
    max_size: Some(SizeLimit::message(20_000_000)),
    max_recipients: Some(99),
    idempotency: Some(Duration::from_secs(15 * 60)),
    ..Capabilities::FIELDS
};

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 20;

/// The extensions that it lets pass. <https://developers.brevo.com/reference/sendtransacemail>
const EXTENSIONS: &[&str] = &[
    "xlsx", "xls", "ods", "docx", "docm", "doc", "csv", "pdf", "txt", "gif", "jpg", "jpeg", "png", "tif", "tiff", "rtf", "bmp", "cgm",
    "css", "shtml", "html", "htm", "zip", "xml", "ppt", "pptx", "tar", "ez", "ics", "mobi", "msg", "pub", "eps", "odt", "mp3", "m4a",
    "m4v", "wma", "ogg", "flac", "wav", "aif", "aifc", "aiff", "mp4", "mov", "avi", "mkv", "mpeg", "mpg", "wmv", "pkpass", "xlsm",
];

/// Its template language works in the HTML that it is given, not only in stored templates, and a mistake
/// in it is not told by the API. <https://developers.brevo.com/docs/heterogenous-versions-batch-emails>,
/// <https://developers.brevo.com/changelog/remove-template-validation-errors-from-send-transactionalemail-api>
const PLACEHOLDERS: &[&str] = &["{{", "{%", "{#"];

/// What its refusals mean. <https://developers.brevo.com/docs/how-it-works>
pub const RULES: &[Rule] = &[
    Rule::new(400, "duplicate_parameter", Verdict::TakenBefore),
    Rule::new(400, "duplicate_request", Verdict::TakenBefore),
    Rule::new(400, "", Verdict::SenderRefused)
        .says("sender")
        .advice("verify the sender or authenticate its domain in Brevo under Settings > Senders, domains, IPs, or set `rewrite`"),
    Rule::new(400, "", Verdict::Unsuitable).says("attachment"),
    Rule::new(400, "invalid_parameter", Verdict::RecipientsRefused).says("email"),
    Rule::new(400, "invalid_parameter", Verdict::Rejected),
    Rule::new(400, "missing_parameter", Verdict::Rejected),
    Rule::new(400, "out_of_range", Verdict::Rejected),
    Rule::new(401, "", Verdict::Unauthorized)
        .says("ip address")
        .advice("authorise this machine's public address in Brevo under Security > Authorized IPs, or switch that blocking off"),
    Rule::new(401, "", Verdict::Unauthorized)
        .advice("make a new API key (not an SMTP key) in Brevo under Settings > SMTP & API > API keys"),
    Rule::new(402, "", Verdict::Unauthorized).advice("the account has no e-mail credits left: buy some, or enlarge the plan in Brevo"),
    Rule::new(403, "account_under_validation", Verdict::Unauthorized)
        .advice("Brevo has not approved the account yet: complete the profile there and ask its support to activate transactional mail"),
    Rule::new(403, "", Verdict::Unauthorized)
        .advice("ask Brevo's support to activate transactional mail, and look whether the account is suspended"),
];

/// `[provider.brevo.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The API key, which begins with `xkeysib-`.
    pub api_key: Secret,
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
struct Brevo {
    http: reqwest::Client,
    name: ProviderName,
    endpoint: String,
    key: HeaderValue,
    timeouts: Timeouts,
    keys: Keys,
}

/// What became of keys that were refused, or left in doubt. It is not documented whether a refused call
/// uses its key up. Should it, then a repetition is none of something that was taken.
#[derive(Default)]
struct Keys(Mutex<BTreeMap<Uuid, Fate>>);

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Every call with it was refused.
    Refused,
    /// A call with it may have been taken.
    InDoubt,
}

impl Keys {
    /// More than can fail within the life of a key; beyond it, all are forgotten.
    const MOST: usize = 100_000;

    /// Remembers what became of a call; and does not believe a repetition where every call was refused.
    /// That is known only from the message's first attempt on: others may have been made before a restart.
    fn learn(&self, key: Uuid, is_first: bool, part: Part) -> Part {
        let mut keys = self.0.lock();
        let known = keys.get(&key).copied();
        let refused = |diagnostic: &Diagnostic| diagnostic.code.and(known.or(is_first.then_some(Fate::Refused)));
        let fate = match &part {
            Part::Failed(failure) => refused(failure.diagnostic()),
            Part::Unnamed(diagnostic) => refused(diagnostic),
            Part::Answered(outcomes) => outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::InDoubt(_))).then_some(Fate::InDoubt),
        };
        if let Some(fate) = fate {
            if keys.len() >= Self::MOST {
                keys.clear();
            }
            keys.insert(key, fate);
        }
        match part {
            Part::Answered(outcomes) if known == Some(Fate::Refused) => {
                Part::Answered(outcomes.into_iter().map(doubt_repetition).collect())
            }
            part => part,
        }
    }
}

/// The life of a key is short: after it, the message is asked about with nothing to repeat.
fn doubt_repetition((index, outcome): (RecipientIndex, Outcome)) -> (RecipientIndex, Outcome) {
    match outcome {
        Outcome::Relayed(receipt) if receipt.remote_id.is_none() => {
            let text = "the idempotency key was seen before, but only in calls that were refused";
            (index, Outcome::InDoubt(Diagnostic { code: Some(400), ..Diagnostic::during("smtp/email", text) }))
        }
        outcome => (index, outcome),
    }
}

impl Config {
    const ENDPOINT: &'static str = "https://api.brevo.com";
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        let key = credential("api_key", &self.api_key, "")?;
        if key.as_bytes().starts_with(b"xsmtpsib-") {
            let message = "this is a key for SMTP (xsmtpsib-…); make one for the API, which begins with xkeysib-, in the tab beside it";
            return Err(SettingsError::new("api_key", message));
        }
        let endpoint = api::endpoint(self.endpoint.as_deref(), Self::ENDPOINT)?;
        let (http, timeouts) = (context.http.clone(), self.timeouts);
        let provider = Arc::new(Brevo { http, name: name.clone(), endpoint, key, timeouts, keys: Keys::default() });
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

impl Brevo {
    async fn send(&self, attempt: &Attempt, body: &mut Value, recipients: &[RecipientIndex], addressed: &Addressed) -> Part {
        let key = uuid(attempt.idempotency_key(&self.name, recipients));
        narrow::address(body, addressed.lists(), mailbox);
        body["headers"]["idempotencyKey"] = key.to_string().into();
        let request = self.http.post(format!("{}/v3/smtp/email", self.endpoint)).header("api-key", &self.key).json(body);
        let part = api::hand_over("smtp/email", request, self.timeouts, attempt, recipients, RULES, read).await;
        self.keys.learn(key, attempt.number == 1, part)
    }
}

/// The key as Brevo recommends it: a UUID of version 4.
fn uuid(key: [u8; 32]) -> Uuid {
    let mut first = [0; 16];
    first.copy_from_slice(&key[..16]);
    uuid::Builder::from_random_bytes(first).into_uuid()
}

/// The request's body, without recipients and key.
/// <https://developers.brevo.com/reference/sendtransacemail>
fn body(fields: &mut Fields) -> Result<Value, Failure> {
    narrow::refuse_placeholders(fields, PLACEHOLDERS, "Brevo")?;
    if let Some(other) = fields.attachments.iter().find(|one| !passes(one)) {
        let text = format!("Brevo takes no attachment like {:?}: its extension is not on the list of those that pass", other.name);
        return Err(Failure::Unsuitable(Diagnostic::local(text)));
    }
    fields.require_subject();
    narrow::one_reply_to(fields);
    narrow::no_pictures(fields);
    fields.keep_headers(|name| !is_its_own(name), "Brevo takes it for an order");
    let (headers, more_lost) = fields.unique_headers();
    fields.lost.extend(more_lost);
    let headers: Map<String, Value> =
        headers.into_iter().filter_map(|(name, value)| Some((title_case(&name), narrow::ascii(value.as_str()?).into()))).collect();
    let text = fields.text.as_deref().unwrap_or_default();
    let html = match &fields.html {
        Some(html) if !html.trim().is_empty() => html.clone(),
        _ => narrow::html_of(text),
    };
    let mut body = json!({
        "sender": mailbox(&fields.from),
        "subject": fields.subject,
        "htmlContent": html,
        "headers": headers,
    });
    if !text.is_empty() {
        body["textContent"] = text.into();
    }
    if let Some(reply_to) = fields.reply_to.first() {
        body["replyTo"] = mailbox(reply_to);
    }
    if !fields.attachments.is_empty() {
        body["attachment"] = std::mem::take(&mut fields.attachments)
            .iter()
            .map(|one| json!({ "name": one.name, "content": STANDARD.encode(&one.content) }))
            .collect();
    }
    Ok(body)
}

/// Whether an attachment is let through.
fn passes(attachment: &Attachment) -> bool {
    let extension = attachment.name.rsplit_once('.').map_or("", |(_, extension)| extension);
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

/// Header names, in lower case, that are orders to Brevo (a sandbox, an IP address, the key), which no
/// sender may give.
fn is_its_own(name: &str) -> bool {
    name.starts_with("x-sib-") || name.starts_with("x-mailin-") || name == "sender.ip" || name == "idempotencykey"
}

fn title_case(name: &str) -> String {
    let part = |part: &str| {
        let mut part = part.to_ascii_lowercase();
        if let Some(first) = part.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        part
    };
    name.split('-').map(part).collect::<Vec<_>>().join("-")
}

fn mailbox(mailbox: &Mailbox) -> Value {
    match narrow::name(mailbox) {
        Some(name) => json!({ "email": mailbox.address, "name": name }),
        None => json!({ "email": mailbox.address }),
    }
}

/// What an answer says.
fn read(answer: &Answer) -> Reading {
    match answer.status {
        201 => Reading::accepted(answer.json()["messageId"].as_str().map(str::to_owned)),
        _ => Reading::Refused(refusal(answer).unwrap_or_default()),
    }
}

fn refusal(answer: &Answer) -> Option<Refused> {
    let json = answer.json();
    Some(Refused {
        code: json["code"].as_str()?.to_owned(),
        text: json["message"].as_str().unwrap_or_default().to_owned(),
        retry_after: reset_in(&answer.headers, "x-sib-ratelimit-reset"),
        ..Refused::default()
    })
}

impl Provider for Brevo {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let mut fields = Fields::of(&attempt).await?;
        fields.only_ascii(&attempt)?;
        let mut body = body(&mut fields)?;
        let mut turns = Turns::new(fields.addressed(&attempt));
        while let Some((recipients, addressed)) = turns.next_call() {
            let part = self.send(&attempt, &mut body, &recipients, &addressed).await;
            fields.done(&mut turns, &attempt, recipients, part);
        }
        fields.told(turns.end())
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let request = self.http.get(format!("{}/v3/account", self.endpoint)).header("api-key", &self.key);
        let answer = api::ask("account", request, self.timeouts, RULES, refusal).await?;
        let account = answer.json();
        let mut probed = Probed::default().fact("the API key is accepted");
        if account["relay"]["enabled"] == false {
            probed = probed.warning("transactional mail is not enabled for this account: ask Brevo's support to activate it");
        }
        for plan in account["plan"].as_array().into_iter().flatten() {
            let kind = plan["type"].as_str().unwrap_or("unknown");
            if let (Some(credits), Some("sendLimit")) = (plan["credits"].as_f64(), plan["creditsType"].as_str()) {
                probed = match credits < 1.0 {
                    true => probed.warning(format!("the plan {kind} has no e-mail credits left: mail is refused until there are some")),
                    false => probed.fact(format!("the plan {kind} has {credits} e-mail credits left")),
                };
            }
        }
        Ok(probed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Receipt;

    fn attachment(name: &str, content_id: Option<&str>) -> Attachment {
        Attachment { name: name.to_owned(), content_id: content_id.map(str::to_owned), ..Attachment::default() }
    }

    #[test]
    fn text_alone_becomes_html_and_pictures_become_attachments() {
        let mut fields =
            Fields { text: Some("a < b".to_owned()), attachments: vec![attachment("logo.PNG", Some("x"))], ..Fields::default() };
        let body = body(&mut fields).unwrap();
        assert!(body["htmlContent"].as_str().unwrap().contains("a &lt; b"));
        assert_eq!(body["textContent"], "a < b");
        assert_eq!(body["attachment"][0]["name"], "logo.PNG");
        assert_eq!(fields.lost.len(), 2, "{:?}", fields.lost);
    }

    #[test]
    fn what_it_would_refuse_or_change_is_unsuitable_before_the_call() {
        let with = |mut fields: Fields| body(&mut fields);
        let unsuitable = |result| matches!(result, Err(Failure::Unsuitable(_)));
        assert!(unsuitable(with(Fields { attachments: vec![attachment("run.exe", None)], ..Fields::default() })));
        assert!(unsuitable(with(Fields { attachments: vec![attachment("pdf", None)], ..Fields::default() })));
        assert!(unsuitable(with(Fields { subject: "{{ x }}".to_owned(), ..Fields::default() })));
    }

    #[test]
    fn a_sender_gives_no_orders_by_header() {
        let names = ["X-Sib-Sandbox", "idempotencykey", "x-mailin-custom", "x-mailer"];
        let headers = names.map(|name| (name.to_owned(), "ü".to_owned())).to_vec();
        let body = body(&mut Fields { headers, ..Fields::default() }).unwrap();
        assert_eq!(body["headers"], json!({ "X-Mailer": "=?utf-8?b?w7w=?=" }));
    }

    #[test]
    fn a_repeated_key_counts_as_taken_unless_every_call_with_it_was_refused() {
        let (keys, key) = (Keys::default(), uuid([7; 32]));
        assert_eq!(key.get_version_num(), 4);
        let index = RecipientIndex(0);
        let repeated = || Part::Answered(vec![(index, Outcome::Relayed(Receipt::default()))]);
        let refused = |code| Part::Failed(Failure::Unauthorized(Diagnostic { code, ..Diagnostic::local("x") }));
        let in_doubt = |part: &Part| matches!(part, Part::Answered(one) if matches!(one[0].1, Outcome::InDoubt(_)));

        keys.learn(key, true, refused(None));
        assert_eq!(keys.learn(key, false, repeated()), repeated(), "nobody had answered, so nothing was refused");
        keys.learn(key, true, refused(Some(402)));
        assert!(in_doubt(&keys.learn(key, false, repeated())));
        keys.learn(key, false, Part::Answered(vec![(index, Outcome::InDoubt(Diagnostic::local("cut")))]));
        keys.learn(key, false, refused(Some(429)));
        assert_eq!(keys.learn(key, false, repeated()), repeated(), "the call that was cut may have been taken");

        let key = uuid([8; 32]);
        keys.learn(key, false, refused(Some(429)));
        assert_eq!(keys.learn(key, false, repeated()), repeated(), "nobody knows what was before");
    }
}
