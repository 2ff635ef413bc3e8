//! One provider's circuit: the machine behind a lock, what it says to people, and what a restart finds of it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postrider_providers::contract::{BreakerSignal, ProviderName};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};

use super::machine::{Admission, CircuitState, Denial, Machine, Moved};
use crate::clock::Clock;
use crate::config::CircuitSettings;
use crate::dispatch::control::CircuitStatus;
use crate::dispatch::notebook::Notebook;
use crate::dispatch::transport::Refusal;
use crate::history::event::millis;
use crate::queue::WaitReason;

/// Under this and the provider's name, the spool keeps circuits that are not closed.
pub(in crate::dispatch) const NOTES: &str = "circuit/";

/// Lets messages go that wait for this.
pub(in crate::dispatch) type Wake = Arc<dyn Fn(&WaitReason, usize) + Send + Sync>;

/// One provider's circuit. Clones share it.
#[derive(Debug, Clone)]
pub struct Circuit(Arc<Inner>);

struct Inner {
    name: ProviderName,
    opened: WaitReason,
    recovering: WaitReason,
    clock: Clock,
    notebook: Notebook,
    wake: Wake,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    machine: Machine,
    since: Option<SystemTime>,
    /// Why it is not closed.
    why: String,
}

/// Leave to ask the provider. Dropped without a report, it counts as neutral.
#[derive(Debug)]
pub(super) struct Permit {
    circuit: Circuit,
    admission: Admission,
    reported: bool,
}

/// A circuit that is not closed, as it is written down. Times are milliseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// When a probe may pass; `None`: it recovers.
    until: Option<u64>,
    since: u64,
    /// How long the next opening lasts, in milliseconds.
    wait: u64,
    why: String,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit").field("name", &self.name).field("now", &self.now).finish_non_exhaustive()
    }
}

impl Circuit {
    /// A closed circuit of a provider that takes so many handovers at the same time. What it learns goes to
    /// the notebook; whom it lets go again, `wake` is told.
    #[must_use]
    pub(in crate::dispatch) fn new(
        name: ProviderName,
        settings: CircuitSettings,
        concurrency: usize,
        clock: Clock,
        notebook: Notebook,
        wake: Wake,
    ) -> Self {
        let now = Mutex::new(Now { machine: Machine::new(settings, concurrency), since: None, why: String::new() });
        let (opened, recovering) = (WaitReason::new(format!("circuit of {name}")), WaitReason::new(format!("recovery of {name}")));
        Self(Arc::new(Inner { name, opened, recovering, clock, notebook, wake, now }))
    }

    /// Where it stands now.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.0.now.lock().machine.state(Instant::now())
    }

    /// The same for people.
    #[must_use]
    pub fn status(&self) -> CircuitStatus {
        let Inner { clock, now, .. } = &*self.0;
        let (inner, instant) = (now.lock(), Instant::now());
        let state = inner.machine.state(instant);
        let until = match state {
            CircuitState::Open { until } => Some(until),
            CircuitState::Recovering { .. } => inner.machine.recovered_at(),
            CircuitState::Closed { .. } | CircuitState::HalfOpen { .. } => None,
        };
        let is_closed = matches!(state, CircuitState::Closed { .. });
        CircuitStatus {
            state: state.name(),
            since: inner.since,
            until: until.map(|until| clock.time_of(until)),
            why: if is_closed { String::new() } else { inner.why.clone() },
            at_once: matches!(state, CircuitState::Recovering { .. }).then(|| inner.machine.at_once(instant)).flatten(),
        }
    }

    /// Keeps to other settings from now on.
    pub fn adopt(&self, settings: CircuitSettings, concurrency: usize) {
        self.0.now.lock().machine.adopt(settings, concurrency);
    }

    /// Closes it by a person's word. Those that wait for it are let go.
    pub(in crate::dispatch) fn reset(&self) {
        {
            let mut now = self.0.now.lock();
            now.machine.reset();
            self.moved(&mut now, Moved::Closed, "");
        }
        self.wake_all();
    }

    /// Lets go whatever waits for it, to look again.
    pub(in crate::dispatch) fn wake_all(&self) {
        for reason in [&self.0.opened, &self.0.recovering] {
            (self.0.wake)(reason, usize::MAX);
        }
    }

    /// Takes up what was written down of it before a restart.
    pub(in crate::dispatch) fn restore(&self, note: &str) {
        let Ok(Note { until, since, wait, why }) = serde_json::from_str(note) else {
            return warn!(provider = %self.0.name, "what was recorded of the circuit cannot be read; it is closed");
        };
        let time = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let state = match until {
            // A clock that was set meanwhile must not keep it open for longer than it would have been.
            Some(until) => {
                let longest = Instant::now() + Duration::from_millis(wait);
                CircuitState::Open { until: self.0.clock.instant_of(time(until)).min(longest) }
            }
            // From the beginning: how it did is not known.
            None => CircuitState::Recovering { since: Instant::now() },
        };
        let mut now = self.0.now.lock();
        now.machine.restore(state, Duration::from_millis(wait));
        info!(provider = %self.0.name, circuit = %state, reason = why, "the circuit stands where it stood");
        (now.since, now.why) = (Some(time(since)), why);
    }

    /// What a message would wait for that came now, and until when, if that is known: not where it is the
    /// answers to others that end the wait. Moves nothing.
    pub(in crate::dispatch) fn look(&self) -> Option<(WaitReason, Option<Instant>)> {
        let Inner { opened, recovering, now, .. } = &*self.0;
        let (now, instant) = (now.lock(), Instant::now());
        match now.machine.look(instant) {
            Ok(_) => None,
            Err(Denial::Open(until)) => {
                let is_open = matches!(now.machine.state(instant), CircuitState::Open { .. });
                Some((opened.clone(), is_open.then_some(until)))
            }
            Err(Denial::Recovering(_)) => Some((recovering.clone(), None)),
        }
    }

    /// Leave to ask the provider now.
    pub(super) fn admit(&self) -> Result<Permit, Refusal> {
        let Inner { name, opened, recovering, now, .. } = &*self.0;
        let mut now = now.lock();
        let (admitted, moved) = now.machine.admit(Instant::now());
        self.moved(&mut now, moved, "");
        match admitted {
            Ok(admission) => {
                if admission.is_probe() {
                    info!(provider = %name, "circuit half-open: one message probes");
                }
                Ok(Permit { circuit: self.clone(), admission, reported: false })
            }
            Err(Denial::Open(until)) => Err(Refusal::CircuitOpen { reason: opened.clone(), until }),
            Err(Denial::Recovering(until)) => Err(Refusal::CircuitOpen { reason: recovering.clone(), until }),
        }
    }

    fn report(&self, admission: Admission, signal: BreakerSignal, words: &str) {
        let Inner { opened, recovering, now, wake, .. } = &*self.0;
        let free = {
            let mut now = now.lock();
            let moved = now.machine.report(admission, signal, Instant::now());
            self.moved(&mut now, moved, words);
            now.machine.free(Instant::now())
        };
        // Nobody waits for a circuit that is closed, but for who did so before it closed: they look by themselves.
        if free > 0 {
            wake(opened, free);
            wake(recovering, free);
        }
    }

    /// Says and writes down what has changed.
    fn moved(&self, now: &mut Now, moved: Moved, words: &str) {
        let Inner { name, clock, notebook, .. } = &*self.0;
        let time = clock.now();
        let note = match moved {
            Moved::No => return,
            Moved::Opened(wait) => {
                warn!(provider = %name, probe_in = ?wait, reason = words, "circuit open: the provider is left alone");
                words.clone_into(&mut now.why);
                Some(millis(time + wait))
            }
            Moved::Recovers => {
                info!(provider = %name, "circuit recovering: the provider gets more and more mail");
                None
            }
            Moved::Closed => {
                if !now.why.is_empty() {
                    info!(provider = %name, "circuit closed: the provider takes mail again");
                }
                (now.since, now.why) = (Some(time), String::new());
                return notebook.keep(format!("{NOTES}{name}"), None);
            }
        };
        now.since = Some(time);
        let wait = u64::try_from(now.machine.wait().as_millis()).unwrap_or(u64::MAX);
        let note = Note { until: note, since: millis(time), wait, why: now.why.clone() };
        notebook.keep(format!("{NOTES}{name}"), serde_json::to_string(&note).ok());
    }
}

impl Permit {
    /// Gives it back with what the answer says, and the words of a fault.
    pub(super) fn report(mut self, signal: BreakerSignal, words: &str) {
        self.reported = true;
        self.circuit.report(self.admission, signal, words);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.reported {
            self.circuit.report(self.admission, BreakerSignal::Neutral, "");
        }
    }
}
