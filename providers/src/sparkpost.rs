//! SparkPost through its transmissions API, with the message as it is in `email_rfc822`.
//! <https://developers.sparkpost.com/api/transmissions/>
//!
//! Each recipient gets a call of its own. A transmission for several can be taken for some of them only,
//! and its answer counts those that were refused without saying who they are (code 2000); with one
//! recipient there is no such doubt.

use std::sync::Arc;
use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Serialize;

use crate::contract::{
    Address, Allowance, Attempt, Capabilities, Connected, Delivery, Diagnostic, Failure, Probed, Provider, ProviderName, RecipientIndex,
    SizeLimit,
};
use crate::http::api::{self, Accepted, Answer, Part, Reading, Refused, Timeouts};
use crate::http::credential::credential;
use crate::http::dry_run::dry_run;
use crate::http::parts::Turns;
use crate::http::raw;
use crate::http::verdict::{Rule, Verdict};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret};

/// The reverse-path is SparkPost's own, so a notification cannot cause another one here. 20 MB are
/// documented for texts and attachments together.
const CAPABILITIES: Capabilities = Capabilities {
    reverse_path: false,
    max_size: Some(SizeLimit::message(20_000_000)),
    max_recipients: Some(1),
    smtputf8: false,
    sender_identity: true,
    ..Capabilities::EVERYTHING
};

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 20;

/// The account's limit of the hour, the day or the month.
pub const LIMIT_PAUSE: Duration = Duration::from_secs(3600);

/// "Wait 1 to 5 seconds."
pub const RATE_PAUSE: Duration = Duration::from_secs(5);

/// What its refusals mean. <https://developers.sparkpost.com/api/#header-errors>
pub const RULES: &[Rule] = &[
    Rule::new(400, "7001", Verdict::SenderRefused).advice(
        "verify the domain of From in SparkPost under Configuration > Domains, for this subaccount if `subaccount` is set; or set `rewrite`",
    ),
    // On the suppression list. The code is also that of other refusals while the message is made.
    Rule::new(400, "1902", Verdict::RecipientsRefused)
        .says("suppressed")
        .advice("the recipient is suppressed: take it off in SparkPost under Recipients > Suppressions, if it is there by mistake"),
    Rule::new(400, "", Verdict::Rejected),
    Rule::new(401, "", Verdict::Unauthorized).advice(
        "check `api_key` and its place: a key of app.eu.sparkpost.com needs `region = \"eu\"`; make one under Configuration > API Keys",
    ),
    Rule::new(403, "", Verdict::Unauthorized)
        .advice("give the API key \"Transmissions: Read/Write\" in SparkPost under Configuration > API Keys, and see that the account is active"),
    Rule::new(420, "", Verdict::Throttled(Some(LIMIT_PAUSE)))
        .advice("the account's sending limit is used up: enlarge the plan in SparkPost, or wait for the next hour, day or month"),
    Rule::new(422, "", Verdict::Rejected),
    Rule::new(429, "", Verdict::Throttled(Some(RATE_PAUSE))),
];

/// `[provider.sparkpost.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// An API key that may write transmissions.
    pub api_key: Secret,
    /// Where the account lives: `us` or `eu`.
    #[serde(default)]
    pub region: Region,
    /// The subaccount to send for, by its number.
    pub subaccount: Option<u32>,
    /// Where bounces go: an address of a verified bounce domain.
    pub return_path: Option<String>,
    /// Whether opens and clicks are tracked; otherwise the content stays as it is.
    #[serde(default)]
    pub tracking: bool,
    /// The service's URL, in place of the region's.
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

/// Where an account lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Region {
    /// `app.sparkpost.com`.
    #[default]
    Us,
    /// `app.eu.sparkpost.com`.
    Eu,
}

/// The provider.
struct SparkPost {
    http: reqwest::Client,
    endpoint: String,
    key: HeaderValue,
    config: Config,
}

/// The request's body.
#[derive(Serialize)]
struct Transmission<'a> {
    options: Options,
    recipients: [Recipient<'a>; 1],
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_path: Option<&'a str>,
}

#[derive(Serialize)]
struct Options {
    transactional: bool,
    open_tracking: bool,
    click_tracking: bool,
    perform_substitutions: bool,
}

#[derive(Serialize)]
struct Recipient<'a> {
    address: Mailbox<'a>,
}

#[derive(Serialize)]
struct Mailbox<'a> {
    email: &'a str,
}

#[derive(Serialize)]
struct Content<'a> {
    email_rfc822: &'a str,
}

impl Config {
    fn default_endpoint(&self) -> &'static str {
        match self.region {
            Region::Us => "https://api.sparkpost.com",
            Region::Eu => "https://api.eu.sparkpost.com",
        }
    }
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        let key = credential("api_key", &self.api_key, "")?;
        if let Some(address) = &self.return_path
            && let Err(error) = Address::parse(address)
        {
            return Err(SettingsError::new("return_path", format!("{address:?}: {error}; expected such as \"bounces@mail.example.com\"")));
        }
        let endpoint = api::endpoint(self.endpoint.as_deref(), self.default_endpoint())?;
        let provider = Arc::new(SparkPost { http: context.http.clone(), endpoint, key, config: self.clone() });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn destination(&self) -> String {
        let place = self.endpoint.as_deref().unwrap_or(self.default_endpoint());
        let subaccount = self.subaccount.map(|number| format!(", subaccount {number}")).unwrap_or_default();
        // Two keys may be of one account, and nobody can tell by looking at them.
        format!("{place} (API key {}{subaccount})", self.api_key)
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }
}

impl SparkPost {
    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.header(AUTHORIZATION, self.key.clone());
        match self.config.subaccount {
            Some(number) => request.header("X-MSYS-SUBACCOUNT", number),
            None => request,
        }
    }

    fn transmissions(&self) -> RequestBuilder {
        self.authorized(self.http.post(format!("{}/api/v1/transmissions", self.endpoint)))
    }

    async fn send(&self, attempt: &Attempt, message: &str, index: RecipientIndex, address: &str) -> Part {
        let tracking = self.config.tracking;
        let body = Transmission {
            options: Options { transactional: true, open_tracking: tracking, click_tracking: tracking, perform_substitutions: false },
            recipients: [Recipient { address: Mailbox { email: address } }],
            content: Content { email_rfc822: message },
            return_path: self.config.return_path.as_deref(),
        };
        let request = self.transmissions().json(&body);
        let reading = |answer: &Answer| read(answer, address);
        api::hand_over("transmissions", request, self.config.timeouts, attempt, &[index], RULES, reading).await
    }

    /// What the account has used of its day; `None` if the key may not ask, or the account has no limit.
    async fn usage(&self) -> Result<Option<Allowance>, Failure> {
        let request = self.authorized(self.http.get(format!("{}/api/v1/account?include=usage", self.endpoint)));
        match api::ask("account", request, self.config.timeouts, RULES, refusal).await {
            Ok(answer) => {
                let day = &answer.json()["results"]["usage"]["day"];
                let allowance = |limit| Allowance { per_day: Some(limit), used_today: day["used"].as_u64(), ..Allowance::default() };
                Ok(day["limit"].as_u64().filter(|&limit| limit > 0).map(allowance))
            }
            Err(Failure::Unauthorized(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// Refuses what SparkPost would take for its template language: fields of the header go through it even
/// when substitutions are off. Whether its own escapes work then is not documented, so none is tried.
fn without_templates(message: &str) -> Result<(), Failure> {
    let header = message.split_once("\r\n\r\n").map_or(message, |(header, _)| header);
    let Some(at) = header.find("{{").or_else(|| header.find("}}")) else { return Ok(()) };
    // A field begins where a line does, and not with a space.
    let before = header[..at].split('\n').rfind(|line| !line.starts_with([' ', '\t'])).unwrap_or_default();
    let field = before.split_once(':').map_or("a header field", |(field, _)| field);
    Err(Failure::Unsuitable(Diagnostic::local(format!(
        "{field} has {{{{ or }}}} in it, which SparkPost takes for a template and would replace"
    ))))
}

/// What an answer says about the one recipient of a call.
fn read(answer: &Answer, address: &str) -> Reading {
    let json = answer.json();
    let (results, refused) = (&json["results"], refusal(answer).unwrap_or_default());
    let counted = |name: &str| results[name].as_u64();
    match (answer.status, counted("total_accepted_recipients"), counted("total_rejected_recipients")) {
        (200, Some(1..), _) => Reading::accepted(id(&results["id"])),
        // "Transmission created, but with validation errors", and for nobody.
        (200, Some(0), Some(1..)) => {
            let named = &results["rcpt_to_errors"][0];
            let said =
                [&named["message"], &named["description"]].into_iter().filter_map(|text| text.as_str()).collect::<Vec<_>>().join(": ");
            let why = if said.is_empty() { refused.text } else { said };
            Reading::Accepted(Accepted { remote_id: id(&results["id"]), refused: vec![(address.to_owned(), why)] })
        }
        _ => Reading::Refused(Refused { recipients: vec![address.to_owned()], ..refused }),
    }
}

fn id(value: &serde_json::Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_u64().map(|number| number.to_string()))
}

fn refusal(answer: &Answer) -> Option<Refused> {
    let json = answer.json();
    let errors = json["errors"].as_array()?;
    let said = |error: &serde_json::Value| {
        let texts = [&error["message"], &error["description"]];
        texts.into_iter().filter_map(|text| text.as_str()).collect::<Vec<_>>().join(": ")
    };
    let code = errors.first().and_then(|error| id(&error["code"])).unwrap_or_default();
    Some(Refused { code, text: errors.iter().map(said).collect::<Vec<_>>().join("; "), ..Refused::default() })
}

impl Provider for SparkPost {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        raw::ascii_addresses(&attempt)?;
        let message = raw::text(&attempt).await?;
        without_templates(&message)?;
        let mut turns = Turns::new(attempt.recipients().map(|(index, one)| (vec![index], (index, one.address.as_str()))).collect());
        while let Some((recipients, (index, address))) = turns.next_call() {
            let part = self.send(&attempt, &message, index, address).await;
            turns.done(recipients, part);
        }
        turns.end()
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let nothing = self.transmissions().json(&serde_json::json!({}));
        dry_run("transmissions, without a message", nothing, self.config.timeouts, RULES, refusal).await?;
        let probed = Probed::default().fact("the API key may send");
        Ok(match self.usage().await? {
            Some(allowance) => {
                let (used, limit) = (allowance.used_today.unwrap_or_default(), allowance.per_day.unwrap_or_default());
                let probed = probed.fact(format!("{used} of {limit} messages of this day are used"));
                Probed { allowance: Some(allowance), ..probed }
            }
            None => probed.fact("the key may not read the account, so its limits are not known; \"Account: Read\" would show them"),
        })
    }

    async fn allowance(&self) -> Result<Option<Allowance>, Failure> {
        self.usage().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_name_their_key() {
        let context = Context::new("relay.example").unwrap();
        for (json, key) in [
            (r#"{"api_key": "a\nb"}"#, "api_key"),
            (r#"{"api_key": "k", "return_path": "bounces"}"#, "return_path"),
            (r#"{"api_key": "k", "endpoint": "x"}"#, "endpoint"),
            (r#"{"api_key": "k", "timeouts": {"connect": "0s"}}"#, "timeouts.connect"),
        ] {
            let config: Config = serde_json::from_str(json).unwrap();
            let error = config.connect(ProviderName::new("sparkpost", "x"), &context).unwrap_err();
            assert_eq!(error.key, key, "{json}: {error}");
        }
    }

    #[test]
    fn braces_are_refused_in_the_header_and_carried_in_the_body() {
        assert_eq!(without_templates("Subject: {one}\r\n\r\n{{ two }}\r\n"), Ok(()));
        for (message, field) in [
            ("A: b\r\nSubject: x\r\n {{ y }}\r\n\r\n", "Subject has"),
            ("X-Braces: }}\r\n\r\n", "X-Braces has"),
            ("{{", "a header field has"),
        ] {
            let Err(Failure::Unsuitable(diagnostic)) = without_templates(message) else { panic!("{message:?} was taken") };
            assert!(diagnostic.text.starts_with(field), "{diagnostic}");
        }
    }
}
