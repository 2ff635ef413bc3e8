//! What an answer of an HTTP API means: one table of rules for each provider, and one default for all.

use std::time::Duration;

use crate::contract::{Diagnostic, Failure};

/// What an answer means for the call that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// See [`Failure::Unavailable`].
    Unavailable,
    /// See [`Failure::Throttled`], with the pause that its documentation asks for. What the answer
    /// itself says counts more.
    Throttled(Option<Duration>),
    /// See [`Failure::Unauthorized`].
    Unauthorized,
    /// See [`Failure::SenderRefused`].
    SenderRefused,
    /// See [`Failure::Unsuitable`].
    Unsuitable,
    /// See [`Failure::Rejected`].
    Rejected,
    /// Some recipients are refused, and nobody got the message: those that the answer names bounce,
    /// and the others go without them.
    RecipientsRefused,
    /// Nobody knows whether the message was taken.
    InDoubt,
    /// It had been taken before: our own idempotency key was recognised.
    TakenBefore,
}

/// One row of a provider's error table. An empty `code` or `says` fits everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The HTTP status; 0 for any.
    pub status: u16,
    /// The provider's own code, without regard to case.
    pub code: &'static str,
    /// What its text contains, in lower case.
    pub says: &'static str,
    /// What that means.
    pub verdict: Verdict,
    /// What the administrator must do; empty if nothing.
    pub advice: &'static str,
}

impl Rule {
    /// A row with status, code and verdict.
    #[must_use]
    pub const fn new(status: u16, code: &'static str, verdict: Verdict) -> Self {
        Self { status, code, says: "", verdict, advice: "" }
    }

    /// The same, only where the text contains `says`, which is in lower case.
    #[must_use]
    pub const fn says(self, says: &'static str) -> Self {
        Self { says, ..self }
    }

    /// The same, with what the administrator must do.
    #[must_use]
    pub const fn advice(self, advice: &'static str) -> Self {
        Self { advice, ..self }
    }

    /// Whether an answer fits. `text` is in lower case.
    #[must_use]
    pub fn fits(&self, status: u16, code: &str, text: &str) -> bool {
        (self.status == 0 || self.status == status)
            && (self.code.is_empty() || self.code.eq_ignore_ascii_case(code))
            && (self.says.is_empty() || text.contains(self.says))
    }
}

/// What an answer means that is no success: by the first of `rules` that fits, else by the default.
#[must_use]
pub fn judge(rules: &[Rule], status: u16, code: &str, text: &str) -> (Verdict, Option<&'static str>) {
    let text = text.to_lowercase();
    match rules.iter().find(|rule| rule.fits(status, code, &text)) {
        Some(rule) => (rule.verdict, Some(rule.advice).filter(|advice| !advice.is_empty())),
        None => by_status(status),
    }
}

/// The default for a status that no rule knows.
fn by_status(status: u16) -> (Verdict, Option<&'static str>) {
    const WRONG_PLACE: &str = "check `endpoint`, the region and the names in the provider's table: the service does not know this resource";
    match status {
        // A success that cannot be read.
        200..=299 => (Verdict::InDoubt, None),
        300..=399 => {
            (Verdict::Unavailable, Some("check `endpoint`: the service answers from another place, and redirects are not followed"))
        }
        401 => (Verdict::Unauthorized, Some("check the key in the provider's table, and that it was not revoked")),
        402 => (Verdict::Unauthorized, Some("look at the account's plan and billing")),
        403 => (Verdict::Unauthorized, Some("check what the key may do, and the state of the account")),
        404 | 405 | 406 | 415 => (Verdict::Unauthorized, Some(WRONG_PLACE)),
        413 => (Verdict::Unsuitable, None),
        429 => (Verdict::Throttled(None), None),
        408 | 500.. => (Verdict::InDoubt, None),
        // A code that nobody classified. Another provider may be asked, and mail does not bounce while
        // there is one.
        _ => (Verdict::Unsuitable, None),
    }
}

impl Verdict {
    /// The failure that it is for the whole call; the diagnostic back where it is told by recipient.
    ///
    /// # Errors
    /// For `InDoubt`, `RecipientsRefused` and `TakenBefore`.
    pub fn failure(self, diagnostic: Diagnostic) -> Result<Failure, Diagnostic> {
        match self {
            Self::Unavailable => Ok(Failure::Unavailable(diagnostic)),
            Self::Throttled(retry_after) => Ok(Failure::Throttled { retry_after, diagnostic }),
            Self::Unauthorized => Ok(Failure::Unauthorized(diagnostic)),
            Self::SenderRefused => Ok(Failure::SenderRefused(diagnostic)),
            Self::Unsuitable => Ok(Failure::Unsuitable(diagnostic)),
            Self::Rejected => Ok(Failure::Rejected(diagnostic)),
            Self::RecipientsRefused | Self::InDoubt | Self::TakenBefore => Err(diagnostic),
        }
    }

    /// Its name in logs and documentation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Throttled(_) => "throttled",
            Self::Unauthorized => "unauthorized",
            Self::SenderRefused => "sender_refused",
            Self::Unsuitable => "unsuitable",
            Self::Rejected => "rejected",
            Self::RecipientsRefused => "recipients_refused",
            Self::InDoubt => "in_doubt",
            Self::TakenBefore => "relayed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_decides_and_the_status_where_none_does() {
        let rules = [
            Rule::new(400, "taken", Verdict::TakenBefore),
            Rule::new(400, "", Verdict::SenderRefused).says("not verified").advice("verify it"),
            Rule::new(400, "", Verdict::Rejected),
            Rule::new(0, "slow", Verdict::Throttled(None)),
        ];
        for (status, code, text, verdict, advice) in [
            (400, "TAKEN", "", Verdict::TakenBefore, None),
            (400, "x", "The domain is Not Verified.", Verdict::SenderRefused, Some("verify it")),
            (400, "x", "", Verdict::Rejected, None),
            (503, "slow", "", Verdict::Throttled(None), None),
            (503, "x", "", Verdict::InDoubt, None),
            (408, "", "", Verdict::InDoubt, None),
            (200, "", "", Verdict::InDoubt, None),
            (429, "", "", Verdict::Throttled(None), None),
            (413, "", "", Verdict::Unsuitable, None),
            (422, "", "", Verdict::Unsuitable, None),
        ] {
            assert_eq!(judge(&rules, status, code, text), (verdict, advice), "{status} {code} {text}");
        }
        for status in [301, 401, 402, 403, 404, 405, 406, 415] {
            let (verdict, advice) = judge(&rules, status, "", "");
            let expected = if status == 301 { Verdict::Unavailable } else { Verdict::Unauthorized };
            assert!(verdict == expected && advice.is_some(), "{status}: {verdict:?} {advice:?}");
        }
    }
}
