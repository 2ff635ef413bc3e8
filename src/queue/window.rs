//! The bounded part of the queue that is in memory: ready to go, or parked for a reason, by lane.
//!
//! Everything here takes turns over lanes (`turns`): what is ready, what is parked for one reason
//! (`parked`), and what is fetched from the store (`backlog`). No lane and no reason can fill the window:
//! each may hold as much as is left free by all, so that there is always room for one more.

mod backlog;
mod parked;
mod room;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postrider_providers::contract::{Body, MessageId};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::backlog::{Backlog, Outlook};
use self::parked::Parked;
use self::room::{Amount, Usage};
pub(super) use self::room::{Entry, Room};
use self::turns::{Tickets, Turns};
use crate::clock::Clock;
use crate::spool::view::Lane;
use crate::spool::{Stored, WaitingLane, Want};

/// How many parked messages are let go at once when their time has come. Those that find nothing left
/// are parked again, in the place they had.
const BATCH: usize = 32;

/// So many of those that are let go may come before one that is fresh.
const WOKEN_IN_A_ROW: u32 = 3;

/// When to look again for what is left after a batch, if no refusal says otherwise.
const TICK: Duration = Duration::from_millis(2);

/// From how many lanes one claim fetches: the store commits them together.
const LANES_AT_ONCE: usize = 64;

/// The most messages that one claim fetches.
const MOST_AT_ONCE: usize = 1000;

/// Why a message waits though it is due: a limit, an open circuit, a provider with all its hands full.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WaitReason(Arc<str>);

impl WaitReason {
    /// A reason by its name, which stands in logs.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The reason's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The window.
#[derive(Debug)]
pub(super) struct Window {
    max_messages: usize,
    max_octets: u64,
    clock: Clock,
    usage: Arc<Usage>,
    state: Mutex<State>,
    ready: Notify,
    /// Something was parked until a moment before `looks_at`.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What has not been refused, by lane.
    fresh: Turns<MessageId, Entry>,
    /// What was parked and is let go, in the order in which that happened.
    woken: VecDeque<Entry>,
    /// How many of those came one after the other.
    woken_in_a_row: u32,
    parked: HashMap<WaitReason, Parked>,
    /// What is parked for all reasons together.
    all_parked: Amount,
    backlog: Backlog,
    /// Where each message is.
    places: HashMap<MessageId, Place>,
    tickets: Tickets,
    /// When [`Window::run`] will look at what is parked, if it sleeps.
    looks_at: Option<Instant>,
}

/// Where a message of the window is, unless it is leased.
#[derive(Debug)]
enum Place {
    Fresh(Lane),
    Woken,
    Parked(WaitReason, Lane),
}

/// What to fetch from the store.
#[derive(Debug)]
pub(super) enum Fetch {
    /// As much as this of these lanes, and no more octets than that.
    Claim(Vec<Want>, u64),
    /// The lanes in which mail waits are not all known, and have to be looked up.
    LookUp,
    /// Nothing before then, as far as is known.
    Wait(Option<SystemTime>),
    /// Nothing: the window is full.
    Full,
}

impl Window {
    pub(super) fn new(max_messages: usize, max_octets: u64, clock: Clock) -> Self {
        Self {
            max_messages,
            max_octets,
            clock,
            usage: Arc::default(),
            state: Mutex::default(),
            ready: Notify::new(),
            sooner: Notify::new(),
        }
    }

    /// A place for a fresh message with this body, if there is one, and its lane has not used its share
    /// and has nobody in the store who came first.
    pub(super) fn reserve(&self, lane: &Lane, body: &Body) -> Option<Room> {
        let room = Room::take(&self.usage, body);
        let state = self.state.lock();
        let waiting = state.backlog.get(lane).map_or(0, |known| known.waiting);
        let fits = self.len() <= self.max_messages
            && self.usage.octets() <= self.max_octets
            && waiting < self.share(&state, lane).max(1)
            && !state.backlog.is_behind(lane, self.clock.now());
        drop(state);
        fits.then_some(room)
    }

    /// A fresh message, for which there is room.
    pub(super) fn push(&self, room: Room, lane: Lane, stored: Stored) {
        self.state.lock().push(Entry::new(stored, lane, room));
        self.ready.notify_one();
    }

    /// Something of a lane waits in the store, due then.
    pub(super) fn note(&self, lane: &Lane, due: SystemTime) {
        let mut state = self.state.lock();
        state.backlog.note(lane, due);
        self.list(&mut state, lane);
        drop(state);
        self.usage.changed.notify_one();
    }

    /// What was looked up in the store, up to `limit` lanes.
    pub(super) fn looked_up(&self, found: &[WaitingLane], limit: usize) {
        let mut state = self.state.lock();
        state.backlog.looked_up(found.last().filter(|_| found.len() >= limit).map(|last| last.due));
        for WaitingLane { lane, due } in found {
            state.backlog.note(lane, *due);
            self.list(&mut state, lane);
        }
    }

    /// What to fetch from the store now. Nothing until half of the window is free, so that the store is
    /// asked in large pieces.
    pub(super) fn fetch(&self) -> Fetch {
        let now = self.clock.now();
        let mut state = self.state.lock();
        while let Some(lane) = state.backlog.next_due(now) {
            self.list(&mut state, &lane);
        }
        loop {
            let lanes = match state.backlog.outlook(now) {
                Outlook::Later(due) => return Fetch::Wait(due),
                Outlook::Unknown => return Fetch::LookUp,
                Outlook::Now(lanes) => lanes.min(LANES_AT_ONCE),
            };
            let (messages, octets) = (self.len(), self.usage.octets());
            if messages > self.max_messages / 2 || octets > self.max_octets / 2 {
                return Fetch::Full;
            }
            let wants = self.wants(&mut state, lanes, (self.max_messages - messages).min(MOST_AT_ONCE));
            if !wants.is_empty() {
                return Fetch::Claim(wants, (self.max_octets - octets).max(1));
            }
        }
    }

    /// What to claim from the next lanes; a lane whose share has become smaller is passed over.
    fn wants(&self, state: &mut State, lanes: usize, messages: usize) -> Vec<Want> {
        let mut wants = Vec::with_capacity(lanes);
        for _ in 0..lanes {
            let State { backlog, tickets, .. } = &mut *state;
            let Some(lane) = backlog.next_turn(tickets) else { break };
            if self.may_claim(state, &lane) {
                let waiting = state.backlog.get(&lane).map_or(0, |known| known.waiting);
                let limit = self.share(state, &lane).saturating_sub(waiting).clamp(1, (messages / lanes).max(1));
                state.backlog.ask(&lane);
                wants.push(Want { lane, limit });
            }
        }
        wants
    }

    /// What was claimed from a lane, each message with the lane that it is in by now, and when the next is
    /// due that is left there.
    pub(super) fn admit(&self, lane: &Lane, claimed: Vec<(Stored, Lane)>, next_due: Option<SystemTime>) {
        let mut state = self.state.lock();
        for (stored, lane) in claimed {
            let room = Room::take(&self.usage, &stored.message.body);
            state.push(Entry::new(stored, lane, room));
        }
        state.backlog.answered(lane, next_due);
        self.list(&mut state, lane);
        drop(state);
        self.ready.notify_one();
    }

    /// Resolves when something has left the window, or waits in the store, since it was last asked.
    pub(super) async fn changed(&self) {
        self.usage.changed.notified().await;
    }

    pub(super) fn len(&self) -> usize {
        self.usage.messages()
    }

    /// Messages that wait for nothing but to be taken.
    pub(super) fn ready(&self) -> usize {
        let state = self.state.lock();
        state.fresh.len() + state.woken.len()
    }

    /// The message whose turn it is. It comes back by [`Window::park`], [`Window::put_back`] or
    /// [`Window::finish`].
    pub(super) async fn pop(&self) -> Entry {
        loop {
            let ready = self.ready.notified();
            {
                let mut state = self.state.lock();
                if let Some(entry) = state.pop() {
                    // One notification may stand for several messages.
                    if !(state.woken.is_empty() && state.fresh.is_empty()) {
                        self.ready.notify_one();
                    }
                    return entry;
                }
            }
            ready.await;
        }
    }

    /// Puts a message aside until `until`, until its reason is woken, or until its life `ends`. Gives
    /// it back when this reason holds too much of the window already, with the time in which there may
    /// be room; so long its lane is not fetched from.
    ///
    /// A reason may hold as much as is left free of what parking may take: the first one half of it,
    /// two a third each, and so on. However many reasons there are, something is left for the next
    /// one, and what is fetched from the store always finds room to move on.
    pub(super) fn park(&self, mut entry: Entry, reason: WaitReason, until: Instant, ends: Instant) -> Result<(), Box<(Entry, Duration)>> {
        let mut state = self.state.lock();
        let lane = entry.lane.clone();
        let free = self.free_for(&state, &reason);
        if free.messages == 0 || entry.room.octets > free.octets {
            let away = match state.parked.get_mut(&reason) {
                Some(parked) => parked.turn_away(&lane),
                // Others fill the window, and nothing tells when they go.
                None => parked::overflow(until.saturating_duration_since(Instant::now())),
            };
            state.backlog.keep_away(&lane, self.clock.now() + away);
            return Err(Box::new((entry, away)));
        }
        let State { parked, all_parked, backlog, places, tickets, looks_at, .. } = &mut *state;
        entry.ends = ends;
        all_parked.add(entry.room.octets);
        places.insert(entry.stored.message.id, Place::Parked(reason.clone(), lane.clone()));
        let known = backlog.known(&lane);
        known.waiting += 1;
        known.parked += 1;
        known.parked_for = Some(reason.clone());
        let parked = parked.entry(reason.clone()).or_insert_with(|| Parked::new(until));
        parked.until = until;
        parked.add(entry, &reason, tickets);
        let until = until.min(ends);
        if looks_at.is_none_or(|looks_at| until < looks_at) {
            self.sooner.notify_one();
        }
        self.list(&mut state, &lane);
        Ok(())
    }

    /// Puts a message back that nobody has attempted.
    pub(super) fn put_back(&self, entry: Entry) {
        self.state.lock().push(entry);
        self.ready.notify_one();
    }

    /// A message has left the window: it is finished, or waits in the store alone.
    pub(super) fn finish(&self, entry: Entry) {
        let mut state = self.state.lock();
        let known = state.backlog.known(&entry.lane);
        if known.parked == 0 {
            known.parked_for = None;
        }
        self.list(&mut state, &entry.lane);
        drop(state);
        drop(entry);
    }

    /// Lets up to `count` messages go that wait for `reason`.
    pub(super) fn wake(&self, reason: &WaitReason, count: usize) {
        let mut state = self.state.lock();
        self.release(&mut state, reason, count);
        drop(state);
        self.ready.notify_one();
    }

    /// Lets all go that waits for anything.
    pub(super) fn wake_all(&self) {
        let mut state = self.state.lock();
        let reasons: Vec<WaitReason> = state.parked.keys().cloned().collect();
        for reason in reasons {
            self.release(&mut state, &reason, usize::MAX);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// What a message waits for, if it is parked; `None` also if it is not here or leased.
    pub(super) fn waits_for(&self, id: MessageId) -> Option<WaitReason> {
        match self.state.lock().places.get(&id) {
            Some(Place::Parked(reason, _)) => Some(reason.clone()),
            _ => None,
        }
    }

    /// The same, and when it comes back at the latest.
    pub(super) fn waits_until(&self, id: MessageId) -> Option<(WaitReason, Instant)> {
        let state = self.state.lock();
        let Some(Place::Parked(reason, _)) = state.places.get(&id) else { return None };
        Some((reason.clone(), state.parked.get(reason)?.until))
    }

    /// How many messages are parked for this reason.
    pub(super) fn parked_for(&self, reason: &WaitReason) -> usize {
        self.state.lock().parked.get(reason).map_or(0, |parked| parked.amount.messages)
    }

    /// Takes a message out, ready or parked, as if it were leased; `None` if it is not here or leased.
    pub(super) fn take(&self, id: MessageId) -> Option<Entry> {
        let mut state = self.state.lock();
        let State { fresh, woken, parked, all_parked, backlog, places, .. } = &mut *state;
        let entry = match places.remove(&id)? {
            Place::Fresh(lane) => fresh.remove(&lane, &id),
            Place::Woken => {
                let position = woken.iter().position(|entry| entry.stored.message.id == id)?;
                woken.remove(position)
            }
            Place::Parked(reason, lane) => {
                let entry = parked.get_mut(&reason)?.remove(&lane, id)?;
                all_parked.subtract(entry.room.octets);
                backlog.known(&lane).parked -= 1;
                Some(entry)
            }
        }?;
        backlog.known(&entry.lane).waiting -= 1;
        Some(entry)
    }

    /// A message that was leased in the store by itself, as if it were leased from here.
    pub(super) fn lend(&self, stored: Stored, lane: Lane) -> Entry {
        let room = Room::take(&self.usage, &stored.message.body);
        Entry::new(stored, lane, room)
    }

    /// Lets parked messages go when their time comes, for ever.
    pub(super) async fn run(&self) {
        loop {
            let sooner = self.sooner.notified();
            match self.wake_due(Instant::now()) {
                Some(next) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(next) => {}
                        () = sooner => {}
                    }
                }
                None => sooner.await,
            }
        }
    }

    /// Lets go whose time has come; says when to look again.
    fn wake_due(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let due: Vec<_> = state
            .parked
            .iter()
            .filter(|(_, parked)| parked.looks_at().is_none_or(|at| at <= now))
            .map(|(reason, _)| reason.clone())
            .collect();
        for reason in due {
            if let Some(parked) = state.parked.get_mut(&reason)
                && parked.until <= now
            {
                parked.until = now + TICK;
                self.release(&mut state, &reason, BATCH);
            }
            // Whoever's time is over altogether has to be told so, whatever it waits for.
            while let Some(entry) = state.parked.get_mut(&reason).and_then(|parked| parked.next_ended(now)) {
                state.wake(entry);
            }
            self.close(&mut state, &reason);
        }
        if !state.woken.is_empty() {
            self.ready.notify_one();
        }
        state.looks_at = state.parked.values().filter_map(Parked::looks_at).min();
        state.looks_at
    }

    fn release(&self, state: &mut State, reason: &WaitReason, count: usize) {
        for _ in 0..count {
            let State { parked, tickets, .. } = &mut *state;
            let Some(entry) = parked.get_mut(reason).and_then(|parked| parked.next(reason, tickets)) else { break };
            state.wake(entry);
        }
        self.close(state, reason);
    }

    /// When nothing is parked for a reason any more, those may come who found no room.
    fn close(&self, state: &mut State, reason: &WaitReason) {
        if state.parked.get(reason).is_none_or(|parked| !parked.is_empty()) {
            return;
        }
        let Some(parked) = state.parked.remove(reason) else { return };
        for lane in &parked.turned_away {
            state.backlog.let_back(lane);
            self.list(state, lane);
        }
        self.usage.changed.notify_one();
    }

    /// How much more may be parked for a reason.
    fn free_for(&self, state: &State, reason: &WaitReason) -> Amount {
        let held = state.parked.get(reason).map_or_else(Amount::default, |parked| parked.amount);
        // A little less than the half that has to be free before more is fetched.
        let (messages, octets) = (self.max_messages * 7 / 16, self.max_octets / 16 * 7);
        Amount {
            messages: messages.saturating_sub(state.all_parked.messages + held.messages),
            octets: octets.saturating_sub(state.all_parked.octets + held.octets),
        }
    }

    /// How many messages of a lane may be here: as many as is left free, and of one that is kept back by
    /// something no more than keeps it moving.
    fn share(&self, state: &State, lane: &Lane) -> usize {
        match state.backlog.get(lane).and_then(|known| known.parked_for.as_ref()) {
            Some(reason) => (self.max_messages / 16).min(self.free_for(state, reason).messages),
            None => (self.max_messages / 4).min(self.max_messages.saturating_sub(self.len())),
        }
    }

    /// Whether more of a lane may be fetched: when half of its share is used up.
    fn may_claim(&self, state: &State, lane: &Lane) -> bool {
        state.backlog.get(lane).is_none_or(|known| known.waiting <= self.share(state, lane) / 2)
    }

    fn list(&self, state: &mut State, lane: &Lane) {
        let may_claim = self.may_claim(state, lane);
        let State { backlog, tickets, .. } = state;
        backlog.list(lane, may_claim, self.clock.now(), tickets);
        backlog.tidy(lane);
        if backlog.has_turns() {
            self.usage.changed.notify_one();
        }
    }
}

impl State {
    fn push(&mut self, entry: Entry) {
        let (id, lane) = (entry.stored.message.id, entry.lane.clone());
        self.places.insert(id, Place::Fresh(lane.clone()));
        self.backlog.known(&lane).waiting += 1;
        self.fresh.push(&lane, id, entry, None, &mut self.tickets);
    }

    /// Lets a message go that was parked until now.
    fn wake(&mut self, entry: Entry) {
        self.all_parked.subtract(entry.room.octets);
        self.backlog.known(&entry.lane).parked -= 1;
        self.places.insert(entry.stored.message.id, Place::Woken);
        self.woken.push_back(entry);
    }

    /// What is woken comes first: what is fresh would take from it what it has waited for. But some of that
    /// comes in between, which may wait for nothing.
    fn pop(&mut self) -> Option<Entry> {
        let fresh_is_next = self.woken.is_empty() || self.woken_in_a_row >= WOKEN_IN_A_ROW;
        let entry = if fresh_is_next && !self.fresh.is_empty() {
            self.woken_in_a_row = 0;
            self.fresh.pop(&mut self.tickets)?.2
        } else {
            self.woken_in_a_row += 1;
            self.woken.pop_front()?
        };
        self.places.remove(&entry.stored.message.id);
        self.backlog.known(&entry.lane).waiting -= 1;
        Some(entry)
    }
}
