//! What a service says in words of its own: one table of rules for each, asked before the general one.

use super::verdict::{Stage, Verdict};
use crate::contract::EnhancedStatus;

/// One row of a service's table. What is left open fits everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The reply code; 4 or 5 for all that begin with it.
    pub code: u16,
    /// The second number of the enhanced status, and the range that the third is in.
    pub status: Option<(u16, u16, u16)>,
    /// What the text contains, in lower case.
    pub says: &'static str,
    /// What was being asked.
    pub stage: Option<Stage>,
    /// What that means.
    pub verdict: Verdict,
    /// What the administrator must do; empty if nothing.
    pub advice: &'static str,
}

impl Rule {
    /// A row for `code`, or for all codes that begin with it where it is 4 or 5.
    #[must_use]
    pub const fn new(code: u16, verdict: Verdict) -> Self {
        Self { code, status: None, says: "", stage: None, verdict, advice: "" }
    }

    /// The same, only with this subject and detail in the enhanced status.
    #[must_use]
    pub const fn status(self, subject: u16, detail: u16) -> Self {
        self.statuses(subject, detail, detail)
    }

    /// The same, only with this subject and a detail from `first` to `last`.
    #[must_use]
    pub const fn statuses(self, subject: u16, first: u16, last: u16) -> Self {
        Self { status: Some((subject, first, last)), ..self }
    }

    /// The same, only where the text contains `says`, which is in lower case.
    #[must_use]
    pub const fn says(self, says: &'static str) -> Self {
        Self { says, ..self }
    }

    /// The same, only at this stage.
    #[must_use]
    pub const fn at(self, stage: Stage) -> Self {
        Self { stage: Some(stage), ..self }
    }

    /// The same, with what the administrator must do.
    #[must_use]
    pub const fn advice(self, advice: &'static str) -> Self {
        Self { advice, ..self }
    }

    /// Whether a reply fits. `text` begins with the enhanced status, if there is one.
    #[must_use]
    pub fn fits(&self, stage: Stage, code: u16, text: &str) -> bool {
        let status = EnhancedStatus::parse_prefix(text).filter(|status| u16::from(status.0) == code / 100);
        (self.code == code || self.code == code / 100)
            && self.stage.is_none_or(|wanted| wanted == stage)
            && self
                .status
                .is_none_or(|(subject, first, last)| status.is_some_and(|status| status.1 == subject && (first..=last).contains(&status.2)))
            && (self.says.is_empty() || text.to_lowercase().contains(self.says))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fits_by_code_status_words_and_stage_together() {
        let rule = Rule::new(5, Verdict::Unauthorized).statuses(7, 606, 649).says("banned").at(Stage::Rcpt);
        for (stage, code, text, fits) in [
            (Stage::Rcpt, 550, "5.7.606 Access denied, Banned sending IP", true),
            (Stage::Rcpt, 554, "5.7.649 banned", true),
            (Stage::Mail, 550, "5.7.606 banned", false),
            (Stage::Rcpt, 450, "4.7.606 banned", false),
            (Stage::Rcpt, 550, "5.7.650 banned", false),
            (Stage::Rcpt, 550, "5.7.606 no", false),
            (Stage::Rcpt, 550, "banned", false),
        ] {
            assert_eq!(rule.fits(stage, code, text), fits, "{code} {text}");
        }
        assert!(Rule::new(535, Verdict::Unauthorized).fits(Stage::Auth, 535, "no"));
        assert!(!Rule::new(535, Verdict::Unauthorized).fits(Stage::Auth, 534, "no"));
    }
}
