//! Cloudflare Email Sending through `send_raw`: the message as it is, and the envelope beside it.
//! <https://developers.cloudflare.com/api/resources/email_sending/methods/send_raw>
//!
//! The platform sets Date, Message-ID and some more fields itself, and its answer says for each recipient
//! what became of it. Of other fields it knows a list and everything that begins with `X-`; that is
//! documented for its other interfaces, and not confirmed for this one.
//! <https://developers.cloudflare.com/email-service/reference/headers/>

use std::sync::Arc;

use reqwest::RequestBuilder;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Serialize;
use serde_json::Value;

use crate::contract::{
    Attempt, Capabilities, Connected, ContentForm, Delivery, Diagnostic, Failure, Probed, Provider, ProviderName, RecipientIndex, SizeLimit,
};
use crate::http::api::{self, Accepted, Answer, Part, Reading, Refused, Timeouts};
use crate::http::credential::credential;
use crate::http::parts::Turns;
use crate::http::raw;
use crate::http::verdict::{Rule, Verdict};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret};

/// Bounces go to Cloudflare's own processor, whatever the reverse-path is.
/// <https://developers.cloudflare.com/email-service/platform/limits/>
const CAPABILITIES: Capabilities = Capabilities {
    content: ContentForm::RawMostly,
    reverse_path: false,
    max_size: Some(SizeLimit::message(5 << 20)),
    max_recipients: Some(50),
    smtputf8: false,
    null_sender: false,
    sender_identity: true,
    ..Capabilities::EVERYTHING
};

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 10;

/// What its refusals mean. Its messages are read and not its numbers, because 10200 and 10202 have changed
/// places between two editions of its documentation. That a suppressed recipient is refused with 400 is
/// documented; its exact message is not. A schema that is refused (10001) has no rule: that is a fault of this
/// program and not of the message, so another provider is asked.
/// <https://developers.cloudflare.com/email-service/api/send-emails/rest-api/>
pub const RULES: &[Rule] = &[
    Rule::new(0, "", Verdict::Unsuitable).says("error.email.too_big"),
    Rule::new(0, "", Verdict::SenderRefused)
        .says("sender_not_configured")
        .advice("onboard the sender's domain in Cloudflare under Compute > Email Service > Email Sending, or set `rewrite`"),
    Rule::new(400, "", Verdict::RecipientsRefused)
        .says("suppressed")
        .advice("the recipient is suppressed: take it off in Cloudflare under Email Sending > Suppressions, if it is there by mistake"),
    Rule::new(400, "", Verdict::Rejected).says("error.email.invalid").advice(
        "Cloudflare says this of broken headers and addresses, and also while the sender's domain is not onboarded for Email Sending",
    ),
    Rule::new(400, "", Verdict::Rejected).says("no_content_length"),
    Rule::new(401, "", Verdict::Unauthorized)
        .advice("check `api_token`: make one in Cloudflare under Manage Account > API Tokens, with the permission Email Sending: Edit"),
    Rule::new(403, "", Verdict::Unauthorized)
        .says("sending_disabled")
        .advice("sending is off for this zone or account: enable Email Sending in Cloudflare, or ask its support why it was disabled"),
    Rule::new(403, "", Verdict::Unauthorized)
        .says("not_entitled")
        .advice("the account has no Email Sending: it comes with the paid plan of Workers"),
    Rule::new(403, "", Verdict::Unauthorized).advice("give the API token the permission Email Sending: Edit for this account"),
    Rule::new(404, "", Verdict::Unauthorized).advice("check `account_id`: Cloudflare shows it on the account's overview"),
    // Said before it has looked at the message.
    Rule::new(503, "", Verdict::Unavailable).says("authentication.upstream"),
];

/// `[provider.cloudflare.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The account's id.
    pub account_id: String,
    /// An API token that may edit Email Sending.
    pub api_token: Secret,
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
struct Cloudflare {
    http: reqwest::Client,
    /// The URL of the account's Email Sending.
    place: String,
    token: HeaderValue,
    timeouts: Timeouts,
}

/// The request's body.
#[derive(Serialize)]
struct SendRaw<'a> {
    from: &'a str,
    recipients: Vec<&'a str>,
    mime_message: &'a str,
}

impl Config {
    const ENDPOINT: &'static str = "https://api.cloudflare.com";
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.timeouts.check()?;
        if self.account_id.is_empty() || !self.account_id.chars().all(|c| c.is_ascii_alphanumeric()) {
            let message = format!("{:?} is no account id; expected its 32 letters and digits, as Cloudflare shows them", self.account_id);
            return Err(SettingsError::new("account_id", message));
        }
        let token = credential("api_token", &self.api_token, "Bearer ")?;
        let endpoint = api::endpoint(self.endpoint.as_deref(), Self::ENDPOINT)?;
        let place = format!("{endpoint}/client/v4/accounts/{}/email/sending", self.account_id);
        let provider = Arc::new(Cloudflare { http: context.http.clone(), place, token, timeouts: self.timeouts });
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn destination(&self) -> String {
        format!("{} (account {})", self.endpoint.as_deref().unwrap_or(Self::ENDPOINT), self.account_id)
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }
}

impl Cloudflare {
    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        request.header(AUTHORIZATION, self.token.clone())
    }

    async fn send(&self, attempt: &Attempt, from: &str, message: &str, recipients: &[RecipientIndex]) -> Part {
        let named: Vec<&str> =
            attempt.recipients().filter(|(index, _)| recipients.contains(index)).map(|(_, recipient)| recipient.address.as_str()).collect();
        let body = SendRaw { from, recipients: named, mime_message: message };
        let request = self.authorized(self.http.post(format!("{}/send_raw", self.place))).json(&body);
        api::hand_over("send_raw", request, self.timeouts, attempt, recipients, RULES, read).await
    }
}

/// What an answer says.
fn read(answer: &Answer) -> Reading {
    let json = answer.json();
    let result = &json["result"];
    if answer.status != 200 || json["success"] != true || !result.is_object() {
        return Reading::Refused(refusal(answer).unwrap_or_default());
    }
    let lists = [("permanent_bounces", "bounced for good"), ("suppressed_recipients", "on the account's suppression list")];
    let listed = |(list, why): (&str, &str)| {
        let addresses = result[list].as_array().into_iter().flatten().filter_map(Value::as_str);
        addresses.map(|address| (address.to_owned(), why.to_owned())).collect::<Vec<_>>()
    };
    Reading::Accepted(Accepted {
        remote_id: result["message_id"].as_str().map(str::to_owned),
        refused: lists.into_iter().flat_map(listed).collect(),
    })
}

fn refusal(answer: &Answer) -> Option<Refused> {
    let json = answer.json();
    let errors = json["errors"].as_array()?;
    let code = errors.first().and_then(|error| error["code"].as_u64()).map(|code| code.to_string()).unwrap_or_default();
    let said: Vec<&str> = errors.iter().filter_map(|error| error["message"].as_str()).collect();
    Some(Refused { code, text: said.join("; "), ..Refused::default() })
}

impl Provider for Cloudflare {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        raw::ascii_addresses(&attempt)?;
        let Some(from) = attempt.message.envelope.reverse_path.address() else {
            return Err(Failure::Unsuitable(Diagnostic::local("Cloudflare takes no message with the null reverse-path")));
        };
        let message = raw::text(&attempt).await?;
        let mut turns = Turns::new(vec![(attempt.recipients.to_vec(), ())]);
        while let Some((recipients, ())) = turns.next_call() {
            match self.send(&attempt, from.as_str(), &message, &recipients).await {
                // One recipient is suppressed, and the message is taken for nobody.
                Part::Unnamed(_) => turns.halve(recipients, ()),
                part => turns.done(recipients, part),
            }
        }
        turns.end()
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        // The only thing that can be asked of Email Sending itself: whether the token may see it.
        let request = self.authorized(self.http.get(format!("{}/suppressions?per_page=1", self.place)));
        api::ask("suppressions", request, self.timeouts, RULES, refusal).await?;
        Ok(Probed::default().fact("the API token may use Email Sending in this account"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_name_their_key() {
        let context = Context::new("relay.example").unwrap();
        for (json, key) in [
            (r#"{"account_id": "", "api_token": "t"}"#, "account_id"),
            (r#"{"account_id": "a/b", "api_token": "t"}"#, "account_id"),
            (r#"{"account_id": "a", "api_token": "t\n"}"#, "api_token"),
            (r#"{"account_id": "a", "api_token": "t", "endpoint": "x"}"#, "endpoint"),
            (r#"{"account_id": "a", "api_token": "t", "timeouts": {"answer": "0s"}}"#, "timeouts.answer"),
        ] {
            let config: Config = serde_json::from_str(json).unwrap();
            let error = config.connect(ProviderName::new("cloudflare", "x"), &context).unwrap_err();
            assert_eq!(error.key, key, "{json}: {error}");
        }
    }
}
