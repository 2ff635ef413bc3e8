//! What people ask about the messages in memory, and do to them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use postrider_providers::contract::{MessageId, OriginalRecipient};

use super::{MemorySpool, Record, Store};
use crate::spool::action::{Action, Done, Readdressing, Target, words};
use crate::spool::filter::Filter;
use crate::spool::view::{Lane, LaneSummary, Listed, ListedRecipient, QueueState, Summary};
use crate::spool::{RecipientState, SpoolError, Stored};

impl Record {
    fn state(&self) -> QueueState {
        let any = |is: fn(&RecipientState) -> bool| self.recipients.iter().any(|recipient| is(&recipient.state));
        if any(|state| *state == RecipientState::Dead) {
            QueueState::Dead
        } else if self.held_at.is_some() || any(|state| matches!(state, RecipientState::Held(_))) {
            QueueState::Held
        } else if self.owner.is_some() {
            QueueState::Active
        } else if any(|state| matches!(state, RecipientState::InDoubt(_))) {
            QueueState::InDoubt
        } else if self.attempts > 0 {
            QueueState::Deferred
        } else {
            QueueState::Queued
        }
    }

    fn listed(&self) -> Listed {
        let message = &self.message;
        let recipients = message.envelope.recipients.iter().zip(&self.recipients).map(|(recipient, standing)| ListedRecipient {
            address: recipient.address.as_str().to_owned(),
            state: standing.state.clone(),
            last_provider: standing.asked.clone().or_else(|| standing.last_provider.clone()),
            diagnostic: standing.diagnostic.clone(),
        });
        Listed {
            id: message.id,
            state: self.state(),
            lane: self.lane.clone(),
            received: message.received,
            due: self.is_waiting().then_some(self.due),
            held_at: self.held_at,
            attempts: self.attempts,
            sender: message.envelope.reverse_path.address().map(|address| address.as_str().to_owned()),
            recipients: recipients.collect(),
            size: message.body.len(),
            application: message.origin.application.clone(),
            client: message.origin.client,
            message_id: message.origin.message_id.clone(),
            rerouted: self.handling.rerouted.clone(),
        }
    }

    fn is_only_dead(&self) -> bool {
        let mut left = self.recipients.iter().map(|recipient| &recipient.state).filter(|state| !state.is_final()).peekable();
        left.peek().is_some() && left.all(|state| *state == RecipientState::Dead)
    }

    /// Why the action does not apply.
    fn refusal(&self, action: &Action) -> Option<String> {
        let is_open = self.recipients.iter().any(|recipient| recipient.state.is_open());
        let held = self.held_at.is_some();
        let stuck = |state: &RecipientState| matches!(state, RecipientState::Held(_) | RecipientState::Dead);
        match action {
            Action::Retry if held => Some(words::HELD.to_owned()),
            Action::Hold if held => Some(words::HELD_ALREADY.to_owned()),
            Action::Retry | Action::Hold if !is_open => Some(words::WAITS_FOR_A_PERSON.to_owned()),
            Action::Release if !held && !self.recipients.iter().any(|recipient| stuck(&recipient.state)) => {
                Some(words::NOT_HELD.to_owned())
            }
            Action::Discard if held || !self.is_only_dead() => Some(words::NOT_ONLY_DEAD.to_owned()),
            Action::Readdress { .. } => self.readdressing(action).err(),
            Action::Bounce(_) => Some(words::NOT_HERE.to_owned()),
            _ => None,
        }
    }

    fn readdressing(&self, action: &Action) -> Result<Vec<i64>, String> {
        let Action::Readdress { from, to } = action else { return Ok(Vec::new()) };
        let mut readdressing = Readdressing::new(from, to, self.message.envelope.smtputf8);
        for (position, (recipient, standing)) in (0..).zip(self.message.envelope.recipients.iter().zip(&self.recipients)) {
            let state = match &standing.state {
                RecipientState::Pending => "pending",
                RecipientState::Dead => "dead",
                RecipientState::InDoubt(_) | RecipientState::Held(_) => "held",
                RecipientState::Relayed | RecipientState::Bounced | RecipientState::Expired => "finished",
            };
            readdressing.look_at(position, recipient.address.as_str(), state);
        }
        readdressing.positions()
    }

    fn release(&mut self, now: SystemTime) {
        let since = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        let (mut deaths, mut doubts) = (false, false);
        for recipient in &mut self.recipients {
            match recipient.state.clone() {
                RecipientState::Held(provider) => recipient.state = RecipientState::InDoubt(provider),
                RecipientState::Dead => {
                    recipient.state = RecipientState::Pending;
                    deaths = true;
                }
                _ => {}
            }
            doubts |= matches!(recipient.state, RecipientState::InDoubt(_));
        }
        let held = self.held_at.take().map(since).unwrap_or_default();
        self.handling.idle += held;
        if deaths {
            self.handling.idle = since(self.message.received);
            self.handling.warned = false;
            if !doubts {
                self.attempts = 0;
            }
        }
        self.due = now;
    }

    fn readdress(&mut self, action: &Action) {
        let Action::Readdress { from, to } = action else { return };
        let positions = self.readdressing(action).unwrap_or_default();
        let mut message = (*self.message).clone();
        for position in positions.into_iter().filter_map(|position| usize::try_from(position).ok()) {
            let recipient = &mut message.envelope.recipients[position];
            recipient.address = to.clone();
            let kind = if from.is_ascii() { "rfc822" } else { "utf-8" };
            recipient.original = recipient.original.take().or_else(|| OriginalRecipient::new(kind, from.as_str()).ok());
            self.recipients[position].handover = None;
        }
        self.message = message.into();
    }
}

impl Store {
    /// All messages that `filter` means, by id.
    fn meant(&self, filter: &Filter, now: SystemTime, after: Option<MessageId>) -> Vec<Listed> {
        let mut all: Vec<_> = self
            .messages
            .iter()
            .filter(|(id, _)| after.is_none_or(|after| **id > after))
            .map(|(_, record)| record.listed())
            .filter(|listed| filter.matches(listed, now))
            .collect();
        all.sort_by_key(|listed| listed.id);
        all
    }

    fn act(&mut self, node: u64, target: Target, action: &Action, now: SystemTime) -> Done {
        let id = target.id;
        let Some(record) = self.messages.get_mut(&id) else { return Done::Gone };
        if record.owner.is_some_and(|owner| !(owner == node && target.handed_over)) {
            return Done::Busy;
        }
        if let Some(why) = record.refusal(action) {
            return Done::Refused(why);
        }
        let (lane, due) = (record.lane.clone(), record.due);
        record.give_back();
        if !matches!(action, Action::Hold) {
            record.recipients.iter_mut().for_each(|recipient| recipient.not_before = None);
        }
        match action {
            Action::Retry | Action::Bounce(_) => record.due = now,
            Action::Hold => record.held_at = Some(now),
            Action::Release => record.release(now),
            Action::Remove | Action::Discard => {
                self.messages.remove(&id);
            }
            Action::Reroute(route) => {
                record.handling.rerouted = Some(route.clone());
                record.lane.route = route.clone();
                record.due = now;
            }
            Action::Readdress { .. } => {
                record.readdress(action);
                record.due = now;
            }
        }
        self.dequeue(&lane, due, id);
        if let Some(record) = self.messages.get(&id).filter(|record| record.is_waiting()) {
            let (lane, due) = (record.lane.clone(), record.due);
            self.enqueue(&lane, due, id);
        }
        self.note(target.record);
        Done::Done
    }
}

impl MemorySpool {
    pub(super) fn summary_now(&self) -> Result<Summary, SpoolError> {
        let store = self.store.lock();
        store.readable()?;
        let mut parts: BTreeMap<(Lane, QueueState), LaneSummary> = BTreeMap::new();
        for listed in store.messages.values().map(Record::listed) {
            let (lane, state, oldest) = (listed.lane.clone(), listed.state, listed.received);
            let empty = || LaneSummary { lane: lane.clone(), state, messages: 0, octets: 0, oldest, next_due: None };
            let part = parts.entry((lane.clone(), state)).or_insert_with(empty);
            part.messages += 1;
            part.octets += listed.size;
            part.oldest = part.oldest.min(listed.received);
            part.next_due = part.next_due.into_iter().chain(listed.due).min();
        }
        Ok(Summary { lanes: parts.into_values().collect(), set_aside: store.set_aside.len() as u64 })
    }

    pub(super) fn list_now(&self, filter: &Filter, now: SystemTime, after: Option<MessageId>) -> Result<Vec<Listed>, SpoolError> {
        let store = self.store.lock();
        store.readable()?;
        Ok(store.meant(filter, now, after))
    }

    pub(super) fn read_now(&self, id: MessageId) -> Result<Option<(Stored, Listed)>, SpoolError> {
        let store = self.store.lock();
        store.readable()?;
        Ok(store.messages.get(&id).map(|record| (record.stored(), record.listed())))
    }

    pub(super) fn act_now(&self, targets: Vec<Target>, action: &Action, now: SystemTime) -> Result<Vec<Done>, SpoolError> {
        let mut store = self.store.lock();
        store.writable()?;
        Ok(targets.into_iter().map(|target| store.act(self.node, target, action, now)).collect())
    }

    pub(super) fn take_now(&self, id: MessageId) -> Result<Result<Stored, Done>, SpoolError> {
        let mut guard = self.store.lock();
        let store = &mut *guard;
        store.writable()?;
        let Some(record) = store.messages.get_mut(&id) else { return Ok(Err(Done::Gone)) };
        if record.owner.is_some() {
            return Ok(Err(Done::Busy));
        }
        let (lane, due, stored) = (record.lane.clone(), record.due, record.lease(self.node));
        store.dequeue(&lane, due, id);
        Ok(Ok(stored))
    }
}
