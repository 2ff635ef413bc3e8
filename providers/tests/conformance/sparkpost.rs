//! SparkPost, as its reference describes `POST /api/v1/transmissions`.

use std::sync::Arc;
use std::time::Duration;

use postrider_providers::conformance::api::{ApiSubject, Row, answered};
use postrider_providers::conformance::http_api::{Answer, FakeApi, Request};
use postrider_providers::conformance::{Seen, SeenContent, attempt};
use postrider_providers::contract::DynProvider;
use postrider_providers::http::verdict::{Rule, Verdict};
use postrider_providers::sparkpost;
use serde_json::{Value, json};

use super::{connect, strict};

/// SparkPost.
#[derive(Clone, Copy)]
pub struct SparkPost;

/// An answer that says that a transmission was made, for so many and without so many.
fn created(accepted: u32, rejected: u32) -> Value {
    let results = json!({ "id": "id-1", "total_accepted_recipients": accepted, "total_rejected_recipients": rejected });
    if rejected == 0 {
        return json!({ "results": results });
    }
    let mut answer = json!({
        "results": results,
        "errors": [{ "code": "2000", "message": "transmission created, but with validation errors" }],
    });
    answer["results"]["rcpt_to_errors"] = json!([{ "code": "1300", "message": "invalid data format/type", "description": "bad address" }]);
    answer
}

impl ApiSubject for SparkPost {
    fn kind(&self) -> &'static str {
        "sparkpost"
    }

    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider> {
        let base = json!({ "api_key": "key", "endpoint": endpoint, "subaccount": 7, "return_path": "bounces@mail.example" });
        connect("sparkpost", &serde_json::from_value::<sparkpost::Config>(strict::settings(base, settings)).unwrap())
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        assert_eq!(request.line(), "POST /api/v1/transmissions");
        assert_eq!(request.header("authorization"), Some("key"), "the key and no word before it");
        assert_eq!(request.header("x-msys-subaccount"), Some("7"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body = request.json();
        strict::members(&body, &["options", "recipients", "content", "return_path"]);
        let options = json!({ "transactional": true, "open_tracking": false, "click_tracking": false, "perform_substitutions": false });
        assert_eq!(body["options"], options);
        assert_eq!(body["return_path"], "bounces@mail.example");
        strict::members(&body["content"], &["email_rfc822"]);
        let recipients = body["recipients"].as_array().unwrap();
        for recipient in recipients {
            strict::members(recipient, &["address"]);
            strict::members(&recipient["address"], &["email"]);
        }
        assert_eq!(recipients.len(), 1, "so that a refusal is about one");
        Some(Seen {
            recipients: recipients.iter().map(|one| strict::text(&one["address"]["email"])).collect(),
            content: SeenContent::Raw(strict::text(&body["content"]["email_rfc822"]).into_bytes()),
        })
    }

    fn success(&self, _: &Request) -> Answer {
        Answer::json(200, &created(1, 0).to_string())
    }

    fn partial(&self, request: &Request) -> Option<Answer> {
        let is_refused = memchr::memmem::find(&request.body, b"\"refused@").is_some();
        Some(if is_refused { Answer::json(200, &created(0, 1).to_string()) } else { self.success(request) })
    }

    fn rules(&self) -> &'static [Rule] {
        sparkpost::RULES
    }

    fn rows(&self) -> Vec<Row> {
        let row = |status: u16, code: &str, message: &str, description: &str, verdict: Verdict| {
            Row::json(status, &json!({ "errors": [{ "code": code, "message": message, "description": description }] }), verdict)
        };
        vec![
            row(400, "7001", "Invalid domain", "Unconfigured or unverified sending domain.", Verdict::SenderRefused),
            row(
                400,
                "1902",
                "Message generation rejected",
                "recipient address suppressed due to customer policy",
                Verdict::RecipientsRefused,
            ),
            row(400, "1902", "Message generation rejected", "the message has no From", Verdict::Rejected),
            row(400, "1300", "invalid data format/type", "", Verdict::Rejected),
            row(401, "", "Unauthorized.", "", Verdict::Unauthorized),
            row(403, "", "Forbidden.", "", Verdict::Unauthorized),
            row(404, "", "Resource could not be found", "", Verdict::Unauthorized),
            Row::text(413, "Request Entity Too Large", Verdict::Unsuitable),
            row(415, "", "Unsupported Media Type", "", Verdict::Unauthorized),
            row(420, "2101", "Exceed Sending Limit (hourly)", "", Verdict::Throttled(Some(sparkpost::LIMIT_PAUSE))),
            row(422, "1400", "required field is missing", "content object or template_id required", Verdict::Rejected),
            row(429, "", "Too many requests", "", Verdict::Throttled(Some(sparkpost::RATE_PAUSE))),
            row(500, "", "Internal Server Error", "", Verdict::InDoubt),
            Row::text(503, "", Verdict::InDoubt),
            Row::json(200, &created(0, 1), Verdict::RecipientsRefused),
            Row::text(200, "{}", Verdict::InDoubt),
        ]
    }
}

#[tokio::test]
async fn utf_8_goes_through_byte_by_byte_and_nothing_else_is_tried() {
    let taken = Answer::json(200, &created(1, 0).to_string());
    let api = FakeApi::start([taken]).await.unwrap();
    let provider = SparkPost.provider(&api.url(), json!({}));
    let deliver = |content: Vec<u8>| provider.deliver(attempt(&content, Duration::from_secs(60)));

    let utf_8 = "Subject: ü\r\n\r\n{{ body }} \u{1F600}\u{0} \"\\\r\n".as_bytes().to_vec();
    assert!(deliver(utf_8.clone()).await.is_ok());
    let seen = SparkPost.read(&api.requests()[0].0).unwrap();
    assert_eq!(seen.content, SeenContent::Raw(utf_8));

    let asked = api.requests().len();
    for content in [&b"Subject: x\r\n\r\n\xfc\r\n"[..], b"Subject: {{ name }}\r\n\r\n"] {
        assert_eq!(deliver(content.to_vec()).await.unwrap_err().name(), "unsuitable");
    }
    assert_eq!(api.requests().len(), asked, "SparkPost was not asked");
}

#[tokio::test]
async fn an_address_on_the_suppression_list_bounces_by_itself() {
    let suppressed = SparkPost.rows().into_iter().find(|row| row.verdict == Verdict::RecipientsRefused).unwrap();
    let report = answered(&SparkPost, suppressed.answer).await.unwrap();
    assert!(report.outcomes.iter().all(|(_, outcome)| outcome.name() == "bounced"), "{report:?}");
}

#[tokio::test]
async fn a_probe_reads_what_the_account_has_used() {
    let answer = |request: &Request| match request.line() {
        "POST /api/v1/transmissions" => {
            assert_eq!(request.json(), json!({}), "nothing to send");
            Answer::json(422, r#"{ "errors": [{ "code": "1400", "message": "required field is missing" }] }"#)
        }
        "GET /api/v1/account?include=usage" => Answer::json(200, r#"{ "results": { "usage": { "day": { "used": 3, "limit": 50000 } } } }"#),
        other => panic!("{other}"),
    };
    let api = FakeApi::asking(|_| None, answer).await.unwrap();
    let probed = SparkPost.provider(&api.url(), json!({})).probe().await.unwrap();
    assert_eq!(probed.facts, ["the API key may send", "3 of 50000 messages of this day are used"]);
    assert_eq!(probed.allowance.and_then(|allowance| allowance.per_day), Some(50_000));

    let refuses = FakeApi::start([Answer::json(401, r#"{ "errors": [{ "message": "Unauthorized." }] }"#)]).await.unwrap();
    let failure = SparkPost.provider(&refuses.url(), json!({})).probe().await.unwrap_err();
    assert_eq!(failure.name(), "unauthorized");
}
