//! Microsoft Graph, as its reference describes `sendMail` with MIME, and the token service of Entra.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_providers::conformance::api::{ApiSubject, Row};
use postrider_providers::conformance::http_api::{Answer, Request};
use postrider_providers::conformance::{Seen, SeenContent};
use postrider_providers::contract::DynProvider;
use postrider_providers::graph;
use postrider_providers::graph::answer::QUOTA_PAUSE;
use postrider_providers::http::verdict::{Rule, Verdict};
use serde_json::{Value, json};

use super::{connect, strict};

/// Graph. The token service is at the same address.
#[derive(Clone, Copy)]
pub struct Graph;

/// The settings that reach a scripted API.
pub fn settings(endpoint: &str) -> Value {
    json!({
        "tenant": "corp.example", "client_id": "app-id", "client_secret": "s3cret", "mailbox": "Relay+1@corp.example",
        // A token service that has no name of its own is asked in clear text on this host only.
        "endpoint": endpoint, "authority": endpoint.replace("https://", "http://"),
        // So that what is larger goes as it is, too.
        "mime_size": "40MB",
    })
}

/// The answer of the token service to a request that it would take.
pub fn token(request: &Request) -> Answer {
    assert_eq!(request.line(), "POST /corp.example/oauth2/v2.0/token");
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    let form = strict::url_form(&request.body);
    let expected = [
        ("client_id", "app-id"),
        ("client_secret", "s3cret"),
        ("grant_type", "client_credentials"),
        ("scope", "https://graph.microsoft.com/.default"),
    ];
    assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    Answer::json(200, &json!({ "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": "tok.en" }).to_string())
}

/// An error as Graph writes it.
pub fn error(code: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message, "innerError": { "date": "2026-11-24T11:00:00", "request-id": "r-1" } } })
}

impl ApiSubject for Graph {
    fn kind(&self) -> &'static str {
        "graph"
    }

    fn provider(&self, endpoint: &str, more: Value) -> Arc<dyn DynProvider> {
        connect("graph", &serde_json::from_value::<graph::Config>(strict::settings(settings(endpoint), more)).unwrap())
    }

    fn sends(&self, head: &str) -> bool {
        head.starts_with("POST ") && head.contains("/sendMail ")
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        if !self.sends(&request.head) {
            return None;
        }
        assert_eq!(request.line(), "POST /v1.0/users/Relay+1@corp.example/sendMail");
        assert_eq!(request.header("authorization"), Some("Bearer tok.en"));
        assert_eq!(request.header("content-type"), Some("text/plain"));
        assert_eq!(request.header("client-request-id").map(str::len), Some(36));
        let message = STANDARD.decode(&request.body).unwrap();
        let recipients = strict::told_by_header(&message);
        assert!(recipients.len() <= 500);
        Some(Seen { recipients, content: SeenContent::Readdressed(message) })
    }

    fn aside(&self, request: &Request) -> Answer {
        token(request)
    }

    fn success(&self, _: &Request) -> Answer {
        Answer::Reply { status: 202, headers: vec!["request-id: 0f5a".to_owned()], body: String::new() }
    }

    fn rules(&self) -> &'static [Rule] {
        graph::answer::RULES
    }

    fn rows(&self) -> Vec<Row> {
        let row = |status, code: &str, message: &str, verdict| Row::json(status, &error(code, message), verdict);
        let send_as = "The user account which was used to submit this request does not have the right to send mail on behalf of the specified sending account., Cannot submit message.";
        vec![
            Row::text(200, "", Verdict::Unsuitable).header("request-id: 0f5a"),
            Row::text(200, "<html>", Verdict::InDoubt),
            row(400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.", Verdict::Rejected),
            row(400, "ErrorMimeContentInvalid", "MIME content is invalid.", Verdict::Rejected),
            row(400, "ErrorMimeContentConversionFailed", "Conversion from MIME failed.", Verdict::Rejected),
            row(
                400,
                "ErrorInvalidRecipients",
                "At least one recipient is not valid., Recipient 'refused@b.example' is not resolved. All recipients must be resolved before a message can be submitted.",
                Verdict::RecipientsRefused,
            ),
            row(400, "ErrorInvalidRecipients", "At least one recipient is not valid.", Verdict::Rejected),
            row(400, "ErrorOfTomorrow", "A code that nobody knows yet.", Verdict::Unsuitable),
            row(401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid.", Verdict::Unauthorized),
            row(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.", Verdict::Unauthorized),
            row(403, "ErrorSendAsDenied", send_as, Verdict::SenderRefused),
            row(404, "ErrorInvalidUser", "The requested user 'x@corp.example' is invalid.", Verdict::SenderRefused),
            row(
                404,
                "MailboxNotEnabledForRESTAPI",
                "The mailbox is either inactive, soft-deleted, or is hosted on-premise.",
                Verdict::SenderRefused,
            ),
            Row::text(413, "", Verdict::Unsuitable),
            row(413, "ErrorMessageSizeExceeded", "The message exceeds the maximum supported size.", Verdict::Unsuitable),
            row(400, "BadRequest", "The maximum request length supported is 4MB.", Verdict::Unsuitable),
            row(429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.", Verdict::Throttled(None)),
            row(429, "TooManyRequests", "Please retry later.", Verdict::Throttled(None)),
            row(403, "ErrorQuotaExceeded", "The mailbox is over its size limit.", Verdict::SenderRefused),
            row(400, "ErrorExceededMessageLimit", "The message limit has been exceeded.", Verdict::Throttled(Some(QUOTA_PAUSE))),
            row(403, "ErrorMessageSubmissionBlocked", "Cannot submit message.", Verdict::SenderRefused),
            row(500, "ErrorInternalServerError", "An internal server error occurred.", Verdict::InDoubt),
            Row::text(502, "", Verdict::InDoubt),
            row(503, "ErrorServerBusy", "The server cannot service this request right now.", Verdict::InDoubt),
            row(504, "UnknownError", "", Verdict::InDoubt),
        ]
    }
}
