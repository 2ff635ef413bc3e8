//! Any HTTP API that takes mail, as the config describes it: `[provider.http.<name>]`.
//!
//! The request is the message itself, in octets or base64, or a JSON template ([`template`]); answers are
//! read by what is declared ([`answers`]). What is not declared follows the default for all HTTP APIs, so
//! an answer that nobody thought of leaves a message in doubt, and does not lose it.

pub mod answers;
mod request;
pub mod template;

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::header::HeaderName;
use serde_json::Value;

use self::answers::{Answers, ErrorRule, Meaning, Refusal, Success, Throttle};
use self::request::Service;
use self::template::{Slot, Template};
use crate::contract::{Capabilities, Connected, ContentForm, EnvelopeForm, ProviderName, SizeLimit};
use crate::http::api::{self, Timeouts};
use crate::http::verdict::Rule;
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret, Size, Span};

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 10;

/// The most recipients in a header field or a query, unless `max_recipients` says otherwise: servers take
/// about 8 KiB of either.
const MOST_IN_A_PLACE: usize = 50;

/// `[provider.http.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where requests go.
    pub url: String,
    /// With which method.
    #[serde(default)]
    pub method: Method,
    /// Header fields of the request; a value may be a secret.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// What is added to the URL's query; a value may be a secret.
    #[serde(default)]
    pub query: BTreeMap<String, Secret>,
    /// `Authorization: Bearer …`.
    pub bearer: Option<Secret>,
    /// `Authorization: Basic …`.
    pub basic: Option<Basic>,
    /// What the body is; by default `template` where there is one, else `raw`.
    pub body: Option<BodyForm>,
    /// The body's Content-Type, in place of the form's.
    pub content_type: Option<String>,
    /// The body as JSON, with placeholders.
    pub template: Option<Value>,
    /// Secrets that the template names, as in `{secrets.key}`.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
    /// Where the recipients are told, beside or in place of the template.
    pub recipients: Option<Place>,
    /// Where the envelope's sender is told, likewise.
    pub sender: Option<Place>,
    /// The most recipients in one call.
    pub max_recipients: Option<usize>,
    /// The largest message, before any encoding.
    pub max_size: Option<Size>,
    /// Whether addresses outside ASCII are taken.
    #[serde(default)]
    pub smtputf8: bool,
    /// Whether notifications are taken, which have no sender.
    #[serde(default)]
    pub null_sender: bool,
    /// A key by which the service recognises what it has taken already.
    pub idempotency: Option<Idempotency>,
    /// When a message was taken.
    #[serde(default)]
    pub success: Success,
    /// Where an answer says why it was not.
    #[serde(default)]
    pub refusal: Refusal,
    /// When the service wants to be left alone.
    #[serde(default)]
    pub throttle: Throttle,
    /// What refusals mean.
    #[serde(default)]
    pub error: Vec<ErrorRule>,
    /// What can be asked without sending mail.
    pub probe: Option<Probe>,
    /// How long to wait, for each phase.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What the administrator or the account allows.
    #[serde(default)]
    pub limits: LimitSettings,
    /// In whose name mail is handed over.
    pub rewrite: Option<Rewrite>,
}

/// The method of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
pub enum Method {
    /// POST.
    #[default]
    #[serde(rename = "POST")]
    Post,
    /// PUT.
    #[serde(rename = "PUT")]
    Put,
}

/// What the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyForm {
    /// The message.
    Raw,
    /// The message in base64.
    Base64,
    /// JSON, from the template.
    Template,
}

/// `basic = { username = "…", password = "…" }`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// A place in the request beside its body: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// A header field; recipients are in one, with commas between them.
    pub header: Option<String>,
    /// A parameter of the query; there is one for each recipient.
    pub query: Option<String>,
}

/// `idempotency = { header = "…", window = "24h" }`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Idempotency {
    /// The header field with the key; absent: the template has it.
    pub header: Option<String>,
    /// For how long the service remembers it.
    pub window: Span,
}

/// `probe = { url = "…", status = 200 }`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// What to GET, with the same credential.
    pub url: String,
    /// What is answered when all is well.
    #[serde(default = "ok")]
    pub status: u16,
}

fn ok() -> u16 {
    200
}

impl Config {
    /// What refusals mean, as it is declared.
    ///
    /// # Errors
    /// When the declaration cannot work.
    pub fn rules(&self) -> Result<Vec<Rule>, SettingsError> {
        Ok(self.answers()?.rules)
    }

    fn answers(&self) -> Result<Answers, SettingsError> {
        Answers::new(&self.success, &self.refusal, &self.throttle, &self.error)
    }

    fn form(&self) -> BodyForm {
        self.body.unwrap_or(if self.template.is_some() { BodyForm::Template } else { BodyForm::Raw })
    }

    /// The template, where the body is one.
    fn read_template(&self) -> Result<Option<Template>, SettingsError> {
        let template = match (self.form(), &self.template) {
            (BodyForm::Template, Some(template)) => template,
            (BodyForm::Template, None) => return Err(SettingsError::new("body", "the body is a template, and `template` is missing")),
            (_, Some(_)) => {
                return Err(SettingsError::new("template", "`body` says that the body is something else; remove one of the two"));
            }
            (_, None) => return Ok(None),
        };
        let secrets: Vec<&str> = self.secrets.keys().map(String::as_str).collect();
        let template = Template::read(template, &secrets).map_err(|error| SettingsError::new("template", error))?;
        let is_raw = template.uses(Slot::Raw) || template.uses(Slot::RawBase64);
        if !is_raw && !template.uses(Slot::Text) && !template.uses(Slot::Html) {
            let message = "nothing of the message's content would be told; expected {raw_base64} or {raw}, or {text} and {html}";
            return Err(SettingsError::new("template", message));
        }
        Ok(Some(template))
    }

    /// Refuses a request in which some recipients would be told nowhere, or would be shown to others.
    fn check_recipients(&self, template: Option<&Template>) -> Result<(), SettingsError> {
        let uses = |slot| template.is_some_and(|template| template.uses(slot));
        if [Slot::To, Slot::Cc, Slot::Bcc].into_iter().all(uses) {
            return Ok(());
        }
        let is_told = self.recipients.is_some() || uses(Slot::Recipients);
        let (key, message) = match template {
            None if is_told => return Ok(()),
            None => ("recipients", "nobody would be told who receives; expected such as { header = \"X-Recipients\" }"),
            Some(_) if !is_told => ("template", "not all recipients would be told; expected {recipients}, or all of {to}, {cc} and {bcc}"),
            // The message has its own header, and what it does not show stays hidden.
            Some(_) if uses(Slot::Raw) || uses(Slot::RawBase64) || self.max_recipients == Some(1) => return Ok(()),
            Some(_) => (
                "template",
                "a service that makes the message from fields may show all {recipients} to each other; expected all of {to}, {cc} and \
                 {bcc}, or `max_recipients = 1`",
            ),
        };
        Err(SettingsError::new(key, message))
    }

    fn capabilities(&self, template: Option<&Template>) -> Capabilities {
        let uses = |slot| template.is_some_and(|template| template.uses(slot));
        let is_raw = template.is_none() || uses(Slot::Raw) || uses(Slot::RawBase64);
        let is_own = self.recipients.is_some() || uses(Slot::Recipients);
        Capabilities {
            content: if is_raw { ContentForm::Raw } else { ContentForm::Fields },
            envelope: if is_own { EnvelopeForm::Own } else { EnvelopeForm::Header },
            reverse_path: self.sender.is_some() || uses(Slot::Sender),
            max_size: self.max_size.map(|size| SizeLimit::message(size.0)),
            max_recipients: self.max_recipients.or(self.recipients.as_ref().map(|_| MOST_IN_A_PLACE)),
            smtputf8: self.smtputf8,
            null_sender: self.null_sender,
            idempotency: self.idempotency.as_ref().map(|idempotency| idempotency.window.0),
            ..if is_raw { Capabilities::EVERYTHING } else { Capabilities::FIELDS }
        }
    }

    fn check(&self, template: Option<&Template>) -> Result<(), SettingsError> {
        self.timeouts.check()?;
        if self.max_recipients == Some(0) {
            return Err(SettingsError::new("max_recipients", "a call with 0 recipients hands nothing over; expected at least 1"));
        }
        for (key, place) in [("recipients", &self.recipients), ("sender", &self.sender)] {
            let Some(place) = place else { continue };
            match (&place.header, &place.query) {
                (Some(header), None) => header_name(key, header)?,
                (None, Some(query)) if !query.is_empty() => {}
                _ => return Err(SettingsError::new(key, "expected one of { header = \"…\" } and { query = \"…\" }")),
            }
        }
        for name in self.headers.keys() {
            header_name("headers", name)?;
        }
        let names_it = self.headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"));
        if [names_it, self.bearer.is_some(), self.basic.is_some()].into_iter().filter(|&is| is).count() > 1 {
            return Err(SettingsError::new(
                "headers",
                "two credentials for one Authorization; keep one of `bearer`, `basic` and the header",
            ));
        }
        if let Some(idempotency) = &self.idempotency {
            match &idempotency.header {
                Some(header) => header_name("idempotency.header", header)?,
                None if template.is_some_and(|template| template.uses(Slot::IdempotencyKey)) => {}
                None => {
                    let message = "the key is told nowhere; set `header`, or use {idempotency_key} in the template";
                    return Err(SettingsError::new("idempotency", message));
                }
            }
        }
        if self.idempotency.is_none() && self.error.iter().any(|rule| rule.verdict == Meaning::Taken) {
            return Err(SettingsError::new(
                "error",
                "`verdict = \"taken\"` needs `idempotency`: nothing else tells a message from another",
            ));
        }
        if let Some(probe) = &self.probe
            && !(100..600).contains(&probe.status)
        {
            return Err(SettingsError::new("probe.status", format!("there is no status {}; expected 100 to 599", probe.status)));
        }
        Ok(())
    }
}

/// Refuses what is no name of a header field, and those that belong to the connection or have a setting.
fn header_name(key: &'static str, name: &str) -> Result<(), SettingsError> {
    let Ok(parsed) = name.parse::<HeaderName>() else {
        return Err(SettingsError::new(key, format!("{name:?} is no name of a header field")));
    };
    match parsed.as_str() {
        "content-type" => Err(SettingsError::new(key, "for Content-Type there is the setting `content_type`")),
        "content-length" | "transfer-encoding" | "host" | "connection" | "te" | "upgrade" | "expect" => {
            Err(SettingsError::new(key, format!("{name} belongs to the connection and cannot be set")))
        }
        _ => Ok(()),
    }
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        let template = self.read_template()?;
        self.check(template.as_ref())?;
        self.check_recipients(template.as_ref())?;
        let capabilities = self.capabilities(template.as_ref());
        let service = Service::new(self, name.clone(), context, template, self.answers()?, capabilities)?;
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider: Arc::new(service) })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn destination(&self) -> String {
        let Ok(url) = reqwest::Url::parse(&self.url) else { return "no URL".to_owned() };
        // Neither a password nor a query, which may hold a key.
        let place = format!("{}{}", url.origin().ascii_serialization(), url.path());
        // Accounts of one service are told apart by where their credentials are.
        let single = [("bearer", self.bearer.as_ref()), ("basic", self.basic.as_ref().map(|basic| &basic.password))];
        let single = single.into_iter().filter_map(|(name, secret)| Some((name, secret?)));
        let named = [&self.headers, &self.query, &self.secrets].into_iter().flatten().map(|(name, secret)| (name.as_str(), secret));
        let credentials: Vec<String> = single.chain(named).map(|(name, secret)| format!("{name} {secret:?}")).collect();
        match credentials.is_empty() {
            true => place,
            false => format!("{place} ({})", credentials.join(", ")),
        }
    }

    fn kind_capabilities() -> Capabilities {
        Capabilities { smtputf8: false, null_sender: false, ..Capabilities::EVERYTHING }
    }
}

/// Reads a URL of the config.
fn url(key: &'static str, text: &str) -> Result<reqwest::Url, SettingsError> {
    let wrong = |why: String| SettingsError::new(key, why);
    api::endpoint(Some(text), "").map_err(|error| wrong(error.message))?;
    reqwest::Url::parse(text).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests;
