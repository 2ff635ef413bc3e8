//! What is parked for one reason: it takes turns, and goes in time when its life ends.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use postrider_providers::contract::MessageId;
use tokio::time::Instant;

use super::WaitReason;
use super::backlog::MOST_LANES;
use super::room::{Amount, Entry};
use super::turns::{Tickets, Turns};
use crate::spool::view::Lane;

/// How long a lane stays in the store, at least and at most, whose mail found no room to wait in.
const SHORTEST_OVERFLOW: Duration = Duration::from_millis(200);
const LONGEST_OVERFLOW: Duration = Duration::from_secs(30);

/// How long to stay in the store for want of room, when nothing can go before `wait` is over: never so
/// briefly that asking again is all that happens, nor so long that room would be left unused.
pub(super) fn overflow(wait: Duration) -> Duration {
    wait.clamp(SHORTEST_OVERFLOW, LONGEST_OVERFLOW)
}

/// What is parked for one reason.
#[derive(Debug)]
pub(super) struct Parked {
    /// When some of it is let go.
    pub(super) until: Instant,
    pub(super) amount: Amount,
    /// Lanes that found no room here, and come again in time.
    pub(super) turned_away: HashSet<Lane>,
    turns: Turns<MessageId, Entry>,
    /// Whose life ends when.
    ends: BTreeMap<(Instant, MessageId), Lane>,
    /// When the first was parked, and how many went since: how fast they go.
    since: Instant,
    woken: u32,
}

impl Parked {
    pub(super) fn new(until: Instant) -> Self {
        Self {
            until,
            amount: Amount::default(),
            turned_away: HashSet::new(),
            turns: Turns::default(),
            ends: BTreeMap::new(),
            since: Instant::now(),
            woken: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// How long a lane should stay away for which there is no room: as long as those that are here will
    /// take at the pace so far, and not before they go at all.
    pub(super) fn turn_away(&mut self, lane: &Lane) -> Duration {
        if self.turned_away.len() < MOST_LANES {
            self.turned_away.insert(lane.clone());
        }
        let elapsed = self.since.elapsed();
        let drains_in = if elapsed < Duration::from_secs(1) {
            // Nothing is known yet.
            elapsed
        } else {
            elapsed.mul_f64(self.amount.messages as f64 / f64::from(self.woken.max(1)))
        };
        overflow(drains_in.max(self.until.saturating_duration_since(Instant::now())))
    }

    pub(super) fn add(&mut self, entry: Entry, reason: &WaitReason, tickets: &mut Tickets) {
        let back = entry.waited_for.as_ref().filter(|(waited_for, _)| waited_for == reason).map(|(_, ticket)| *ticket);
        if back.is_some() {
            // It did not get away.
            self.woken = self.woken.saturating_sub(1);
        }
        let (lane, id) = (entry.lane.clone(), entry.stored.message.id);
        self.amount.add(entry.room.octets);
        self.ends.insert((entry.ends, id), lane.clone());
        self.turns.push(&lane, id, entry, back, tickets);
    }

    /// Takes the one whose turn it is.
    pub(super) fn next(&mut self, reason: &WaitReason, tickets: &mut Tickets) -> Option<Entry> {
        let (_, ticket, mut entry) = self.turns.pop(tickets)?;
        entry.waited_for = Some((reason.clone(), ticket));
        self.woken = self.woken.saturating_add(1);
        self.forget(&entry);
        Some(entry)
    }

    /// Takes one whose life is over.
    pub(super) fn next_ended(&mut self, now: Instant) -> Option<Entry> {
        let ((ends, id), lane) = self.ends.first_key_value()?;
        let (id, lane) = (*id, lane.clone());
        if *ends > now { None } else { self.remove(&lane, id) }
    }

    /// Takes one out of turn.
    pub(super) fn remove(&mut self, lane: &Lane, id: MessageId) -> Option<Entry> {
        let mut entry = self.turns.remove(lane, &id)?;
        entry.waited_for = None;
        self.forget(&entry);
        Some(entry)
    }

    /// When to look here again.
    pub(super) fn looks_at(&self) -> Option<Instant> {
        self.ends.first_key_value().map(|((ends, _), _)| self.until.min(*ends))
    }

    fn forget(&mut self, entry: &Entry) {
        self.amount.subtract(entry.room.octets);
        self.ends.remove(&(entry.ends, entry.stored.message.id));
    }
}
