//! From a settlement to the record of it that the history gets.

use std::collections::HashMap;
use std::time::SystemTime;

use postrider_providers::contract::{ProviderName, RecipientIndex};

use super::Disposition;
use crate::history::event::{About, Event, Record, millis, words};
use crate::spool::{Change, Doubt, RecipientState, Settlement, Stored};

/// What a settlement does not say of an attempt any more.
#[derive(Debug, Default)]
pub(super) struct Fates(HashMap<RecipientIndex, Fate>);

#[derive(Debug)]
enum Fate {
    /// To whom, and its id for the message.
    Relayed(ProviderName, Option<String>),
    /// In doubt by this attempt, not by one before.
    InDoubt,
}

impl Fates {
    pub(super) fn of(dispositions: &[(RecipientIndex, Disposition)]) -> Self {
        let fate = |disposition: &Disposition| match disposition {
            Disposition::Relayed(provider, receipt) => Some(Fate::Relayed(provider.clone(), receipt.remote_id.clone())),
            Disposition::InDoubt { .. } => Some(Fate::InDoubt),
            Disposition::Bounced(_) | Disposition::Deferred(_) | Disposition::Waiting(..) => None,
        };
        Self(dispositions.iter().filter_map(|(index, disposition)| Some((*index, fate(disposition)?))).collect())
    }
}

/// The record of a settlement; none when it changed nothing.
pub(super) fn record(
    stored: &Stored,
    settled: &Settlement,
    tries: Vec<Event>,
    told: Vec<Event>,
    fates: &Fates,
    now: SystemTime,
) -> Option<String> {
    let mut events = tries;
    let first_change = events.len();
    for Change { recipient, state, words: said, not_before } in &settled.changes {
        let due = not_before.unwrap_or(settled.due);
        add(&mut events, first_change, event(state, fates.0.get(recipient), words(said.as_str()), due), recipient.0);
    }
    events.extend(told);
    // Whether the message leaves the queue with this.
    let ended = settled.states(stored).into_iter().all(RecipientState::is_final);
    if events.is_empty() && !ended {
        return None;
    }
    let is_first = stored.attempts == 0;
    let about = (is_first || ended).then(|| about(stored));
    Some(Record { at: millis(now), message: stored.message.id.to_string(), about, events, ended }.to_json())
}

/// The record of what a restart, or another node's end, left in doubt.
#[must_use]
pub fn doubt(doubt: &Doubt, now: SystemTime) -> String {
    let event = Event::InDoubt {
        recipients: doubt.recipients.iter().map(|index| index.0).collect(),
        provider: doubt.provider.to_string(),
        words: "the gateway ended before it had the provider's answer".to_owned(),
        held: false,
    };
    Record { at: millis(now), message: doubt.id.to_string(), about: None, events: vec![event], ended: false }.to_json()
}

/// The message as it was accepted.
pub(super) fn about(stored: &Stored) -> About {
    let message = &stored.message;
    About {
        received: millis(message.received),
        sender: message.envelope.reverse_path.address().map(ToString::to_string).unwrap_or_default(),
        recipients: message.envelope.recipients.iter().map(|recipient| recipient.address.to_string()).collect(),
        message_id: message.origin.message_id.clone(),
        size: message.body.len(),
        application: message.origin.application.clone(),
        client: message.origin.client.map(|client| client.to_string()),
    }
}

/// What became of a recipient; who it is comes later.
fn event(state: &RecipientState, fate: Option<&Fate>, words: String, due: SystemTime) -> Event {
    let recipients = Vec::new();
    match (state, fate) {
        (RecipientState::Relayed, Some(Fate::Relayed(provider, remote_id))) => {
            Event::Relayed { recipients, provider: provider.to_string(), remote_id: remote_id.clone(), words }
        }
        (RecipientState::Relayed, _) => Event::Relayed { recipients, provider: String::new(), remote_id: None, words },
        (RecipientState::InDoubt(provider), Some(Fate::InDoubt)) => {
            Event::InDoubt { recipients, provider: provider.to_string(), words, held: false }
        }
        (RecipientState::Held(provider), _) => Event::InDoubt { recipients, provider: provider.to_string(), words, held: true },
        (RecipientState::Pending | RecipientState::InDoubt(_), _) => Event::Deferred { recipients, words, due: millis(due) },
        (RecipientState::Bounced, _) => Event::Bounced { recipients, words },
        (RecipientState::Expired, _) => Event::Expired { recipients, words },
        (RecipientState::Dead, _) => Event::Dead { recipients, words },
    }
}

/// Puts a recipient into an event that says the same, or into this one.
fn add(events: &mut Vec<Event>, from: usize, mut event: Event, recipient: u32) {
    // Few recipients of a message fare differently, and those that do stand together.
    let same = events.iter_mut().skip(from).rev().take(8).find(|other| is_same(other, &event));
    if let Some(list) = same.and_then(recipients) {
        return list.push(recipient);
    }
    if let Some(list) = recipients(&mut event) {
        list.push(recipient);
    }
    events.push(event);
}

fn is_same(one: &Event, empty: &Event) -> bool {
    match (one, empty) {
        (Event::Relayed { provider, remote_id, words, .. }, Event::Relayed { provider: other, remote_id: other_id, words: said, .. }) => {
            (provider, remote_id, words) == (other, other_id, said)
        }
        (Event::Deferred { words, due, .. }, Event::Deferred { words: said, due: then, .. }) => (words, due) == (said, then),
        (Event::InDoubt { provider, words, held, .. }, Event::InDoubt { provider: other, words: said, held: holds, .. }) => {
            (provider, words, held) == (other, said, holds)
        }
        (Event::Bounced { words, .. }, Event::Bounced { words: said, .. })
        | (Event::Expired { words, .. }, Event::Expired { words: said, .. })
        | (Event::Dead { words, .. }, Event::Dead { words: said, .. }) => words == said,
        _ => false,
    }
}

fn recipients(event: &mut Event) -> Option<&mut Vec<u32>> {
    match event {
        Event::Relayed { recipients, .. }
        | Event::Deferred { recipients, .. }
        | Event::InDoubt { recipients, .. }
        | Event::Bounced { recipients, .. }
        | Event::Expired { recipients, .. }
        | Event::Dead { recipients, .. } => Some(recipients),
        Event::Attempt { .. } | Event::Notified { .. } | Event::Action { .. } => None,
    }
}
