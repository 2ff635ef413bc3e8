//! Brevo, as its reference describes `POST /v3/smtp/email`.

use std::sync::Arc;
use std::time::Duration;

use postrider_providers::brevo;
use postrider_providers::conformance::api::{ApiSubject, Row};
use postrider_providers::conformance::http_api::{Answer, Request};
use postrider_providers::conformance::{Seen, SeenContent, SeenFields};
use postrider_providers::contract::DynProvider;
use postrider_providers::http::verdict::{Rule, Verdict};
use serde_json::{Value, json};

use super::{connect, strict};

/// Brevo.
#[derive(Clone, Copy)]
pub struct Brevo;

impl ApiSubject for Brevo {
    fn kind(&self) -> &'static str {
        "brevo"
    }

    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider> {
        let config = strict::settings(json!({ "api_key": "xkeysib-key", "endpoint": endpoint }), settings);
        connect("brevo", &serde_json::from_value::<brevo::Config>(config).unwrap())
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        assert_eq!(request.line(), "POST /v3/smtp/email");
        assert_eq!(request.header("api-key"), Some("xkeysib-key"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body = request.json();
        strict::members(
            &body,
            &["sender", "to", "cc", "bcc", "replyTo", "subject", "htmlContent", "textContent", "attachment", "headers", "tags"],
        );
        strict::members(&body["sender"], &["email", "name"]);
        assert!(!strict::text(&body["sender"]["email"]).is_empty(), "`sender.email` is required");
        assert!(!strict::text(&body["htmlContent"]).is_empty(), "`htmlContent` is required");
        assert!(!strict::text(&body["subject"]).is_empty(), "`subject` is required");
        assert!(!body["to"].as_array().unwrap().is_empty(), "`to` is required");
        let lists = ["to", "cc", "bcc"];
        for one in lists.iter().flat_map(|list| strict::list(&body[list])) {
            strict::members(&one, &["email", "name"]);
            assert!(one["name"].is_null() || !strict::text(&one["name"]).is_empty(), "an empty name is refused");
        }
        let recipients: Vec<String> = lists.iter().flat_map(|list| strict::addresses(&body[list], "email")).collect();
        assert!(recipients.len() <= 99, "99 recipients at most");
        strict::distinct(&recipients);
        let mut headers = strict::map(&body["headers"]);
        let at = headers.iter().position(|(name, _)| name == "idempotencyKey").unwrap();
        let key = headers.remove(at).1;
        assert!(key.len() == 36 && key.as_bytes()[14] == b'4', "no UUID of version 4: {key}");
        assert!(headers.iter().all(|(name, value)| name.is_ascii() && value.is_ascii()), "{headers:?}");
        let attachments = strict::list(&body["attachment"]);
        Some(Seen {
            recipients,
            content: SeenContent::Fields(SeenFields {
                subject: strict::text(&body["subject"]),
                text: body["textContent"].as_str().map(str::to_owned),
                html: Some(strict::text(&body["htmlContent"])),
                attachments: attachments.iter().map(|one| (strict::text(&one["name"]), strict::base64(&one["content"]))).collect(),
                headers,
            }),
        })
    }

    fn success(&self, _: &Request) -> Answer {
        Answer::json(201, &json!({ "messageId": "<202611241100.1@smtp-relay.mailin.fr>" }).to_string())
    }

    fn rules(&self) -> &'static [Rule] {
        brevo::RULES
    }

    fn rows(&self) -> Vec<Row> {
        let error = |status: u16, code: &str, message: &str, verdict: Verdict| {
            Row::json(status, &json!({ "code": code, "message": message }), verdict)
        };
        vec![
            error(400, "invalid_parameter", "Invalid value for the parameter scheduledAt", Verdict::Rejected),
            error(400, "invalid_parameter", "email first@a.example is not valid in to", Verdict::RecipientsRefused),
            error(400, "invalid_parameter", "email is not valid in to", Verdict::RecipientsRefused),
            error(
                400,
                "invalid_parameter",
                "Sending has been rejected because the sender you used sender@app.example is not valid. Validate your sender or \
                 authenticate your domain",
                Verdict::SenderRefused,
            ),
            error(400, "invalid_parameter", "Unsupported file format for the attachment a.exe", Verdict::Unsuitable),
            error(400, "missing_parameter", "subject is required", Verdict::Rejected),
            error(400, "out_of_range", "the value of headers is out of range", Verdict::Rejected),
            error(400, "duplicate_parameter", "the idempotencyKey was used before", Verdict::TakenBefore),
            error(400, "duplicate_request", "Duplicate request", Verdict::TakenBefore),
            error(400, "some_new_code", "Something else", Verdict::Unsuitable),
            error(401, "unauthorized", "Key not found", Verdict::Unauthorized),
            error(401, "unauthorized", "We have detected you are using an unrecognised IP address 192.0.2.1", Verdict::Unauthorized),
            error(402, "not_enough_credits", "Not enough credits", Verdict::Unauthorized),
            error(403, "permission_denied", "Unable to send email. Your SMTP account is not yet activated", Verdict::Unauthorized),
            error(403, "account_under_validation", "Your account is under validation", Verdict::Unauthorized),
            error(404, "document_not_found", "Not found", Verdict::Unauthorized),
            error(405, "method_not_allowed", "Method not allowed", Verdict::Unauthorized),
            error(406, "not_acceptable", "Not acceptable", Verdict::Unauthorized),
            Row::text(413, "Request Entity Too Large", Verdict::Unsuitable),
            error(429, "too_many_requests", "Too many requests", Verdict::Throttled(None)),
            error(429, "too_many_requests", "Too many requests", Verdict::Throttled(Some(Duration::from_secs(7))))
                .header("x-sib-ratelimit-reset: 7"),
            Row::text(500, "", Verdict::InDoubt),
            Row::text(503, "upstream connect error", Verdict::InDoubt),
        ]
    }
}
