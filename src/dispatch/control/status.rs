//! What a person sees of a provider, and of what people have decided.

use std::sync::Arc;
use std::time::SystemTime;

use postrider_providers::contract::ProviderName;

use super::super::rate::LimitStatus;
use super::{By, Subject};

/// How one provider is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderStatus {
    /// Its name, as in `ses.eu`.
    pub name: ProviderName,
    /// Its kind, as in `ses`.
    pub kind: String,
    /// Its circuit.
    pub circuit: CircuitStatus,
    /// Who has opened the circuit by hand; until a reset.
    pub tripped: Option<By>,
    /// Who drains it: it gets no new mail, and what is in doubt there may be repeated.
    pub drained: Option<By>,
    /// Who has paused it: it gets no mail at all.
    pub paused: Option<By>,
    /// Handovers under way.
    pub in_flight: usize,
    /// The most handovers that may be under way.
    pub concurrency: usize,
    /// When it took a message last, since the start.
    pub last_success: Option<SystemTime>,
    /// The last faults and refusals since the start, the latest first; a handful.
    pub last_errors: Vec<ProviderError>,
    /// Until when it wants to be left alone.
    pub throttled_until: Option<SystemTime>,
    /// Recipients whose handover ended in doubt, since the start.
    pub in_doubt: u64,
    /// The same by route.
    pub in_doubt_by_route: Vec<(Arc<str>, u64)>,
    /// The routes that are pinned to it.
    pub pins: Vec<Pin>,
    /// Senders that it has refused, and that are not tried again before their time.
    pub refused_senders: Vec<RefusedSender>,
    /// How its limits stand.
    pub limits: Vec<LimitStatus>,
}

/// Where a circuit stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitStatus {
    /// `closed`, `open`, `half-open` or `recovering`. `open` as well while a person has it tripped.
    pub state: &'static str,
    /// Since when; `None`: since the start.
    pub since: Option<SystemTime>,
    /// Until when, where that is known: the next probe, or the end of the recovery.
    pub until: Option<SystemTime>,
    /// Why it is not closed, in words; empty if it is.
    pub why: String,
    /// How many handovers at a time the recovery allows now.
    pub at_once: Option<usize>,
}

/// Something that a provider did not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderError {
    /// When.
    pub at: SystemTime,
    /// The verdict, by the name that the log uses.
    pub verdict: &'static str,
    /// The provider's words.
    pub words: String,
    /// What to do about it, if we know.
    pub advice: Option<String>,
}

/// A route that asks one provider only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The route.
    pub route: Arc<str>,
    /// The provider.
    pub provider: ProviderName,
    /// Who said so.
    pub by: By,
}

/// A sender that a provider does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedSender {
    /// The domain, or the address where the provider spoke of that.
    pub sender: Arc<str>,
    /// When it was refused last.
    pub since: SystemTime,
    /// When it is tried again.
    pub until: SystemTime,
    /// The provider's words.
    pub words: String,
}

/// Something that a person keeps from going.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// What.
    pub subject: Subject,
    /// Who, and since when.
    pub by: By,
}
