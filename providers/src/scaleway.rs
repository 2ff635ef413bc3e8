//! Scaleway Transactional Email through its API.
//!
//! It takes fields, not messages: [`crate::mime::fields`] says what that loses. It shows no pictures inside
//! the HTML, and answers for each recipient.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract::{Attempt, Capabilities, Connected, Delivery, Failure, Probed, Provider, ProviderName, RecipientIndex, SizeLimit};
use crate::http::api::{self, Accepted, Answer, Part, Reading, Refused, Timeouts};
use crate::http::credential::credential;
use crate::http::parts::Turns;
use crate::http::verdict::{Rule, Verdict};
use crate::mime::fields::{Addressed, Fields, Mailbox};
use crate::mime::narrow;
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret};

/// 2 MB with everything, which cannot be raised; 10 recipients, which can.
/// <https://www.scaleway.com/en/docs/transactional-email/reference-content/tem-capabilities-and-limits/>
const CAPABILITIES: Capabilities =
    Capabilities { max_size: Some(SizeLimit::message(2_000_000)), max_recipients: Some(10), ..Capabilities::FIELDS };

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 5;

/// The quota is by month, and may be raised at any time.
pub const QUOTA_PAUSE: Duration = Duration::from_secs(3600);

const CHECK_DOMAIN: &str =
    "add the sender's domain in Scaleway under Transactional Email and set its DNS records until it is checked, or set `rewrite`";

/// What its refusals mean. The types of errors are those of its SDKs; what it answers about a domain that is
/// not checked is not documented, so the word decides.
/// <https://www.scaleway.com/en/developers/api/transactional-email/>
pub const RULES: &[Rule] = &[
    Rule::new(400, "from", Verdict::SenderRefused).advice(CHECK_DOMAIN),
    Rule::new(400, "to", Verdict::RecipientsRefused),
    Rule::new(401, "", Verdict::Unauthorized).advice(
        "set `secret_key` to the secret key (not the access key) of an API key in Scaleway under IAM, and look whether it has expired",
    ),
    Rule::new(403, "quotas_exceeded", Verdict::Throttled(Some(QUOTA_PAUSE)))
        .advice("the month's e-mails are used up: ask for a larger quota in Scaleway under Organization > Quotas"),
    Rule::new(403, "", Verdict::SenderRefused).says("domain").advice(CHECK_DOMAIN),
    Rule::new(403, "", Verdict::Unauthorized).advice(
        "give the API key's application the permission set TransactionalEmailEmailFullAccess for this project, in Scaleway under IAM",
    ),
    Rule::new(404, "", Verdict::SenderRefused).says("domain").advice(CHECK_DOMAIN),
    Rule::new(412, "", Verdict::SenderRefused).says("domain").advice(CHECK_DOMAIN),
    Rule::new(0, "transient_state", Verdict::Unavailable),
];

/// `[provider.scaleway.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The secret key of an API key.
    pub secret_key: Secret,
    /// The project's id.
    pub project_id: String,
    /// The region in which the domain lives.
    #[serde(default = "fr_par")]
    pub region: String,
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

/// The region that has been there from the start.
fn fr_par() -> String {
    "fr-par".to_owned()
}

/// The provider.
struct Scaleway {
    http: reqwest::Client,
    /// The URL of the region.
    region: String,
    project_id: String,
    key: HeaderValue,
    timeouts: Timeouts,
}

impl Config {
    const ENDPOINT: &'static str = "https://api.scaleway.com";
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        let key = credential("secret_key", &self.secret_key, "")?;
        if key.as_bytes().starts_with(b"SCW") {
            let message = "this is an access key (SCW…); expected the secret key that was shown with it, a UUID";
            return Err(SettingsError::new("secret_key", message));
        }
        if Uuid::try_parse(&self.project_id).is_err() {
            let message = format!("{:?} is no project's id; expected a UUID, as Project Dashboard > Settings shows it", self.project_id);
            return Err(SettingsError::new("project_id", message));
        }
        if self.region.is_empty() || !self.region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(SettingsError::new("region", format!("{:?} is no region; expected one such as \"fr-par\"", self.region)));
        }
        let endpoint = api::endpoint(self.endpoint.as_deref(), Self::ENDPOINT)?;
        let region = format!("{endpoint}/transactional-email/v1alpha1/regions/{}", self.region);
        let (project_id, timeouts) = (self.project_id.clone(), self.timeouts);
        let provider = Arc::new(Scaleway { http: context.http.clone(), region, project_id, key, timeouts });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn destination(&self) -> String {
        format!("{} ({}, project {})", self.endpoint.as_deref().unwrap_or(Self::ENDPOINT), self.region, self.project_id)
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }
}

impl Scaleway {
    async fn send(&self, attempt: &Attempt, body: &mut Value, recipients: &[RecipientIndex], addressed: &Addressed) -> Part {
        body["project_id"] = self.project_id.as_str().into();
        narrow::address(body, addressed.lists(), mailbox);
        let request = self.http.post(format!("{}/emails", self.region)).header("X-Auth-Token", &self.key).json(body);
        api::hand_over("emails", request, self.timeouts, attempt, recipients, RULES, |answer| read(answer, addressed)).await
    }
}

/// The request's body, without recipients and project.
fn body(fields: &mut Fields) -> Value {
    fields.require_subject();
    narrow::require_text(fields);
    narrow::no_pictures(fields);
    let mut body = json!({ "from": mailbox(&fields.from), "subject": fields.subject });
    for (name, text) in [("text", &fields.text), ("html", &fields.html)] {
        if let Some(text) = text.as_ref().filter(|text| !text.trim().is_empty()) {
            body[name] = text.as_str().into();
        }
    }
    if !fields.attachments.is_empty() {
        body["attachments"] = std::mem::take(&mut fields.attachments)
            .iter()
            .map(|one| json!({ "name": one.name, "type": one.media_type, "content": STANDARD.encode(&one.content) }))
            .collect();
    }
    let mut headers: Vec<Value> =
        fields.headers.iter().map(|(name, value)| json!({ "key": name, "value": narrow::ascii(value) })).collect();
    if !fields.reply_to.is_empty() {
        let all: Vec<String> = fields.reply_to.iter().map(Mailbox::encoded).collect();
        headers.push(json!({ "key": "Reply-To", "value": all.join(", ") }));
    }
    if !headers.is_empty() {
        body["additional_headers"] = headers.into();
    }
    body
}

fn mailbox(mailbox: &Mailbox) -> Value {
    match narrow::name(mailbox) {
        Some(name) => json!({ "email": mailbox.address, "name": name }),
        None => json!({ "email": mailbox.address }),
    }
}

/// What an answer says: a success lists each recipient with a status of its own.
fn read(answer: &Answer, addressed: &Addressed) -> Reading {
    let json = answer.json();
    let emails = json["emails"].as_array().map(Vec::as_slice).unwrap_or_default();
    if answer.status != 200 || emails.is_empty() {
        let mut refused = refusal(answer).unwrap_or_default();
        refused.recipients = at_fault(&json["details"], addressed);
        return Reading::Refused(refused);
    }
    let refused = emails.iter().filter_map(|email| {
        let status = email["status"].as_str().filter(|status| matches!(*status, "failed" | "canceled"))?;
        let details = email["status_details"].as_str().map(|details| format!(": {details}")).unwrap_or_default();
        Some((email["mail_rcpt"].as_str()?.to_owned(), format!("Scaleway says at once that it {status}{details}")))
    });
    Reading::Accepted(Accepted { remote_id: emails[0]["id"].as_str().map(str::to_owned), refused: refused.collect() })
}

/// The code is the error's type; where an argument is invalid, `from`, or `to` for all recipients.
fn refusal(answer: &Answer) -> Option<Refused> {
    let json = answer.json();
    let mut code = json["type"].as_str().unwrap_or_default().to_owned();
    let mut said = vec![json["message"].as_str()?.to_owned()];
    for detail in json["details"].as_array().into_iter().flatten() {
        let argument = detail["argument_name"].as_str().or_else(|| detail["resource"].as_str()).unwrap_or_default();
        match argument.split(['.', '[']).next() {
            Some("from") if code == "invalid_arguments" => "from".clone_into(&mut code),
            Some("to" | "cc" | "bcc") if code == "invalid_arguments" => "to".clone_into(&mut code),
            _ => {}
        }
        let why = detail["help_message"].as_str().filter(|text| !text.is_empty()).or_else(|| detail["reason"].as_str());
        said.push(format!("{argument} {}", why.unwrap_or_default()).trim().to_owned());
    }
    Some(Refused { code, text: said.join("; "), ..Refused::default() })
}

/// The recipients that an error is about by their place, as in `to.1.email`.
fn at_fault(details: &Value, addressed: &Addressed) -> Vec<String> {
    let arguments = details.as_array().into_iter().flatten().filter_map(|detail| detail["argument_name"].as_str());
    let address = |argument: &str| {
        let mut steps = argument.split(['.', '[', ']']).filter(|step| !step.is_empty());
        let (list, place) = (steps.next()?, steps.next()?.parse::<usize>().ok()?);
        Some(addressed.at(list, place)?.address.clone())
    };
    arguments.filter_map(address).collect()
}

impl Provider for Scaleway {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let mut fields = Fields::of(&attempt).await?;
        fields.only_ascii(&attempt)?;
        let mut body = body(&mut fields);
        let mut turns = Turns::new(fields.addressed(&attempt));
        while let Some((recipients, addressed)) = turns.next_call() {
            let part = self.send(&attempt, &mut body, &recipients, &addressed).await;
            fields.done(&mut turns, &attempt, recipients, part);
        }
        fields.told(turns.end())
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let url = format!("{}/domains?project_id={}&page_size=100", self.region, self.project_id);
        let request = self.http.get(url).header("X-Auth-Token", &self.key);
        let answer = match api::ask("domains", request, self.timeouts, RULES, refusal).await {
            // A key for sending alone may not read domains, and is all that is needed.
            Err(Failure::Unauthorized(diagnostic) | Failure::SenderRefused(diagnostic)) if diagnostic.code == Some(403) => {
                return Ok(Probed::default()
                    .fact("the secret key is known")
                    .warning("the key may not read domains, so whether the sender's is checked was not looked up"));
            }
            answer => answer?,
        };
        let mut probed = Probed::default().fact("the secret key is accepted");
        let domains = answer.json();
        let domains = domains["domains"].as_array().map(Vec::as_slice).unwrap_or_default();
        for domain in domains {
            let name = domain["name"].as_str().unwrap_or("?");
            probed = match domain["status"].as_str() {
                Some("checked") => probed.fact(format!("{name} is checked")),
                status => probed.warning(format!("{name} is {}: set its DNS records as Scaleway shows them", status.unwrap_or("unknown"))),
            };
        }
        Ok(if domains.is_empty() { probed.warning(format!("there is no domain in this project: {CHECK_DOMAIN}")) } else { probed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_reply_to_addresses_go_along_as_a_header_field() {
        let reply_to = ["a@x", "b@x"].map(|address| Mailbox { name: Some("Ü".to_owned()), address: address.to_owned() }).to_vec();
        let body = body(&mut Fields { reply_to, ..Fields::default() });
        let expected = "=?utf-8?b?w5w=?= <a@x>, =?utf-8?b?w5w=?= <b@x>";
        assert_eq!(body["additional_headers"], json!([{ "key": "Reply-To", "value": expected }]));
        assert!(body["html"].is_string(), "a body is required");
    }
}
