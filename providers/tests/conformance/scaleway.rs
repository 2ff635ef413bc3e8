//! Scaleway, as its reference describes `POST …/emails`.

use std::sync::Arc;

use postrider_providers::conformance::api::{ApiSubject, Row};
use postrider_providers::conformance::http_api::{Answer, Request};
use postrider_providers::conformance::{Seen, SeenContent, SeenFields};
use postrider_providers::contract::DynProvider;
use postrider_providers::http::verdict::{Rule, Verdict};
use postrider_providers::scaleway;
use serde_json::{Value, json};

use super::{connect, strict};

const PROJECT: &str = "7e3b3a5c-2f5e-4d0b-9a39-3f4f0c6f7b11";

/// Scaleway.
#[derive(Clone, Copy)]
pub struct Scaleway;

/// A success with these statuses of first@ and refused@.
fn emails(first: &str, refused: &str) -> Answer {
    let email = |rcpt: &str, kind: &str, status: &str| json!({ "id": "0f1b", "message_id": "m@scw", "mail_rcpt": rcpt, "rcpt_type": kind, "status": status, "try_count": 0 });
    let emails = [email("first@a.example", "to", first), email("refused@b.example", "bcc", refused)];
    Answer::json(200, &json!({ "emails": emails }).to_string())
}

impl ApiSubject for Scaleway {
    fn kind(&self) -> &'static str {
        "scaleway"
    }

    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider> {
        let config = strict::settings(json!({ "secret_key": "secret", "project_id": PROJECT, "endpoint": endpoint }), settings);
        connect("scaleway", &serde_json::from_value::<scaleway::Config>(config).unwrap())
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        assert_eq!(request.line(), "POST /transactional-email/v1alpha1/regions/fr-par/emails");
        assert_eq!(request.header("x-auth-token"), Some("secret"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body = request.json();
        strict::members(&body, &["project_id", "from", "to", "cc", "bcc", "subject", "text", "html", "attachments", "additional_headers"]);
        assert_eq!(body["project_id"], PROJECT);
        strict::members(&body["from"], &["email", "name"]);
        assert!(!strict::text(&body["from"]["email"]).is_empty(), "`from.email` is required");
        assert!(!strict::text(&body["subject"]).is_empty(), "`subject` is required");
        assert!(!body["text"].is_null() || !body["html"].is_null(), "a body is required");
        assert!(!body["to"].as_array().unwrap().is_empty(), "`to` is required");
        let lists = ["to", "cc", "bcc"];
        for one in lists.iter().flat_map(|list| strict::list(&body[list])) {
            strict::members(&one, &["email", "name"]);
        }
        let recipients: Vec<String> = lists.iter().flat_map(|list| strict::addresses(&body[list], "email")).collect();
        assert!(recipients.len() <= 10, "10 recipients at most");
        strict::distinct(&recipients);
        let attachments = strict::list(&body["attachments"]);
        for one in &attachments {
            strict::members(one, &["name", "type", "content"]);
        }
        let headers = strict::list(&body["additional_headers"]);
        for one in &headers {
            strict::members(one, &["key", "value"]);
        }
        Some(Seen {
            recipients,
            content: SeenContent::Fields(SeenFields {
                subject: strict::text(&body["subject"]),
                text: body["text"].as_str().map(str::to_owned),
                html: body["html"].as_str().map(str::to_owned),
                attachments: attachments.iter().map(|one| (strict::text(&one["name"]), strict::base64(&one["content"]))).collect(),
                headers: headers.iter().map(|one| (strict::text(&one["key"]), strict::text(&one["value"]))).collect(),
            }),
        })
    }

    fn success(&self, _: &Request) -> Answer {
        emails("new", "sending")
    }

    fn partial(&self, _: &Request) -> Option<Answer> {
        Some(emails("new", "failed"))
    }

    fn rules(&self) -> &'static [Rule] {
        scaleway::RULES
    }

    fn rows(&self) -> Vec<Row> {
        let error = |status: u16, kind: &str, message: &str, verdict: Verdict| {
            Row::json(status, &json!({ "message": message, "type": kind }), verdict)
        };
        let invalid = |argument: &str, reason: &str, verdict: Verdict| {
            let details = [json!({ "argument_name": argument, "reason": reason, "help_message": "see the reference" })];
            Row::json(400, &json!({ "message": "invalid argument(s)", "type": "invalid_arguments", "details": details }), verdict)
        };
        vec![
            invalid("from.email", "constraint", Verdict::SenderRefused),
            invalid("to.0.email", "constraint", Verdict::RecipientsRefused),
            // Nobody is named.
            invalid("to", "required", Verdict::RecipientsRefused),
            invalid("subject", "constraint", Verdict::Unsuitable),
            invalid("attachments.0.type", "constraint", Verdict::Unsuitable),
            error(401, "denied_authentication", "authentication is denied", Verdict::Unauthorized),
            error(403, "quotas_exceeded", "quota exceeded for this service", Verdict::Throttled(Some(scaleway::QUOTA_PAUSE))),
            error(403, "permissions_denied", "insufficient permissions", Verdict::Unauthorized),
            error(403, "permissions_denied", "the domain is not checked", Verdict::SenderRefused),
            error(404, "not_found", "resource is not found: domain", Verdict::SenderRefused),
            error(404, "not_found", "resource is not found", Verdict::Unauthorized),
            error(409, "transient_state", "resource is in a transient state", Verdict::Unavailable),
            error(412, "precondition_failed", "the domain is locked", Verdict::SenderRefused),
            error(429, "too_many_requests", "too many requests", Verdict::Throttled(None)),
            Row::text(408, "", Verdict::InDoubt),
            Row::text(413, "", Verdict::Unsuitable),
            Row::text(500, "", Verdict::InDoubt),
            Row::text(503, "upstream connect error", Verdict::InDoubt),
            Row::json(200, &json!({ "emails": [] }), Verdict::InDoubt),
        ]
    }
}
