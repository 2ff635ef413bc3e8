//! What would become of a message, and why; what became of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Moment;
use super::history::{PastEvent, PastMessage};
use super::providers::{Limit, Pin};

/// A message that somebody would hand in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The reverse-path; empty for the null one.
    pub from: String,
    /// The recipients, 1 to 1000.
    pub to: Vec<String>,
    /// The application that hands it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// The client's IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Octets; absent: no size is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// What it is signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedWith>,
}

/// What a message is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignedWith {
    /// S/MIME.
    Smime,
    /// PGP/MIME.
    Pgp,
    /// DKIM.
    Dkim,
}

/// What would become of a message now, and what became of it so far.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MessageExplanation {
    /// Its id; absent if it is imagined.
    pub id: Option<String>,
    /// `imagined`, `queued`, or `past`: then it has left the queue, and only `past` and `events` say something.
    pub kind: String,
    /// The reverse-path; empty for the null one.
    pub sender: String,
    /// Where it stands: in the queue, or in the history. Absent if it is imagined.
    pub state: Option<String>,
    /// How many attempts asked a provider.
    pub attempts: u32,
    /// Its recipients, by what would become of them now.
    pub parts: Vec<ExplainedPart>,
    /// What the history knows of it. It follows the queue by a second or two.
    pub past: Option<PastMessage>,
    /// What happened to it, in order.
    pub events: Vec<PastEvent>,
}

/// Recipients of whom the same is to be said.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExplainedPart {
    /// Who.
    pub recipients: Vec<String>,
    /// What was said of the first of them last.
    pub said: Option<String>,
    /// What becomes of them.
    pub conclusion: ExplainedEnd,
    /// Which way they would go; absent where nobody is to be asked for them.
    pub way: Option<ExplainedWay>,
}

/// What becomes of some recipients.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExplainedEnd {
    /// `now`, `waits`, `retry`, `under_way`, `held`, `in_doubt`, `dead`, `bounces`, `deferred`, `expires`,
    /// `refused` or `ended`.
    pub verdict: String,
    /// When: of `held` since when, otherwise when that is. Absent: now, or nothing tells. It holds as long as
    /// nothing else happens.
    pub at: Option<Moment>,
    /// Who is asked then; of `in_doubt` who may have it.
    pub provider: Option<String>,
    /// Why; empty if there is nothing to say.
    pub reason: String,
    /// How many other messages wait for the same. Some of them go first, and then `at` is the earliest time.
    pub others: usize,
    /// All of it in one sentence.
    pub sentence: String,
}

/// The way of some recipients, with all that stands in it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExplainedWay {
    /// The route.
    pub route: String,
    /// `first_match`; or `rerouted`: a person has chosen it.
    pub why: String,
    /// Routes that do not match the first of the recipients, up to the one that does.
    pub passed_over: Vec<PassedOver>,
    /// The provider that alone may be asked again, because a handover to it is in doubt.
    pub in_doubt: Option<String>,
    /// What lets the route ask one provider only.
    pub pinned: Option<Pin>,
    /// Whether a reached limit sends them to the next provider.
    pub spill: bool,
    /// What keeps them from going at all: a pause, a limit on their sender.
    pub waits: Vec<ExplainedWait>,
    /// The limits on their sender.
    pub limits: Vec<Limit>,
    /// How many recipients go at once, if not all of them.
    pub at_once: Option<usize>,
    /// After how many seconds as many may follow.
    pub again_after_seconds: Option<u64>,
    /// Whom there is to ask, in order.
    pub candidates: Vec<ExplainedCandidate>,
    /// When they are given up, as things stand.
    pub expires: Moment,
}

/// A route that does not match.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PassedOver {
    /// Its name.
    pub route: String,
    /// The first condition that does not hold, as in `when.sender_domain`.
    pub condition: String,
    /// What it asks for.
    pub value: String,
}

/// A provider, and what stands between it and the message.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExplainedCandidate {
    /// Its name.
    pub provider: String,
    /// `would_be_asked`; `cannot_carry`, `not_configured` or `unreadable`: it is passed over; or the `cause` of
    /// its first wait.
    pub verdict: String,
    /// Why it is passed over.
    pub why: Option<String>,
    /// What there is to wait for, in the order in which it is met.
    pub waits: Vec<ExplainedWait>,
    /// Its limits.
    pub limits: Vec<Limit>,
    /// How many recipients it gets in one call, if not all of them.
    pub per_call: Option<usize>,
}

/// Something that has to end first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExplainedWait {
    /// `stopped`, `sender_refused`, `circuit`, `concurrency` or `limit`.
    pub cause: String,
    /// What, as it stands in logs.
    pub reason: String,
    /// When it ends, if that is known.
    pub until: Option<Moment>,
}
