//! Azure Communication Services, as its reference describes `POST /emails:send`.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use postrider_providers::azure;
use postrider_providers::conformance::api::{ApiSubject, Row};
use postrider_providers::conformance::http_api::{Answer, Request};
use postrider_providers::conformance::{Seen, SeenContent, SeenFields};
use postrider_providers::contract::DynProvider;
use postrider_providers::http::verdict::{Rule, Verdict};
use serde_json::{Value, json};

use super::{connect, strict};

/// Azure, with the operations that it has taken.
#[derive(Clone, Default)]
pub struct Azure(Arc<Mutex<BTreeSet<String>>>);

/// Refuses a request whose signature is not its own.
fn check_signature(request: &Request) {
    let header = |name: &str| request.header(name).unwrap_or_else(|| panic!("no {name}: {}", request.head));
    let (method, target) = request.line().split_once(' ').unwrap();
    let hash = STANDARD.encode(digest::digest(&digest::SHA256, &request.body));
    assert_eq!(header("x-ms-content-sha256"), hash);
    httpdate::parse_http_date(header("x-ms-date")).unwrap();
    let text = format!("{method}\n{target}\n{};{};{hash}", header("x-ms-date"), header("host"));
    let signature = STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"key"), text.as_bytes()));
    let expected = format!("HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}");
    assert_eq!(header("authorization"), expected);
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

impl ApiSubject for Azure {
    fn kind(&self) -> &'static str {
        "azure"
    }

    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider> {
        let config = strict::settings(json!({ "access_key": "a2V5", "endpoint": endpoint }), settings);
        connect("azure", &serde_json::from_value::<azure::Config>(config).unwrap())
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        check_signature(request);
        if request.line().starts_with("GET ") {
            return None;
        }
        assert_eq!(request.line(), "POST /emails:send?api-version=2025-09-01");
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert!(is_uuid(request.header("operation-id").unwrap()));
        let body = request.json();
        strict::members(
            &body,
            &["senderAddress", "content", "recipients", "replyTo", "attachments", "headers", "userEngagementTrackingDisabled"],
        );
        assert!(strict::text(&body["senderAddress"]).contains('@'), "`senderAddress` is an address");
        assert_eq!(body["userEngagementTrackingDisabled"], true);
        let content = &body["content"];
        strict::members(content, &["subject", "plainText", "html"]);
        assert!(!content["plainText"].is_null() || !content["html"].is_null(), "a body is required");
        strict::members(&body["recipients"], &["to", "cc", "bcc"]);
        assert!(!body["recipients"]["to"].as_array().unwrap().is_empty(), "`recipients.to` is required");
        let lists = ["to", "cc", "bcc"];
        for one in lists.iter().flat_map(|list| strict::list(&body["recipients"][list])) {
            strict::members(&one, &["address", "displayName"]);
        }
        let recipients: Vec<String> = lists.iter().flat_map(|list| strict::addresses(&body["recipients"][list], "address")).collect();
        assert!(recipients.len() <= 50, "50 recipients at most");
        strict::distinct(&recipients);
        let attachments = strict::list(&body["attachments"]);
        for one in &attachments {
            strict::members(one, &["name", "contentType", "contentInBase64", "contentId"]);
        }
        Some(Seen {
            recipients,
            content: SeenContent::Fields(SeenFields {
                subject: strict::text(&content["subject"]),
                text: content["plainText"].as_str().map(str::to_owned),
                html: content["html"].as_str().map(str::to_owned),
                attachments: attachments.iter().map(|one| (strict::text(&one["name"]), strict::base64(&one["contentInBase64"]))).collect(),
                headers: strict::map(&body["headers"]),
            }),
        })
    }

    fn success(&self, request: &Request) -> Answer {
        let id = request.header("operation-id").unwrap_or("none").to_owned();
        let body = json!({ "id": id, "status": "Running", "error": null }).to_string();
        self.0.lock().insert(id);
        Answer::Reply { status: 202, headers: vec!["Retry-After: 0.1".to_owned()], body }
    }

    fn aside(&self, request: &Request) -> Answer {
        let path = request.line().strip_prefix("GET /emails/operations/").unwrap();
        let id = path.strip_suffix("?api-version=2025-09-01").unwrap();
        assert!(is_uuid(id), "{id}");
        match self.0.lock().contains(id) {
            true => Answer::json(200, &json!({ "id": id, "status": "Succeeded", "error": null }).to_string()),
            false => Answer::json(404, &json!({ "error": { "code": "NotFound", "message": "no such operation" } }).to_string()),
        }
    }

    fn rules(&self) -> &'static [Rule] {
        azure::RULES
    }

    fn rows(&self) -> Vec<Row> {
        let error = |status: u16, code: &str, message: &str, verdict: Verdict| {
            Row::json(status, &json!({ "error": { "code": code, "message": message, "target": null, "details": null } }), verdict)
        };
        let failed = |code: &str, message: &str, verdict: Verdict| {
            Row::json(202, &json!({ "id": "i", "status": "Failed", "error": { "code": code, "message": message } }), verdict)
        };
        vec![
            failed("EmailDropped", "Email was dropped after several attempts to deliver.", Verdict::Rejected),
            failed(
                "EmailDroppedAllRecipientsSuppressed",
                "Message dropped because all recipients were suppressed.",
                Verdict::RecipientsRefused,
            ),
            failed("SomethingNew", "It failed for a reason that nobody has seen", Verdict::Unsuitable),
            error(400, "BadRequest", "Request body validation error. See property 'senderAddress'", Verdict::SenderRefused),
            error(400, "BadRequest", "Request body validation error. See property 'content'", Verdict::Unsuitable),
            error(422, "InvalidEmailAddress", "first@a.example is not a valid address", Verdict::RecipientsRefused),
            error(422, "InvalidEmailAddress", "An address is not valid", Verdict::RecipientsRefused),
            error(404, "DomainNotLinked", "The specified domain has not been linked.", Verdict::SenderRefused),
            error(404, "NotFound", "The specified sender username does not exist.", Verdict::SenderRefused),
            error(404, "NotFound", "The resource does not exist.", Verdict::Unauthorized),
            error(401, "Denied", "Denied by the resource provider.", Verdict::Unauthorized),
            error(403, "Forbidden", "The principal lacks the permission", Verdict::Unauthorized),
            error(409, "Conflict", "An operation with this id exists", Verdict::InDoubt),
            error(413, "RequestTooLarge", "The request is too large", Verdict::Unsuitable),
            error(429, "TooManyRequests", "The request is throttled", Verdict::Throttled(None)),
            error(500, "InternalServerError", "An error", Verdict::InDoubt),
            Row::text(503, "upstream connect error", Verdict::InDoubt),
        ]
    }
}
