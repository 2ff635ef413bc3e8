//! Postmark, as its reference describes `POST /email`.

use std::sync::Arc;

use postrider_providers::conformance::api::{ApiSubject, Row};
use postrider_providers::conformance::http_api::{Answer, Request};
use postrider_providers::conformance::{Seen, SeenContent, SeenFields};
use postrider_providers::contract::DynProvider;
use postrider_providers::http::verdict::{Rule, Verdict};
use postrider_providers::postmark;
use serde_json::{Value, json};

use super::{connect, strict};

/// Postmark.
#[derive(Clone, Copy)]
pub struct Postmark;

impl ApiSubject for Postmark {
    fn kind(&self) -> &'static str {
        "postmark"
    }

    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider> {
        let config = strict::settings(json!({ "server_token": "token-1", "endpoint": endpoint }), settings);
        connect("postmark", &serde_json::from_value::<postmark::Config>(config).unwrap())
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        assert_eq!(request.line(), "POST /email");
        assert_eq!(request.header("x-postmark-server-token"), Some("token-1"));
        assert_eq!(request.header("accept"), Some("application/json"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body = request.json();
        strict::members(
            &body,
            &[
                "From",
                "To",
                "Cc",
                "Bcc",
                "Subject",
                "Tag",
                "HtmlBody",
                "TextBody",
                "ReplyTo",
                "Headers",
                "TrackOpens",
                "TrackLinks",
                "Attachments",
                "Metadata",
                "MessageStream",
            ],
        );
        assert_eq!((&body["TrackOpens"], &body["TrackLinks"]), (&json!(false), &json!("None")));
        strict::address(&strict::text(&body["From"]));
        let recipients: Vec<String> = ["To", "Cc", "Bcc"].iter().flat_map(|list| listed(&body[*list])).collect();
        assert!(!listed(&body["To"]).is_empty(), "`To` is required");
        assert!(recipients.len() <= 50, "too many recipients");
        strict::distinct(&recipients);
        listed(&body["ReplyTo"]);
        let text = |name: &str| (!body[name].is_null()).then(|| strict::text(&body[name]));
        assert!([text("TextBody"), text("HtmlBody")].iter().flatten().any(|text| !text.is_empty()), "no body");
        let mut headers = Vec::new();
        for header in strict::list(&body["Headers"]) {
            strict::members(&header, &["Name", "Value"]);
            let name = strict::text(&header["Name"]);
            assert!(
                !["from", "to", "cc", "bcc", "subject", "reply-to"].contains(&name.to_lowercase().as_str()),
                "{name} has its own member"
            );
            headers.push((name, strict::text(&header["Value"])));
        }
        let mut attachments = Vec::new();
        for attachment in strict::list(&body["Attachments"]) {
            strict::members(&attachment, &["Name", "Content", "ContentType", "ContentID"]);
            assert!(strict::text(&attachment["ContentType"]).contains('/'));
            assert!(attachment["ContentID"].as_str().is_none_or(|id| id.starts_with("cid:")));
            attachments.push((strict::text(&attachment["Name"]), strict::base64(&attachment["Content"])));
        }
        let subject = strict::text(&body["Subject"]);
        let fields = SeenFields { subject, text: text("TextBody"), html: text("HtmlBody"), attachments, headers };
        Some(Seen { recipients, content: SeenContent::Fields(fields) })
    }

    fn success(&self, _: &Request) -> Answer {
        taken("OK")
    }

    fn rules(&self) -> &'static [Rule] {
        postmark::RULES
    }

    fn rows(&self) -> Vec<Row> {
        let error = |status: u16, code: u16, message: &str, verdict: Verdict| {
            Row::json(status, &json!({ "ErrorCode": code, "Message": message }), verdict)
        };
        let inactive = "You tried to send to recipient(s) that have been marked as inactive. Found inactive addresses: refused@b.example. \
                        Inactive recipients are ones that have generated a hard bounce, a spam complaint, or a manual suppression.";
        vec![
            error(
                401,
                10,
                "The Server Token you provided in the X-Postmark-Server-Token request header was invalid.",
                Verdict::Unauthorized,
            ),
            Row::text(403, "<html><head><title>403 Forbidden</title></head></html>", Verdict::Unavailable),
            error(422, 300, "Invalid 'From' address: 'sender@app.example'.", Verdict::SenderRefused),
            error(422, 300, "Invalid 'To' address: 'first@a.example'.", Verdict::RecipientsRefused),
            error(
                422,
                300,
                "Error parsing 'Cc': Illegal email domain 'b.example' in address 'refused@b.example'.",
                Verdict::RecipientsRefused,
            ),
            error(
                422,
                300,
                "Error parsing 'Bcc': Illegal email domain 'c.example' in address 'third+tag@c.example'.",
                Verdict::RecipientsRefused,
            ),
            error(422, 300, "Only 50 recipients are allowed.", Verdict::Unsuitable),
            error(422, 300, "Provide either email TextBody or HtmlBody or both.", Verdict::Rejected),
            error(422, 400, "The 'From' address you supplied is not a Sender Signature on your account.", Verdict::SenderRefused),
            error(422, 401, "The Sender Signature for that 'From' address is not confirmed.", Verdict::SenderRefused),
            error(422, 402, "The JSON you provided is syntactically incorrect.", Verdict::Rejected),
            error(422, 403, "The JSON you provided has members that do not fit.", Verdict::Rejected),
            error(422, 405, "You ran out of credits.", Verdict::Unauthorized),
            error(422, 406, inactive, Verdict::RecipientsRefused),
            error(
                422,
                409,
                "Your HTTP request does not have the Accept and Content-Type headers set to application/json.",
                Verdict::Rejected,
            ),
            error(422, 410, "Your batched request contains too many messages.", Verdict::Unsuitable),
            error(422, 411, "The attachment type is not allowed.", Verdict::Unsuitable),
            error(
                422,
                412,
                "While your account is pending approval, all recipient addresses must share the same domain as the 'From' address.",
                Verdict::Unauthorized,
            ),
            error(422, 413, "You're not allowed to send email to this address.", Verdict::Unauthorized),
            error(422, 1226, "The message stream for the provided 'ID' was not found.", Verdict::Unauthorized),
            error(422, 1235, "The message stream for the provided 'ID' was not found.", Verdict::Unauthorized),
            error(422, 9999, "Something new.", Verdict::Unsuitable),
            Row::text(429, "", Verdict::Throttled(None)),
            Row::text(413, "", Verdict::Unsuitable),
            error(503, 100, "The Postmark API is offline for maintenance.", Verdict::InDoubt),
            Row::text(500, "", Verdict::InDoubt),
            Row::text(503, "", Verdict::InDoubt),
        ]
    }

    fn partial(&self, _: &Request) -> Option<Answer> {
        Some(taken(
            "Message OK, but will not deliver to these inactive addresses: refused@b.example. Inactive recipients are ones that bounced.",
        ))
    }
}

fn taken(message: &str) -> Answer {
    let body = json!({
        "To": "first@a.example", "SubmittedAt": "2026-11-24T12:00:00Z", "MessageID": "0a129aee-e1cd-480d-b08d-4f48548ff48d",
        "ErrorCode": 0, "Message": message,
    });
    Answer::json(200, &body.to_string())
}

/// The addresses in a text with mailboxes between commas; none where it is absent.
fn listed(value: &Value) -> Vec<String> {
    if value.is_null() { Vec::new() } else { strict::text(value).split(", ").map(strict::address).collect() }
}
