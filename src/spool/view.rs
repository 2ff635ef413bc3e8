//! What a person sees of the queue.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postrider_providers::contract::{MessageId, Priority, ProviderName};

use super::RecipientState;

/// Where a message stands, in one word: the most urgent of what is true of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QueueState {
    /// A dead letter: undeliverable, and nobody could be told.
    Dead,
    /// Waits for a person: held by one, or a handover in doubt on a route that holds.
    Held,
    /// In this node's hands: about to be attempted, parked for a limit, or being handed over.
    Active,
    /// A handover in doubt, which its provider will be asked about again.
    InDoubt,
    /// Attempted, and due again later.
    Deferred,
    /// Not attempted yet.
    Queued,
}

impl QueueState {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Dead, Self::Held, Self::Active, Self::InDoubt, Self::Deferred, Self::Queued];

    /// The name, as in filters and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Held => "held",
            Self::Active => "active",
            Self::InDoubt => "in_doubt",
            Self::Deferred => "deferred",
            Self::Queued => "queued",
        }
    }
}

/// Where mail waits: lanes take turns, so that none delays another. The default is that of mail of which
/// nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// How urgent its mail is.
    pub priority: Priority,
    /// The route of the first recipient; empty if there was none.
    pub route: Arc<str>,
    /// The domain of the reverse-path in lower case; empty for the null reverse-path.
    pub domain: Arc<str>,
}

/// A message in the queue, without its body.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its identity.
    pub id: MessageId,
    /// Where it stands.
    pub state: QueueState,
    /// Where it waits.
    pub lane: Lane,
    /// When it was accepted.
    pub received: SystemTime,
    /// When it is due again; `None` while it waits for a person, or is leased.
    pub due: Option<SystemTime>,
    /// Since when a person holds it.
    pub held_at: Option<SystemTime>,
    /// How many attempts asked a provider.
    pub attempts: u32,
    /// The reverse-path; `None` is the null one.
    pub sender: Option<String>,
    /// All recipients, also those that are finished.
    pub recipients: Vec<ListedRecipient>,
    /// Octets of the message.
    pub size: u64,
    /// The application that handed it in.
    pub application: Option<Arc<str>>,
    /// The client that handed it in.
    pub client: Option<IpAddr>,
    /// Its Message-ID without angle brackets.
    pub message_id: Option<Arc<str>>,
    /// The route that a person has chosen for it.
    pub rerouted: Option<Arc<str>>,
}

/// One recipient of a queued message.
#[derive(Debug, Clone)]
pub struct ListedRecipient {
    /// The address.
    pub address: String,
    /// Where it stands.
    pub state: RecipientState,
    /// Who was asked for it last.
    pub last_provider: Option<ProviderName>,
    /// What was said about it last.
    pub diagnostic: Option<String>,
}

/// How much waits, and where.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// By lane and state; none of them zero.
    pub lanes: Vec<LaneSummary>,
    /// Records that were set aside because they could not be read.
    pub set_aside: u64,
}

/// How much of one lane is in one state.
#[derive(Debug, Clone)]
pub struct LaneSummary {
    /// The lane.
    pub lane: Lane,
    /// The state.
    pub state: QueueState,
    /// Messages.
    pub messages: u64,
    /// Octets of their bodies.
    pub octets: u64,
    /// When the oldest was accepted.
    pub oldest: SystemTime,
    /// When the next is due.
    pub next_due: Option<SystemTime>,
}

impl Summary {
    /// Messages in `state`, over all lanes.
    #[must_use]
    pub fn count(&self, state: QueueState) -> u64 {
        self.lanes.iter().filter(|lane| lane.state == state).map(|lane| lane.messages).sum()
    }

    /// The age of the oldest message, held and dead ones aside.
    #[must_use]
    pub fn oldest_age(&self, now: SystemTime) -> Option<Duration> {
        let waits = |lane: &&LaneSummary| !matches!(lane.state, QueueState::Dead | QueueState::Held);
        self.lanes.iter().filter(waits).map(|lane| now.duration_since(lane.oldest).unwrap_or_default()).max()
    }
}
