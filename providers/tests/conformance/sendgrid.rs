//! SendGrid, as its reference describes `POST /v3/mail/send`.

use std::sync::Arc;

use postrider_providers::conformance::api::{ApiSubject, Row};
use postrider_providers::conformance::http_api::{Answer, Request};
use postrider_providers::conformance::{Seen, SeenContent, SeenFields};
use postrider_providers::contract::DynProvider;
use postrider_providers::http::verdict::{Rule, Verdict};
use postrider_providers::sendgrid;
use serde_json::{Value, json};

use super::{connect, strict};

/// Names that `headers` must not have.
const RESERVED: &[&str] = &[
    "x-sg-id",
    "x-sg-eid",
    "received",
    "dkim-signature",
    "content-type",
    "content-transfer-encoding",
    "to",
    "from",
    "subject",
    "reply-to",
    "cc",
    "bcc",
];

/// SendGrid.
#[derive(Clone, Copy)]
pub struct SendGrid;

impl ApiSubject for SendGrid {
    fn kind(&self) -> &'static str {
        "sendgrid"
    }

    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider> {
        let config = strict::settings(json!({ "api_key": "SG.key", "endpoint": endpoint }), settings);
        connect("sendgrid", &serde_json::from_value::<sendgrid::Config>(config).unwrap())
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        assert_eq!(request.line(), "POST /v3/mail/send");
        assert_eq!(request.header("authorization"), Some("Bearer SG.key"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body = request.json();
        strict::members(
            &body,
            &[
                "personalizations",
                "from",
                "reply_to",
                "reply_to_list",
                "subject",
                "content",
                "attachments",
                "headers",
                "tracking_settings",
                "categories",
                "mail_settings",
            ],
        );
        let [personalization] = body["personalizations"].as_array().unwrap().as_slice() else { panic!("one personalization") };
        strict::members(personalization, &["to", "cc", "bcc"]);
        assert!(!personalization["to"].as_array().unwrap().is_empty(), "`to` is required");
        let recipients: Vec<String> =
            ["to", "cc", "bcc"].iter().flat_map(|list| strict::addresses(&personalization[list], "email")).collect();
        strict::distinct(&recipients);
        for list in ["to", "cc", "bcc"] {
            for one in strict::list(&personalization[list]) {
                strict::members(&one, &["email", "name"]);
                assert!(!one["name"].as_str().unwrap_or_default().contains([';', ',']), "it takes no such name: {one}");
            }
        }
        assert!(strict::text(&body["from"]["email"]).is_ascii(), "From is ASCII");
        assert!(!strict::text(&body["subject"]).is_empty(), "`subject` is required");
        let content = body["content"].as_array().unwrap();
        let order = |part: &Value| ["text/plain", "text/html", "text/calendar"].iter().position(|kind| part["type"] == *kind).unwrap();
        assert!(content.is_sorted_by_key(order) && !content.is_empty(), "content in its order");
        for part in content {
            strict::members(part, &["type", "value"]);
            assert!(!strict::text(&part["value"]).is_empty(), "no content may be empty");
        }
        for name in body["headers"].as_object().into_iter().flatten().map(|(name, _)| name.to_lowercase()) {
            assert!(!RESERVED.contains(&name.as_str()), "{name} is reserved");
        }
        for attachment in strict::list(&body["attachments"]) {
            strict::members(&attachment, &["content", "filename", "type", "disposition", "content_id"]);
            assert!(!strict::text(&attachment["filename"]).is_empty() && !strict::text(&attachment["type"]).contains([';', ',']));
        }
        let part = |wanted: &str| content.iter().find(|part| part["type"] == wanted).map(|part| strict::text(&part["value"]));
        let attachments = strict::list(&body["attachments"]);
        Some(Seen {
            recipients,
            content: SeenContent::Fields(SeenFields {
                subject: strict::text(&body["subject"]),
                text: part("text/plain"),
                html: part("text/html"),
                attachments: attachments.iter().map(|one| (strict::text(&one["filename"]), strict::base64(&one["content"]))).collect(),
                headers: strict::map(&body["headers"]),
            }),
        })
    }

    fn success(&self, _: &Request) -> Answer {
        Answer::Reply { status: 202, headers: vec!["X-Message-Id: id-1".to_owned()], body: String::new() }
    }

    fn rules(&self) -> &'static [Rule] {
        sendgrid::RULES
    }

    fn rows(&self) -> Vec<Row> {
        let errors = |message: &str, field: Option<&str>| json!({ "errors": [{ "message": message, "field": field, "help": null }] });
        vec![
            Row::json(400, &errors("The subject is required.", Some("subject")), Verdict::Rejected),
            Row::json(
                400,
                &errors("Does not contain a valid address: first@a.example", Some("personalizations.0.to.0.email")),
                Verdict::RecipientsRefused,
            ),
            // Named by its place alone.
            Row::json(
                400,
                &errors("Does not contain a valid address.", Some("personalizations.0.bcc.1.email")),
                Verdict::RecipientsRefused,
            ),
            Row::json(401, &errors("The provided authorization grant is invalid, expired, or revoked", None), Verdict::Unauthorized),
            Row::json(401, &errors("Maximum credits exceeded", None), Verdict::Throttled(Some(sendgrid::CREDITS_PAUSE))),
            Row::json(
                403,
                &errors(
                    "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved.",
                    Some("from"),
                ),
                Verdict::SenderRefused,
            ),
            Row::json(403, &errors("access forbidden", None), Verdict::Unauthorized),
            Row::json(403, &errors("You have been temporarily blocked after repeated bad requests", None), Verdict::Throttled(None)),
            Row::json(404, &errors("not found", None), Verdict::Unauthorized),
            Row::text(405, "", Verdict::Unauthorized),
            Row::json(406, &errors("missing Accept header", None), Verdict::Unauthorized),
            Row::json(451, &errors("Unavailable due to data residency restrictions", None), Verdict::Unauthorized),
            Row::json(413, &errors("content size greater than 30MB", None), Verdict::Unsuitable),
            Row::json(429, &errors("too many requests", None), Verdict::Throttled(None)),
            // A time that has come.
            Row::json(429, &errors("too many requests", None), Verdict::Throttled(Some(std::time::Duration::ZERO)))
                .header("X-RateLimit-Reset: 1764000000"),
            Row::text(500, "", Verdict::InDoubt),
            Row::text(503, "upstream connect error", Verdict::InDoubt),
        ]
    }
}
