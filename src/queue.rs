//! The queue: what is durable is in the spool, and a bounded window of it is here in memory.
//!
//! Invariants:
//!
//! 1. [`Queue::submit`] returns only when the message is durable: the caller may then say 250.
//! 2. A message is in exactly one place: leased to an attempt, in the window (ready or parked), or
//!    in the store alone. Only what is in the window or leased is held in memory.
//! 3. All waiting happens here. A message that a limit, an open circuit or a full provider keeps
//!    back is *parked* under that reason and comes back when its time has come, a few at a time; no
//!    task sleeps for it. When too many are parked for one reason, further ones go back to the store,
//!    so that one provider's backlog cannot fill the window.
//! 4. Everything that waits stands in a lane (priority, route of the first recipient, sending domain).
//!    Lanes take turns wherever there is a choice: what is ready, what is parked for one reason, what is
//!    fetched from the store. A lane may hold its share of the window, and one whose mail is parked is
//!    fetched from only as it moves; so neither a flood nor a dead provider takes the place of others.
//! 5. Fresh mail goes straight to the window and is not read back, while there is room, its lane has not used
//!    its share, and nobody of its lane waits in the store before it.
//! 6. What is done for one message costs the same however many wait, and memory is bounded however many
//!    lanes there are.

mod conclusion;
mod dead;
mod digests;
mod feeder;
mod journal;
mod lanes;
pub mod lease;
mod metered;
mod operate;
mod pulse;
pub mod retry;
mod window;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postrider_providers::contract::{Address, Message, MessageId};
use tokio_util::sync::CancellationToken;

pub use journal::doubt as record_of_doubt;
pub use lease::{Disposition, Lease};
pub use operate::{Found, JobId, JobState, Progress};
pub use retry::{Plan, RetrySchedule};
pub use window::WaitReason;

use crate::bounce::Relay;
use crate::clock::Clock;
use crate::config::Bounce;
use crate::route::Router;
use crate::spool::view::Lane;
use crate::spool::{Recovered, Spool, SpoolCounts, SpoolError, Stored};
use crate::telemetry::metrics::Metrics;
use digests::Digests;
use lanes::Lanes;
use pulse::Pulse;
use window::{Room, Window};

/// How the queue behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// When to try again, and for how long.
    pub retry: RetrySchedule,
    /// The most messages in memory.
    pub window_messages: usize,
    /// The most octets of bodies in memory.
    pub window_octets: u64,
    /// How long a lease outlives its node's last renewal.
    pub lease: Duration,
    /// This host, for notifications.
    pub hostname: String,
    /// Who is told about failures.
    pub bounce: Bounce,
    /// Who answers for the mail of each application, by its name.
    pub owners: HashMap<Arc<str>, Address>,
    /// The age at which a sender is told that mail waits; `None`: never.
    pub delay_warning_after: Option<Duration>,
    /// What is counted and timed.
    pub metrics: Metrics,
    /// By how many of a hundred parts waits are shortened or lengthened, each message's in its own way, so
    /// that what failed together does not come back together.
    pub jitter: u32,
    /// Whether the history is told what happens.
    pub record: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retry: RetrySchedule::default(),
            window_messages: 4000,
            window_octets: 64 << 20,
            lease: Duration::from_secs(60),
            hostname: "localhost".to_owned(),
            bounce: Bounce::default(),
            owners: HashMap::new(),
            delay_warning_after: None,
            metrics: Metrics::new(),
            jitter: 0,
            record: true,
        }
    }
}

impl Settings {
    /// This gateway, as it signs notifications.
    pub(crate) fn relay(&self) -> Relay<'_> {
        Relay { hostname: &self.hostname, sender: self.bounce.sender.as_ref() }
    }
}

/// The queue over a spool. Clones share it.
#[derive(Debug)]
pub struct Queue<S: Spool>(Arc<Shared<S>>);

/// What all handles and leases share.
#[derive(Debug)]
struct Shared<S: Spool> {
    spool: S,
    settings: ArcSwap<Settings>,
    metrics: Metrics,
    clock: Clock,
    lanes: Lanes,
    digests: Digests,
    window: Window,
    jobs: operate::Jobs,
    pulse: Pulse,
    /// Lets the feeder look up the lanes: mail may wait of which this process does not know.
    poke: tokio::sync::Notify,
    /// Says that there may be something in the journal.
    journaled: Arc<tokio::sync::Notify>,
}

impl<S: Spool> Clone for Queue<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Spool> Queue<S> {
    /// A queue over `spool`. Nothing is fetched from the store until [`Queue::run`] runs.
    #[must_use]
    pub fn new(spool: S, settings: Settings, clock: Clock) -> Self {
        let window = Window::new(settings.window_messages, settings.window_octets, clock);
        Self(Arc::new(Shared {
            spool,
            metrics: settings.metrics.clone(),
            settings: ArcSwap::from_pointee(settings),
            clock,
            lanes: Lanes::default(),
            digests: Digests::default(),
            window,
            jobs: operate::Jobs::default(),
            pulse: Pulse::new(),
            poke: tokio::sync::Notify::new(),
            journaled: Arc::default(),
        }))
    }

    /// Lets these routes say in which lane a message waits, from now on. What waits already moves to its
    /// new lane when it is attempted next.
    pub fn use_router(&self, router: Arc<Router>) {
        self.0.lanes.swap(router);
    }

    /// Where the body of a message that is arriving goes.
    #[must_use]
    pub fn body(&self, id: MessageId) -> S::Sink {
        self.0.spool.body(id)
    }

    /// Takes a message in. It is durable when this returns.
    ///
    /// # Errors
    /// When the spool could not store it, or nothing goes on any more; then it is not ours.
    pub async fn submit(&self, message: Arc<Message>) -> Result<(), SpoolError> {
        let shared = &self.0;
        if let Some(why) = self.failure() {
            return Err(SpoolError::Unavailable(why));
        }
        let lane = shared.lanes.of_fresh(&message);
        let room = shared.window.reserve(&lane, &message.body);
        shared.spool.store(Arc::clone(&message), &lane, room.is_some()).await?;
        self.admit(room, lane, message);
        Ok(())
    }

    /// Takes in a message of our own in place of what the spool keeps under `key`, and tells the history.
    async fn submit_instead(&self, key: &str, message: Arc<Message>, record: Option<String>) -> Result<(), SpoolError> {
        let shared = &self.0;
        let lane = shared.lanes.of_fresh(&message);
        let room = shared.window.reserve(&lane, &message.body);
        shared.spool.store_instead(key, Arc::clone(&message), &lane, room.is_some(), record).await?;
        self.admit(room, lane, message);
        shared.journaled.notify_one();
        Ok(())
    }

    /// Lets a message that has just been stored wait where there is room for it.
    fn admit(&self, room: Option<Room>, lane: Lane, message: Arc<Message>) {
        match room {
            Some(room) => self.0.window.push(room, lane, Stored::fresh(message)),
            None => self.0.window.note(&lane, message.received),
        }
    }

    /// Waits until a message may be attempted, and lends it. Dropping the lease returns the message.
    pub async fn lease(&self) -> Lease<S> {
        let entry = self.0.window.pop().await;
        self.0.pulse.lent();
        Lease::new(self.clone(), entry)
    }

    /// Feeds the window from the store, wakes what is parked, renews this node's leases, sends digests and
    /// removes dead letters that are too old, until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::select! {
            () = feeder::run(&self.0, shutdown) => {}
            () = digests::run(self) => {}
            () = dead::run(self) => {}
        }
    }

    /// What stands in for the null reverse-path of notifications where that is not taken.
    #[must_use]
    pub fn notification_sender(&self) -> Option<Address> {
        self.0.settings.load().bounce.sender.clone()
    }

    /// Lets up to `count` messages go that wait for `reason`.
    pub fn wake(&self, reason: &WaitReason, count: usize) {
        self.0.window.wake(reason, count);
    }

    /// What of the queue's work stands still, in words; `None` if it goes on, or there is nothing to do.
    #[must_use]
    pub fn stands_still(&self) -> Option<String> {
        self.0.pulse.stands_still(self.0.settings.load().lease / 3, self.0.window.ready())
    }

    /// Says that a part has failed without which nothing goes on, and which only a new start brings back.
    /// From now on no mail is taken.
    pub fn fail(&self, why: String) {
        self.0.pulse.fail(why);
    }

    /// Waits until such a part has failed, and says which.
    pub async fn failed(&self) -> String {
        self.0.pulse.failed().await.to_owned()
    }

    /// Which part has failed, if one has.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.0.pulse.failure().map(str::to_owned)
    }

    /// Goes by these settings from now on. The bounds of the window, the length of a lease and the meters
    /// stay.
    pub fn change(&self, settings: Settings) {
        self.0.settings.store(Arc::new(settings));
    }

    /// Lets everything go that waits for anything: what it waited for may not be there any more.
    pub fn wake_all(&self) {
        self.0.window.wake_all();
        self.0.poke.notify_one();
    }

    /// What a message waits for, and until when, if it is parked: a limit, a circuit, a pause. It may come
    /// back before that, and be told another time.
    #[must_use]
    pub fn waiting_for(&self, id: MessageId) -> Option<(WaitReason, tokio::time::Instant)> {
        self.0.window.waits_until(id)
    }

    /// How many messages are parked for this reason.
    #[must_use]
    pub fn parked_for(&self, reason: &WaitReason) -> usize {
        self.0.window.parked_for(reason)
    }

    /// When a recipient of this message is given up whose waiting is reckoned like this.
    #[must_use]
    pub fn gives_up(&self, stored: &Stored, plan: &Plan) -> std::time::SystemTime {
        plan.expires(&self.0.settings.load().retry, stored)
    }

    /// Messages in memory: ready, parked, or leased.
    #[must_use]
    pub fn in_window(&self) -> usize {
        self.0.window.len()
    }

    /// Told whenever there is something in the spool's journal.
    #[must_use]
    pub fn journaled(&self) -> Arc<tokio::sync::Notify> {
        Arc::clone(&self.0.journaled)
    }

    /// Logs what a restart, or another node's end, brought back, and tells the history what is in doubt.
    pub async fn recovered(&self, recovered: &Recovered) {
        feeder::recovered(&self.0, recovered).await;
    }

    /// Counts what is stored.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub async fn counts(&self) -> Result<SpoolCounts, SpoolError> {
        self.0.spool.counts().await
    }

    /// The spool below.
    #[must_use]
    pub fn spool(&self) -> &S {
        &self.0.spool
    }

    /// What is counted and timed, here and wherever the queue is known.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The queue's clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.0.clock
    }
}
