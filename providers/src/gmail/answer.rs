//! What answers of the Gmail API mean.

use std::time::{Duration, SystemTime};

use mail_parser::DateTime;

use crate::contract::Diagnostic;
use crate::http::api::{Answer, Reading, Refused};
use crate::http::verdict::{Rule, Verdict};

/// A limit on sending is counted over 24 hours, and moves on all the time.
pub const LIMIT_PAUSE: Duration = Duration::from_secs(3600);

/// What its refusals mean, by `reason`. That a mailbox without Gmail is refused as `failedPrecondition` has
/// been seen, and is not documented.
/// <https://developers.google.com/workspace/gmail/api/guides/handle-errors>
pub const RULES: &[Rule] = &[
    Rule::new(400, "failedPrecondition", Verdict::SenderRefused)
        .says("mail service not enabled")
        .advice("the user has no Gmail: turn the service on for the user in the Google Admin console, or set `mailbox` to one that has it"),
    Rule::new(400, "failedPrecondition", Verdict::Unauthorized)
        .advice("the mailbox cannot be used this way: a service account needs domain-wide delegation and a user to act for, see `mailbox`"),
    Rule::new(400, "", Verdict::Unsuitable).says("too large"),
    Rule::new(400, "badRequest", Verdict::Rejected),
    Rule::new(400, "invalidArgument", Verdict::Rejected),
    Rule::new(401, "", Verdict::Unauthorized)
        .advice("Google refuses the token: check that the credential was not revoked, and that `endpoint` is Google's"),
    Rule::new(403, "dailyLimitExceeded", Verdict::Throttled(Some(LIMIT_PAUSE)))
        .advice("the project's quota for the day is used up: look at it in the Google Cloud console under Gmail API > Quotas"),
    Rule::new(403, "userRateLimitExceeded", Verdict::Throttled(None)),
    Rule::new(403, "rateLimitExceeded", Verdict::Throttled(None)),
    Rule::new(403, "quotaExceeded", Verdict::Throttled(Some(LIMIT_PAUSE))),
    Rule::new(403, "domainPolicy", Verdict::Unauthorized)
        .advice("the organisation does not allow applications there: allow it in the Google Admin console under Security > API controls"),
    Rule::new(403, "insufficientPermissions", Verdict::Unauthorized)
        .advice("the token lacks the scope https://www.googleapis.com/auth/gmail.send: add it to the delegation, or sign in again with it"),
    Rule::new(403, "accessNotConfigured", Verdict::Unauthorized)
        .advice("the Gmail API is not enabled: enable it for the project in the Google Cloud console under APIs & Services > Library"),
    Rule::new(429, "", Verdict::Throttled(Some(LIMIT_PAUSE))).says("mail sending").advice(LIMIT),
    Rule::new(429, "", Verdict::Throttled(None)),
];

const LIMIT: &str = "the user has reached Gmail's limit on sending (2,000 messages or 10,000 recipients in 24 hours): spread mail over more users or providers";

/// Whether a user was told to slow down, and nobody else.
pub(super) fn is_of_one_user(slowed: &Diagnostic) -> bool {
    slowed.advice == Some(LIMIT) || slowed.text.starts_with("userRateLimitExceeded")
}

/// What an answer to `messages.send` says: a message with an id, or not sent.
pub(super) fn read(answer: &Answer) -> Reading {
    match answer.json()["id"].as_str() {
        Some(id) if answer.status == 200 && !id.is_empty() => Reading::accepted(Some(id.to_owned())),
        _ => Reading::Refused(refusal(answer).unwrap_or_default()),
    }
}

/// Reason and words of a refusal.
pub(super) fn refusal(answer: &Answer) -> Option<Refused> {
    let json = answer.json();
    let error = json.get("error")?;
    let text = error["message"].as_str().unwrap_or_default().to_owned();
    let reason = error["errors"][0]["reason"].as_str().or_else(|| error["status"].as_str()).unwrap_or_default();
    let retry_after = until(&text, SystemTime::now());
    Some(Refused { code: reason.to_owned(), text, retry_after, ..Refused::default() })
}

/// Whether a refusal is about the scope, as all are that ask for more than sending.
pub(super) fn is_scope(text: &str) -> bool {
    text.starts_with("insufficientPermissions") || text.to_lowercase().contains("insufficient authentication scopes")
}

/// The time that stands in the words, as in `Retry after 2026-11-24T12:00:00.000Z`.
fn until(text: &str, now: SystemTime) -> Option<Duration> {
    let (_, rest) = text.to_lowercase().split_once("retry after ").map(|(before, rest)| (before.len(), rest.to_uppercase()))?;
    let word = rest.split_ascii_whitespace().next()?.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    // The fraction of a second is not read by everyone.
    let whole = word.split_once('.').map_or_else(|| word.to_owned(), |(whole, _)| format!("{whole}Z"));
    let at = u64::try_from(DateTime::parse_rfc3339(&whole)?.to_timestamp()).ok()?;
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at))?;
    Some(at.duration_since(now).unwrap_or_default().min(Duration::from_secs(24 * 3600)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_the_words_is_a_pause() {
        let now = httpdate::parse_http_date("Tue, 24 Nov 2026 12:00:00 GMT").unwrap();
        for (text, expected) in [
            ("User-rate limit exceeded.  Retry after 2026-11-24T12:05:00.123Z", Some(300)),
            ("User-rate limit exceeded. Retry after 2026-11-24T12:05:00Z (Mail sending)", Some(300)),
            ("Retry after 2026-11-24T11:05:00Z", Some(0)),
            ("Retry after a while", None),
            ("Too many concurrent requests for user", None),
        ] {
            assert_eq!(until(text, now).map(|pause| pause.as_secs()), expected, "{text}");
        }
    }
}
