//! What a provider has asked for itself: to be left alone.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postrider_providers::contract::{Failure, ProviderName, Report};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::dispatch::notebook::Notebook;
use crate::dispatch::transport::Refusal;
use crate::history::event::millis;
use crate::queue::WaitReason;

/// Under this and the provider's name, the spool keeps what a restart should not forget: when a long pause
/// ends, in milliseconds since 1970.
pub(in crate::dispatch) const THROTTLES: &str = "throttle/";

/// Shorter pauses are over before a restart is.
const WORTH_A_NOTE: Duration = Duration::from_secs(60);

/// How long a provider is left alone that throttles and does not say for how long.
const UNSAID_THROTTLE: Duration = Duration::from_secs(5);

/// Until when.
#[derive(Debug)]
pub(in crate::dispatch) struct Throttle {
    name: ProviderName,
    reason: WaitReason,
    until: Mutex<Option<Instant>>,
    /// Where long pauses are written down.
    notes: OnceLock<(Notebook, Clock)>,
}

impl Throttle {
    pub(super) fn of(name: &ProviderName) -> Self {
        let reason = WaitReason::new(format!("{name}, which asked to slow down"));
        Self { name: name.clone(), reason, until: Mutex::new(None), notes: OnceLock::new() }
    }

    /// Writes long pauses down from now on.
    pub(in crate::dispatch) fn note_in(&self, notebook: Notebook, clock: Clock) {
        // The first one stays.
        let _ = self.notes.set((notebook, clock));
    }

    /// Goes on where another one was.
    pub(super) fn take_over(&self, before: &Self) {
        *self.until.lock() = *before.until.lock();
        if let Some((notebook, clock)) = before.notes.get() {
            self.note_in(notebook.clone(), *clock);
        }
    }

    /// Until when the provider wants to be left alone, if it does now.
    pub(in crate::dispatch) fn until(&self) -> Option<Instant> {
        (*self.until.lock()).filter(|until| *until > Instant::now())
    }

    /// Forgets that it does; gives what was waited for.
    pub(in crate::dispatch) fn reset(&self) -> WaitReason {
        *self.until.lock() = None;
        if let Some((notebook, _)) = self.notes.get() {
            notebook.keep(format!("{THROTTLES}{}", self.name), None);
        }
        self.reason.clone()
    }

    /// Takes up what was written down before a restart.
    pub(in crate::dispatch) fn restore(&self, note: &str) {
        let (Ok(until), Some((_, clock))) = (note.parse(), self.notes.get()) else { return };
        *self.until.lock() = Some(clock.instant_of(SystemTime::UNIX_EPOCH + Duration::from_millis(until)));
    }

    /// What there is to wait for, if the provider wants to be left alone now.
    pub(super) fn wait(&self) -> Option<(WaitReason, Instant)> {
        Some((self.reason.clone(), self.until()?))
    }

    /// Learns from an answer. One message that was throttled speaks for all that would follow it.
    pub(super) fn learn(&self, answer: &Result<Report, Refusal>) {
        let said = match answer {
            Err(Refusal::Failed(Failure::Throttled { retry_after, .. })) => Some(retry_after),
            Ok(report) => report.throttled.as_ref().map(|throttled| &throttled.retry_after),
            Err(_) => None,
        };
        if let Some(retry_after) = said {
            let until = Instant::now() + retry_after.unwrap_or(UNSAID_THROTTLE);
            let mut known = self.until.lock();
            let until = known.map_or(until, |known| known.max(until));
            *known = Some(until);
            if let Some((notebook, clock)) = self.notes.get()
                && until.saturating_duration_since(Instant::now()) > WORTH_A_NOTE
            {
                notebook.keep(format!("{THROTTLES}{}", self.name), Some(millis(clock.time_of(until)).to_string()));
            }
        }
    }
}
