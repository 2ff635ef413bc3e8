//! MailerSend, as its reference describes `POST /v1/email`.

use std::sync::Arc;
use std::time::Duration;

use postrider_providers::conformance::api::{ApiSubject, Row};
use postrider_providers::conformance::http_api::{Answer, Request};
use postrider_providers::conformance::{Seen, SeenContent, SeenFields};
use postrider_providers::contract::DynProvider;
use postrider_providers::http::verdict::{Rule, Verdict};
use postrider_providers::mailersend;
use serde_json::{Value, json};

use super::{connect, strict};

/// MailerSend.
#[derive(Clone, Copy)]
pub struct MailerSend;

impl ApiSubject for MailerSend {
    fn kind(&self) -> &'static str {
        "mailersend"
    }

    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider> {
        let config = strict::settings(json!({ "api_token": "mlsn.token", "endpoint": endpoint }), settings);
        connect("mailersend", &serde_json::from_value::<mailersend::Config>(config).unwrap())
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        assert_eq!(request.line(), "POST /v1/email");
        assert_eq!(request.header("authorization"), Some("Bearer mlsn.token"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body = request.json();
        strict::members(
            &body,
            &[
                "from",
                "to",
                "cc",
                "bcc",
                "reply_to",
                "subject",
                "text",
                "html",
                "attachments",
                "headers",
                "in_reply_to",
                "precedence_bulk",
                "tags",
                "settings",
            ],
        );
        assert!(!strict::text(&body["from"]["email"]).is_empty(), "`from.email` is required");
        assert!(!strict::text(&body["subject"]).is_empty(), "`subject` is required");
        assert!(!body["text"].is_null() || !body["html"].is_null(), "`text` or `html` is required");
        assert!(!body["to"].as_array().unwrap().is_empty(), "`to` is required");
        for (list, most) in [("to", 50), ("cc", 10), ("bcc", 10)] {
            let list = strict::list(&body[list]);
            assert!(list.len() <= most, "{most} at most: {list:?}");
            for one in list {
                strict::members(&one, &["email", "name"]);
                assert!(!one["name"].as_str().unwrap_or_default().contains([';', ',']), "{one}");
            }
        }
        let recipients: Vec<String> = ["to", "cc", "bcc"].iter().flat_map(|list| strict::addresses(&body[list], "email")).collect();
        strict::distinct(&recipients);
        let attachments = strict::list(&body["attachments"]);
        for one in &attachments {
            strict::members(one, &["filename", "content", "disposition", "id"]);
        }
        let headers = strict::list(&body["headers"]);
        Some(Seen {
            recipients,
            content: SeenContent::Fields(SeenFields {
                subject: strict::text(&body["subject"]),
                text: body["text"].as_str().map(str::to_owned),
                html: body["html"].as_str().map(str::to_owned),
                attachments: attachments.iter().map(|one| (strict::text(&one["filename"]), strict::base64(&one["content"]))).collect(),
                headers: headers.iter().map(|one| (strict::text(&one["name"]), strict::text(&one["value"]))).collect(),
            }),
        })
    }

    fn success(&self, _: &Request) -> Answer {
        Answer::Reply { status: 202, headers: vec!["X-Message-Id: 5e42957d51f1d94a1070a733".to_owned()], body: String::new() }
    }

    fn partial(&self, request: &Request) -> Option<Answer> {
        let suppressed = json!([{ "email": "refused@b.example", "name": null, "reason": ["blocklisted"] }]);
        let warnings = json!([{ "type": "SOME_SUPPRESSED", "warning": "Some recipients are suppressed.", "recipients": suppressed }]);
        let Answer::Reply { status, headers, .. } = self.success(request) else { return None };
        Some(Answer::Reply { status, headers, body: json!({ "message": "There are warnings", "warnings": warnings }).to_string() })
    }

    fn rules(&self) -> &'static [Rule] {
        mailersend::RULES
    }

    fn rows(&self) -> Vec<Row> {
        let said = |status: u16, message: &str, verdict: Verdict| Row::json(status, &json!({ "message": message }), verdict);
        let invalid = |member: &str, text: &str, verdict: Verdict| {
            Row::json(422, &json!({ "message": "The given data was invalid.", "errors": { member: [text] } }), verdict)
        };
        let all = json!([{ "type": "ALL_SUPPRESSED", "warning": "All recipients are suppressed.", "recipients": [] }]);
        vec![
            invalid("subject", "The subject field is required.", Verdict::Rejected),
            invalid("to.0.email", "The to.0.email must be a valid email address.", Verdict::RecipientsRefused),
            invalid("bcc.0.email", "The bcc.0.email must be a valid email address.", Verdict::RecipientsRefused),
            invalid(
                "from.email",
                "The from.email domain must be verified in your account to send emails. #MS42207",
                Verdict::SenderRefused,
            ),
            invalid("headers", "The headers are not available on your plan.", Verdict::Unsuitable),
            invalid("attachments.0.content", "The attachments are too large.", Verdict::Unsuitable),
            Row::json(202, &json!({ "message": "There are warnings", "warnings": all }), Verdict::RecipientsRefused),
            said(400, "Bad request", Verdict::Unsuitable),
            said(401, "Unauthenticated.", Verdict::Unauthorized),
            said(403, "This action is unauthorized.", Verdict::Unauthorized),
            said(404, "Resource not found.", Verdict::Unauthorized),
            said(405, "The method is not supported for this route.", Verdict::Unauthorized),
            said(408, "Request timeout", Verdict::InDoubt),
            said(413, "Too large", Verdict::Unsuitable),
            said(421, "Service is not available, try again later", Verdict::Unavailable),
            said(429, "Too Many Attempts.", Verdict::Throttled(None)),
            said(429, "Too Many Attempts.", Verdict::Throttled(Some(Duration::from_secs(37)))).header("Retry-After: 37"),
            Row::text(500, "", Verdict::InDoubt),
            Row::text(503, "upstream connect error", Verdict::InDoubt),
        ]
    }
}
