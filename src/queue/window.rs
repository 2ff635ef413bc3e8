//! The bounded part of the queue that is in memory: ready to go, or parked for a reason.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_providers::contract::Body;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::spool::Stored;

/// How many parked messages are let go at once when their time has come. Those that find nothing
/// left are parked again, in front of the others.
const BATCH: usize = 32;

/// When to look again for what is left after a batch, if no refusal says otherwise.
const TICK: Duration = Duration::from_millis(2);

/// Those that are parked are stuck when they need longer than this at their pace.
const STUCK: Duration = Duration::from_secs(5);

/// How long a message stays in the store, at least and at most, for which there was no room to wait in.
const SHORTEST_OVERFLOW: Duration = Duration::from_secs(1);
const LONGEST_OVERFLOW: Duration = Duration::from_secs(60);

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
    /// When [`Window::run`] will look at what is parked, if it sleeps.
    looks_at: Option<Instant>,
}

#[derive(Debug)]
struct Parked {
    until: Instant,
    entries: VecDeque<Entry>,
    /// When the first was parked, and how many went since: how fast they go.
    since: Instant,
    woken: u32,
}

impl Parked {
    fn new(until: Instant) -> Self {
        Self { until, entries: VecDeque::new(), since: Instant::now(), woken: 0 }
    }

    /// How long those that are here will take at the pace so far; short, as long as nothing is known.
    fn drains_in(&self) -> Duration {
        let elapsed = self.since.elapsed();
        if elapsed < Duration::from_secs(1) {
            return elapsed;
        }
        elapsed.mul_f64(self.entries.len() as f64 / f64::from(self.woken.max(1)))
    }

    fn wake(&mut self, count: usize, ready: &mut VecDeque<Entry>) {
        let count = count.min(self.entries.len());
        ready.extend(self.entries.drain(..count));
        self.woken = self.woken.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }
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
    /// Given back when the entry is dropped.
    _room: Room,
}

impl Window {
    pub(super) fn new(max_messages: usize, max_octets: u64) -> Self {
        Self { max_messages, max_octets, usage: Arc::default(), state: Mutex::default(), ready: Notify::new(), sooner: Notify::new() }
    }

    /// A place for a message with this body, if there is one.
    pub(super) fn reserve(&self, body: &Body) -> Option<Room> {
        let room = Room::take(&self.usage, body);
        let fits = self.usage.messages.load(Ordering::Relaxed) <= self.max_messages
            && self.usage.octets.load(Ordering::Relaxed) <= self.max_octets;
        fits.then_some(room)
    }

    /// A place for a message that was claimed from the store, bounded by the claim itself.
    pub(super) fn admit(&self, stored: Stored) {
        let room = Room::take(&self.usage, &stored.message.body);
        self.push(room, stored);
    }

    pub(super) fn push(&self, room: Room, stored: Stored) {
        self.state.lock().ready.push_back(Entry { stored, grants: Vec::new(), announced: false, _room: room });
        self.ready.notify_one();
    }

    /// How many messages and octets may be fetched from the store; nothing until half is free, so
    /// that the store is asked in large pieces. Where those that are parked hardly move, a quarter
    /// must do: what is behind them in the store may be for somebody else.
    pub(super) fn room(&self) -> Option<(usize, u64)> {
        let (messages, octets) = (self.len(), self.usage.octets.load(Ordering::Relaxed));
        let stuck = self.state.lock().parked.values().any(|parked| parked.drains_in() > STUCK);
        let most = if stuck { self.max_messages / 4 * 3 } else { self.max_messages / 2 };
        (messages <= most && octets <= self.max_octets / 2)
            .then(|| ((self.max_messages - messages).clamp(1, 1000), (self.max_octets - octets).max(1)))
    }

    /// Resolves when something has left the window since it was last asked.
    pub(super) async fn freed(&self) {
        self.usage.freed.notified().await;
    }

    pub(super) fn len(&self) -> usize {
        self.usage.messages.load(Ordering::Relaxed)
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

    /// Puts a message aside until `until`, or until its reason is woken. Gives it back when half of
    /// the window is parked already, with the time in which there may be room.
    pub(super) fn park(&self, entry: Entry, reason: WaitReason, until: Instant) -> Result<(), (Entry, Duration)> {
        let mut state = self.state.lock();
        let all: usize = state.parked.values().map(|parked| parked.entries.len()).sum();
        let parked = state.parked.entry(reason).or_insert_with(|| Parked::new(until));
        if all >= self.max_messages / 2 {
            return Err((entry, parked.drains_in().clamp(SHORTEST_OVERFLOW, LONGEST_OVERFLOW)));
        }
        parked.until = until;
        // What comes back was in front before.
        parked.entries.push_front(entry);
        if state.looks_at.is_none_or(|looks_at| until < looks_at) {
            self.sooner.notify_one();
        }
        Ok(())
    }

    pub(super) fn wake(&self, reason: &WaitReason, count: usize) {
        let mut state = self.state.lock();
        let State { ready, parked, .. } = &mut *state;
        if let Some(waiting) = parked.get_mut(reason) {
            waiting.wake(count, ready);
            if waiting.entries.is_empty() {
                parked.remove(reason);
            }
            self.ready.notify_one();
        }
    }

    /// Lets go whose time has come; says when to look again.
    fn wake_due(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let State { ready, parked, looks_at } = &mut *state;
        let mut next = None;
        parked.retain(|_, waiting| {
            if waiting.until <= now {
                waiting.wake(BATCH, ready);
                waiting.until = now + TICK;
            }
            if !waiting.entries.is_empty() {
                next = Some(next.map_or(waiting.until, |next: Instant| next.min(waiting.until)));
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
            Body::File { .. } => 0,
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
