//! Mailgun through `messages.mime`: the message as it is, and the envelope's recipients beside it.
//!
//! The reverse-path is made by Mailgun from the domain, so bounces of what it took end there.
//! <https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages>

use std::sync::Arc;

use bytes::Bytes;
use reqwest::RequestBuilder;
use reqwest::header::CONTENT_TYPE;

use crate::contract::{Attempt, Capabilities, Connected, Delivery, Failure, Probed, Provider, ProviderName, RecipientIndex, SizeLimit};
use crate::http::api::{self, Answer, Part, Reading, Refused, Timeouts};
use crate::http::dry_run::dry_run;
use crate::http::multipart::Form;
use crate::http::parts::Turns;
use crate::http::raw;
use crate::http::verdict::{Rule, Verdict};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret};

/// A notification goes out as well: Mailgun's own reverse-path keeps it from causing another one here.
/// Addresses outside ASCII are not delivered reliably.
const CAPABILITIES: Capabilities = Capabilities {
    reverse_path: false,
    max_size: Some(SizeLimit::message(25_000_000)),
    max_recipients: Some(1000),
    smtputf8: false,
    sender_identity: true,
    ..Capabilities::EVERYTHING
};

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 20;

/// What its refusals mean. There are no codes: the text is all there is.
/// <https://documentation.mailgun.com/docs/mailgun/quickstart-guide/responses>
pub const RULES: &[Rule] = &[
    // What any URL answers that is none of its API.
    Rule::new(200, "", Verdict::Unauthorized)
        .says("mailgun magnificent api")
        .advice("check `domain` and `endpoint`: no API of Mailgun is at the URL that they make"),
    Rule::new(400, "", Verdict::RecipientsRefused).says("to' parameter is not a valid address"),
    Rule::new(400, "", Verdict::RecipientsRefused).says("to parameter is not a valid address"),
    Rule::new(400, "", Verdict::Unsuitable).says("too many recipients"),
    // Of the kind "Domain x is not allowed to send: …". The first three say more than the last.
    Rule::new(0, "", Verdict::Throttled(None)).says("recipient limit exceeded").advice(PROBATION),
    Rule::new(0, "", Verdict::Throttled(None)).says("sending too fast").advice(PROBATION),
    // It still takes mail for those who are authorized, so that the circuit must stay closed.
    Rule::new(0, "", Verdict::SenderRefused).says("sandbox subdomains are for test purposes").advice(
        "a sandbox domain sends to authorized recipients only: add them in Mailgun under Sending > Overview, or set `domain` to one of your own",
    ),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("is not allowed to send")
        .advice("Mailgun keeps this domain or account from sending: log in, see what it asks for, or write to its support"),
    Rule::new(400, "", Verdict::Rejected),
    Rule::new(401, "", Verdict::Unauthorized).advice(
        "check `api_key`: make a sending key in Mailgun under Sending > Domain settings > Sending keys; a key of the EU needs `region = \"eu\"`",
    ),
    Rule::new(404, "", Verdict::Unauthorized)
        .says("domain not found")
        .advice("check `domain` and `region`: a domain is in the US or in the EU; one that was just added takes some minutes"),
];

const PROBATION: &str = "set `limits.rate` to what Mailgun allows: new accounts are on probation, until its support lifts it";

/// `[provider.mailgun.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The key of the account, or a sending key of the domain.
    pub api_key: Secret,
    /// The sending domain as it is in Mailgun, such as `mg.example.com`.
    pub domain: String,
    /// Where the domain lives: `us` or `eu`.
    #[serde(default)]
    pub region: Region,
    /// The service's URL, in place of the region's.
    pub endpoint: Option<String>,
    /// Up to ten words by which Mailgun groups its statistics.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Whether opens and clicks are tracked as the domain is set; otherwise the content stays as it is.
    #[serde(default)]
    pub tracking: bool,
    /// Whether Mailgun takes the mail and does not deliver it.
    #[serde(default)]
    pub test_mode: bool,
    /// How long to wait, for each phase.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What the administrator or the account allows.
    #[serde(default)]
    pub limits: LimitSettings,
    /// In whose name mail is handed over.
    pub rewrite: Option<Rewrite>,
}

/// Where a domain lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Region {
    /// The United States.
    #[default]
    Us,
    /// The European Union.
    Eu,
}

/// The provider.
struct Mailgun {
    http: reqwest::Client,
    endpoint: String,
    key: String,
    config: Config,
}

impl Config {
    const MOST_TAGS: usize = 10;

    fn default_endpoint(&self) -> &'static str {
        match self.region {
            Region::Us => "https://api.mailgun.net",
            Region::Eu => "https://api.eu.mailgun.net",
        }
    }
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        let key = self.api_key.read().map_err(|error| SettingsError::new("api_key", error))?;
        let endpoint = api::endpoint(self.endpoint.as_deref(), self.default_endpoint())?;
        let is_host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if self.domain.is_empty() || !self.domain.chars().all(is_host) {
            let message = format!("{:?} is no domain; expected the sending domain, such as \"mg.example.com\"", self.domain);
            return Err(SettingsError::new("domain", message));
        }
        let is_tag = |tag: &String| (1..=128).contains(&tag.len()) && tag.chars().all(|c| matches!(c, ' '..='~'));
        if self.tags.len() > Self::MOST_TAGS || !self.tags.iter().all(is_tag) {
            let message = format!("{:?}; Mailgun takes up to {} tags of 1 to 128 ASCII characters", self.tags, Self::MOST_TAGS);
            return Err(SettingsError::new("tags", message));
        }
        let provider = Arc::new(Mailgun { http: context.http.clone(), endpoint, key, config: self.clone() });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn destination(&self) -> String {
        format!("{}/v3/{}", self.endpoint.as_deref().unwrap_or(self.default_endpoint()), self.domain)
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }
}

impl Mailgun {
    async fn send(&self, attempt: &Attempt, message: &Bytes, recipients: &[RecipientIndex]) -> Part {
        let named = attempt.recipients().filter(|(index, _)| recipients.contains(index)).map(|(_, recipient)| recipient.address.as_str());
        let form = named.fold(self.options(message.len()), |form, address| form.field("to", address));
        let request = self.post(form.file("message", "message.eml", "message/rfc822", message));
        api::hand_over("messages.mime", request, self.config.timeouts, attempt, recipients, RULES, read).await
    }

    /// A form with everything but recipients and message, and room for it.
    fn options(&self, octets: usize) -> Form {
        let mut form = Form::with_capacity(octets);
        if !self.config.tracking {
            for name in ["o:tracking", "o:tracking-clicks", "o:tracking-opens"] {
                form = form.field(name, "no");
            }
        }
        if self.config.test_mode {
            form = form.field("o:testmode", "yes");
        }
        self.config.tags.iter().fold(form, |form, tag| form.field("o:tag", tag))
    }

    fn post(&self, form: Form) -> RequestBuilder {
        let (content_type, body) = form.end();
        let url = format!("{}/v3/{}/messages.mime", self.endpoint, self.config.domain);
        self.http.post(url).basic_auth("api", Some(&self.key)).header(CONTENT_TYPE, content_type).body(body)
    }
}

/// What an answer says.
fn read(answer: &Answer) -> Reading {
    let json = answer.json();
    match (answer.status, json["id"].as_str()) {
        (200, Some(id)) => Reading::accepted(Some(id.to_owned())),
        _ => Reading::Refused(refusal(answer).unwrap_or_default()),
    }
}

fn refusal(answer: &Answer) -> Option<Refused> {
    let json = answer.json();
    let text = match json["message"].as_str() {
        Some(message) => message.to_owned(),
        // As with a wrong key or a wrong URL.
        None => Some(answer.excerpt()).filter(|excerpt| !excerpt.starts_with(['<', '{']))?,
    };
    Some(Refused { text, ..Refused::default() })
}

impl Provider for Mailgun {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        raw::ascii_addresses(&attempt)?;
        let message = raw::octets(&attempt).await?;
        let mut turns = Turns::new(vec![(attempt.recipients.to_vec(), ())]);
        while let Some((recipients, ())) = turns.next_call() {
            match self.send(&attempt, &message, &recipients).await {
                // One address that it does not like, and it takes the message for nobody.
                Part::Unnamed(_) => turns.halve(recipients, ()),
                part => turns.done(recipients, part),
            }
        }
        turns.end()
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let nothing = self.post(Form::with_capacity(0).field("o:testmode", "yes"));
        dry_run("messages.mime, without a message", nothing, self.config.timeouts, RULES, refusal).await?;
        let probed = Probed::default().fact(format!("the key may send as {}", self.config.domain));
        let request = self.http.get(format!("{}/v4/domains/{}", self.endpoint, self.config.domain)).basic_auth("api", Some(&self.key));
        let domain = match api::ask("domains", request, self.config.timeouts, RULES, refusal).await {
            Ok(answer) => answer.json()["domain"].clone(),
            // Only a key of the whole account may ask.
            Err(_) => return Ok(probed),
        };
        Ok(match (domain["state"].as_str(), domain["type"].as_str()) {
            (_, Some("sandbox")) => probed.warning("a sandbox domain: it sends to authorized recipients only"),
            (Some("active"), _) => probed.fact("the domain is verified"),
            (Some(state), _) => {
                probed.warning(format!("the domain is {state:?} in Mailgun: verify its DNS records under Sending > Domain settings"))
            }
            (None, _) => probed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_name_their_key() {
        let context = Context::new("relay.example").unwrap();
        for (json, key) in [
            (r#"{"api_key": "k", "domain": ""}"#, "domain"),
            (r#"{"api_key": "k", "domain": "mg.example/x"}"#, "domain"),
            (r#"{"api_key": "k", "domain": "mg.example", "tags": [""]}"#, "tags"),
            (r#"{"api_key": "k", "domain": "mg.example", "endpoint": "x"}"#, "endpoint"),
            (r#"{"api_key": {"file": "/nonexistent"}, "domain": "mg.example"}"#, "api_key"),
            (r#"{"api_key": "k", "domain": "mg.example", "timeouts": {"connect": "0s"}}"#, "timeouts.connect"),
        ] {
            let config: Config = serde_json::from_str(json).unwrap();
            let error = config.connect(ProviderName::new("mailgun", "x"), &context).unwrap_err();
            assert_eq!(error.key, key, "{json}: {error}");
        }
        let config: Config = serde_json::from_str(r#"{"api_key": "k", "domain": "mg.example", "region": "eu"}"#).unwrap();
        assert_eq!(config.destination(), "https://api.eu.mailgun.net/v3/mg.example");
    }
}
