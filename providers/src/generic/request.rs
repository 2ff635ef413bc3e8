//! The generic provider at work: one request from the message, and what its answer means.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{RequestBuilder, Url};

use super::answers::Answers;
use super::template::{Slot, Template, Values};
use super::{BodyForm, Config, Method, Place, url};
use crate::contract::{Attempt, Capabilities, Delivery, Diagnostic, Failure, Probed, Provider, ProviderName, RecipientIndex};
use crate::http::api::{self, Timeouts};
use crate::http::credential::credential;
use crate::http::parts::Turns;
use crate::http::raw;
use crate::http::verdict::judge;
use crate::mime::fields::{Addressed, Fields};
use crate::registry::{Context, SettingsError};
use crate::settings::Secret;

/// What was being done, in diagnostics.
const DURING: &str = "handover";

/// The longest URL that the HTTP client takes is 65,534 octets; servers take less, and say so.
const LONGEST_URL: usize = 65_000;

/// The provider.
pub(super) struct Service {
    name: ProviderName,
    http: reqwest::Client,
    method: reqwest::Method,
    url: Url,
    /// What every request has, the credential included.
    headers: HeaderMap,
    form: BodyForm,
    content_type: HeaderValue,
    template: Option<Template>,
    secrets: BTreeMap<String, String>,
    recipients: Option<Place>,
    sender: Option<Place>,
    key_header: Option<String>,
    answers: Answers,
    probe: Option<(Url, u16)>,
    capabilities: Capabilities,
    timeouts: Timeouts,
}

/// What all calls for one message have in common.
struct Content {
    octets: Option<Bytes>,
    text: Option<String>,
    base64: Option<String>,
    fields: Option<Fields>,
}

impl Service {
    pub(super) fn new(
        config: &Config,
        name: ProviderName,
        context: &Context,
        template: Option<Template>,
        answers: Answers,
        capabilities: Capabilities,
    ) -> Result<Self, SettingsError> {
        let read = |key: &'static str, secret: &Secret| secret.read().map_err(|error| SettingsError::new(key, error));
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let known: HeaderName = name.parse().map_err(|_| SettingsError::new("headers", format!("{name:?} is no name of a header")))?;
            headers.insert(known, credential("headers", value, "")?);
        }
        if let Some(bearer) = &config.bearer {
            headers.insert(AUTHORIZATION, credential("bearer", bearer, "Bearer ")?);
        }
        if let Some(basic) = &config.basic {
            let pair = STANDARD.encode(format!("{}:{}", basic.username, read("basic.password", &basic.password)?));
            headers.insert(AUTHORIZATION, credential("basic", &Secret::Literal(pair), "Basic ")?);
        }
        let mut place = url("url", &config.url)?;
        for (name, value) in &config.query {
            place.query_pairs_mut().append_pair(name, &read("query", value)?);
        }
        let form = config.form();
        let content_type = config.content_type.as_deref().unwrap_or(match form {
            BodyForm::Raw => "message/rfc822",
            BodyForm::Base64 => "text/plain",
            BodyForm::Template => "application/json",
        });
        let content_type = HeaderValue::from_str(content_type)
            .map_err(|_| SettingsError::new("content_type", format!("{content_type:?} is no value of a header")))?;
        let secrets = config.secrets.iter().map(|(name, secret)| Ok((name.clone(), read("secrets", secret)?)));
        Ok(Self {
            name,
            http: context.http.clone(),
            method: match config.method {
                Method::Post => reqwest::Method::POST,
                Method::Put => reqwest::Method::PUT,
            },
            url: place,
            headers,
            form,
            content_type,
            template,
            secrets: secrets.collect::<Result<_, _>>()?,
            recipients: config.recipients.clone(),
            sender: config.sender.clone(),
            key_header: config.idempotency.as_ref().and_then(|idempotency| idempotency.header.clone()),
            answers,
            probe: config.probe.as_ref().map(|probe| Ok((url("probe.url", &probe.url)?, probe.status))).transpose()?,
            capabilities,
            timeouts: config.timeouts,
        })
    }

    fn uses(&self, slot: Slot) -> bool {
        self.template.as_ref().is_some_and(|template| template.uses(slot))
    }

    /// What of the message the request needs.
    async fn content(&self, attempt: &Attempt) -> Result<Content, Failure> {
        let is_base64 = self.form == BodyForm::Base64 || self.uses(Slot::RawBase64);
        let octets = match is_base64 || self.form == BodyForm::Raw {
            true => Some(raw::octets(attempt).await?),
            false => None,
        };
        let text = match self.uses(Slot::Raw) {
            true => Some(raw::text(attempt).await?),
            false => None,
        };
        let mut fields = match self.template.as_ref().is_some_and(Template::uses_fields) {
            true => Some(Fields::of(attempt).await?),
            false => None,
        };
        let is_carried = octets.is_some() || text.is_some();
        if let (false, Some(fields)) = (is_carried, &mut fields) {
            self.check_places(fields)?;
            fields.lost.extend(self.dropped(fields));
        }
        Ok(Content { base64: octets.as_ref().filter(|_| is_base64).map(|octets| STANDARD.encode(octets)), octets, text, fields })
    }

    /// Refuses a message of which the template would drop something that people see.
    fn check_places(&self, fields: &Fields) -> Result<(), Failure> {
        let missing = if !fields.attachments.is_empty() && !self.uses(Slot::Attachments) {
            "attachments"
        } else if fields.text.is_none() && fields.html.is_some() && !self.uses(Slot::Html) {
            "HTML"
        } else if fields.html.is_none() && fields.text.is_some() && !self.uses(Slot::Text) {
            "plain text"
        } else {
            return Ok(());
        };
        Err(Failure::Unsuitable(Diagnostic::local(format!("the message has {missing}, for which the template has no place"))))
    }

    /// What else the message has that the template has no place for.
    fn dropped(&self, fields: &Fields) -> Vec<String> {
        let parts = [
            ("From", true, Slot::From),
            ("Subject", !fields.subject.is_empty(), Slot::Subject),
            ("Reply-To", !fields.reply_to.is_empty(), Slot::ReplyTo),
            ("the plain text", fields.text.is_some(), Slot::Text),
            ("the HTML", fields.html.is_some(), Slot::Html),
        ];
        let parts = parts.into_iter().filter(|&(_, is_there, slot)| is_there && !self.uses(slot)).map(|(what, ..)| what);
        let headers = fields.headers.iter().filter(|_| !self.uses(Slot::Headers)).map(|(name, _)| name.as_str());
        parts.chain(headers).map(|what| format!("{what}: the template has no place for it")).collect()
    }

    /// The calls to make: for whom, and who is shown where.
    fn calls(&self, attempt: &Attempt, content: &Content) -> Vec<(Vec<RecipientIndex>, Addressed)> {
        let shows = [Slot::To, Slot::Cc, Slot::Bcc].into_iter().any(|slot| self.uses(slot));
        if let (true, Some(fields)) = (shows, &content.fields) {
            return fields.addressed(attempt);
        }
        let most = self.capabilities.max_recipients.unwrap_or(usize::MAX).max(1);
        attempt.recipients.chunks(most).map(|part| (part.to_vec(), Addressed::default())).collect()
    }

    fn request(
        &self,
        attempt: &Attempt,
        content: &Content,
        indexes: &[RecipientIndex],
        addressed: &Addressed,
    ) -> Result<RequestBuilder, Failure> {
        let sender = attempt.message.envelope.reverse_path.as_str();
        let told = attempt.recipients().filter(|(index, _)| indexes.contains(index));
        let recipients: Vec<&str> = told.map(|(_, recipient)| recipient.address.as_str()).collect();
        let key = attempt.idempotency_key(&self.name, indexes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();

        let places = [(&self.recipients, recipients.as_slice()), (&self.sender, &[sender])];
        let mut url = self.url.clone();
        for (place, values) in &places {
            if let Some(Place { query: Some(query), .. }) = place {
                url.query_pairs_mut().extend_pairs(values.iter().map(|value| (query, value)));
            }
        }
        if url.as_str().len() > LONGEST_URL {
            let text = format!("a URL has no room for {} recipients; see `max_recipients`", recipients.len());
            return Err(Failure::Unsuitable(Diagnostic::local(text)));
        }
        let mut request = self.http.request(self.method.clone(), url).headers(self.headers.clone());
        for (place, values) in &places {
            if let Some(Place { header: Some(header), .. }) = place {
                request = request.header(header, values.join(", "));
            }
        }
        if let Some(header) = &self.key_header {
            request = request.header(header, &key);
        }
        let body = match (&self.template, &content.base64) {
            (Some(template), base64) => {
                let values = Values {
                    sender,
                    recipients,
                    raw: content.text.as_deref(),
                    raw_base64: base64.as_deref(),
                    message_id: attempt.message.id.to_string(),
                    idempotency_key: key,
                    fields: content.fields.as_ref(),
                    addressed: Some(addressed),
                    secrets: Some(&self.secrets),
                };
                template.render(&values).to_string().into_bytes().into()
            }
            (None, Some(base64)) => Bytes::from(base64.clone()),
            (None, None) => content.octets.clone().unwrap_or_default(),
        };
        Ok(request.header(CONTENT_TYPE, self.content_type.clone()).body(body))
    }
}

/// Refuses what has no place in a header field.
fn check_header(place: Option<&Place>, addresses: &[&str]) -> Result<(), Failure> {
    let Some(Place { header: Some(header), .. }) = place else { return Ok(()) };
    let is_plain = |address: &str| address.is_ascii() && !address.contains(',');
    match addresses.iter().find(|address| !is_plain(address)) {
        Some(address) => Err(Failure::Unsuitable(Diagnostic::local(format!("{address} has no place in the header field {header}")))),
        None => Ok(()),
    }
}

impl Provider for Service {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        if !self.capabilities.smtputf8 {
            raw::ascii_addresses(&attempt)?;
        }
        let envelope = &attempt.message.envelope;
        if !self.capabilities.null_sender && envelope.reverse_path.address().is_none() {
            return Err(Failure::Unsuitable(Diagnostic::local("this service takes no message with the null reverse-path")));
        }
        let recipients: Vec<&str> = attempt.recipients().map(|(_, recipient)| recipient.address.as_str()).collect();
        check_header(self.recipients.as_ref(), &recipients)?;
        check_header(self.sender.as_ref(), &[envelope.reverse_path.as_str()])?;
        let content = self.content(&attempt).await?;
        let mut turns = Turns::new(self.calls(&attempt, &content));
        while let Some((recipients, addressed)) = turns.next_call() {
            let read = |answer: &api::Answer| self.answers.read(answer);
            let part = match self.request(&attempt, &content, &recipients, &addressed) {
                Ok(request) => api::hand_over(DURING, request, self.timeouts, &attempt, &recipients, &self.answers.rules, read).await,
                Err(failure) => api::Part::Failed(failure),
            };
            turns.done(recipients, part);
        }
        match &content.fields {
            Some(fields) if content.octets.is_none() && content.text.is_none() => fields.told(turns.end()),
            _ => turns.end(),
        }
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let Some((url, status)) = &self.probe else {
            let request = self.http.head(self.url.clone()).headers(self.headers.clone());
            let answered = api::exchange("HEAD", request, self.timeouts, None).await;
            let (answer, _) = answered.map_err(|unanswered| Failure::Unavailable(unanswered.diagnostic))?;
            let text = format!("it answers HEAD with {}; what that says of the credential is not known without `probe`", answer.status);
            return Ok(Probed::default().warning(text));
        };
        let request = self.http.get(url.clone()).headers(self.headers.clone());
        let answered = api::exchange("probe", request, self.timeouts, None).await;
        let (answer, _) = answered.map_err(|unanswered| Failure::Unavailable(unanswered.diagnostic))?;
        if answer.status == *status {
            return Ok(Probed::default().fact(format!("the probe is answered with {status}")));
        }
        let refused = self.answers.refused(&answer);
        let (verdict, advice) = judge(&self.answers.rules, answer.status, &refused.code, &refused.text);
        let said = format!("{} where {status} was expected: {}", answer.status, answer.excerpt());
        Err(verdict.failure(Diagnostic::during("probe", said).advised(advice)).unwrap_or_else(Failure::Unavailable))
    }
}
