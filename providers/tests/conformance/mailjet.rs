//! Mailjet, as its guide describes `POST /v3.1/send`.

use std::sync::Arc;

use postrider_providers::conformance::api::{ApiSubject, Row};
use postrider_providers::conformance::http_api::{Answer, Request};
use postrider_providers::conformance::{Seen, SeenContent, SeenFields};
use postrider_providers::contract::DynProvider;
use postrider_providers::http::verdict::{Rule, Verdict};
use postrider_providers::mailjet;
use serde_json::{Value, json};

use super::{connect, strict};

/// Mailjet.
#[derive(Clone, Copy)]
pub struct Mailjet;

impl ApiSubject for Mailjet {
    fn kind(&self) -> &'static str {
        "mailjet"
    }

    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider> {
        let config = strict::settings(json!({ "api_key": "key", "secret_key": "secret", "endpoint": endpoint }), settings);
        connect("mailjet", &serde_json::from_value::<mailjet::Config>(config).unwrap())
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        assert_eq!(request.line(), "POST /v3.1/send");
        assert_eq!(request.header("authorization"), Some("Basic a2V5OnNlY3JldA=="));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body = request.json();
        strict::members(&body, &["Messages"]);
        let [message] = body["Messages"].as_array().unwrap().as_slice() else { panic!("one message") };
        strict::members(
            message,
            &[
                "From",
                "To",
                "Cc",
                "Bcc",
                "ReplyTo",
                "Subject",
                "TextPart",
                "HTMLPart",
                "Attachments",
                "InlinedAttachments",
                "Headers",
                "CustomID",
                "TrackOpens",
                "TrackClicks",
            ],
        );
        assert_eq!((&message["TrackOpens"], &message["TrackClicks"]), (&json!("disabled"), &json!("disabled")));
        assert!(!strict::text(&message["From"]["Email"]).is_empty(), "`From.Email` is required");
        assert!(!message["To"].as_array().unwrap().is_empty(), "`To` is required");
        assert!(!message["TextPart"].is_null() || !message["HTMLPart"].is_null(), "a body is required");
        assert!(message["Subject"].as_str().unwrap_or_default().chars().count() <= 255, "255 characters at most");
        let lists = ["To", "Cc", "Bcc"];
        for one in lists.iter().flat_map(|list| strict::list(&message[list])) {
            strict::members(&one, &["Email", "Name"]);
        }
        let recipients: Vec<String> = lists.iter().flat_map(|list| strict::addresses(&message[list], "Email")).collect();
        assert!(recipients.len() <= 50, "50 recipients at most");
        strict::distinct(&recipients);
        let mut attachments = Vec::new();
        for (list, known) in [
            ("Attachments", ["Filename", "ContentType", "Base64Content"].as_slice()),
            ("InlinedAttachments", &["Filename", "ContentType", "Base64Content", "ContentID"]),
        ] {
            for one in strict::list(&message[list]) {
                strict::members(&one, known);
                attachments.push((strict::text(&one["Filename"]), strict::base64(&one["Base64Content"])));
            }
        }
        Some(Seen {
            recipients,
            content: SeenContent::Fields(SeenFields {
                subject: message["Subject"].as_str().unwrap_or_default().to_owned(),
                text: message["TextPart"].as_str().map(str::to_owned),
                html: message["HTMLPart"].as_str().map(str::to_owned),
                attachments,
                headers: strict::map(&message["Headers"]),
            }),
        })
    }

    fn success(&self, _: &Request) -> Answer {
        let to =
            json!([{ "Email": "first@a.example", "MessageUUID": "u-1", "MessageID": 576_460_756_513_665_525_u64, "MessageHref": "h" }]);
        Answer::json(200, &json!({ "Messages": [{ "Status": "success", "CustomID": "c", "To": to, "Cc": [], "Bcc": [] }] }).to_string())
    }

    fn rules(&self) -> &'static [Rule] {
        mailjet::RULES
    }

    fn rows(&self) -> Vec<Row> {
        let error = |status: u16, code: &str, text: &str, related: &[&str]| {
            json!({
                "ErrorIdentifier": "88b5ca9f-5f1f-42e7-a45e-9ecbad0c285e",
                "ErrorCode": code,
                "StatusCode": status,
                "ErrorMessage": text,
                "ErrorRelatedTo": related,
            })
        };
        let message = |status: u16, code: &str, text: &str, related: &[&str], verdict: Verdict| {
            let errors = [error(status, code, text, related)];
            Row::json(status, &json!({ "Messages": [{ "Status": "error", "Errors": errors }] }), verdict)
        };
        let whole = |status: u16, code: &str, text: &str, verdict: Verdict| Row::json(status, &error(status, code, text, &[]), verdict);
        let mut rows = vec![
            whole(401, "mj-0015", "API key authentication/authorization failure.", Verdict::Unauthorized),
            whole(401, "mj-0001", "The API key is suspended", Verdict::Unauthorized),
            message(403, "send-0006", "The sender is not authorized", &["From"], Verdict::SenderRefused),
            message(403, "send-0007", "The sender domain is not authorized", &["Sender"], Verdict::SenderRefused),
            message(403, "send-0008", "\"sender@app.example\" is not an authorized sender", &["From"], Verdict::SenderRefused),
            message(400, "mj-0013", "\"sender\" is an invalid email address.", &["From.Email"], Verdict::SenderRefused),
            message(400, "mj-0013", "\"first\" is an invalid email address.", &["To[0].Email"], Verdict::RecipientsRefused),
            message(400, "mj-0013", "\"first@a.example\" is an invalid email address.", &[], Verdict::RecipientsRefused),
            message(400, "send-0015", "More than 50 recipients", &["To"], Verdict::Unsuitable),
            message(400, "send-0003", "At least \"HTMLPart\", \"TextPart\" or \"TemplateID\" must be provided.", &[], Verdict::Rejected),
            message(400, "send-0010", "A header cannot be customized", &["Headers"], Verdict::Unsuitable),
            message(400, "send-0011", "A header has a property of its own", &["Headers"], Verdict::Unsuitable),
            whole(400, "mj-0011", "The payload is too big", Verdict::Unsuitable),
            message(400, "send-9999", "Something new", &[], Verdict::Unsuitable),
            whole(429, "", "Too many requests", Verdict::Throttled(None)),
            whole(500, "", "Internal error", Verdict::InDoubt),
            Row::text(503, "upstream connect error", Verdict::InDoubt),
            // A message that neither succeeded nor has an error that is known.
            Row::json(200, &json!({ "Messages": [{ "Status": "unknown" }] }), Verdict::InDoubt),
        ];
        let of_the_client = ["mj-0002", "mj-0003", "mj-0004", "mj-0005", "mj-0006", "mj-0007", "mj-0008", "mj-0012"];
        rows.extend(of_the_client.map(|code| message(400, code, "A property is malformed", &["Subject"], Verdict::Rejected)));
        rows
    }
}
