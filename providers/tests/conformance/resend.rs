//! Resend, as its reference describes `POST /emails`.

use std::sync::Arc;
use std::time::Duration;

use postrider_providers::conformance::api::{ApiSubject, Row};
use postrider_providers::conformance::http_api::{Answer, Request};
use postrider_providers::conformance::{Seen, SeenContent, SeenFields};
use postrider_providers::contract::DynProvider;
use postrider_providers::http::verdict::{Rule, Verdict};
use postrider_providers::resend;
use serde_json::{Value, json};

use super::{connect, strict};

/// Resend.
#[derive(Clone, Copy)]
pub struct Resend;

impl ApiSubject for Resend {
    fn kind(&self) -> &'static str {
        "resend"
    }

    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider> {
        let config = strict::settings(json!({ "api_key": "re_key", "endpoint": endpoint }), settings);
        connect("resend", &serde_json::from_value::<resend::Config>(config).unwrap())
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        assert_eq!(request.line(), "POST /emails");
        assert_eq!(request.header("authorization"), Some("Bearer re_key"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert!(request.header("user-agent").is_some());
        let key = request.header("idempotency-key").unwrap();
        assert!((1..=256).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
        let body = request.json();
        strict::members(&body, &["from", "to", "cc", "bcc", "reply_to", "subject", "html", "text", "headers", "attachments", "tags"]);
        let from = strict::text(&body["from"]);
        assert!(!from.contains(['"', ',', '(']) && !from.contains("=?"), "it takes no such From: {from}");
        strict::address(&from);
        let listed = |name: &str| -> Vec<String> {
            strict::list(&body[name])
                .iter()
                .map(|one| {
                    let one = strict::text(one);
                    assert!(!one.contains('"'), "it takes no quoted name: {one}");
                    strict::address(&one)
                })
                .collect()
        };
        assert!(!listed("to").is_empty(), "`to` is required");
        let recipients: Vec<String> = ["to", "cc", "bcc"].into_iter().flat_map(listed).collect();
        assert!(recipients.len() <= 50, "too many recipients");
        strict::distinct(&recipients);
        listed("reply_to");
        let subject = strict::text(&body["subject"]);
        assert!(!subject.is_empty(), "`subject` is required");
        let text = |name: &str| (!body[name].is_null()).then(|| strict::text(&body[name])).filter(|text| !text.is_empty());
        assert!(text("text").or(text("html")).is_some(), "`text` or `html` is required");
        let mut attachments = Vec::new();
        for attachment in strict::list(&body["attachments"]) {
            strict::members(&attachment, &["filename", "content", "content_type", "content_id"]);
            attachments.push((strict::text(&attachment["filename"]), strict::base64(&attachment["content"])));
        }
        let headers = strict::map(&body["headers"]);
        let fields = SeenFields { subject, text: text("text"), html: text("html"), attachments, headers };
        Some(Seen { recipients, content: SeenContent::Fields(fields) })
    }

    fn success(&self, _: &Request) -> Answer {
        Answer::json(200, "{\"id\":\"49a3999c-0ce1-4ea6-ab68-afcd6dc2e794\"}")
    }

    fn rules(&self) -> &'static [Rule] {
        resend::RULES
    }

    fn rows(&self) -> Vec<Row> {
        let error = |status: u16, name: &str, message: &str, verdict: Verdict| {
            Row::json(status, &json!({ "statusCode": status, "name": name, "message": message }), verdict)
        };
        let form = |field: &str| {
            format!(
                "Invalid `{field}` field. The email address needs to follow the `email@example.com` or `Name <email@example.com>` format."
            )
        };
        let quota = Verdict::Throttled(Some(resend::QUOTA_PAUSE));
        vec![
            error(400, "invalid_idempotency_key", "The key must be between 1-256 chars.", Verdict::Rejected),
            error(400, "validation_error", "We found an error with one or more fields in the request.", Verdict::Rejected),
            error(422, "validation_error", &form("to"), Verdict::RecipientsRefused),
            error(422, "validation_error", &form("cc"), Verdict::RecipientsRefused),
            error(422, "validation_error", &form("bcc"), Verdict::RecipientsRefused),
            error(422, "validation_error", &form("from"), Verdict::SenderRefused),
            error(422, "validation_error", "The `subject` field must be a string.", Verdict::Rejected),
            error(422, "missing_required_field", "The request body is missing one or more required fields.", Verdict::Rejected),
            error(422, "missing_required_parameter", "Missing a required parameter.", Verdict::Rejected),
            error(422, "invalid_parameter", "The parameter must be a valid UUID.", Verdict::Rejected),
            error(422, "invalid_attachment", "Attachment must have either a `content` or `path`.", Verdict::Rejected),
            error(401, "missing_api_key", "Missing API key in the authorization header.", Verdict::Unauthorized),
            error(401, "restricted_api_key", "This API key is restricted to only send emails.", Verdict::Unauthorized),
            error(403, "invalid_api_key", "API key is invalid.", Verdict::Unauthorized),
            error(403, "suspended_api_key", "This API key is suspended.", Verdict::Unauthorized),
            error(403, "invalid_permission", "The key has no permission for this.", Verdict::Unauthorized),
            error(
                403,
                "validation_error",
                "The app.example domain is not verified. Please, add and verify your domain on https://resend.com/domains",
                Verdict::SenderRefused,
            ),
            error(
                403,
                "validation_error",
                "You can only send testing emails to your own email address (owner@app.example).",
                Verdict::Unauthorized,
            ),
            error(404, "not_found", "The requested endpoint does not exist.", Verdict::Unauthorized),
            error(405, "method_not_allowed", "This endpoint does not support the specified HTTP method.", Verdict::Unauthorized),
            error(409, "invalid_idempotent_request", "Same idempotency key used with a different request payload.", Verdict::InDoubt),
            error(
                409,
                "concurrent_idempotent_requests",
                "Same idempotency key used while original request is still in progress.",
                Verdict::InDoubt,
            ),
            error(409, "resource_locked", "The resource is being changed by another request.", Verdict::InDoubt),
            error(429, "rate_limit_exceeded", "Too many requests. You can only make 5 requests per second.", Verdict::Throttled(None)),
            error(429, "rate_limit_exceeded", "Too many requests.", Verdict::Throttled(Some(Duration::from_secs(2))))
                .header("ratelimit-reset: 2"),
            error(429, "daily_quota_exceeded", "You have reached your daily email sending quota.", quota).header("ratelimit-reset: 2"),
            error(429, "monthly_quota_exceeded", "You have reached your monthly email sending quota.", quota),
            error(451, "security_error", "The email payload contain invalid characters", Verdict::Unsuitable),
            error(500, "application_error", "An unexpected error occurred.", Verdict::InDoubt),
            error(503, "service_unavailable", "Something went wrong.", Verdict::InDoubt),
        ]
    }
}
