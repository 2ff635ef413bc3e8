//! The verdicts, and what follows from each.
//!
//! | verdict | typical cause | next candidate now? | circuit | recipient becomes |
//! |---|---|---|---|---|
//! | `Relayed` | 250, HTTP 2xx | - | success | done |
//! | `Deferred` | 4yz to RCPT | yes, these recipients | neutral | retried later |
//! | `Bounced` | 5yz to RCPT | no | neutral | bounced |
//! | `InDoubt` | lost after the final dot; HTTP time-out, 500, 502-504 after the body was sent | **never** | fault | retried at the same provider, or held |
//! | `Unavailable` | refused, TLS, 421; HTTP before the body was sent | yes | fault | retried later |
//! | `Throttled` | 429, "too many", quota | if the route spills | neutral | waits until `retry_after` |
//! | `Unauthorized` | 535, 401: our credential | yes | opens at once | retried later |
//! | `SenderRefused` | identity not verified, SendAs denied | yes | neutral | retried later |
//! | `Unsuitable` | too big, no SMTPUTF8, no 8BITMIME there | yes | neutral | bounced if no candidate can |
//! | `Rejected` | 554 after DATA, HTTP 400: the content | no | neutral | bounced |
//!
//! The test below holds the methods to this table.

use std::sync::Arc;
use std::time::Duration;

use super::{Diagnostic, RecipientIndex};

/// `Err`: nothing was handed over, so trying elsewhere cannot duplicate. `Ok`: the provider was
/// reached, and each recipient has its own outcome.
pub type Delivery = Result<Report, Failure>;

/// What became of each recipient of an attempt.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Exactly one entry for each recipient of the attempt.
    pub outcomes: Vec<(RecipientIndex, Outcome)>,
    /// Set when the provider asked in the midst of the attempt to slow down: those who are deferred wait for
    /// that, as after [`Failure::Throttled`].
    pub throttled: Option<Throttled>,
}

/// What a provider said that has taken a part and wants to be left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttled {
    /// For how long, if it said so.
    pub retry_after: Option<Duration>,
    /// Its words.
    pub diagnostic: Diagnostic,
}

impl Report {
    /// These outcomes, and nothing else.
    pub fn new(outcomes: Vec<(RecipientIndex, Outcome)>) -> Self {
        Self { outcomes, throttled: None }
    }

    /// The same outcome for all.
    pub fn uniform(recipients: &[RecipientIndex], outcome: &Outcome) -> Self {
        Self::new(recipients.iter().map(|&index| (index, outcome.clone())).collect())
    }
}

/// What became of one recipient at a provider that was reached.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted: the next hop is responsible now.
    Relayed(Receipt),
    /// Refused for now (4yz for this recipient).
    Deferred(Diagnostic),
    /// Refused for good (5yz for this recipient).
    Bounced(Diagnostic),
    /// The message left and no answer came back; it may have been delivered.
    InDoubt(Diagnostic),
}

/// What the provider said on accepting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipt {
    /// The provider's own id of the message, if it gave one.
    pub remote_id: Option<String>,
    /// Its answer, for the log.
    pub reply: String,
    /// The SMTP host that gave the answer; `None` when it was no reply of SMTP.
    pub remote: Option<Arc<str>>,
    /// What of the message this provider could not be told, in words, for the log.
    pub lost: Vec<String>,
    /// Whether what the sender asked about notifications went along, so that the next hop reports
    /// success (RFC 3461 section 5.2.1). Otherwise that ends here, and the gateway reports it.
    pub dsn: bool,
}

/// Why nothing was handed over.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The provider could not be reached or would not talk.
    Unavailable(Diagnostic),
    /// The provider asks to slow down. No fault of its health.
    Throttled {
        /// How long the provider wants to be left alone, if it said so.
        retry_after: Option<Duration>,
        /// Its words.
        diagnostic: Diagnostic,
    },
    /// Our credential is refused; a person must act.
    Unauthorized(Diagnostic),
    /// This sender identity may not send through this provider; a person must act.
    SenderRefused(Diagnostic),
    /// This provider cannot carry this message (size, 8BITMIME, SMTPUTF8, null sender); another may.
    Unsuitable(Diagnostic),
    /// This message is refused for good, by its content.
    Rejected(Diagnostic),
}

/// What an answer says about the provider's health. Three-valued: most refusals say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerSignal {
    /// The provider works.
    Success,
    /// The provider failed; enough of these in a row open the circuit.
    Fault,
    /// The credential is refused: every further try would be, so the circuit opens at once.
    Trip,
    /// Says nothing about the provider's health.
    Neutral,
}

impl Failure {
    /// Whether the next candidate may be tried now. `spill` is the route's choice for throttling.
    #[must_use]
    pub fn may_fail_over(&self, spill: bool) -> bool {
        match self {
            Self::Unavailable(_) | Self::Unauthorized(_) | Self::SenderRefused(_) | Self::Unsuitable(_) => true,
            Self::Throttled { .. } => spill,
            Self::Rejected(_) => false,
        }
    }

    /// What the circuit breaker learns.
    #[must_use]
    pub fn breaker_signal(&self) -> BreakerSignal {
        match self {
            Self::Unavailable(_) => BreakerSignal::Fault,
            Self::Unauthorized(_) => BreakerSignal::Trip,
            Self::Throttled { .. } | Self::SenderRefused(_) | Self::Unsuitable(_) | Self::Rejected(_) => BreakerSignal::Neutral,
        }
    }

    /// The words of the refusal.
    #[must_use]
    pub fn diagnostic(&self) -> &Diagnostic {
        match self {
            Self::Unavailable(diagnostic)
            | Self::Throttled { diagnostic, .. }
            | Self::Unauthorized(diagnostic)
            | Self::SenderRefused(diagnostic)
            | Self::Unsuitable(diagnostic)
            | Self::Rejected(diagnostic) => diagnostic,
        }
    }

    /// The words of the refusal, to add to them.
    pub fn diagnostic_mut(&mut self) -> &mut Diagnostic {
        match self {
            Self::Unavailable(diagnostic)
            | Self::Throttled { diagnostic, .. }
            | Self::Unauthorized(diagnostic)
            | Self::SenderRefused(diagnostic)
            | Self::Unsuitable(diagnostic)
            | Self::Rejected(diagnostic) => diagnostic,
        }
    }

    /// The verdict's name in logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Throttled { .. } => "throttled",
            Self::Unauthorized(_) => "unauthorized",
            Self::SenderRefused(_) => "sender_refused",
            Self::Unsuitable(_) => "unsuitable",
            Self::Rejected(_) => "rejected",
        }
    }
}

impl Outcome {
    /// Whether the next candidate may be tried now for this recipient.
    #[must_use]
    pub fn may_fail_over(&self) -> bool {
        matches!(self, Self::Deferred(_))
    }

    /// The verdict's name in logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Relayed(_) => "relayed",
            Self::Deferred(_) => "deferred",
            Self::Bounced(_) => "bounced",
            Self::InDoubt(_) => "in_doubt",
        }
    }
}

impl Report {
    /// What the circuit breaker learns: an answer lost is a fault, anything relayed is a success,
    /// and recipients' refusals say nothing.
    #[must_use]
    pub fn breaker_signal(&self) -> BreakerSignal {
        let any = |wanted: fn(&Outcome) -> bool| self.outcomes.iter().any(|(_, outcome)| wanted(outcome));
        if any(|outcome| matches!(outcome, Outcome::InDoubt(_))) {
            BreakerSignal::Fault
        } else if any(|outcome| matches!(outcome, Outcome::Relayed(_))) {
            BreakerSignal::Success
        } else {
            BreakerSignal::Neutral
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_does_what_the_truth_table_says() {
        let d = || Diagnostic::local("x");
        let throttled = || Failure::Throttled { retry_after: None, diagnostic: d() };
        for (failure, next, next_with_spill, signal) in [
            (Failure::Unavailable(d()), true, true, BreakerSignal::Fault),
            (throttled(), false, true, BreakerSignal::Neutral),
            (Failure::Unauthorized(d()), true, true, BreakerSignal::Trip),
            (Failure::SenderRefused(d()), true, true, BreakerSignal::Neutral),
            (Failure::Unsuitable(d()), true, true, BreakerSignal::Neutral),
            (Failure::Rejected(d()), false, false, BreakerSignal::Neutral),
        ] {
            assert_eq!(failure.may_fail_over(false), next, "{failure:?}");
            assert_eq!(failure.may_fail_over(true), next_with_spill, "{failure:?}");
            assert_eq!(failure.breaker_signal(), signal, "{failure:?}");
        }
        for (outcome, next, signal) in [
            (Outcome::Relayed(Receipt::default()), false, BreakerSignal::Success),
            (Outcome::Deferred(d()), true, BreakerSignal::Neutral),
            (Outcome::Bounced(d()), false, BreakerSignal::Neutral),
            (Outcome::InDoubt(d()), false, BreakerSignal::Fault),
        ] {
            assert_eq!(outcome.may_fail_over(), next, "{outcome:?}");
            assert_eq!(Report::uniform(&[RecipientIndex(0)], &outcome).breaker_signal(), signal, "{outcome:?}");
        }
    }
}
