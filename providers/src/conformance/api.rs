//! The suite for providers that are HTTP APIs: their wire format, their error table, their silence.
//!
//! An [`ApiSubject`] says how its API reads a request and answers it. It reads strictly: whatever the
//! real service would not take (method, path, credential, a member that it does not know) is a panic.
//! Each rule of the provider must decide over a [`Row`], so an error table without its proof fails.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::http_api::{Answer, FakeApi, Request};
use super::{Arranged, Arranging, Behaviour, Seen, Subject, address, attempt, check_content, content, is_in_doubt, nobody};
use crate::contract::{Attempt, Delivery, Diagnostic, DynProvider, Failure, Outcome, Recipient, RecipientIndex};
use crate::http::verdict::{Rule, Verdict};

/// An HTTP API under test.
pub trait ApiSubject: Sync + Send + 'static {
    /// The kind, as in [`Providers::KINDS`](crate::Providers::KINDS).
    fn kind(&self) -> &'static str;

    /// A provider that speaks to the API at `endpoint`, with these settings beside those it needs.
    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider>;

    /// What a request that hands over a message tells the API, or `None` for a call that sends nothing
    /// (a token, a status); never both. Panics on what the real service would refuse.
    fn read(&self, request: &Request) -> Option<Seen>;

    /// Whether a request with this head hands over a message.
    fn sends(&self, head: &str) -> bool {
        head.starts_with("POST ")
    }

    /// The API's answer on success.
    fn success(&self, request: &Request) -> Answer;

    /// The answer to a call that sends nothing.
    fn aside(&self, request: &Request) -> Answer {
        panic!("{}: an unexpected call: {}", self.kind(), request.head)
    }

    /// The provider's rules.
    fn rules(&self) -> &'static [Rule];

    /// Real answers, and what they mean.
    fn rows(&self) -> Vec<Row>;

    /// The answer with which the API takes the message for all but the recipient whose address begins
    /// with `refused@`, if it can.
    fn partial(&self, request: &Request) -> Option<Answer> {
        let _ = request;
        None
    }

    /// Whether a repeated call with an expired credential asks for another one, so that a refusal of it
    /// is seen twice by the API.
    fn renews_credentials(&self) -> bool {
        false
    }
}

/// One row of an API's error table: an answer as it is on the wire, and its verdict.
#[derive(Debug, Clone)]
pub struct Row {
    /// What the API answers.
    pub answer: Answer,
    /// What that means.
    pub verdict: Verdict,
}

impl Row {
    /// A JSON answer and its verdict.
    #[must_use]
    pub fn json(status: u16, body: &Value, verdict: Verdict) -> Self {
        Self { answer: Answer::json(status, &body.to_string()), verdict }
    }

    /// Any other answer.
    #[must_use]
    pub fn text(status: u16, body: &str, verdict: Verdict) -> Self {
        let headers = vec!["Content-Type: text/plain".to_owned()];
        Self { answer: Answer::Reply { status, headers, body: body.to_owned() }, verdict }
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, line: &str) -> Self {
        if let Answer::Reply { headers, .. } = &mut self.answer {
            headers.push(line.to_owned());
        }
        self
    }
}

/// Makes an API's subject one for the general suite.
pub struct Api<S>(pub S);

impl<S: ApiSubject + Clone> Subject for Api<S> {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn arrange(&self, behaviour: Behaviour) -> Arranging<'_> {
        Box::pin(async move {
            let (kind, row) = (self.kind(), |wanted: fn(&Verdict) -> bool| {
                self.0.rows().into_iter().find(|row| wanted(&row.verdict)).map(|row| row.answer)
            });
            let row = |wanted| match row(wanted) {
                Some(answer) => Some(answer),
                None => panic!("{kind}: no row of its error table for {behaviour:?}"),
            };
            let answer = match behaviour {
                Behaviour::Accepts | Behaviour::RefusesConnections | Behaviour::RefusesOneRecipient | Behaviour::HangsBeforeTheMessage => {
                    None
                }
                Behaviour::ClosesInTheMessage => Some(Answer::CloseInTheBody),
                Behaviour::ClosesAfterTheMessage => Some(Answer::Close),
                Behaviour::HangsAfterTheMessage => Some(Answer::Hang),
                Behaviour::AnswersNonsense => Some(Answer::Reply { status: 200, headers: Vec::new(), body: "<html>".to_owned() }),
                Behaviour::Throttles => row(|verdict| matches!(verdict, Verdict::Throttled(_))),
                Behaviour::RefusesTheCredential => row(|verdict| *verdict == Verdict::Unauthorized),
                Behaviour::RefusesTheSender => match self.0.rows().iter().any(|row| row.verdict == Verdict::SenderRefused) {
                    true => row(|verdict| *verdict == Verdict::SenderRefused),
                    // There are services where the key alone decides.
                    false => return None,
                },
                Behaviour::RefusesTheContent => match self.0.rows().iter().any(|row| row.verdict == Verdict::Rejected) {
                    true => row(|verdict| *verdict == Verdict::Rejected),
                    // There are services that do not say what of a content they refuse for good.
                    false => return None,
                },
            };
            let api = fake(self.0.clone(), answer, behaviour == Behaviour::RefusesOneRecipient).await?;
            let endpoint = match behaviour {
                Behaviour::RefusesConnections => format!("http://{}", nobody().await),
                // A handshake that gets no answer: in clear text the message would leave at once.
                Behaviour::HangsBeforeTheMessage => format!("https://{}", api.api.address),
                _ => api.api.url(),
            };
            let settings = match behaviour {
                Behaviour::HangsBeforeTheMessage => serde_json::json!({ "timeouts": { "connect": "500ms" } }),
                _ => serde_json::json!({}),
            };
            let provider = self.0.provider(&endpoint, settings);
            Some(Arranged { provider, taken: Box::new(move || api.taken()) })
        })
    }
}

/// A running API of a kind.
pub struct Running {
    /// The server.
    pub api: FakeApi,
    taken: Arc<Mutex<Vec<Seen>>>,
}

impl Running {
    /// What it took responsibility for.
    #[must_use]
    pub fn taken(&self) -> Vec<Seen> {
        self.taken.lock().clone()
    }
}

/// Starts the API of a subject. Messages get `answer`, if there is one, else success; with `partial`, all
/// but one recipient are taken. `None` if that cannot be.
///
/// # Panics
/// When there is no port.
pub async fn fake<S: ApiSubject + Clone>(subject: S, answer: Option<Answer>, partial: bool) -> Option<Running> {
    let taken = Arc::new(Mutex::new(Vec::new()));
    if partial && subject.partial(&Request { head: String::new(), body: Vec::new() }).is_none() {
        return None;
    }
    let (early, script, kept) = (subject.clone(), answer.clone(), taken.clone());
    let early = move |head: &str| match (&script, early.sends(head)) {
        (Some(answer @ (Answer::CloseInTheBody | Answer::HangAtOnce)), true) => Some(answer.clone()),
        _ => None,
    };
    let asked = move |request: &Request| {
        let Some(mut seen) = subject.read(request) else { return subject.aside(request) };
        let said = match (&answer, partial) {
            (Some(answer), _) => answer.clone(),
            (None, false) => subject.success(request),
            (None, true) => {
                seen.recipients.retain(|address| !address.starts_with("refused@"));
                subject.partial(request).unwrap_or(Answer::Close)
            }
        };
        let is_success = answer.is_none()
            || matches!(&answer, Some(Answer::Late { then, .. }) if matches!(&**then, Answer::Reply { status: 200..300, .. }));
        // An answer that never comes leaves it open whether the message was taken; the worst is assumed.
        if is_success || matches!(answer, Some(Answer::Close | Answer::Hang)) {
            kept.lock().push(seen);
        }
        said
    };
    match FakeApi::asking(early, asked).await {
        Ok(api) => Some(Running { api, taken }),
        Err(error) => panic!("no port: {error}"),
    }
}

/// Holds a provider to its error table and to what every HTTP API must bear.
///
/// # Panics
/// When it does not hold, saying how.
pub async fn check_api<S: ApiSubject + Clone>(subject: S) {
    let deliveries = every_row_has_its_verdict(&subject).await;
    every_rule_decides_over_a_row(&subject, &deliveries);
    a_pause_is_read_in_seconds_and_as_a_date(&subject).await;
    a_slow_answer_is_waited_for(&subject).await;
    a_full_call_tells_everyone_once(&subject).await;
    a_large_message_arrives_whole(&subject).await;
}

/// What the provider makes of one answer to a small message.
pub async fn answered<S: ApiSubject + Clone>(subject: &S, answer: Answer) -> Delivery {
    let Some(running) = fake(subject.clone(), Some(answer), false).await else { panic!("no API") };
    let provider = subject.provider(&running.api.url(), serde_json::json!({}));
    provider.deliver(attempt(&content(300), Duration::from_secs(60))).await
}

/// What was said of a refusal, or of a doubt; of several recipients, what was said first.
#[must_use]
pub fn diagnostic(delivery: &Delivery) -> Option<&Diagnostic> {
    match delivery {
        Err(failure) => Some(failure.diagnostic()),
        Ok(report) => report.outcomes.iter().find_map(|(_, outcome)| match outcome {
            Outcome::Bounced(diagnostic) | Outcome::InDoubt(diagnostic) => Some(diagnostic),
            Outcome::Relayed(_) | Outcome::Deferred(_) => None,
        }),
    }
}

async fn every_row_has_its_verdict<S: ApiSubject + Clone>(subject: &S) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for row in subject.rows() {
        let delivery = answered(subject, row.answer.clone()).await;
        let context = format!("{}: {:?}: {delivery:?}", subject.kind(), row);
        let is = match (&delivery, row.verdict) {
            (Err(Failure::Throttled { retry_after, .. }), Verdict::Throttled(pause)) => {
                assert_eq!(*retry_after, pause, "{context}");
                true
            }
            (Err(failure), verdict) => failure.name() == verdict.name(),
            (Ok(report), verdict) => {
                let all = |wanted: &str| report.outcomes.iter().all(|(_, outcome)| outcome.name() == wanted);
                match verdict {
                    Verdict::InDoubt => is_in_doubt(&delivery),
                    Verdict::TakenBefore => all("relayed"),
                    // Those that are named bounce, the others are put off.
                    Verdict::RecipientsRefused => {
                        report.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Bounced(_)))
                            && report.outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Bounced(_) | Outcome::Deferred(_)))
                    }
                    _ => false,
                }
            }
        };
        assert!(is, "{context}");
        if matches!(row.verdict, Verdict::Unauthorized | Verdict::SenderRefused) {
            let advised = diagnostic(&delivery).is_some_and(|diagnostic| diagnostic.advice.is_some());
            assert!(advised, "{context}: a person must act, and is not told how");
        }
        deliveries.push(delivery);
    }
    deliveries
}

/// A rule that stands behind one which takes all its answers would never be seen to be wrong.
fn every_rule_decides_over_a_row<S: ApiSubject>(subject: &S, deliveries: &[Delivery]) {
    let rules = subject.rules();
    let mut decides = vec![false; rules.len()];
    for (row, delivery) in subject.rows().iter().zip(deliveries) {
        for (status, code, text) in told(&row.answer, delivery) {
            if let Some(first) = rules.iter().position(|rule| rule.fits(status, &code, &text.to_lowercase())) {
                decides[first] = true;
            }
        }
    }
    for (rule, decides) in rules.iter().zip(decides) {
        assert!(decides, "{}: no row of its error table shows {rule:?}, or another rule comes before", subject.kind());
    }
}

/// Status, code and words of a refusal, as far as its diagnostic keeps them apart: `code: words`, or one of
/// the two alone. What counts as taken has no diagnostic, and its code is one of the texts in the answer.
fn told(answer: &Answer, delivery: &Delivery) -> Vec<(u16, String, String)> {
    let Some(diagnostic) = diagnostic(delivery) else {
        let Answer::Reply { status, body, .. } = answer else { return Vec::new() };
        return body.split('"').map(|text| (*status, text.to_owned(), String::new())).collect();
    };
    let (status, text) = (diagnostic.code.unwrap_or_default(), diagnostic.text.as_str());
    let told = |code: &str, text: &str| (status, code.to_owned(), text.to_owned());
    match text.split_once(": ") {
        Some((code, words)) if !code.contains(' ') => vec![told(code, words)],
        None if !text.contains(' ') => vec![told(text, ""), told("", text)],
        _ => vec![told("", text)],
    }
}

async fn a_pause_is_read_in_seconds_and_as_a_date<S: ApiSubject + Clone>(subject: &S) {
    let Some(throttled) = subject.rows().into_iter().find(|row| matches!(row.verdict, Verdict::Throttled(_))) else {
        panic!("{}: no row of its error table is about throttling", subject.kind())
    };
    let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(100));
    for (line, from, to) in [("Retry-After: 42".to_owned(), 42, 42), (format!("Retry-After: {date}"), 90, 101)] {
        let delivery = answered(subject, throttled.clone().header(&line).answer).await;
        let Err(Failure::Throttled { retry_after: Some(pause), .. }) = &delivery else {
            panic!("{}: {line}: {delivery:?}", subject.kind())
        };
        assert!((from..=to).contains(&pause.as_secs()), "{}: {line}: {pause:?}", subject.kind());
    }
}

async fn a_slow_answer_is_waited_for<S: ApiSubject + Clone>(subject: &S) {
    let success = subject.success(&Request { head: "POST / HTTP/1.1\r\n".to_owned(), body: b"{}".to_vec() });
    let delivery = answered(subject, Answer::Late { after: Duration::from_millis(700), then: Box::new(success) }).await;
    let all = delivery.as_ref().is_ok_and(|report| report.outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Relayed(_))));
    assert!(all, "{}: a slow success: {delivery:?}", subject.kind());
}

/// As many recipients as one call may have, all of them shown in the header.
async fn a_full_call_tells_everyone_once<S: ApiSubject + Clone>(subject: &S) {
    let Some(running) = fake(subject.clone(), None, false).await else { panic!("no API") };
    let provider = subject.provider(&running.api.url(), serde_json::json!({}));
    let most = provider.capabilities().max_recipients.unwrap_or(200);
    let addresses: Vec<String> = (0..most).map(|nth| format!("r{nth}@a.example")).collect();
    let header = format!("From: <sender@app.example>\r\nTo: {}\r\nSubject: conformance\r\n\r\n", addresses.join(",\r\n "));
    let small = attempt(&[header.as_bytes(), b"To all of you.\r\n"].concat(), Duration::from_secs(60));
    let mut message = (*small.message).clone();
    message.envelope.recipients = addresses.iter().map(|one| Recipient::from(address(one))).collect();
    let recipients = (0..).take(most).map(RecipientIndex).collect();
    let delivery = provider.deliver(Attempt { message: Arc::new(message), recipients, ..small }).await;
    let relayed = delivery.as_ref().is_ok_and(|report| {
        report.outcomes.len() == most && report.outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Relayed(_)))
    });
    assert!(relayed, "{}: {most} recipients: {delivery:?}", subject.kind());
    let mut told: Vec<String> = running.taken().into_iter().flat_map(|seen| seen.recipients).collect();
    let mut wanted = addresses;
    told.sort();
    wanted.sort();
    assert_eq!(told, wanted, "{}", subject.kind());
}

/// Near the kind's limit, and at most 5 MiB.
async fn a_large_message_arrives_whole<S: ApiSubject + Clone>(subject: &S) {
    let Some(running) = fake(subject.clone(), None, false).await else { panic!("no API") };
    let provider = subject.provider(&running.api.url(), serde_json::json!({}));
    let limit = provider.capabilities().max_message_size().unwrap_or(u64::MAX);
    let content = content(usize::try_from(limit / 10 * 9).unwrap_or(usize::MAX).min(5 << 20));
    let delivery = provider.deliver(attempt(&content, Duration::from_secs(60))).await;
    let relayed = delivery.as_ref().is_ok_and(|report| report.outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Relayed(_))));
    assert!(relayed, "{}: {} octets: {delivery:?}", subject.kind(), content.len());
    for seen in running.taken() {
        check_content(subject.kind(), &seen.content, &content);
    }
}
