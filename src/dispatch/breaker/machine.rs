//! What a circuit does with the next message, and how answers move it. Pure: the time is an argument.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use postrider_providers::contract::BreakerSignal;
use tokio::time::Instant;

use crate::config::CircuitSettings;

/// How long a message waits while another one probes, and while a recovery lets no more go at once, if
/// nothing ends that wait before.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The time over which the share of faults is reckoned.
const WINDOW: Duration = Duration::from_secs(60);

/// How finely.
const GRAIN: Duration = Duration::from_secs(1);

/// Tries within that time below which a share says nothing.
const ENOUGH: u32 = 20;

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// Mail flows; so many faults in a row were seen.
    Closed {
        /// Faults since the last success.
        faults: u32,
    },
    /// Refused until then.
    Open {
        /// When a probe may pass.
        until: Instant,
    },
    /// A probe is under way, or may start now.
    HalfOpen {
        /// Whether a message is probing.
        probing: bool,
    },
    /// The probe has succeeded: more and more may go at a time.
    Recovering {
        /// When that began.
        since: Instant,
    },
}

impl CircuitState {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "half-open",
            Self::Recovering { .. } => "recovering",
        }
    }
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The pure machine.
#[derive(Debug)]
pub(super) struct Machine {
    settings: CircuitSettings,
    /// As many may go at a time when the circuit is closed.
    concurrency: usize,
    state: CircuitState,
    /// How long the next opening lasts.
    wait: Duration,
    /// How often it has opened. What was let in before says nothing about what is now.
    epoch: u64,
    /// Let in since the last opening, and not back yet.
    under_way: usize,
    tries: Tries,
}

/// Leave to ask the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admission {
    epoch: u64,
    probing: bool,
}

impl Admission {
    /// Whether this one message decides.
    pub(super) fn is_probe(self) -> bool {
        self.probing
    }
}

/// Why a message is not let in, and when to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    /// The circuit is open, or another one probes.
    Open(Instant),
    /// As many as the recovery allows are under way.
    Recovering(Instant),
}

/// What an answer has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// Nothing that anybody needs to know.
    No,
    /// The circuit has opened for so long.
    Opened(Duration),
    /// The probe has succeeded.
    Recovers,
    /// All mail flows again.
    Closed,
}

/// The tries of the last minute that said something about the provider's health.
#[derive(Debug, Default)]
struct Tries {
    /// By seconds: when it began, tries, faults among them.
    seconds: VecDeque<(Instant, u32, u32)>,
}

impl Tries {
    fn count(&mut self, fault: bool, now: Instant) {
        while self.seconds.front().is_some_and(|(begun, ..)| *begun + WINDOW <= now) {
            self.seconds.pop_front();
        }
        match self.seconds.back_mut() {
            Some((begun, tries, faults)) if now < *begun + GRAIN => {
                *tries += 1;
                *faults += u32::from(fault);
            }
            _ => self.seconds.push_back((now, 1, u32::from(fault))),
        }
    }

    /// Tries and faults.
    fn sum(&self) -> (u32, u32) {
        self.seconds.iter().fold((0, 0), |(tries, faults), second| (tries + second.1, faults + second.2))
    }
}

impl Machine {
    pub(super) fn new(settings: CircuitSettings, concurrency: usize) -> Self {
        let state = CircuitState::Closed { faults: 0 };
        Self { settings, concurrency, state, wait: settings.probe_after, epoch: 0, under_way: 0, tries: Tries::default() }
    }

    /// Keeps to other settings from now on. What is open stays open as long as it was said.
    pub(super) fn adopt(&mut self, settings: CircuitSettings, concurrency: usize) {
        self.settings = settings;
        self.concurrency = concurrency;
        self.wait = self.wait.clamp(settings.probe_after, settings.probe_max.max(settings.probe_after));
    }

    /// Where it stands now.
    pub(super) fn state(&self, now: Instant) -> CircuitState {
        match self.state {
            CircuitState::Open { until } if until <= now => CircuitState::HalfOpen { probing: false },
            CircuitState::Recovering { since } if since + self.settings.recover_over <= now => CircuitState::Closed { faults: 0 },
            state => state,
        }
    }

    /// How long the next opening would last.
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// When a recovery ends, if it goes well.
    pub(super) fn recovered_at(&self) -> Option<Instant> {
        match self.state {
            CircuitState::Recovering { since } => Some(since + self.settings.recover_over),
            _ => None,
        }
    }

    /// How many may be under way at a time; `None`: the circuit does not care.
    pub(super) fn at_once(&self, now: Instant) -> Option<usize> {
        match self.state(now) {
            CircuitState::Closed { .. } => None,
            CircuitState::Open { .. } => Some(0),
            CircuitState::HalfOpen { .. } => Some(1),
            CircuitState::Recovering { since } => {
                let over = self.settings.recover_over.as_nanos().max(1);
                let more = (now - since).as_nanos() * (self.concurrency.saturating_sub(1) as u128) / over;
                Some(1 + usize::try_from(more).unwrap_or(self.concurrency))
            }
        }
    }

    /// How many more may go now, where the circuit bounds that.
    pub(super) fn free(&self, now: Instant) -> usize {
        self.at_once(now).map_or(0, |most| most.saturating_sub(self.under_way))
    }

    /// Whether a message would be let in now, and then whether it would be the probe. Moves nothing.
    pub(super) fn look(&self, now: Instant) -> Result<bool, Denial> {
        match self.state(now) {
            CircuitState::Closed { .. } => Ok(false),
            CircuitState::Open { until } => Err(Denial::Open(until)),
            CircuitState::HalfOpen { probing: true } => Err(Denial::Open(now + LOOK_AGAIN)),
            CircuitState::HalfOpen { probing: false } => Ok(true),
            CircuitState::Recovering { .. } => match self.at_once(now) {
                Some(most) if self.under_way >= most => Err(Denial::Recovering(now + LOOK_AGAIN)),
                _ => Ok(false),
            },
        }
    }

    /// Leave to ask the provider now. `Moved` says whether a recovery has ended by the time alone.
    pub(super) fn admit(&mut self, now: Instant) -> (Result<Admission, Denial>, Moved) {
        let moved = self.settle(now);
        let probing = match self.look(now) {
            Ok(probing) => probing,
            Err(denial) => return (Err(denial), moved),
        };
        if probing {
            self.state = CircuitState::HalfOpen { probing: true };
        }
        self.under_way += 1;
        (Ok(Admission { epoch: self.epoch, probing }), moved)
    }

    /// Takes leave back, with what the answer says about the provider.
    pub(super) fn report(&mut self, admission: Admission, signal: BreakerSignal, now: Instant) -> Moved {
        // A straggler that was let in before the circuit opened proves nothing: only the probe does.
        if admission.epoch != self.epoch {
            return Moved::No;
        }
        self.under_way = self.under_way.saturating_sub(1);
        let settled = self.settle(now);
        if let BreakerSignal::Success | BreakerSignal::Fault = signal {
            self.tries.count(signal == BreakerSignal::Fault, now);
        }
        match (signal, self.state) {
            (BreakerSignal::Success, CircuitState::Closed { .. }) => {
                self.state = CircuitState::Closed { faults: 0 };
                settled
            }
            (BreakerSignal::Success, CircuitState::HalfOpen { .. }) => {
                self.state = CircuitState::Recovering { since: now };
                match self.settle(now) {
                    Moved::No => Moved::Recovers,
                    moved => moved,
                }
            }
            (BreakerSignal::Fault, CircuitState::Closed { faults }) => {
                self.state = CircuitState::Closed { faults: faults + 1 };
                if faults + 1 >= self.settings.trip_after || self.has_share_of_faults() { self.open(now) } else { settled }
            }
            // Whoever fails while it recovers is not well yet.
            (BreakerSignal::Fault, CircuitState::HalfOpen { .. } | CircuitState::Recovering { .. }) => self.open(now),
            (BreakerSignal::Trip, CircuitState::Closed { .. } | CircuitState::HalfOpen { .. } | CircuitState::Recovering { .. }) => {
                self.open(now)
            }
            (BreakerSignal::Neutral, CircuitState::HalfOpen { .. }) => {
                self.state = CircuitState::HalfOpen { probing: false };
                Moved::No
            }
            _ => settled,
        }
    }

    /// Closes it, whatever was seen.
    pub(super) fn reset(&mut self) {
        self.close();
        self.epoch += 1;
        self.under_way = 0;
    }

    /// Takes up where another run has left it.
    pub(super) fn restore(&mut self, state: CircuitState, wait: Duration) {
        self.state = state;
        self.wait = wait.clamp(self.settings.probe_after, self.settings.probe_max.max(self.settings.probe_after));
    }

    fn close(&mut self) {
        self.state = CircuitState::Closed { faults: 0 };
        // Only who has been well for the whole time starts from the beginning.
        self.wait = self.settings.probe_after;
        self.tries = Tries::default();
    }

    /// Ends a recovery that has lasted long enough.
    fn settle(&mut self, now: Instant) -> Moved {
        if self.recovered_at().is_some_and(|end| end <= now) {
            self.close();
            return Moved::Closed;
        }
        Moved::No
    }

    fn has_share_of_faults(&self) -> bool {
        let (tries, faults) = self.tries.sum();
        self.settings.trip_share.is_some_and(|share| tries >= ENOUGH && u64::from(faults) >= share.of(u64::from(tries)).max(1))
    }

    fn open(&mut self, now: Instant) -> Moved {
        let wait = self.wait;
        self.state = CircuitState::Open { until: now + wait };
        self.wait = (wait * 2).min(self.settings.probe_max);
        self.epoch += 1;
        self.under_way = 0;
        self.tries = Tries::default();
        Moved::Opened(wait)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
