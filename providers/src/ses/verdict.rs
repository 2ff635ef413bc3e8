//! What an answer of SES means: a pure function from status, code and message to verdict.

use std::time::Duration;

use crate::contract::{Diagnostic, Failure};

/// What it means for the part of the message that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// See [`Failure::Unavailable`].
    Unavailable,
    /// See [`Failure::Throttled`].
    Throttled(Option<Duration>),
    /// See [`Failure::Unauthorized`].
    Unauthorized,
    /// See [`Failure::SenderRefused`].
    SenderRefused,
    /// See [`Failure::Unsuitable`].
    Unsuitable,
    /// See [`Failure::Rejected`].
    Rejected,
    /// SES has no idempotency key, so this message may or may not be on its way.
    InDoubt,
}

/// SES counts by the second.
const RATE_PAUSE: Duration = Duration::from_secs(1);
/// What the documentation says to wait when the daily quota is used up.
const QUOTA_PAUSE: Duration = Duration::from_secs(600);

/// Classifies an answer that is no success, or one that cannot be read.
pub(super) fn classify(status: u16, code: &str, message: &str) -> Verdict {
    // Names come as `X`, `ns#X` or `X:http://...`.
    let code = code.split(':').next().unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default();
    let text = message.to_ascii_lowercase();
    if text.contains("daily message quota exceeded") {
        return Verdict::Throttled(Some(QUOTA_PAUSE));
    }
    match code {
        "TooManyRequestsException" | "ThrottlingException" | "Throttling" => return Verdict::Throttled(Some(RATE_PAUSE)),
        "LimitExceededException" => return Verdict::Throttled(None),
        "AccountSuspendedException" | "SendingPausedException" | "NotFoundException" => return Verdict::Unauthorized,
        "MailFromDomainNotVerifiedException" => return Verdict::SenderRefused,
        "MessageRejected" if text.contains("not verified") => return Verdict::SenderRefused,
        "MessageRejected" | "BadRequestException" => return Verdict::Rejected,
        "InternalServiceErrorException" => return Verdict::InDoubt,
        _ => {}
    }
    match status {
        429 => Verdict::Throttled(Some(RATE_PAUSE)),
        401..=403 => Verdict::Unauthorized,
        // A wrong URL, region or resource: a person must look.
        404..=406 | 415 => Verdict::Unauthorized,
        413 => Verdict::Unsuitable,
        408 | 500.. => Verdict::InDoubt,
        // A code that this version does not know. Another provider may be asked, and mail does not
        // bounce while there is one.
        400..=499 => Verdict::Unsuitable,
        300..=399 => Verdict::Unavailable,
        // A success that cannot be read.
        _ => Verdict::InDoubt,
    }
}

/// The identities listed in "The following identities failed the check in region X: a@b, c@d".
pub(super) fn unverified(message: &str) -> Vec<&str> {
    let Some((_, listed)) = message.split_once("identities failed the check in region ") else { return Vec::new() };
    let Some((_, listed)) = listed.split_once(':') else { return Vec::new() };
    listed.split(',').map(|identity| bare(identity.trim().trim_end_matches('.'))).filter(|identity| !identity.is_empty()).collect()
}

/// The address alone, from `Name <a@b>`.
fn bare(identity: &str) -> &str {
    match (identity.rfind('<'), identity.strip_suffix('>')) {
        (Some(at), Some(inner)) => &inner[at + 1..],
        _ => identity,
    }
}

impl Verdict {
    /// The failure it is, or the diagnostic back when it is in doubt.
    pub(super) fn failure(self, diagnostic: Diagnostic) -> Result<Failure, Diagnostic> {
        match self {
            Self::Unavailable => Ok(Failure::Unavailable(diagnostic)),
            Self::Throttled(retry_after) => Ok(Failure::Throttled { retry_after, diagnostic }),
            Self::Unauthorized => Ok(Failure::Unauthorized(diagnostic)),
            Self::SenderRefused => Ok(Failure::SenderRefused(diagnostic)),
            Self::Unsuitable => Ok(Failure::Unsuitable(diagnostic)),
            Self::Rejected => Ok(Failure::Rejected(diagnostic)),
            Self::InDoubt => Err(diagnostic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{InDoubt, Rejected, SenderRefused, Throttled, Unauthorized, Unavailable, Unsuitable};
    use super::*;

    #[test]
    fn every_answer_of_the_table_gets_its_verdict() {
        let unverified = "Email address is not verified. The following identities failed the check in region EU-WEST-1: a@b.example";
        for (status, code, message, expected) in [
            (429, "TooManyRequestsException", "", Throttled(Some(RATE_PAUSE))),
            (400, "ThrottlingException", "Maximum sending rate exceeded.", Throttled(Some(RATE_PAUSE))),
            (400, "ThrottlingException", "Daily message quota exceeded.", Throttled(Some(QUOTA_PAUSE))),
            (429, "", "", Throttled(Some(RATE_PAUSE))),
            (400, "LimitExceededException", "", Throttled(None)),
            (400, "AccountSuspendedException", "", Unauthorized),
            (400, "SendingPausedException", "", Unauthorized),
            (400, "MailFromDomainNotVerifiedException", "", SenderRefused),
            (404, "NotFoundException", "Configuration set <x> does not exist.", Unauthorized),
            (400, "MessageRejected", unverified, SenderRefused),
            (400, "MessageRejected", "Illegal filename", Rejected),
            (400, "BadRequestException", "Local address contains control or whitespace", Rejected),
            (400, "com.amazonaws.ses#BadRequestException:http://x/", "", Rejected),
            (403, "SignatureDoesNotMatch", "", Unauthorized),
            (403, "ExpiredTokenException", "", Unauthorized),
            (403, "AccessDeniedException", "", Unauthorized),
            (401, "", "", Unauthorized),
            (404, "", "", Unauthorized),
            (405, "", "", Unauthorized),
            (413, "", "", Unsuitable),
            (409, "ConflictException", "", Unsuitable),
            (400, "SomethingNewException", "", Unsuitable),
            (500, "InternalServiceErrorException", "", InDoubt),
            (500, "", "", InDoubt),
            (502, "", "", InDoubt),
            (503, "", "", InDoubt),
            (504, "", "", InDoubt),
            (408, "", "", InDoubt),
            (200, "", "", InDoubt),
            (302, "", "", Unavailable),
        ] {
            assert_eq!(classify(status, code, message), expected, "{status} {code} {message}");
        }
    }

    #[test]
    fn the_identities_that_are_not_verified_are_read_from_the_message() {
        let said = "Email address is not verified. The following identities failed the check in region EU-WEST-1: a@b, C <c@d.example>.";
        assert_eq!(unverified(said), ["a@b", "c@d.example"]);
        assert_eq!(unverified("Email address is not verified."), Vec::<&str>::new());
    }
}
