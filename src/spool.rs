//! The durable store: what it promises, as a trait, and the records that cross it.
//!
//! Invariants that every implementation keeps, and that `suite` checks:
//!
//! 1. When [`Spool::store`] returns, the message (envelope and body) is on stable storage.
//! 2. A message is leased to at most one node at a time. A node that stops renewing loses its
//!    leases, and whatever it wants to write about them afterwards is refused ([`SpoolError::LeaseLost`]).
//! 3. A handover that was recorded as started and never settled is *in doubt* when its lease is
//!    taken over: it comes back pinned to the provider that was asked, and is never a guess. Which
//!    recipients were in it together is known as well, so that it can be repeated as it was.
//! 4. A settlement is one transaction: recipients' states, the next time, and the notification that
//!    follows from it.
//! 5. A message whose recipients are all finished is removed; a record that cannot be read is set
//!    aside with a reason. Nothing else ever disappears.
//! 6. No operation's cost grows with the number of messages in the store.

pub mod action;
pub mod filter;
pub mod memory;
pub mod sqlite;
#[cfg(test)]
pub(crate) mod suite;
pub mod view;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use postrider_providers::contract::{Body, Message, MessageId, ProviderName, RecipientIndex};

use self::action::{Action, Done, Target};
use self::filter::Filter;
use self::view::{Lane, Listed, Summary};

/// Where one recipient of a stored message stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientState {
    /// Waits for an attempt; any provider of the route may be asked.
    Pending,
    /// A handover left without an answer: only this provider may be asked again.
    InDoubt(ProviderName),
    /// Waits for a person.
    Held(ProviderName),
    /// Handed over.
    Relayed,
    /// Refused for good; the notification has been stored.
    Bounced,
    /// Waited too long; the notification has been stored.
    Expired,
    /// Undeliverable, and nobody could be told: a dead letter, which waits for a person.
    Dead,
}

impl RecipientState {
    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Relayed | Self::Bounced | Self::Expired)
    }

    /// Whether an attempt may be made without a person's decision.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Pending | Self::InDoubt(_))
    }
}

/// The number of a handover: no two of a message that are told apart later have the same.
#[must_use]
pub fn handover(attempts: u32, recipients: &[RecipientIndex]) -> Option<u64> {
    recipients.iter().min().map(|RecipientIndex(first)| u64::from(attempts) << 32 | u64::from(*first))
}

/// A leased message with its delivery state.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The message.
    pub message: Arc<Message>,
    /// One entry for each recipient of the envelope, in its order.
    pub recipients: Vec<RecipientState>,
    /// For each of them, the handover in which a provider was asked for it last: the same number for
    /// those that were in it together, and for no others. `None` if nobody was asked yet, or that is not
    /// known.
    pub handovers: Vec<Option<u64>>,
    /// For each of them, when it may be asked for again at the earliest; `None`: whenever the message is due.
    /// Others of the same message may be due before.
    pub not_before: Vec<Option<SystemTime>>,
    /// How many attempts asked a provider.
    pub attempts: u32,
    /// What was decided about it meanwhile.
    pub handling: Handling,
}

/// What was decided about a message while it waited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handling {
    /// How long a person held it, which does not age it.
    pub idle: Duration,
    /// Whether its sender was told that it waits.
    pub warned: bool,
    /// The route that a person has chosen for it.
    pub rerouted: Option<Arc<str>>,
}

impl Stored {
    /// Whether a recipient is open and may be asked for at this time.
    #[must_use]
    pub fn is_due(&self, index: RecipientIndex, now: SystemTime) -> bool {
        let position = index.0 as usize;
        self.recipients.get(position).is_some_and(RecipientState::is_open)
            && self.not_before.get(position).copied().flatten().is_none_or(|at| at <= now)
    }

    /// When the first of those is due who are open and may not be asked for yet.
    #[must_use]
    pub fn next_due(&self, now: SystemTime) -> Option<SystemTime> {
        let open = self.recipients.iter().zip(&self.not_before).filter(|(state, _)| state.is_open());
        open.filter_map(|(_, at)| *at).filter(|at| *at > now).min()
    }

    /// The state of a message that was just accepted.
    #[must_use]
    pub fn fresh(message: Arc<Message>) -> Self {
        let recipients = vec![RecipientState::Pending; message.envelope.recipients.len()];
        let (handovers, not_before) = (vec![None; recipients.len()], vec![None; recipients.len()]);
        Self { message, recipients, handovers, not_before, attempts: 0, handling: Handling::default() }
    }
}

/// What is new about one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Who it is.
    pub recipient: RecipientIndex,
    /// Where it stands now.
    pub state: RecipientState,
    /// The words that go with that.
    pub words: String,
    /// When it may be asked for again at the earliest, see [`Stored::not_before`].
    pub not_before: Option<SystemTime>,
}

/// The durable end of a lease.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The message.
    pub id: MessageId,
    /// Where it waits from now on: its route may have changed.
    pub lane: Lane,
    /// The recipients about whom there is something new.
    pub changes: Vec<Change>,
    /// Attempts so far.
    pub attempts: u32,
    /// When the recipients still open are due again.
    pub due: SystemTime,
    /// Notifications to store in the same transaction, unleased and due at once, each with its lane.
    pub notifications: Vec<(Arc<Message>, Lane)>,
    /// Whether the sender has been told by now that the message waits.
    pub warned: bool,
    /// What to tell the history of it, as JSON; durable with the rest.
    pub journal: Vec<String>,
}

impl Settlement {
    /// Where the recipients of the message stand with this, in the order of the envelope.
    #[must_use]
    pub fn states<'s>(&'s self, stored: &'s Stored) -> Vec<&'s RecipientState> {
        let mut states: Vec<&RecipientState> = stored.recipients.iter().collect();
        for Change { recipient, state, .. } in &self.changes {
            if let Some(place) = states.get_mut(recipient.0 as usize) {
                *place = state;
            }
        }
        states
    }
}

/// A lane from which mail is wanted, and how many messages at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The lane.
    pub lane: Lane,
    /// The most messages.
    pub limit: usize,
}

/// What a claim found in one lane.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The lane.
    pub lane: Lane,
    /// What was leased, longest due first.
    pub messages: Vec<Stored>,
    /// When the next message that is left in the lane is due; `None` when nothing waits there.
    pub next_due: Option<SystemTime>,
}

/// A lane in which mail waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingLane {
    /// The lane.
    pub lane: Lane,
    /// When its first message is due.
    pub due: SystemTime,
}

/// What a restart, or the end of another node's leases, brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Messages that may be claimed again.
    pub released: u64,
    /// Recipients among them whose handover is in doubt.
    pub in_doubt: u64,
    /// Those recipients, by message.
    pub doubts: Vec<Doubt>,
    /// Whether they are in the journal, durably, since the moment that they are in doubt.
    pub is_noted: bool,
    /// Records set aside: what it was and why, in words.
    pub set_aside: Vec<String>,
}

/// Recipients of one message for whom a provider was asked, and nobody knows what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// The message.
    pub id: MessageId,
    /// Who was asked.
    pub provider: ProviderName,
    /// For whom.
    pub recipients: Vec<RecipientIndex>,
}

impl Recovered {
    /// Adds what was found in doubt.
    pub(crate) fn in_doubt(&mut self, doubts: Vec<Doubt>) {
        self.in_doubt += doubts.iter().map(|doubt| doubt.recipients.len() as u64).sum::<u64>();
        self.doubts.extend(doubts);
    }
}

impl Doubt {
    /// Adds a recipient to the doubts of its message.
    pub(crate) fn add(doubts: &mut Vec<Self>, id: MessageId, provider: ProviderName, recipient: RecipientIndex) {
        let mut of_message = doubts.iter_mut().rev().take_while(|doubt| doubt.id == id);
        match of_message.find(|doubt| doubt.provider == provider) {
            Some(doubt) => doubt.recipients.push(recipient),
            None => doubts.push(Self { id, provider, recipients: vec![recipient] }),
        }
    }
}

/// What of a quota was used in one slot of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaUse {
    /// The route that has a share of the quota and used this; `""`: all others.
    pub share: Arc<str>,
    /// The number of the slot.
    pub slot: u64,
    /// How many messages or recipients.
    pub used: u64,
}

/// Counts for the log and for `readyz`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolCounts {
    /// Messages in the store.
    pub messages: u64,
    /// Those of them that nobody leases and that have recipients open.
    pub waiting: u64,
    /// Those of them that wait for a person only.
    pub held: u64,
    /// Those of the latter that are dead letters.
    pub dead: u64,
}

/// Why the store could not do as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpoolError {
    /// No space, a quota, or a size limit of the file system.
    #[error("the spool is full: {0}")]
    Full(String),
    /// It cannot be written or read: permissions, a read-only file system, a failed fsync.
    #[error("the spool is not available: {0}")]
    Unavailable(String),
    /// The lease belongs to another node now.
    #[error("the lease on {0} was lost to another node")]
    LeaseLost(MessageId),
    /// The store has shut down.
    #[error("the spool is closed")]
    Closed,
}

/// Takes the bytes of one message while they arrive; nothing is promised before [`Spool::store`].
///
/// Dropped without [`BodySink::finish`], it leaves nothing behind.
pub trait BodySink: Send {
    /// Adds `bytes`.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), SpoolError>> + Send;

    /// Ends the body; a file is on stable storage when this returns.
    fn finish(self) -> impl Future<Output = Result<Body, SpoolError>> + Send;
}

/// The store. Clones share it.
pub trait Spool: Clone + Send + Sync + 'static {
    /// How bodies arrive.
    type Sink: BodySink;

    /// Begins the body of message `id`.
    fn body(&self, id: MessageId) -> Self::Sink;

    /// Makes a message durable, to wait in `lane`. With `lease`, it is leased to this node from the start, so that the
    /// queue need not read it back; otherwise it is due at once for anybody. When it fails, the body's
    /// file is gone: the message has to arrive again.
    fn store(&self, message: Arc<Message>, lane: &Lane, lease: bool) -> impl Future<Output = Result<(), SpoolError>> + Send;

    /// Makes a message durable in place of what is kept under `key`, in one transaction, and adds `record` to the
    /// journal: whoever looks after a crash finds the one or the other. For the rest as [`Spool::store`].
    fn store_instead(
        &self,
        key: &str,
        message: Arc<Message>,
        lane: &Lane,
        lease: bool,
        record: Option<String>,
    ) -> impl Future<Output = Result<(), SpoolError>> + Send;

    /// Leases messages that are due by `now`: of each lane as many as are wanted, longest due first. It
    /// stops before the bodies in memory exceed `octets` (the first one always fits). Tells about every
    /// lane that was asked for, in the order of asking. When the future is dropped, what it leased is
    /// given back.
    fn claim(&self, now: SystemTime, wants: &[Want], octets: u64) -> impl Future<Output = Result<Vec<Claimed>, SpoolError>> + Send;

    /// The lanes in which messages wait that nobody leases, the first due first, and no more than
    /// `limit` of them. The cost grows with the lanes, and not with what waits in them.
    fn lanes(&self, limit: usize) -> impl Future<Output = Result<Vec<WaitingLane>, SpoolError>> + Send;

    /// Records, durably, that `provider` is about to be asked to take the message for `recipients`, all
    /// of them in one handover. Those that are not open are passed over.
    fn begin(
        &self,
        id: MessageId,
        provider: &ProviderName,
        recipients: &[RecipientIndex],
    ) -> impl Future<Output = Result<(), SpoolError>> + Send;

    /// Ends a lease with what became of the message. A recipient that it does not name stands as it
    /// did before the handover: the provider is known not to have it.
    fn settle(&self, settlement: Settlement) -> impl Future<Output = Result<(), SpoolError>> + Send;

    /// Gives a lease back unused: the message waits in `lane` and is due at `due`, its state and attempts unchanged. A
    /// handover that was begun all the same is in doubt, as it is whenever a lease ends unsettled.
    fn release(&self, id: MessageId, lane: &Lane, due: SystemTime) -> impl Future<Output = Result<(), SpoolError>> + Send;

    /// Keeps this node's leases until `until`, and takes back those of nodes that let theirs lapse
    /// before `now`. A node renews before it takes its first lease: until then its time is up already.
    fn renew(&self, now: SystemTime, until: SystemTime) -> impl Future<Output = Result<Recovered, SpoolError>> + Send;

    /// What is on record of the use of `quota`.
    fn quota_use(&self, quota: &str) -> impl Future<Output = Result<Vec<QuotaUse>, SpoolError>> + Send;

    /// Records what of `quota` was used in a slot, instead of what was recorded of that slot before, and
    /// forgets the slots before `since`. Rides along with the next commit, and returns without waiting for it:
    /// what is written after this is not durable without it.
    fn use_quota(&self, quota: &str, of: QuotaUse, since: u64);

    /// Keeps `value`, which is JSON, under `key`; `None` forgets it. Durable when this returns.
    fn remember(&self, key: &str, value: Option<String>) -> impl Future<Output = Result<(), SpoolError>> + Send;

    /// What is kept under keys that begin with `prefix`, by key.
    fn recall(&self, prefix: &str) -> impl Future<Output = Result<Vec<(String, String)>, SpoolError>> + Send;

    /// What happened and has not been forgotten: up to `limit` records of the journal with numbers above
    /// `after`, oldest first, each with its number; fewer when they are large. No number is given twice.
    fn journal(&self, after: u64, limit: usize) -> impl Future<Output = Result<Vec<(u64, String)>, SpoolError>> + Send;

    /// How many records of the journal have not been forgotten.
    fn journal_length(&self) -> impl Future<Output = Result<u64, SpoolError>> + Send;

    /// Forgets the journal up to and including record `last`; rides along with the next commit.
    fn forget_journal(&self, last: u64) -> impl Future<Output = Result<(), SpoolError>> + Send;

    /// Adds a record to the journal by itself, for what happened outside of a settlement.
    fn note(&self, record: String) -> impl Future<Output = Result<(), SpoolError>> + Send;

    /// How much waits, and where, without keeping anybody else waiting.
    fn summary(&self) -> impl Future<Output = Result<Summary, SpoolError>> + Send;

    /// The messages that `filter` means at `now`, ordered by id: up to `limit` of those behind `after`.
    /// Records that were set aside are not among them.
    fn list(
        &self,
        filter: &Filter,
        now: SystemTime,
        after: Option<MessageId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Listed>, SpoolError>> + Send;

    /// The ids of what [`Spool::list`] would give.
    fn ids(
        &self,
        filter: &Filter,
        now: SystemTime,
        after: Option<MessageId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<MessageId>, SpoolError>> + Send;

    /// How many messages `filter` means at `now`.
    fn count(&self, filter: &Filter, now: SystemTime) -> impl Future<Output = Result<u64, SpoolError>> + Send;

    /// A message as it stands, without a lease; `None` if it is not in the store.
    fn read(&self, id: MessageId) -> impl Future<Output = Result<Option<(Stored, Listed)>, SpoolError>> + Send;

    /// Does `action` to each of the messages, in one transaction, and tells what came of each in their
    /// order. A lease of this node ends with it where its holder hands the message over; a message that is
    /// leased otherwise is [`Done::Busy`]. Not for [`Action::Bounce`], which ends with a settlement.
    fn act(&self, targets: Vec<Target>, action: Action, now: SystemTime) -> impl Future<Output = Result<Vec<Done>, SpoolError>> + Send;

    /// Leases a message to this node, whether it is due or held; `Err` says what it is instead: busy, or
    /// gone.
    fn take(&self, id: MessageId) -> impl Future<Output = Result<Result<Stored, Done>, SpoolError>> + Send;

    /// Counts what is stored.
    fn counts(&self) -> impl Future<Output = Result<SpoolCounts, SpoolError>> + Send;

    /// Writes and removes a small record on stable storage: can a message be accepted now? Writing
    /// other things may still be possible when it cannot.
    fn check(&self) -> impl Future<Output = Result<(), SpoolError>> + Send;

    /// Waits until the store has failed for good, so that only a new start helps, and says why. Faults of the
    /// storage are none of that: the store recovers from them.
    fn failure(&self) -> impl Future<Output = String> + Send;

    /// Commits what is waiting, gives this node's leases back, and closes the store within `timeout`.
    fn close(&self, timeout: Duration) -> impl Future<Output = Result<(), SpoolError>> + Send;
}
