//! Cloudflare Email Sending, as its reference describes `POST …/email/sending/send_raw`.

use std::sync::Arc;
use std::time::Duration;

use postrider_providers::cloudflare;
use postrider_providers::conformance::api::{ApiSubject, Row};
use postrider_providers::conformance::http_api::{Answer, FakeApi, Request};
use postrider_providers::conformance::{Seen, SeenContent, attempt, content};
use postrider_providers::contract::{Attempt, DynProvider, ReversePath};
use postrider_providers::http::verdict::{Rule, Verdict};
use serde_json::{Value, json};

use super::{connect, strict};

/// Cloudflare.
#[derive(Clone, Copy)]
pub struct Cloudflare;

fn taken(queued: &[String], bounced: &[&str], suppressed: &[&str]) -> Answer {
    let result = json!({
        "message_id": "id-1", "delivered": [], "queued": queued, "permanent_bounces": bounced, "suppressed_recipients": suppressed,
    });
    Answer::json(200, &json!({ "success": true, "errors": [], "messages": [], "result": result }).to_string())
}

fn refused(code: u32, message: &str) -> Value {
    json!({ "success": false, "errors": [{ "code": code, "message": message }], "messages": [], "result": null })
}

impl ApiSubject for Cloudflare {
    fn kind(&self) -> &'static str {
        "cloudflare"
    }

    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider> {
        let base = json!({ "account_id": "acc1", "api_token": "token", "endpoint": endpoint });
        connect("cloudflare", &serde_json::from_value::<cloudflare::Config>(strict::settings(base, settings)).unwrap())
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        assert_eq!(request.line(), "POST /client/v4/accounts/acc1/email/sending/send_raw");
        assert_eq!(request.header("authorization"), Some("Bearer token"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert!(request.header("content-length").is_some(), "required");
        let body = request.json();
        strict::members(&body, &["from", "recipients", "mime_message"]);
        assert_eq!(body["from"], "sender@app.example");
        let recipients: Vec<String> = body["recipients"].as_array().unwrap().iter().map(strict::text).collect();
        strict::distinct(&recipients);
        assert!((1..=50).contains(&recipients.len()), "{} recipients", recipients.len());
        Some(Seen { recipients, content: SeenContent::Raw(strict::text(&body["mime_message"]).into_bytes()) })
    }

    fn success(&self, request: &Request) -> Answer {
        let recipients = serde_json::from_slice::<Value>(&request.body).unwrap()["recipients"].clone();
        taken(&strict::list(&recipients).iter().map(strict::text).collect::<Vec<_>>(), &[], &[])
    }

    fn partial(&self, _: &Request) -> Option<Answer> {
        // In the spelling that suits Cloudflare.
        Some(taken(&["first@a.example".to_owned(), "third+tag@c.example".to_owned()], &[], &["REFUSED@b.example"]))
    }

    fn rules(&self) -> &'static [Rule] {
        cloudflare::RULES
    }

    fn rows(&self) -> Vec<Row> {
        let row = |status: u16, code: u32, message: &str, verdict: Verdict| {
            Row::json(status, &refused(code, &format!("email.sending.error.{message}")), verdict)
        };
        let suppressed = |message: &str| Row::json(400, &refused(10205, message), Verdict::RecipientsRefused);
        vec![
            row(400, 10001, "invalid_request_schema", Verdict::Unsuitable),
            row(400, 10200, "email.too_big", Verdict::Unsuitable),
            row(400, 10202, "email.too_big", Verdict::Unsuitable),
            row(400, 10200, "email.invalid", Verdict::Rejected),
            row(400, 10202, "email.invalid", Verdict::Rejected),
            row(400, 10201, "email.no_content_length", Verdict::Rejected),
            row(403, 10204, "email.sender_not_configured", Verdict::SenderRefused),
            suppressed("recipient is suppressed: first@a.example"),
            suppressed("recipient_suppressed"),
            row(401, 10101, "authentication.unauthorized", Verdict::Unauthorized),
            row(401, 10103, "authentication.bad_token_type", Verdict::Unauthorized),
            row(403, 10102, "authentication.forbidden", Verdict::Unauthorized),
            row(403, 10105, "authentication.not_entitled", Verdict::Unauthorized),
            row(403, 10203, "email.sending_disabled", Verdict::Unauthorized),
            row(404, 10000, "not_found", Verdict::Unauthorized),
            row(429, 10004, "throttled", Verdict::Throttled(None)),
            row(500, 10002, "internal_server", Verdict::InDoubt),
            row(500, 10003, "not_implemented", Verdict::InDoubt),
            row(503, 10100, "authentication.upstream", Verdict::Unavailable),
            row(200, 10202, "something.new", Verdict::InDoubt),
            Row::text(502, "<html>Bad gateway</html>", Verdict::InDoubt),
            Row {
                answer: taken(&[], &["first@a.example", "refused@b.example"], &["Third+Tag@C.example"]),
                verdict: Verdict::RecipientsRefused,
            },
        ]
    }
}

#[tokio::test]
async fn one_suppressed_recipient_bounces_and_the_others_get_the_message_once() {
    let answer = |request: &Request| {
        let seen = Cloudflare.read(request).unwrap();
        match seen.recipients.iter().any(|address| address.starts_with("refused@")) {
            true => Answer::json(400, &refused(10205, "recipient_suppressed").to_string()),
            false => Cloudflare.success(request),
        }
    };
    let api = FakeApi::asking(|_| None, answer).await.unwrap();
    let delivery = Cloudflare.provider(&api.url(), json!({})).deliver(attempt(&content(300), Duration::from_secs(60))).await;
    let outcomes: Vec<(u32, &str)> = delivery.unwrap().outcomes.iter().map(|(index, outcome)| (index.0, outcome.name())).collect();
    assert_eq!(outcomes, [(0, "relayed"), (2, "bounced"), (3, "relayed")]);
}

#[tokio::test]
async fn a_notification_and_text_that_is_no_utf_8_are_not_offered() {
    let api = FakeApi::start([Answer::Close]).await.unwrap();
    let provider = Cloudflare.provider(&api.url(), json!({}));
    let mut notification: Attempt = attempt(&content(300), Duration::from_secs(60));
    Arc::make_mut(&mut notification.message).envelope.reverse_path = ReversePath::Null;
    let latin = attempt(b"Subject: x\r\n\r\n\xfc\r\n", Duration::from_secs(60));
    for attempt in [notification, latin] {
        assert_eq!(provider.deliver(attempt).await.unwrap_err().name(), "unsuitable");
    }
    assert!(api.requests().is_empty(), "Cloudflare was asked");
}

#[tokio::test]
async fn a_probe_asks_whether_the_token_may_see_email_sending() {
    let answer = |request: &Request| {
        assert_eq!(request.line(), "GET /client/v4/accounts/acc1/email/sending/suppressions?per_page=1");
        Answer::json(200, r#"{ "success": true, "result": [] }"#)
    };
    let api = FakeApi::asking(|_| None, answer).await.unwrap();
    assert_eq!(Cloudflare.provider(&api.url(), json!({})).probe().await.unwrap().facts.len(), 1);
    let refuses = FakeApi::start([Answer::json(403, &refused(10105, "email.sending.error.authentication.not_entitled").to_string())]);
    let failure = Cloudflare.provider(&refuses.await.unwrap().url(), json!({})).probe().await.unwrap_err();
    assert!(failure.diagnostic().advice.is_some_and(|advice| advice.contains("Workers")), "{failure:?}");
}
