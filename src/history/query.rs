//! What can be asked of the history, and the answers.

use std::sync::Arc;
use std::time::SystemTime;

use postrider_providers::contract::MessageId;

use super::event::{About, Event};

/// The most messages in one answer.
pub const MOST: usize = 1000;

/// Which messages are meant: all that is set must hold. What is about recipients must hold for one and the
/// same recipient.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// The message with this id.
    pub id: Option<MessageId>,
    /// The Message-ID, with or without angle brackets.
    pub message_id: Option<String>,
    /// A provider's id for the message.
    pub remote_id: Option<String>,
    /// The reverse-path; empty for the null one. `*` at either end stands for anything.
    pub sender: Option<String>,
    /// A recipient. `*` at either end stands for anything.
    pub recipient: Option<String>,
    /// The provider that was asked last for a recipient.
    pub provider: Option<String>,
    /// The route by which that was.
    pub route: Option<String>,
    /// The application that handed it in.
    pub application: Option<String>,
    /// The client that handed it in: its IP address.
    pub client: Option<String>,
    /// Where a recipient stands.
    pub state: Option<PastState>,
    /// Accepted at this time or later.
    pub since: Option<SystemTime>,
    /// Accepted before this time.
    pub until: Option<SystemTime>,
    /// How many at most; 0 and whatever is above [`MOST`] stand for that.
    pub limit: usize,
    /// Only what comes behind this in the order of answers: the place of the last message of the page before.
    pub before: Option<Place>,
}

/// A place in the order of answers, which is by acceptance, the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// When the message was accepted, in milliseconds since 1970.
    pub received: u64,
    /// Which of those of the same moment.
    pub id: MessageId,
}

/// Where a recipient stands, or a message: the most urgent of what is true of its recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PastState {
    /// Undeliverable, and nobody could be told.
    Dead,
    /// A handover without an answer, asked about again or waiting for a person.
    InDoubt,
    /// Waits for an attempt.
    Queued,
    /// Refused for good.
    Bounced,
    /// Given up for its age.
    Expired,
    /// Taken out of the queue by a person.
    Removed,
    /// Handed over.
    Relayed,
}

/// A message that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// Its id.
    pub id: MessageId,
    /// The message as it was accepted.
    pub about: About,
    /// Where it stands.
    pub state: PastState,
    /// When anything happened to it last, in milliseconds since 1970.
    pub last: u64,
    /// When it left the queue, in milliseconds since 1970; `None`: it has not.
    pub ended: Option<u64>,
    /// Where its recipients stand, in the order of RCPT.
    pub recipients: Vec<PastRecipient>,
}

/// One recipient of a message that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastRecipient {
    /// The address.
    pub address: String,
    /// Where it stands.
    pub state: PastState,
    /// The provider that was asked last.
    pub provider: Option<Arc<str>>,
    /// By which route.
    pub route: Option<Arc<str>>,
    /// The provider's id for the message.
    pub remote_id: Option<String>,
    /// What was said last.
    pub words: String,
}

/// All that happened to one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The message, as it stands.
    pub past: Past,
    /// What happened, in order.
    pub events: Vec<Moment>,
}

/// Something that happened, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What.
    pub event: Event,
}

impl PastState {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Dead, Self::InDoubt, Self::Queued, Self::Bounced, Self::Expired, Self::Removed, Self::Relayed];

    /// The name, as in queries and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::InDoubt => "in_doubt",
            Self::Queued => "queued",
            Self::Bounced => "bounced",
            Self::Expired => "expired",
            Self::Removed => "removed",
            Self::Relayed => "relayed",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl Past {
    /// Its place in the order of answers: [`Query::before`] for what follows it.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { received: self.about.received, id: self.id }
    }
}
