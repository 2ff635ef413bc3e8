//! The exclusive right to attempt one message, and its durable end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postrider_providers::contract::{Diagnostic, Message, ProviderName, Receipt, RecipientIndex};
use tokio::time::Instant;
use tracing::{error, info};

use super::conclusion::{Desk, conclude, warns_at};
use super::metered::Brought;
use super::window::{Entry, WaitReason};
use super::{Plan, Queue, journal};
use crate::history;
use crate::spool::{RecipientState, Spool, SpoolError, Stored};

/// A wait that somebody who looks for a message should find in the log; it is said once.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

/// What became of one recipient in an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// Handed over.
    Relayed(ProviderName, Receipt),
    /// Refused for good.
    Bounced(Diagnostic),
    /// Refused or unreachable for now; the retry schedule decides.
    Deferred(Diagnostic),
    /// Handed over without an answer. `hold`: a person decides; otherwise the same provider is asked again.
    InDoubt {
        /// The only provider that may be asked again.
        provider: ProviderName,
        /// What was seen.
        diagnostic: Diagnostic,
        /// The route's choice.
        hold: bool,
        /// Whether the provider recognises what it took already, so that no second copy can come of it.
        recognised: bool,
    },
    /// Nobody was asked: a limit or an open circuit keeps it back until then.
    Waiting(SystemTime, Diagnostic),
}

/// A leased message.
#[derive(Debug)]
pub struct Lease<S: Spool> {
    queue: Queue<S>,
    /// Present until the lease has ended.
    entry: Option<Entry>,
    /// The handover that was recorded last, by recipients.
    begun: parking_lot::Mutex<Vec<(RecipientIndex, ProviderName)>>,
    /// How each recipient's waiting is reckoned, where that is known.
    plans: BTreeMap<RecipientIndex, Plan>,
    /// What providers answered, for the history.
    tries: parking_lot::Mutex<Vec<history::Event>>,
}

impl<S: Spool> Lease<S> {
    pub(super) fn new(queue: Queue<S>, entry: Entry) -> Self {
        let (begun, tries) = (parking_lot::Mutex::default(), parking_lot::Mutex::default());
        Self { queue, entry: Some(entry), begun, plans: BTreeMap::new(), tries }
    }

    fn entry(&self) -> &Entry {
        #[expect(clippy::expect_used, reason = "the entry leaves only in methods that consume the lease")]
        self.entry.as_ref().expect("the lease has not ended")
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Arc<Message> {
        &self.entry().stored.message
    }

    /// The message with its recipients' states.
    #[must_use]
    pub fn stored(&self) -> &Stored {
        &self.entry().stored
    }

    /// Says how the waiting of a recipient is reckoned. Without a word, the queue's schedule holds.
    pub fn plan(&mut self, index: RecipientIndex, plan: Plan) {
        self.plans.insert(index, plan);
    }

    /// When the first of its open recipients is past its time.
    fn expires(&self) -> SystemTime {
        let (settings, stored) = (self.queue.0.settings.load(), self.stored());
        let schedule = &settings.retry;
        let open = (0..).map(RecipientIndex).zip(&stored.recipients).filter(|(_, state)| state.is_open());
        let usual = Plan::default();
        let ends = open.map(|(index, _)| self.plans.get(&index).unwrap_or(&usual).expires(schedule, stored));
        ends.min().unwrap_or_else(|| usual.expires(schedule, stored))
    }

    /// When there is something to write down of it, whatever it waits for: it expires, or its sender is to
    /// hear that it waits.
    fn ends(&self) -> SystemTime {
        let expires = self.expires();
        warns_at(&self.queue.0.settings.load(), self.stored()).map_or(expires, |warns_at| warns_at.min(expires))
    }

    /// Whether it may not be parked: one of its recipients is past its time, or its sender is to hear that
    /// it waits.
    #[must_use]
    pub fn is_to_be_settled(&self) -> bool {
        self.queue.0.clock.now() >= self.ends()
    }

    /// Records durably that `provider` is about to be asked for `recipients`.
    ///
    /// # Errors
    /// When that could not be recorded; then nobody may be asked.
    pub async fn begin(&self, provider: &ProviderName, recipients: &[RecipientIndex]) -> Result<(), SpoolError> {
        self.queue.0.spool.begin(self.message().id, provider, recipients).await?;
        let mut begun = self.begun.lock();
        begun.retain(|(index, _)| !recipients.contains(index));
        begun.extend(recipients.iter().map(|&index| (index, provider.clone())));
        Ok(())
    }

    /// Keeps an [`history::Event::Attempt`] for the record of the settlement.
    pub fn tried(&self, attempt: history::Event) {
        self.tries.lock().push(attempt);
    }

    /// Puts the message aside until `until` or until `reason` is woken. It has not been attempted.
    pub async fn park(mut self, reason: WaitReason, until: Instant) {
        let wait = until.saturating_duration_since(Instant::now());
        if let Some(entry) = self.entry.as_mut().filter(|entry| !entry.announced && wait >= WORTH_A_LINE) {
            info!(message_id = %entry.stored.message.id, %reason, at_least_seconds = wait.as_secs(), "waiting");
            entry.announced = true;
        }
        let shared = Arc::clone(&self.queue.0);
        // Those whose own time comes meanwhile do not wait for what the others wait for.
        let ends = self.stored().next_due(shared.clock.now()).map_or(self.ends(), |due| due.min(self.ends()));
        let ends = shared.clock.instant_of(ends);
        if let Some(entry) = self.entry.take()
            && let Err(refused) = shared.window.park(entry, reason, until, ends)
        {
            let (entry, delay) = *refused;
            // Too many wait for this already; the store has room.
            let due = shared.clock.now() + delay;
            self.entry = Some(entry);
            self.release(due).await;
        }
    }

    /// Gives the message back to the store unattempted, due at `due`.
    pub async fn release(mut self, due: SystemTime) {
        let id = self.message().id;
        let shared = Arc::clone(&self.queue.0);
        let lane = shared.lanes.of(self.stored());
        durably(|| shared.spool.release(id, &lane, due), "released").await;
        shared.window.note(&lane, due);
        self.leave();
    }

    /// Ends the lease durably: recipients' states, the next time, and the notification that follows
    /// are one transaction. `asked`: whether any provider was asked, which makes it an attempt.
    pub async fn settle(self, dispositions: Vec<(RecipientIndex, Disposition)>, asked: bool) {
        self.settle_and_note(dispositions, asked, Vec::new()).await;
    }

    /// The same, with more to tell the history of it.
    pub(super) async fn settle_and_note(mut self, dispositions: Vec<(RecipientIndex, Disposition)>, asked: bool, records: Vec<String>) {
        let shared = Arc::clone(&self.queue.0);
        let (brought, fates) = (Brought::of(&dispositions), journal::Fates::of(&dispositions));
        let settings = shared.settings.load_full();
        let desk = Desk { spool: &shared.spool, settings: &settings, digests: &shared.digests, now: shared.clock.now() };
        let (mut settled, told) = conclude(&desk, self.stored(), &self.plans, dispositions, asked).await;
        settled.lane = shared.lanes.of(self.stored());
        settled.journal.splice(0..0, records);
        for (notification, lane) in &mut settled.notifications {
            *lane = shared.lanes.of_fresh(notification);
        }
        if settings.record {
            let tries = std::mem::take(&mut *self.tries.lock());
            settled.journal.extend(journal::record(self.stored(), &settled, tries, told, &fates, shared.clock.now()));
        }
        durably(|| shared.spool.settle(settled.clone()), "settled").await;
        shared.journaled.notify_one();
        brought.count(&shared.metrics, self.message(), &settled.lane.route, &settled, asked);
        for (notification, lane) in &settled.notifications {
            shared.window.note(lane, notification.received);
        }
        if settled.states(self.stored()).into_iter().any(RecipientState::is_open) {
            shared.window.note(&settled.lane, settled.due);
        }
        self.leave();
    }
}

impl<S: Spool> Lease<S> {
    /// The message leaves the window.
    fn leave(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.queue.0.window.finish(entry);
        }
    }
}

/// A lease that was dropped without an end (a panic, an aborted task) goes back to the queue; what
/// was being handed over is in doubt.
impl<S: Spool> Drop for Lease<S> {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        let begun = std::mem::take(&mut *self.begun.lock());
        if begun.is_empty() {
            self.queue.0.window.put_back(entry);
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let tries = parking_lot::Mutex::new(std::mem::take(&mut *self.tries.lock()));
        let begun_now = parking_lot::Mutex::default();
        let lease = Self { queue: self.queue.clone(), entry: Some(entry), begun: begun_now, plans: BTreeMap::new(), tries };
        let lost = begun
            .into_iter()
            .map(|(index, provider)| {
                let diagnostic = Diagnostic::local("the attempt was cut off");
                (index, Disposition::InDoubt { provider, diagnostic, hold: false, recognised: false })
            })
            .collect();
        runtime.spawn(lease.settle(lost, true));
    }
}

/// Repeats a write to the spool until it succeeds: what it records has happened already. When the
/// process ends first, the recorded intent says "in doubt" at the next start.
async fn durably<F: Future<Output = Result<(), SpoolError>>>(mut write: impl FnMut() -> F, what: &str) {
    let mut wait = Duration::from_millis(100);
    loop {
        match write().await {
            Ok(()) => return,
            Err(error @ SpoolError::LeaseLost(_)) => return error!(%error, "a lease could not be {what}"),
            Err(SpoolError::Closed) => return,
            Err(error) => {
                error!(%error, "a lease could not be {what}; trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(10));
            }
        }
    }
}
