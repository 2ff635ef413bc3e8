//! The Gmail API, as its reference describes `messages.send` as a media upload, and Google's token service.

use std::sync::Arc;

use postrider_providers::conformance::api::{ApiSubject, Row};
use postrider_providers::conformance::http_api::{Answer, Request};
use postrider_providers::conformance::{Seen, SeenContent};
use postrider_providers::contract::DynProvider;
use postrider_providers::gmail;
use postrider_providers::http::verdict::{Rule, Verdict};
use serde_json::{Value, json};

use super::{connect, strict};

/// Gmail, in the name of a user. The token service is at the same address.
#[derive(Clone, Copy)]
pub struct Gmail;

/// The settings that reach a scripted API.
pub fn settings(endpoint: &str) -> Value {
    json!({
        "client_id": "app-id", "client_secret": "s3cret", "refresh_token": "1//refresh",
        "endpoint": endpoint, "token_endpoint": format!("{}/token", endpoint.replace("https://", "http://")),
    })
}

/// The answer of the token service to a request that it would take.
pub fn token(request: &Request) -> Answer {
    assert_eq!(request.line(), "POST /token");
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    let expected = [("client_id", "app-id"), ("client_secret", "s3cret"), ("grant_type", "refresh_token"), ("refresh_token", "1//refresh")];
    assert_eq!(strict::url_form(&request.body), expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    Answer::json(200, &json!({ "access_token": "tok.en", "expires_in": 3599, "scope": "gmail.send", "token_type": "Bearer" }).to_string())
}

impl ApiSubject for Gmail {
    fn kind(&self) -> &'static str {
        "gmail"
    }

    fn provider(&self, endpoint: &str, more: Value) -> Arc<dyn DynProvider> {
        connect("gmail", &serde_json::from_value::<gmail::Config>(strict::settings(settings(endpoint), more)).unwrap())
    }

    fn sends(&self, head: &str) -> bool {
        head.starts_with("POST /upload/")
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        if !self.sends(&request.head) {
            return None;
        }
        assert_eq!(request.line(), "POST /upload/gmail/v1/users/me/messages/send?uploadType=media");
        assert_eq!(request.header("authorization"), Some("Bearer tok.en"));
        assert_eq!(request.header("content-type"), Some("message/rfc822"));
        let recipients = strict::told_by_header(&request.body);
        assert!(!recipients.is_empty() && recipients.len() <= 100);
        Some(Seen { recipients, content: SeenContent::Readdressed(request.body.clone()) })
    }

    fn aside(&self, request: &Request) -> Answer {
        token(request)
    }

    fn success(&self, _: &Request) -> Answer {
        Answer::json(200, &json!({ "id": "18c1", "threadId": "18c1", "labelIds": ["SENT"] }).to_string())
    }

    fn rules(&self) -> &'static [Rule] {
        gmail::RULES
    }

    fn rows(&self) -> Vec<Row> {
        let row = |status: u16, reason: &str, message: &str, verdict| {
            let errors = json!([{ "domain": "global", "reason": reason, "message": message }]);
            Row::json(status, &json!({ "error": { "code": status, "message": message, "errors": errors } }), verdict)
        };
        vec![
            Row::text(200, "<html>", Verdict::InDoubt),
            row(400, "failedPrecondition", "Mail service not enabled", Verdict::SenderRefused),
            row(400, "failedPrecondition", "Precondition check failed.", Verdict::Unauthorized),
            row(400, "badRequest", "The attachment is invalid.", Verdict::Rejected),
            row(400, "invalidArgument", "Recipient address required", Verdict::Rejected),
            row(400, "invalidArgument", "Message too large", Verdict::Unsuitable),
            row(400, "aNewOne", "Something else", Verdict::Unsuitable),
            row(401, "authError", "Invalid Credentials", Verdict::Unauthorized),
            row(403, "dailyLimitExceeded", "Daily Limit Exceeded", Verdict::Throttled(Some(gmail::LIMIT_PAUSE))),
            row(403, "userRateLimitExceeded", "User Rate Limit Exceeded", Verdict::Throttled(None)),
            row(403, "rateLimitExceeded", "Rate Limit Exceeded", Verdict::Throttled(None)),
            row(403, "quotaExceeded", "Quota exceeded", Verdict::Throttled(Some(gmail::LIMIT_PAUSE))),
            row(403, "domainPolicy", "The domain administrators have disabled Gmail apps.", Verdict::Unauthorized),
            row(403, "insufficientPermissions", "Request had insufficient authentication scopes.", Verdict::Unauthorized),
            row(403, "accessNotConfigured", "Gmail API has not been used in project 1 before or it is disabled.", Verdict::Unauthorized),
            row(404, "notFound", "Not Found", Verdict::Unauthorized),
            row(413, "uploadTooLarge", "Request is too large", Verdict::Unsuitable),
            row(429, "rateLimitExceeded", "User-rate limit exceeded (Mail sending)", Verdict::Throttled(Some(gmail::LIMIT_PAUSE))),
            row(429, "rateLimitExceeded", "Too many concurrent requests for user", Verdict::Throttled(None)),
            row(500, "backendError", "Backend Error", Verdict::InDoubt),
            Row::text(502, "", Verdict::InDoubt),
            Row::text(503, "", Verdict::InDoubt),
            Row::text(504, "", Verdict::InDoubt),
        ]
    }
}
