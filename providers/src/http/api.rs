//! One call to an HTTP API, from the request to the verdict: what is alike in all of them.
//!
//! A provider says how a request is written and how an answer is read ([`Reading`]), and has a table
//! of [`Rule`]s for what is refused. Everything that decides over a message's safety is here: how far
//! the request got, what silence means, and that whatever nobody knows is in doubt.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::RequestBuilder;
use reqwest::header::HeaderMap;
use tokio::time::Instant;

use super::progress::{Patience, Progress, Silence, TrackedBody};
use super::retry_after::retry_after;
use super::verdict::{Rule, Verdict, judge};
use crate::contract::{Attempt, Diagnostic, Failure, Outcome, Receipt, RecipientIndex};
use crate::registry::SettingsError;
use crate::settings::Span;

/// Answers are short. Whoever sends more than this is not waited for, so that it cannot fill the memory.
const LONGEST_ANSWER: usize = 1 << 20;

/// `[provider.<kind>.<name>.timeouts]` of every HTTP API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Until the connection stands and the request begins to leave; a token is fetched in it, too,
    /// where one is needed.
    pub connect: Span,
    /// While the request leaves without making progress, and for its answer.
    pub answer: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Span(Duration::from_secs(20)), answer: Span(Duration::from_secs(60)) }
    }
}

impl Timeouts {
    /// Refuses times in which nobody can answer.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), SettingsError> {
        for (key, span) in [("timeouts.connect", self.connect), ("timeouts.answer", self.answer)] {
            if span.0.is_zero() {
                return Err(SettingsError::new(key, "0 leaves no time to answer; expected a duration such as \"60s\""));
            }
        }
        Ok(())
    }
}

/// Reads an `endpoint`: an http or https URL, without the slash at its end.
///
/// # Errors
/// When it is none, without quoting it: it may hold a password, which is another error.
pub fn endpoint(configured: Option<&str>, default: &str) -> Result<String, SettingsError> {
    let text = configured.unwrap_or(default);
    let wrong = |why: String| SettingsError::new("endpoint", why);
    let expected = if default.is_empty() { "https://api.example.net" } else { default };
    let url = reqwest::Url::parse(text)
        .map_err(|error| wrong(format!("this is no http or https URL: {error}; expected such as {expected:?}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong(format!("this is no http or https URL; expected such as {expected:?}")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("a URL is shown in logs, so it may hold no password; give credentials in settings of their own".to_owned()));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// An answer, however it is meant.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `Null` when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text for a log, in one line and not too long.
    #[must_use]
    pub fn excerpt(&self) -> String {
        const LONGEST: usize = 400;
        shortened(&String::from_utf8_lossy(&self.body[..self.body.len().min(4 * LONGEST)]), LONGEST)
    }
}

/// The most of a service's words, and of an id, that is kept: with each recipient, and in the log.
const LONGEST_WORDS: usize = 1000;

/// `text` in one line of at most `longest` characters.
fn shortened(text: &str, longest: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(longest).collect()
}

/// What a provider reads in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// The message was taken.
    Accepted(Accepted),
    /// It was not, or that is not said: the rules decide, by the provider's code and text.
    Refused(Refused),
}

/// A message that was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The provider's own id.
    pub remote_id: Option<String>,
    /// Recipients that will not get it, with what was said about each.
    pub refused: Vec<(String, String)>,
}

/// A message that was not taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// The provider's own code; empty if there is none.
    pub code: String,
    /// Its words.
    pub text: String,
    /// The recipients at fault, where the answer lists them. Those that its text names are found without.
    pub recipients: Vec<String>,
    /// How long it wants to be left alone, if it says so elsewhere than in `Retry-After`.
    pub retry_after: Option<Duration>,
}

impl Reading {
    /// Taken, under this id.
    #[must_use]
    pub fn accepted(remote_id: Option<String>) -> Self {
        Self::Accepted(Accepted { remote_id, ..Accepted::default() })
    }

    /// Refused, with this code and these words.
    #[must_use]
    pub fn refused(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Refused(Refused { code: code.into(), text: text.into(), ..Refused::default() })
    }
}

/// What became of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The provider was reached, and each recipient has its outcome.
    Answered(Vec<(RecipientIndex, Outcome)>),
    /// Nothing was handed over.
    Failed(Failure),
    /// Nothing was handed over, because of a recipient among several whom the answer does not name.
    Unnamed(Diagnostic),
}

impl Part {
    /// The outcomes, or the failure; where it was not found out who is meant, the message as it stands is
    /// refused.
    ///
    /// # Errors
    /// The failure, where nothing was handed over.
    pub fn settled(self) -> Result<Vec<(RecipientIndex, Outcome)>, Failure> {
        match self {
            Self::Answered(outcomes) => Ok(outcomes),
            Self::Failed(failure) => Err(failure),
            Self::Unnamed(diagnostic) => Err(Failure::Rejected(diagnostic)),
        }
    }
}

/// How a call ended that got no answer, or one that could not be read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// Whether the whole request had left.
    pub all_sent: bool,
    /// What happened.
    pub diagnostic: Diagnostic,
}

/// Sends a request, once, and watches how far it gets.
///
/// # Errors
/// [`Unanswered`] when no answer came, with whether the request had left.
pub async fn exchange(
    during: &'static str,
    request: RequestBuilder,
    timeouts: Timeouts,
    deadline: Option<Instant>,
) -> Result<(Answer, bool), Unanswered> {
    let progress = Progress::new();
    let unanswered = |text: String| Unanswered { all_sent: progress.all_sent(), diagnostic: Diagnostic::during(during, text) };
    let (client, request) = request.build_split();
    let mut request = request.map_err(|error| unanswered(chain(&error.without_url())))?;
    if let Some(body) = request.body_mut().take() {
        // The length is known, so no API has to cope with chunks.
        *request.body_mut() = Some(reqwest::Body::wrap(TrackedBody::new(body, progress.clone())));
    }
    let patience = Patience { connect: timeouts.connect.0, answer: timeouts.answer.0, deadline };
    let call = async {
        let answer = client.execute(request).await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        // An error while it is read is told from here.
        Ok::<_, reqwest::Error>(body(answer).await?.map(|body| Answer { status, headers, body }))
    };
    match progress.watch(patience, call).await {
        Ok(Ok(Some(answer))) => Ok((answer, progress.all_sent())),
        Ok(Ok(None)) => Err(unanswered(format!("an answer of more than {LONGEST_ANSWER} octets, which is none of this service's"))),
        Ok(Err(error)) => Err(unanswered(chain(&error.without_url()))),
        Err(Silence(silence)) => Err(unanswered(format!("no answer for {}", Span(silence)))),
    }
}

/// The body of an answer; `None` if it is too long to be one of an API.
async fn body(mut answer: reqwest::Response) -> Result<Option<Bytes>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        if body.len() + piece.len() > LONGEST_ANSWER {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body.into()))
}

/// Hands a message over in one call for `recipients` of `attempt`, and says what became of each.
///
/// `read` says what is in an answer; what is refused, and why, is up to `rules`.
pub async fn hand_over(
    during: &'static str,
    request: RequestBuilder,
    timeouts: Timeouts,
    attempt: &Attempt,
    recipients: &[RecipientIndex],
    rules: &[Rule],
    read: impl FnOnce(&Answer) -> Reading,
) -> Part {
    let uniform = |outcome: &Outcome| Part::Answered(recipients.iter().map(|&index| (index, outcome.clone())).collect());
    match exchange(during, request, timeouts, Some(attempt.deadline)).await {
        Err(Unanswered { all_sent: true, diagnostic }) => uniform(&Outcome::InDoubt(diagnostic)),
        Err(Unanswered { all_sent: false, diagnostic }) => Part::Failed(Failure::Unavailable(diagnostic)),
        Ok((answer, all_sent)) => conclude(during, &answer, all_sent, attempt, recipients, rules, read(&answer)),
    }
}

/// What an answer means for each recipient.
pub fn conclude(
    during: &'static str,
    answer: &Answer,
    all_sent: bool,
    attempt: &Attempt,
    recipients: &[RecipientIndex],
    rules: &[Rule],
    reading: Reading,
) -> Part {
    let each = |outcome: &dyn Fn(&str) -> Outcome| {
        let address =
            |index: &RecipientIndex| attempt.message.envelope.recipients.get(index.0 as usize).map_or("", |one| one.address.as_str());
        Part::Answered(recipients.iter().map(|index| (*index, outcome(address(index)))).collect())
    };
    let status = answer.status;
    let refused = match reading {
        Reading::Accepted(accepted) => {
            let remote_id = accepted.remote_id.map(|id| shortened(&id, LONGEST_WORDS));
            let reply = format!("{status} {}", remote_id.as_deref().unwrap_or("without an id"));
            let receipt = Receipt { remote_id, reply, ..Receipt::default() };
            return each(&|address| match accepted.refused.iter().find(|(refused, _)| refused.eq_ignore_ascii_case(address)) {
                Some((_, why)) => {
                    Outcome::Bounced(Diagnostic { code: Some(status), ..Diagnostic::during(during, shortened(why, LONGEST_WORDS)) })
                }
                None => Outcome::Relayed(receipt.clone()),
            });
        }
        Reading::Refused(refused) => refused,
    };
    let (mut verdict, advice) = judge(rules, status, &refused.code, &refused.text);
    if let Verdict::Throttled(pause) = &mut verdict {
        *pause = retry_after(&answer.headers, SystemTime::now()).or(refused.retry_after).or(*pause);
    }
    if verdict == Verdict::InDoubt && !all_sent {
        // Answered before it could have read the message, as a load balancer does.
        verdict = Verdict::Unavailable;
    }
    let said = match (refused.code.as_str(), refused.text.as_str()) {
        ("", "") => match answer.excerpt() {
            nothing if nothing.is_empty() => "an empty answer".to_owned(),
            excerpt => format!("an answer that this service does not give: {excerpt}"),
        },
        ("", text) => text.to_owned(),
        (code, "") => code.to_owned(),
        (code, text) => format!("{code}: {text}"),
    };
    let said = shortened(&said, LONGEST_WORDS);
    let diagnostic = Diagnostic { code: Some(status), ..Diagnostic::during(during, said) }.advised(advice);
    let diagnostic = match verdict.failure(diagnostic) {
        Ok(failure) => return Part::Failed(failure),
        Err(diagnostic) => diagnostic,
    };
    match verdict {
        Verdict::TakenBefore => each(&|_| Outcome::Relayed(Receipt { reply: format!("{status} taken before"), ..Receipt::default() })),
        Verdict::RecipientsRefused => {
            let text = refused.text.to_lowercase();
            let is_alone = recipients.len() == 1;
            let is_named = |address: &str| {
                is_alone
                    || refused.recipients.iter().any(|named| named.eq_ignore_ascii_case(address))
                    || names(&text, &address.to_lowercase())
            };
            let any = attempt.recipients().any(|(index, one)| recipients.contains(&index) && is_named(one.address.as_str()));
            if !any {
                return Part::Unnamed(diagnostic);
            }
            each(&|address| match is_named(address) {
                true => Outcome::Bounced(diagnostic.clone()),
                // Nobody got it: the others are asked about again, without these.
                false => Outcome::Deferred(diagnostic.clone()),
            })
        }
        _ => each(&|_| Outcome::InDoubt(diagnostic.clone())),
    }
}

/// Whether `text` has the address in it as a whole, and not as a piece of a longer one.
fn names(text: &str, address: &str) -> bool {
    let belongs = |c: char| c.is_alphanumeric() || "@.-_+!#$%&*/=?^`{|}~".contains(c);
    text.match_indices(address).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + address.len()..]);
        // A full stop ends a sentence, unless it goes on.
        let after = after.strip_prefix('.').filter(|rest| !rest.starts_with(char::is_alphanumeric)).unwrap_or(after);
        !address.is_empty() && !before.ends_with(belongs) && !after.starts_with(belongs)
    })
}

/// An error and what led to it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(|error| error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    texts.join(": ")
}

/// What an administrator does about an answer that is no JSON.
const ELSEWHERE: &str = "check `endpoint`, and any proxy on the way: something else answers there";

/// Asks an API something that sends no mail, as for a probe. Every service answers that with a JSON object: a
/// page of a web server or of a proxy with status 200 says nothing about a key.
///
/// # Errors
/// The failure that a refusal or silence is, by the same rules; nothing is in doubt here.
pub async fn ask(
    during: &'static str,
    request: RequestBuilder,
    timeouts: Timeouts,
    rules: &[Rule],
    read: impl FnOnce(&Answer) -> Option<Refused>,
) -> Result<Answer, Failure> {
    let (answer, _) = exchange(during, request, timeouts, None).await.map_err(|unanswered| Failure::Unavailable(unanswered.diagnostic))?;
    if (200..300).contains(&answer.status) {
        if answer.json().is_object() {
            return Ok(answer);
        }
        let said = format!("an answer that this service does not give: {}", words(&answer));
        let diagnostic = Diagnostic { code: Some(answer.status), ..Diagnostic::during(during, said) };
        return Err(Failure::Unavailable(diagnostic.advised(Some(ELSEWHERE))));
    }
    let refused = read(&answer).unwrap_or_default();
    let text = match refused.text {
        empty if empty.is_empty() => words(&answer),
        text => text,
    };
    let (verdict, advice) = judge(rules, answer.status, &refused.code, &text);
    let said = if refused.code.is_empty() { text } else { format!("{}: {text}", refused.code) };
    let said = shortened(&said, LONGEST_WORDS);
    let diagnostic = Diagnostic { code: Some(answer.status), ..Diagnostic::during(during, said) }.advised(advice);
    Err(verdict.failure(diagnostic).unwrap_or_else(Failure::Unavailable))
}

/// What an answer says for itself.
fn words(answer: &Answer) -> String {
    match answer.excerpt() {
        nothing if nothing.is_empty() => "an empty answer".to_owned(),
        excerpt => excerpt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::http_api::{Answer as Scripted, FakeApi};
    use crate::registry::Context;

    #[tokio::test]
    async fn an_answer_without_an_end_is_not_read_to_its_end_and_leaves_a_doubt() {
        let longest = format!("{{\"id\":\"{}\"}}", "x".repeat(LONGEST_ANSWER - 9));
        let api = FakeApi::start([Scripted::json(200, &longest), Scripted::json(200, &format!("{longest} "))]).await.unwrap();
        let call = || {
            let request = Context::new("relay.example").unwrap().http.post(api.url()).body("message");
            exchange("x", request, Timeouts::default(), None)
        };
        let (answer, all_sent) = call().await.unwrap();
        assert_eq!((answer.body.len(), all_sent), (LONGEST_ANSWER, true));
        let unanswered = call().await.unwrap_err();
        assert!(unanswered.all_sent && unanswered.diagnostic.text.contains("more than"), "{unanswered:?}");
    }

    #[test]
    fn the_words_of_a_service_are_kept_in_one_line_and_not_without_an_end() {
        let attempt = crate::conformance::attempt(b"x", Duration::from_secs(60));
        let answer = Answer { status: 400, headers: HeaderMap::new(), body: Bytes::new() };
        let concluded = |reading| conclude("x", &answer, true, &attempt, &attempt.recipients, &[], reading);
        let Part::Failed(failure) = concluded(Reading::refused("c", "a\r\nb ".repeat(10_000))) else { panic!() };
        assert!(failure.diagnostic().text.starts_with("c: a b a b") && failure.diagnostic().text.len() == LONGEST_WORDS);
        let Part::Answered(outcomes) = concluded(Reading::accepted(Some("x".repeat(10_000)))) else { panic!() };
        let Outcome::Relayed(receipt) = &outcomes[0].1 else { panic!() };
        assert_eq!(receipt.remote_id.as_ref().map(String::len), Some(LONGEST_WORDS));
    }

    #[test]
    fn an_endpoint_that_is_none_is_not_quoted() {
        assert_eq!(endpoint(None, "https://api.example/").unwrap(), "https://api.example");
        for text in ["https://[hunter2", "ftp://hunter2.example", "hunter2", "https://u:hunter2@api.example"] {
            let error = endpoint(Some(text), "").unwrap_err();
            assert!(error.key == "endpoint" && !error.message.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_address_is_found_in_a_text_only_as_a_whole() {
        for (text, expected) in [
            ("'to' parameter is not valid: <a@b.example>", true),
            ("a@b.example.", true),
            ("a@b.example. try again", true),
            ("inactive: x@b.example, a@b.example; y", true),
            ("aa@b.example", false),
            ("a@b.example.org", false),
            ("a@b.examples", false),
            ("", false),
        ] {
            assert_eq!(names(text, "a@b.example"), expected, "{text}");
        }
    }
}
