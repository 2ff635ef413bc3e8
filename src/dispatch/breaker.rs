//! The circuit breaker: a provider that fails is left alone, and asked again by one message at a time.
//!
//! Words: **closed** = mail flows, **open** = refused until the probe is due, **half-open** = one
//! probe is under way. What moves it is three-valued: success, fault, and neutral (a refusal that
//! says nothing about the provider's health).
//!
//! ```text
//!            trip_after faults in a row, or a refused credential
//!   closed ───────────────────────────────────────────────────────> open
//!     ^                                                            │    ^
//!     │ success                       probe is due: one may pass   │    │ fault: twice the wait,
//!     └───────────────────────── half-open <───────────────────────┘    │ up to probe_max
//!                                    └──────────────────────────────────┘
//! ```

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use postrider_providers::contract::{BreakerSignal, ProviderName, Report};
use tokio::time::Instant;
use tower::{Layer, Service};
use tracing::{info, warn};

use super::transport::{Refusal, Try};
use crate::config::CircuitSettings;
use crate::queue::WaitReason;

/// How long a message waits while another one probes.
const WHILE_PROBING: Duration = Duration::from_millis(500);

/// What a circuit does with the next message.
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
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed { .. } => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "half-open",
        })
    }
}

/// One provider's circuit. Clones share it.
#[derive(Debug, Clone)]
pub struct Circuit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: ProviderName,
    settings: CircuitSettings,
    machine: Mutex<Machine>,
}

/// The pure machine.
#[derive(Debug)]
struct Machine {
    state: CircuitState,
    /// How long the next opening lasts.
    wait: Duration,
}

/// Leave to ask the provider. Dropped without a report, it counts as neutral.
#[derive(Debug)]
struct Permit {
    circuit: Circuit,
    probing: bool,
    reported: bool,
}

impl Circuit {
    /// A closed circuit.
    #[must_use]
    pub fn new(name: ProviderName, settings: CircuitSettings) -> Self {
        let machine = Mutex::new(Machine { state: CircuitState::Closed { faults: 0 }, wait: settings.probe_after });
        Self(Arc::new(Inner { name, settings, machine }))
    }

    /// What it would do now.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        match self.0.machine.lock().state {
            CircuitState::Open { until } if until <= Instant::now() => CircuitState::HalfOpen { probing: false },
            state => state,
        }
    }

    /// Leave to ask the provider now, or the time at which to come again.
    fn admit(&self, now: Instant) -> Result<Permit, Instant> {
        let mut machine = self.0.machine.lock();
        let probing = match machine.state {
            CircuitState::Closed { .. } => false,
            CircuitState::Open { until } if now < until => return Err(until),
            CircuitState::HalfOpen { probing: true } => return Err(now + WHILE_PROBING),
            CircuitState::Open { .. } | CircuitState::HalfOpen { probing: false } => {
                machine.state = CircuitState::HalfOpen { probing: true };
                info!(provider = %self.0.name, "circuit half-open: one message probes");
                true
            }
        };
        Ok(Permit { circuit: self.clone(), probing, reported: false })
    }

    fn report(&self, signal: BreakerSignal, probing: bool, now: Instant) {
        let Inner { name, settings, machine } = &*self.0;
        let mut machine = machine.lock();
        match (signal, machine.state) {
            (BreakerSignal::Success, CircuitState::Closed { .. }) => machine.state = CircuitState::Closed { faults: 0 },
            // A straggler that was let in before the circuit opened proves nothing by failing, and
            // everything by succeeding.
            (BreakerSignal::Success, CircuitState::Open { .. } | CircuitState::HalfOpen { .. }) => {
                machine.state = CircuitState::Closed { faults: 0 };
                machine.wait = settings.probe_after;
                info!(provider = %name, "circuit closed: the provider takes mail again");
            }
            (BreakerSignal::Fault, CircuitState::Closed { faults }) if faults + 1 < settings.trip_after => {
                machine.state = CircuitState::Closed { faults: faults + 1 };
            }
            (BreakerSignal::Fault | BreakerSignal::Trip, CircuitState::Closed { .. }) => machine.open(name, settings, now),
            (BreakerSignal::Fault | BreakerSignal::Trip, CircuitState::HalfOpen { .. }) if probing => machine.open(name, settings, now),
            (BreakerSignal::Neutral, CircuitState::HalfOpen { .. }) if probing => {
                machine.state = CircuitState::HalfOpen { probing: false };
            }
            _ => {}
        }
    }
}

impl Machine {
    fn open(&mut self, name: &ProviderName, settings: &CircuitSettings, now: Instant) {
        warn!(provider = %name, probe_in = ?self.wait, "circuit open: the provider is left alone");
        self.state = CircuitState::Open { until: now + self.wait };
        self.wait = (self.wait * 2).min(settings.probe_max);
    }
}

impl Permit {
    fn report(mut self, signal: BreakerSignal) {
        self.reported = true;
        self.circuit.report(signal, self.probing, Instant::now());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.reported {
            self.circuit.report(BreakerSignal::Neutral, self.probing, Instant::now());
        }
    }
}

/// Puts a circuit around a service.
#[derive(Debug, Clone)]
pub(super) struct BreakerLayer(pub(super) Circuit);

/// A service behind a circuit.
#[derive(Debug, Clone)]
pub(super) struct Breaker<T> {
    circuit: Circuit,
    inner: T,
}

impl<T> Layer<T> for BreakerLayer {
    type Service = Breaker<T>;

    fn layer(&self, inner: T) -> Breaker<T> {
        Breaker { circuit: self.0.clone(), inner }
    }
}

impl<T> Service<Try> for Breaker<T>
where
    T: Service<Try, Response = Report, Error = Refusal>,
    T::Future: Send + 'static,
{
    type Response = Report;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Report, Refusal>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Try) -> Self::Future {
        let permit = match self.circuit.admit(Instant::now()) {
            Ok(permit) => permit,
            Err(until) => {
                let reason = WaitReason::new(format!("circuit of {}", self.circuit.0.name));
                return Box::pin(std::future::ready(Err(Refusal::CircuitOpen { reason, until })));
            }
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            permit.report(match &answer {
                Ok(report) => report.breaker_signal(),
                Err(Refusal::Failed(failure)) => failure.breaker_signal(),
                // The provider was not asked.
                Err(Refusal::CircuitOpen { .. } | Refusal::Limited { .. } | Refusal::Spool(_)) => BreakerSignal::Neutral,
            });
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circuit() -> Circuit {
        let settings = CircuitSettings {
            trip_after: 3,
            probe_after: Duration::from_secs(30),
            probe_max: Duration::from_secs(100),
            ..CircuitSettings::default()
        };
        Circuit::new("smarthost.a".into(), settings)
    }

    fn send(circuit: &Circuit, signal: BreakerSignal) {
        circuit.admit(Instant::now()).unwrap().report(signal);
    }

    #[tokio::test(start_paused = true)]
    async fn faults_in_a_row_open_it_and_a_success_between_them_does_not() {
        let circuit = circuit();
        for signal in [
            BreakerSignal::Fault,
            BreakerSignal::Fault,
            BreakerSignal::Success,
            BreakerSignal::Fault,
            BreakerSignal::Neutral,
            BreakerSignal::Fault,
        ] {
            send(&circuit, signal);
        }
        assert_eq!(circuit.state(), CircuitState::Closed { faults: 2 }, "a neutral answer neither counts nor heals");
        send(&circuit, BreakerSignal::Fault);
        assert_eq!(circuit.admit(Instant::now()).unwrap_err(), Instant::now() + Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_credential_opens_it_at_once() {
        let circuit = circuit();
        send(&circuit, BreakerSignal::Trip);
        assert!(matches!(circuit.state(), CircuitState::Open { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_passes_and_the_wait_doubles_up_to_its_maximum() {
        let circuit = circuit();
        send(&circuit, BreakerSignal::Trip);
        for wait in [30, 60, 100, 100] {
            tokio::time::advance(Duration::from_secs(wait) - Duration::from_millis(1)).await;
            assert!(circuit.admit(Instant::now()).is_err());
            tokio::time::advance(Duration::from_millis(1)).await;
            let probe = circuit.admit(Instant::now()).unwrap();
            assert!(circuit.admit(Instant::now()).is_err(), "one probe at a time");
            probe.report(BreakerSignal::Fault);
        }
        tokio::time::advance(Duration::from_secs(100)).await;
        send(&circuit, BreakerSignal::Success);
        assert_eq!(circuit.state(), CircuitState::Closed { faults: 0 });
        send(&circuit, BreakerSignal::Trip);
        assert_eq!(circuit.admit(Instant::now()).unwrap_err(), Instant::now() + Duration::from_secs(30), "the wait begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_ends_without_saying_anything_leaves_room_for_the_next() {
        let circuit = circuit();
        send(&circuit, BreakerSignal::Trip);
        tokio::time::advance(Duration::from_secs(30)).await;
        drop(circuit.admit(Instant::now()).unwrap());
        assert_eq!(circuit.state(), CircuitState::HalfOpen { probing: false });
        send(&circuit, BreakerSignal::Neutral);
        send(&circuit, BreakerSignal::Success);
        assert_eq!(circuit.state(), CircuitState::Closed { faults: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn stragglers_of_before_the_trip_do_not_lengthen_it() {
        let circuit = circuit();
        let stragglers: Vec<_> = (0..3).map(|_| circuit.admit(Instant::now()).unwrap()).collect();
        send(&circuit, BreakerSignal::Trip);
        for straggler in stragglers {
            straggler.report(BreakerSignal::Fault);
        }
        assert_eq!(circuit.admit(Instant::now()).unwrap_err(), Instant::now() + Duration::from_secs(30));
    }
}
