//! A spool in memory, for tests and for embedding: every promise but the one about stable storage.
//!
//! It passes the same suite as the durable ones, a "crash" included: [`MemorySpool::crash`] is what
//! a restart is to them. Several nodes can share one store ([`MemorySpool::another_node`]).

mod operate;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::{Future, ready};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use postrider_providers::contract::{Body, Message, MessageId, ProviderName, RecipientIndex};

use super::action::{Action, Done, Target};
use super::filter::Filter;
use super::view::{Lane, Listed, Summary};
use super::{
    BodySink, Change, Claimed, Doubt, Handling, QuotaUse, RecipientState, Recovered, Settlement, Spool, SpoolCounts, SpoolError, Stored,
    WaitingLane, Want, handover,
};

/// One node's handle on a store in memory.
#[derive(Clone)]
pub struct MemorySpool {
    store: Arc<Mutex<Store>>,
    node: u64,
}

/// Collects a body in memory.
pub struct MemorySink {
    store: Arc<Mutex<Store>>,
    bytes: BytesMut,
}

#[derive(Default)]
struct Store {
    messages: HashMap<MessageId, Record>,
    /// Messages that nobody leases and that have open recipients, by lane, longest due first. No lane is
    /// empty.
    waiting: BTreeMap<Lane, BTreeSet<(SystemTime, MessageId)>>,
    /// Until when each node keeps its leases; a node that never renewed is missing.
    alive_until: HashMap<u64, SystemTime>,
    last_node: u64,
    quotas: BTreeMap<(String, u64, Arc<str>), u64>,
    notes: BTreeMap<String, String>,
    journal: BTreeMap<u64, String>,
    last_record: u64,
    set_aside: Vec<String>,
    fault: Option<SpoolError>,
    #[cfg(test)]
    panics: bool,
    closed: bool,
}

struct Record {
    message: Arc<Message>,
    lane: Lane,
    recipients: Vec<Standing>,
    attempts: u32,
    due: SystemTime,
    owner: Option<u64>,
    unreadable: bool,
    handling: Handling,
    held_at: Option<SystemTime>,
}

/// A recipient's state, the provider that was asked and has not answered, and in which handover.
struct Standing {
    state: RecipientState,
    asked: Option<ProviderName>,
    handover: Option<u64>,
    not_before: Option<SystemTime>,
    last_provider: Option<ProviderName>,
    diagnostic: Option<String>,
}

impl Standing {
    fn new() -> Self {
        Self { state: RecipientState::Pending, asked: None, handover: None, not_before: None, last_provider: None, diagnostic: None }
    }
}

impl Record {
    fn is_waiting(&self) -> bool {
        self.owner.is_none() && self.held_at.is_none() && self.recipients.iter().any(|recipient| recipient.state.is_open())
    }

    fn stored(&self) -> Stored {
        Stored {
            message: Arc::clone(&self.message),
            recipients: self.recipients.iter().map(|recipient| recipient.state.clone()).collect(),
            handovers: self.recipients.iter().map(|recipient| recipient.handover).collect(),
            not_before: self.recipients.iter().map(|recipient| recipient.not_before).collect(),
            attempts: self.attempts,
            handling: self.handling.clone(),
        }
    }

    fn lease(&mut self, node: u64) -> Stored {
        self.owner = Some(node);
        self.stored()
    }

    /// Ends a lease without a settlement: what was asked and never answered is in doubt.
    fn give_back(&mut self) -> Vec<Doubt> {
        self.owner = None;
        let (id, mut doubts) = (self.message.id, Vec::new());
        for (position, recipient) in (0..).zip(&mut self.recipients) {
            if let Some(provider) = recipient.asked.take() {
                recipient.state = RecipientState::InDoubt(provider.clone());
                Doubt::add(&mut doubts, id, provider, RecipientIndex(position));
            }
        }
        doubts
    }
}

impl Store {
    fn note(&mut self, record: String) {
        self.last_record += 1;
        self.journal.insert(self.last_record, record);
    }

    /// For everything that writes: refused while closed or while a fault is set.
    fn writable(&self) -> Result<(), SpoolError> {
        self.readable()?;
        self.fault.clone().map_or(Ok(()), Err)
    }

    fn readable(&self) -> Result<(), SpoolError> {
        #[cfg(test)]
        assert!(!self.panics, "as asked");
        if self.closed { Err(SpoolError::Closed) } else { Ok(()) }
    }

    /// Lets a message wait in its lane.
    fn enqueue(&mut self, lane: &Lane, due: SystemTime, id: MessageId) {
        self.waiting.entry(lane.clone()).or_default().insert((due, id));
    }

    fn dequeue(&mut self, lane: &Lane, due: SystemTime, id: MessageId) {
        if let Some(waiting) = self.waiting.get_mut(lane) {
            waiting.remove(&(due, id));
            if waiting.is_empty() {
                self.waiting.remove(lane);
            }
        }
    }

    fn insert(&mut self, message: Arc<Message>, lane: &Lane, owner: Option<u64>) -> Result<(), SpoolError> {
        let id = message.id;
        if message.envelope.recipients.is_empty() {
            return Err(SpoolError::Unavailable(format!("message {id} has no recipient; store it with one at least")));
        }
        if self.messages.contains_key(&id) {
            return Err(SpoolError::Unavailable(format!("message {id} is stored already; every message needs an id of its own")));
        }
        let recipients = message.envelope.recipients.iter().map(|_| Standing::new()).collect();
        let due = message.received;
        if owner.is_none() {
            self.enqueue(lane, due, id);
        }
        let (lane, handling) = (lane.clone(), Handling::default());
        self.messages.insert(id, Record { message, lane, recipients, attempts: 0, due, owner, unreadable: false, handling, held_at: None });
        Ok(())
    }

    /// The record, if this node leases it.
    fn leased(&mut self, id: MessageId, node: u64) -> Result<&mut Record, SpoolError> {
        self.messages.get_mut(&id).filter(|record| record.owner == Some(node)).ok_or(SpoolError::LeaseLost(id))
    }

    /// Takes back the leases of every node for which `lapsed` says so.
    fn take_back(&mut self, lapsed: impl Fn(u64) -> bool) -> Recovered {
        let mut recovered = Recovered::default();
        for (id, record) in &mut self.messages {
            if record.owner.is_some_and(&lapsed) {
                recovered.in_doubt(record.give_back());
                recovered.released += 1;
                // One that was held when it was leased is so again.
                if record.is_waiting() {
                    self.waiting.entry(record.lane.clone()).or_default().insert((record.due, *id));
                }
            }
        }
        recovered
    }
}

impl MemorySpool {
    /// An empty store, and its first node.
    #[must_use]
    pub fn new() -> Self {
        Self { store: Arc::new(Mutex::new(Store { last_node: 1, ..Store::default() })), node: 1 }
    }

    /// Another node that shares the store.
    #[must_use]
    pub fn another_node(&self) -> Self {
        let mut store = self.store.lock();
        store.last_node += 1;
        Self { store: Arc::clone(&self.store), node: store.last_node }
    }

    /// What a crash of every node and a restart would leave: a new node, all leases taken over.
    #[must_use]
    pub fn crash(&self) -> (Self, Recovered) {
        let recovered = {
            let mut store = self.store.lock();
            store.closed = false;
            store.alive_until.clear();
            store.take_back(|_| true)
        };
        (self.another_node(), recovered)
    }

    /// Makes everything that writes fail with `fault`, as on a full disk, until told otherwise.
    pub fn set_fault(&self, fault: Option<SpoolError>) {
        self.store.lock().fault = fault;
    }

    /// Makes whoever reads it next panic, as a mistake in the code would.
    #[cfg(test)]
    pub(crate) fn panic_when_read(&self) {
        self.store.lock().panics = true;
    }

    /// Makes a record unreadable, as a failing disk would: the next claim sets it aside.
    pub fn spoil(&self, id: MessageId) {
        if let Some(record) = self.store.lock().messages.get_mut(&id) {
            record.unreadable = true;
        }
    }

    fn claim_now(&self, now: SystemTime, wants: &[Want], octets: u64) -> Result<Vec<Claimed>, SpoolError> {
        let mut guard = self.store.lock();
        let store = &mut *guard;
        store.writable()?;
        let (mut in_memory, mut is_first) = (0, true);
        let mut claimed = Vec::with_capacity(wants.len());
        for Want { lane, limit } in wants {
            let waiting = store.waiting.get(lane).into_iter().flatten();
            let due: Vec<_> = waiting.take_while(|(due, _)| *due <= now).take(*limit).copied().collect();
            let mut messages = Vec::new();
            for (due, id) in due {
                let Some(record) = store.messages.get_mut(&id) else { continue };
                if record.unreadable {
                    store.messages.remove(&id);
                    store.set_aside.push(format!("message {id}: its record cannot be read"));
                    store.dequeue(lane, due, id);
                    continue;
                }
                if let Body::Inline(bytes) = &record.message.body {
                    in_memory += bytes.len() as u64;
                }
                if in_memory > octets && !is_first {
                    break;
                }
                is_first = false;
                messages.push(record.lease(self.node));
                store.dequeue(lane, due, id);
            }
            let next_due = store.waiting.get(lane).and_then(BTreeSet::first).map(|(due, _)| *due);
            claimed.push(Claimed { lane: lane.clone(), messages, next_due });
        }
        Ok(claimed)
    }

    fn settle_now(&self, settlement: Settlement) -> Result<(), SpoolError> {
        let mut guard = self.store.lock();
        let store = &mut *guard;
        store.writable()?;
        let id = settlement.id;
        let count = store.leased(id, self.node)?.recipients.len();
        if let Some(Change { recipient: RecipientIndex(stray), .. }) =
            settlement.changes.iter().find(|change| change.recipient.0 as usize >= count)
        {
            return Err(SpoolError::Unavailable(format!(
                "a settlement of message {id} names recipient {stray}; it has {count}, counted from 0"
            )));
        }
        for (notification, lane) in settlement.notifications {
            store.insert(notification, &lane, None)?;
        }
        for record in settlement.journal {
            store.note(record);
        }
        let record = store.leased(id, self.node)?;
        record.handling.warned = settlement.warned;
        for Change { recipient, state, words, not_before } in settlement.changes {
            let recipient = &mut record.recipients[recipient.0 as usize];
            (recipient.state, recipient.diagnostic, recipient.not_before) = (state, Some(words), not_before);
        }
        for recipient in &mut record.recipients {
            recipient.last_provider = recipient.asked.take().or(recipient.last_provider.take());
        }
        record.owner = None;
        record.attempts = settlement.attempts;
        record.due = settlement.due;
        record.lane = settlement.lane.clone();
        let waits = record.is_waiting();
        let finished = record.recipients.iter().all(|recipient| recipient.state.is_final());
        if waits {
            store.enqueue(&settlement.lane, settlement.due, id);
        } else if finished {
            store.messages.remove(&id);
        }
        Ok(())
    }
}

impl Default for MemorySpool {
    fn default() -> Self {
        Self::new()
    }
}

impl BodySink for MemorySink {
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), SpoolError>> + Send {
        let writable = self.store.lock().writable();
        if writable.is_ok() {
            self.bytes.extend_from_slice(&bytes);
        }
        ready(writable)
    }

    fn finish(self) -> impl Future<Output = Result<Body, SpoolError>> + Send {
        let writable = self.store.lock().writable();
        ready(writable.map(|()| Body::Inline(self.bytes.freeze())))
    }
}

impl Spool for MemorySpool {
    type Sink = MemorySink;

    fn body(&self, _id: MessageId) -> MemorySink {
        MemorySink { store: Arc::clone(&self.store), bytes: BytesMut::new() }
    }

    async fn store(&self, message: Arc<Message>, lane: &Lane, lease: bool) -> Result<(), SpoolError> {
        let mut store = self.store.lock();
        store.writable()?;
        store.insert(message, lane, lease.then_some(self.node))
    }

    async fn store_instead(
        &self,
        key: &str,
        message: Arc<Message>,
        lane: &Lane,
        lease: bool,
        record: Option<String>,
    ) -> Result<(), SpoolError> {
        let mut store = self.store.lock();
        store.writable()?;
        store.insert(message, lane, lease.then_some(self.node))?;
        store.notes.remove(key);
        record.into_iter().for_each(|record| store.note(record));
        Ok(())
    }

    async fn claim(&self, now: SystemTime, wants: &[Want], octets: u64) -> Result<Vec<Claimed>, SpoolError> {
        self.claim_now(now, wants, octets)
    }

    async fn lanes(&self, limit: usize) -> Result<Vec<WaitingLane>, SpoolError> {
        let store = self.store.lock();
        store.readable()?;
        let first =
            |(lane, waiting): (&Lane, &BTreeSet<_>)| Some(WaitingLane { lane: lane.clone(), due: waiting.first().map(|(due, _)| *due)? });
        let mut lanes: Vec<_> = store.waiting.iter().filter_map(first).collect();
        lanes.sort_by_key(|waiting| waiting.due);
        lanes.truncate(limit);
        Ok(lanes)
    }

    async fn begin(&self, id: MessageId, provider: &ProviderName, recipients: &[RecipientIndex]) -> Result<(), SpoolError> {
        let mut store = self.store.lock();
        store.writable()?;
        let record = store.leased(id, self.node)?;
        let number = handover(record.attempts, recipients);
        for index in recipients {
            if let Some(recipient) = record.recipients.get_mut(index.0 as usize).filter(|recipient| recipient.state.is_open()) {
                recipient.asked = Some(provider.clone());
                recipient.handover = number;
            }
        }
        Ok(())
    }

    async fn settle(&self, settlement: Settlement) -> Result<(), SpoolError> {
        self.settle_now(settlement)
    }

    async fn release(&self, id: MessageId, lane: &Lane, due: SystemTime) -> Result<(), SpoolError> {
        let mut store = self.store.lock();
        store.writable()?;
        let record = store.leased(id, self.node)?;
        record.give_back();
        record.due = due;
        record.lane = lane.clone();
        store.enqueue(lane, due, id);
        Ok(())
    }

    async fn renew(&self, now: SystemTime, until: SystemTime) -> Result<Recovered, SpoolError> {
        let mut guard = self.store.lock();
        let store = &mut *guard;
        store.writable()?;
        store.alive_until.insert(self.node, until);
        store.alive_until.retain(|node, alive_until| *node == self.node || *alive_until >= now);
        let alive: Vec<u64> = store.alive_until.keys().copied().collect();
        let mut recovered = store.take_back(|node| !alive.contains(&node));
        recovered.set_aside = std::mem::take(&mut store.set_aside);
        Ok(recovered)
    }

    async fn quota_use(&self, quota: &str) -> Result<Vec<QuotaUse>, SpoolError> {
        let store = self.store.lock();
        store.readable()?;
        let of_quota = store.quotas.iter().filter(|((name, ..), _)| name == quota);
        Ok(of_quota.map(|((_, slot, share), used)| QuotaUse { share: Arc::clone(share), slot: *slot, used: *used }).collect())
    }

    fn use_quota(&self, quota: &str, QuotaUse { share, slot, used }: QuotaUse, since: u64) {
        let mut store = self.store.lock();
        store.quotas.retain(|(name, slot, _), _| name != quota || *slot >= since);
        store.quotas.insert((quota.to_owned(), slot, share), used);
    }

    async fn remember(&self, key: &str, value: Option<String>) -> Result<(), SpoolError> {
        let mut store = self.store.lock();
        store.writable()?;
        match value {
            Some(value) => store.notes.insert(key.to_owned(), value),
            None => store.notes.remove(key),
        };
        Ok(())
    }

    async fn recall(&self, prefix: &str) -> Result<Vec<(String, String)>, SpoolError> {
        let store = self.store.lock();
        store.readable()?;
        let from = store.notes.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(from.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    async fn journal(&self, after: u64, limit: usize) -> Result<Vec<(u64, String)>, SpoolError> {
        let store = self.store.lock();
        store.readable()?;
        Ok(store.journal.range(after + 1..).take(limit).map(|(number, record)| (*number, record.clone())).collect())
    }

    async fn journal_length(&self) -> Result<u64, SpoolError> {
        let store = self.store.lock();
        store.readable()?;
        Ok(store.journal.len() as u64)
    }

    async fn forget_journal(&self, last: u64) -> Result<(), SpoolError> {
        let mut store = self.store.lock();
        store.readable()?;
        store.journal.retain(|number, _| *number > last);
        Ok(())
    }

    async fn note(&self, record: String) -> Result<(), SpoolError> {
        let mut store = self.store.lock();
        store.writable()?;
        store.note(record);
        Ok(())
    }

    async fn summary(&self) -> Result<Summary, SpoolError> {
        self.summary_now()
    }

    async fn list(&self, filter: &Filter, now: SystemTime, after: Option<MessageId>, limit: usize) -> Result<Vec<Listed>, SpoolError> {
        let mut listed = self.list_now(filter, now, after)?;
        listed.truncate(limit);
        Ok(listed)
    }

    async fn ids(&self, filter: &Filter, now: SystemTime, after: Option<MessageId>, limit: usize) -> Result<Vec<MessageId>, SpoolError> {
        Ok(self.list_now(filter, now, after)?.iter().take(limit).map(|listed| listed.id).collect())
    }

    async fn count(&self, filter: &Filter, now: SystemTime) -> Result<u64, SpoolError> {
        Ok(self.list_now(filter, now, None)?.len() as u64)
    }

    async fn read(&self, id: MessageId) -> Result<Option<(Stored, Listed)>, SpoolError> {
        self.read_now(id)
    }

    async fn act(&self, targets: Vec<Target>, action: Action, now: SystemTime) -> Result<Vec<Done>, SpoolError> {
        self.act_now(targets, &action, now)
    }

    async fn take(&self, id: MessageId) -> Result<Result<Stored, Done>, SpoolError> {
        self.take_now(id)
    }

    async fn counts(&self) -> Result<SpoolCounts, SpoolError> {
        let store = self.store.lock();
        store.readable()?;
        let held = || store.messages.values().filter(|record| record.owner.is_none() && !record.is_waiting());
        let is_dead = |record: &&Record| record.recipients.iter().any(|recipient| recipient.state == RecipientState::Dead);
        Ok(SpoolCounts {
            messages: store.messages.len() as u64,
            waiting: store.waiting.values().map(|lane| lane.len() as u64).sum(),
            held: held().count() as u64,
            dead: held().filter(is_dead).count() as u64,
        })
    }

    async fn check(&self) -> Result<(), SpoolError> {
        self.store.lock().writable()
    }

    async fn failure(&self) -> String {
        std::future::pending().await
    }

    async fn close(&self, _timeout: Duration) -> Result<(), SpoolError> {
        let mut store = self.store.lock();
        store.readable()?;
        let node = self.node;
        store.take_back(|owner| owner == node);
        store.closed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::{self, Fixture};
    use super::*;

    struct InMemory(MemorySpool);

    impl Fixture for InMemory {
        type Spool = MemorySpool;

        async fn fresh() -> Self {
            Self(MemorySpool::new())
        }

        fn spool(&self) -> &MemorySpool {
            &self.0
        }

        async fn another_node(&self) -> MemorySpool {
            self.0.another_node()
        }

        async fn crash(&mut self) -> Recovered {
            let (spool, recovered) = self.0.crash();
            self.0 = spool;
            recovered
        }

        async fn spoil(&self, id: MessageId) {
            self.0.spoil(id);
        }
    }

    suite::every_promise!(InMemory);

    #[tokio::test]
    async fn a_fault_stops_what_writes_until_it_is_taken_away() {
        let spool = MemorySpool::new();
        spool.set_fault(Some(SpoolError::Full("as asked".into())));
        assert!(matches!(spool.check().await, Err(SpoolError::Full(_))));
        assert!(matches!(spool.store(suite::message(1, b"x"), &suite::lane(), false).await, Err(SpoolError::Full(_))));
        assert!(matches!(spool.body(MessageId::generate()).finish().await, Err(SpoolError::Full(_))));
        assert_eq!(spool.counts().await.unwrap(), SpoolCounts::default());
        spool.set_fault(None);
        spool.store(suite::message(1, b"x"), &suite::lane(), false).await.unwrap();
    }
}
