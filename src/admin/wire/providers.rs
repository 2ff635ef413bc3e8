//! Providers as they stand, and what a person decides about them, about routes and about senders.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Decided, Moment};

/// All providers, and what people have decided.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProviderList {
    /// The providers, by name.
    pub providers: Vec<Provider>,
    /// What is paused.
    pub pauses: Vec<Pause>,
    /// Which routes are pinned.
    pub pins: Vec<Pin>,
}

/// How one provider is doing.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Provider {
    /// Its name, as in `ses.eu`.
    pub name: String,
    /// Its kind, as in `ses`.
    pub kind: String,
    /// Its circuit.
    pub circuit: Circuit,
    /// Who has opened the circuit by hand.
    pub tripped: Option<Decided>,
    /// Who drains it.
    pub drained: Option<Decided>,
    /// Who has paused it.
    pub paused: Option<Decided>,
    /// Handovers under way.
    pub in_flight: usize,
    /// The most that may be under way.
    pub concurrency: usize,
    /// When it took a message last, since the start.
    pub last_success: Option<Moment>,
    /// What it did not do lately, the latest first.
    pub last_errors: Vec<ProviderError>,
    /// Until when it wants to be left alone.
    pub throttled_until: Option<Moment>,
    /// Recipients whose handover ended in doubt, since the start.
    pub in_doubt: u64,
    /// Senders that it has refused.
    pub refused_senders: Vec<RefusedSender>,
    /// Its limits. Of those on its sending domains, the ones that are used just now.
    pub limits: Vec<Limit>,
}

/// A limit as it stands.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Limit {
    /// What mail waits for where it is reached, as in `quota of ses.eu`.
    pub name: String,
    /// Where it is set, as in `provider.ses.eu.limits.quota`.
    pub setting: String,
    /// The application or the sending domain that it is for; absent: all mail.
    pub key: Option<String>,
    /// What it counts: `messages` or `recipients`.
    pub counted: String,
    /// How many in each period.
    pub count: u64,
    /// The period, in seconds.
    pub period_seconds: u64,
    /// How many at once.
    pub burst: u64,
    /// Of a quota: what was used in the period that ends now. Of a rate: what is used of its burst.
    pub used: u64,
    /// How many more could go now.
    pub left: u64,
    /// When the next one may go; absent: now.
    pub next: Option<Moment>,
}

/// Where a circuit stands.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Circuit {
    /// `closed`, `open`, `half-open` or `recovering`.
    pub state: String,
    /// Since when; absent: since the start.
    pub since: Option<Moment>,
    /// Until when, where that is known: the next probe, or the end of the recovery.
    pub until: Option<Moment>,
    /// Why it is not closed; empty if it is.
    pub why: String,
    /// How many handovers at a time the recovery allows now.
    pub at_once: Option<usize>,
}

/// Something that a provider did not do.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProviderError {
    /// When.
    pub at: Moment,
    /// The verdict.
    pub verdict: String,
    /// The provider's words.
    pub words: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// A sender that a provider does not take.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RefusedSender {
    /// The domain or the address.
    pub sender: String,
    /// When it was refused.
    pub since: Moment,
    /// When it is tried again.
    pub until: Moment,
    /// The provider's words.
    pub words: String,
}

/// Something that a person keeps from going.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Pause {
    /// `provider`, `route`, `domain` or `application`.
    pub what: String,
    /// Its name.
    pub name: String,
    /// Who, and since when.
    pub decided: Decided,
}

/// A route that asks one provider only.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Pin {
    /// The route.
    pub route: String,
    /// The provider.
    pub provider: String,
    /// Who, and since when.
    pub decided: Decided,
}

/// What to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ControlName {
    /// Opens the circuit of `provider` until a reset.
    Trip,
    /// Closes it, and forgets what was remembered against the provider.
    Reset,
    /// Gives `provider` no new mail until it is resumed.
    Drain,
    /// Keeps mail from going: of one of `provider`, `route`, `domain` and `application`.
    Pause,
    /// Ends a pause, and a drain.
    Resume,
    /// Lets `route` ask `provider` only.
    Pin,
    /// Lets `route` ask all its providers again.
    Unpin,
}

/// A decision with what it is about.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlRequest {
    /// What to decide.
    pub action: ControlName,
    /// A provider, by its name in routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// A route, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// A sending domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// An application, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
}

/// What has changed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ControlDone {
    /// In words; that may be nothing.
    pub changed: String,
}
