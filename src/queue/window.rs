//! The bounded part of the queue that is in memory: ready to go, or parked for a reason.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_providers::contract::{Body, MessageId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::spool::Stored;

/// How many parked messages are let go at once when their time has come, the oldest first. Those
/// that find nothing left are parked again, in the place they had.
const BATCH: usize = 32;

/// When to look again for what is left after a batch, if no refusal says otherwise.
const TICK: Duration = Duration::from_millis(2);

/// Those that are parked are stuck when they need longer than this at their pace.
const STUCK: Duration = Duration::from_secs(5);

/// How long a message stays in the store, at least and at most, for which there was no room to wait in.
const SHORTEST_OVERFLOW: Duration = Duration::from_millis(200);
const LONGEST_OVERFLOW: Duration = Duration::from_secs(10);

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
    usage: Arc<Usage>,
    state: Mutex<State>,
    ready: Notify,
    /// Something was parked until a moment before `looks_at`.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Entry>,
    parked: HashMap<WaitReason, Parked>,
    /// What is parked for all reasons together.
    all_parked: Amount,
    /// When [`Window::run`] will look at what is parked, if it sleeps.
    looks_at: Option<Instant>,
}

#[derive(Debug)]
struct Parked {
    until: Instant,
    /// By the end of their lives, which puts the oldest first.
    entries: BTreeMap<(Instant, MessageId), Entry>,
    amount: Amount,
    /// When the first was parked, and how many went since: how fast they go.
    since: Instant,
    woken: u32,
}

/// How what is parked moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Nothing is parked.
    Free,
    /// All that is parked will be gone soon: more of it can wait in the store.
    Moving,
    /// Some hardly moves, so that whatever else there is must be let past it.
    Stuck,
}

/// A part of the window.
#[derive(Debug, Clone, Copy, Default)]
struct Amount {
    messages: usize,
    octets: u64,
}

/// What the window holds, including what is leased from it.
#[derive(Debug, Default)]
struct Usage {
    messages: AtomicUsize,
    octets: AtomicU64,
    freed: Notify,
}

/// One message's place in the window; gives it back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    usage: Arc<Usage>,
    octets: u64,
}

/// A message in the window.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) stored: Stored,
    pub(super) grants: Vec<WaitReason>,
    /// Whether the log says that it waits.
    pub(super) announced: bool,
    /// What it waited for last.
    waited_for: Option<WaitReason>,
    /// Given back when the entry is dropped.
    room: Room,
}

impl Window {
    pub(super) fn new(max_messages: usize, max_octets: u64) -> Self {
        Self { max_messages, max_octets, usage: Arc::default(), state: Mutex::default(), ready: Notify::new(), sooner: Notify::new() }
    }

    /// A place for a message with this body, if there is one. While a backlog moves, new mail joins
    /// it in the store, rather than being offered, refused and put back.
    pub(super) fn reserve(&self, body: &Body) -> Option<Room> {
        let most = if self.pace() == Pace::Moving { self.max_messages / 4 } else { self.max_messages };
        let room = Room::take(&self.usage, body);
        let fits = self.len() <= most && self.usage.octets.load(Ordering::Relaxed) <= self.max_octets;
        fits.then_some(room)
    }

    /// A place for a message that was claimed from the store, bounded by the claim itself.
    pub(super) fn admit(&self, stored: Stored) {
        let room = Room::take(&self.usage, &stored.message.body);
        self.push(room, stored);
    }

    pub(super) fn push(&self, room: Room, stored: Stored) {
        self.state.lock().ready.push_back(Entry { stored, grants: Vec::new(), announced: false, waited_for: None, room });
        self.ready.notify_one();
    }

    /// How many messages and octets may be fetched from the store; nothing until half is free, so
    /// that the store is asked in large pieces. While a backlog moves, only as much as keeps it moving.
    pub(super) fn room(&self) -> Option<(usize, u64)> {
        let (messages, octets) = (self.len(), self.usage.octets.load(Ordering::Relaxed));
        let (most, piece) = match self.pace() {
            Pace::Moving => (self.max_messages / 8, self.max_messages / 16),
            Pace::Free | Pace::Stuck => (self.max_messages / 2, 1000),
        };
        (messages <= most && octets <= self.max_octets / 2)
            .then(|| (piece.clamp(1, self.max_messages - messages), (self.max_octets - octets).max(1)))
    }

    fn pace(&self) -> Pace {
        let state = self.state.lock();
        if state.parked.is_empty() {
            Pace::Free
        } else if state.parked.values().any(|parked| parked.drains_in() > STUCK) {
            Pace::Stuck
        } else {
            Pace::Moving
        }
    }

    /// Resolves when something has left the window since it was last asked.
    pub(super) async fn freed(&self) {
        self.usage.freed.notified().await;
    }

    pub(super) fn len(&self) -> usize {
        self.usage.messages.load(Ordering::Relaxed)
    }

    /// Messages that wait for nothing but to be taken.
    pub(super) fn ready(&self) -> usize {
        self.state.lock().ready.len()
    }

    pub(super) async fn pop(&self) -> Entry {
        loop {
            let ready = self.ready.notified();
            {
                let mut state = self.state.lock();
                if let Some(entry) = state.ready.pop_front() {
                    // One notification may stand for several messages.
                    if !state.ready.is_empty() {
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
    /// be room.
    ///
    /// A reason may hold as much as is left free of what parking may take: the first one half of it,
    /// two a third each, and so on. However many reasons there are, something is left for the next
    /// one, and what is fetched from the store always finds room to move on.
    pub(super) fn park(&self, mut entry: Entry, reason: WaitReason, until: Instant, ends: Instant) -> Result<(), Box<(Entry, Duration)>> {
        let mut state = self.state.lock();
        let State { parked, all_parked, looks_at, .. } = &mut *state;
        let held = parked.get(&reason).map_or_else(Amount::default, |parked| parked.amount);
        // A little less than the half that has to be free before more is fetched.
        let (messages, octets) = (self.max_messages * 7 / 16, self.max_octets / 16 * 7);
        let more = entry.room.octets;
        if held.messages >= messages.saturating_sub(all_parked.messages) || held.octets + more > octets.saturating_sub(all_parked.octets) {
            let drains_in = parked.get(&reason).map_or(Duration::ZERO, Parked::drains_in);
            return Err(Box::new((entry, drains_in.clamp(SHORTEST_OVERFLOW, LONGEST_OVERFLOW))));
        }
        let parked = parked.entry(reason.clone()).or_insert_with(|| Parked::new(until));
        if entry.waited_for.as_ref() == Some(&reason) {
            // It did not get away.
            parked.woken = parked.woken.saturating_sub(1);
        }
        entry.waited_for = Some(reason);
        parked.until = until;
        for amount in [&mut parked.amount, all_parked] {
            amount.messages += 1;
            amount.octets += more;
        }
        parked.entries.insert((ends, entry.stored.message.id), entry);
        let until = until.min(ends);
        if looks_at.is_none_or(|looks_at| until < looks_at) {
            self.sooner.notify_one();
        }
        Ok(())
    }

    pub(super) fn wake(&self, reason: &WaitReason, count: usize) {
        let mut state = self.state.lock();
        let State { ready, parked, all_parked, .. } = &mut *state;
        if let Some(waiting) = parked.get_mut(reason) {
            waiting.release(count, ready, all_parked);
            if waiting.entries.is_empty() {
                parked.remove(reason);
            }
            self.ready.notify_one();
        }
    }

    /// Lets go whose time has come; says when to look again.
    fn wake_due(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let State { ready, parked, all_parked, looks_at } = &mut *state;
        let mut next = None;
        parked.retain(|_, waiting| {
            if waiting.until <= now {
                waiting.release(BATCH, ready, all_parked);
                waiting.until = now + TICK;
            }
            // Whoever's time is over altogether has to be told so, whatever it waits for.
            while waiting.ends().is_some_and(|ends| ends <= now) {
                waiting.release(1, ready, all_parked);
            }
            if let Some(ends) = waiting.ends() {
                let until = waiting.until.min(ends);
                next = Some(next.map_or(until, |next: Instant| next.min(until)));
            }
            !waiting.entries.is_empty()
        });
        if !ready.is_empty() {
            self.ready.notify_one();
        }
        *looks_at = next;
        next
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
}

impl Parked {
    fn new(until: Instant) -> Self {
        Self { until, entries: BTreeMap::new(), amount: Amount::default(), since: Instant::now(), woken: 0 }
    }

    /// How long those that are here will take at the pace so far; short, as long as nothing is known.
    fn drains_in(&self) -> Duration {
        let elapsed = self.since.elapsed();
        if elapsed < Duration::from_secs(1) {
            return elapsed;
        }
        elapsed.mul_f64(self.entries.len() as f64 / f64::from(self.woken.max(1)))
    }

    /// Makes up to `count` messages ready.
    fn release(&mut self, count: usize, ready: &mut VecDeque<Entry>, all_parked: &mut Amount) {
        for _ in 0..count {
            let Some((_, entry)) = self.entries.pop_first() else { return };
            for amount in [&mut self.amount, &mut *all_parked] {
                amount.messages -= 1;
                amount.octets -= entry.room.octets;
            }
            ready.push_back(entry);
            self.woken = self.woken.saturating_add(1);
        }
    }

    /// When the life of the oldest ends.
    fn ends(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|((ends, _), _)| *ends)
    }
}

impl Entry {
    /// Puts the message back in front of the others that are ready.
    pub(super) fn put_back(self, window: &Window) {
        window.state.lock().ready.push_front(self);
        window.ready.notify_one();
    }
}

impl Room {
    fn take(usage: &Arc<Usage>, body: &Body) -> Self {
        let octets = match body {
            Body::Inline(bytes) => bytes.len() as u64,
            Body::File { .. } | Body::Spliced { .. } => 0,
        };
        usage.messages.fetch_add(1, Ordering::Relaxed);
        usage.octets.fetch_add(octets, Ordering::Relaxed);
        Self { usage: Arc::clone(usage), octets }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.usage.messages.fetch_sub(1, Ordering::Relaxed);
        self.usage.octets.fetch_sub(self.octets, Ordering::Relaxed);
        self.usage.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;
    use postrider_providers::contract::{Address, BodyType, Envelope, Message, Origin, Recipient, ReversePath};

    use super::*;

    fn entry(window: &Window, octets: usize) -> Entry {
        let message = Message {
            id: MessageId::generate(),
            received: SystemTime::UNIX_EPOCH,
            origin: Origin::default(),
            envelope: Envelope {
                reverse_path: ReversePath::Null,
                recipients: vec![Recipient::from("a@x.example".parse::<Address>().unwrap())],
                body_type: BodyType::SevenBit,
                smtputf8: false,
                returned: None,
                envelope_id: None,
            },
            body: Body::Inline(Bytes::from(vec![b'x'; octets])),
        };
        let room = Room::take(&window.usage, &message.body);
        Entry { stored: Stored::fresh(Arc::new(message)), grants: Vec::new(), announced: false, waited_for: None, room }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Parks as many as there is room for.
    fn fill(window: &Window, reason: &str, octets: usize) -> usize {
        let now = Instant::now();
        (0..10_000)
            .take_while(|_| window.park(entry(window, octets), WaitReason::new(reason), now + seconds(60), now + seconds(600)).is_ok())
            .count()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_goes_first_whenever_it_was_parked() {
        let (window, now) = (Window::new(100, 1 << 20), Instant::now());
        let mut ids = Vec::new();
        for ends in [20, 10, 30] {
            let entry = entry(&window, 1);
            ids.push(entry.stored.message.id);
            window.park(entry, WaitReason::new("r"), now + seconds(1), now + seconds(ends)).unwrap();
        }
        window.wake_due(now + seconds(1));
        let order = [window.pop().await, window.pop().await, window.pop().await].map(|entry| entry.stored.message.id);
        assert_eq!(order, [ids[1], ids[0], ids[2]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_whose_life_ends_is_let_go_whatever_it_waits_for() {
        let (window, now) = (Window::new(1000, 1 << 20), Instant::now());
        for _ in 0..100 {
            window.park(entry(&window, 1), WaitReason::new("r"), now + seconds(900), now + seconds(60)).unwrap();
        }
        assert_eq!(window.wake_due(now), Some(now + seconds(60)), "it looks again when the first one ends");
        assert_eq!(window.wake_due(now + seconds(60)), None);
        assert_eq!(window.state.lock().ready.len(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_reasons_there_are_the_window_is_not_filled_by_what_waits() {
        for octets in [1, 200] {
            let window = Window::new(1000, 100_000);
            let held: Vec<usize> = (0..20).map(|reason| fill(&window, &format!("reason {reason}"), octets)).collect();
            assert!(held[0] >= if octets == 1 { 200 } else { 100 }, "one alone may have much: {held:?}");
            assert!(held[..5].iter().all(|held| *held > 0), "{held:?}");
            assert!(window.room().is_none(), "as long as they may be on the move, they come first");
            tokio::time::advance(seconds(10)).await;
            assert!(window.room().is_some(), "there is room to fetch what waits for nothing: {held:?}");
            // What is let go makes room again.
            window.wake(&WaitReason::new("reason 0"), usize::MAX);
            window.state.lock().ready.clear();
            assert!(fill(&window, "another", octets) > 0);
        }
    }
}
