//! What moves a circuit, and what does not.

use BreakerSignal::{Fault, Neutral, Success, Trip};

use super::*;
use crate::config::Share;

const AT_A_TIME: usize = 10;

/// A machine on a clock of its own.
struct Bench {
    machine: Machine,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(CircuitSettings::default())
    }

    /// Trips after three in a row; waits of 30, 60 and 100 seconds; recovers over 90.
    fn with(settings: CircuitSettings) -> Self {
        let seconds = Duration::from_secs;
        let settings =
            CircuitSettings { trip_after: 3, probe_after: seconds(30), probe_max: seconds(100), recover_over: seconds(90), ..settings };
        Self { machine: Machine::new(settings, AT_A_TIME), now: Instant::now() }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn admit(&mut self) -> Result<Admission, Denial> {
        self.machine.admit(self.now).0
    }

    fn report(&mut self, admission: Admission, signal: BreakerSignal) -> Moved {
        self.machine.report(admission, signal, self.now)
    }

    fn send(&mut self, signal: BreakerSignal) -> Moved {
        let admission = self.admit().unwrap();
        self.report(admission, signal)
    }

    fn state(&self) -> CircuitState {
        self.machine.state(self.now)
    }

    /// Until when it refuses, in seconds from now.
    fn refuses_for(&mut self) -> u64 {
        match self.admit() {
            Err(Denial::Open(until)) => (until - self.now).as_secs(),
            other => panic!("{other:?}"),
        }
    }

    /// How many are let in now beside those that are under way.
    fn lets_in(&mut self) -> Vec<Admission> {
        std::iter::from_fn(|| self.admit().ok()).take(100).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn faults_in_a_row_open_it_and_a_success_between_them_does_not() {
    let mut bench = Bench::new();
    for signal in [Fault, Fault, Success, Fault, Neutral, Fault] {
        assert_eq!(bench.send(signal), Moved::No);
    }
    assert_eq!(bench.state(), CircuitState::Closed { faults: 2 }, "a neutral answer neither counts nor heals");
    assert_eq!(bench.send(Fault), Moved::Opened(Duration::from_secs(30)));
    assert_eq!(bench.refuses_for(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_opens_it_at_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.send(Trip), Moved::Opened(Duration::from_secs(30)));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_last_minutes_tries_opens_it_once_there_are_enough() {
    let half = CircuitSettings { trip_share: Share::percent(50), ..CircuitSettings::default() };
    let mut bench = Bench::with(half);
    for _ in 0..9 {
        assert_eq!((bench.send(Success), bench.send(Fault)), (Moved::No, Moved::No), "eighteen are not enough");
    }
    assert_eq!(bench.send(Success), Moved::No);
    assert_eq!(bench.send(Fault), Moved::Opened(Duration::from_secs(30)), "ten of twenty");

    let mut bench = Bench::with(half);
    for _ in 0..19 {
        bench.send(Success);
    }
    // Those are forgotten after a minute, and not before.
    bench.pass(59);
    for _ in 0..18 {
        assert_eq!((bench.send(Success), bench.send(Fault)), (Moved::No, Moved::No), "less than half");
    }
    bench.pass(1);
    assert_eq!(bench.send(Fault), Moved::Opened(Duration::from_secs(30)), "19 of 37");

    let mut bench = Bench::new();
    for _ in 0..50 {
        bench.send(Fault);
        assert_eq!(bench.send(Success), Moved::No, "without a share, none opens it");
    }
}

#[tokio::test(start_paused = true)]
async fn one_probe_passes_and_the_wait_doubles_up_to_its_maximum() {
    let mut bench = Bench::new();
    bench.send(Trip);
    for (wait, next) in [(30, 60), (60, 100), (100, 100), (100, 100)] {
        bench.pass(wait - 1);
        assert_eq!(bench.refuses_for(), 1);
        bench.pass(1);
        let probe = bench.admit().unwrap();
        assert_eq!(bench.admit(), Err(Denial::Open(bench.now + LOOK_AGAIN)), "one probe at a time");
        assert_eq!(bench.report(probe, Fault), Moved::Opened(Duration::from_secs(next)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_back_gets_more_and_more_until_it_gets_all() {
    let mut bench = Bench::new();
    bench.send(Trip);
    bench.pass(30);
    assert_eq!(bench.send(Success), Moved::Recovers);
    let mut under_way = Vec::new();
    // Ten at a time over ninety seconds: one more every ten.
    for (seconds, most) in [(0, 1), (9, 1), (1, 2), (10, 3), (40, 7), (29, 9)] {
        bench.pass(seconds);
        under_way.extend(bench.lets_in());
        assert_eq!(under_way.len(), most, "{seconds}");
    }
    assert_eq!(bench.admit(), Err(Denial::Recovering(bench.now + LOOK_AGAIN)));
    let back = under_way.pop().unwrap();
    assert_eq!(bench.report(back, Success), Moved::No);
    assert_eq!(bench.lets_in().len(), 1, "whoever comes back makes room for one");
    bench.pass(1);
    assert_eq!(bench.state(), CircuitState::Closed { faults: 0 });
    assert_eq!(bench.machine.admit(bench.now).1, Moved::Closed);
    assert_eq!(bench.lets_in().len(), 100, "the circuit bounds nothing any more");
}

#[tokio::test(start_paused = true)]
async fn a_fault_while_it_recovers_opens_it_with_the_doubled_wait_and_only_health_resets_that() {
    let mut bench = Bench::new();
    bench.send(Trip);
    for (wait, next) in [(30, 60), (60, 100)] {
        bench.pass(wait);
        assert_eq!(bench.send(Success), Moved::Recovers);
        bench.pass(89);
        assert_eq!(bench.send(Fault), Moved::Opened(Duration::from_secs(next)));
    }
    bench.pass(100);
    bench.send(Success);
    bench.pass(90);
    assert_eq!((bench.send(Success), bench.send(Trip)), (Moved::No, Moved::Opened(Duration::from_secs(30))), "the wait begins anew");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_says_nothing_neither_ends_nor_hastens_a_recovery() {
    let mut bench = Bench::new();
    bench.send(Trip);
    bench.pass(30);
    bench.send(Success);
    let since = bench.state();
    bench.pass(5);
    assert_eq!((bench.send(Neutral), bench.state()), (Moved::No, since));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_ends_without_saying_anything_leaves_room_for_the_next() {
    let mut bench = Bench::new();
    bench.send(Trip);
    bench.pass(30);
    assert_eq!((bench.send(Neutral), bench.state()), (Moved::No, CircuitState::HalfOpen { probing: false }));
    assert_eq!(bench.send(Success), Moved::Recovers);
}

#[tokio::test(start_paused = true)]
async fn stragglers_of_before_the_trip_move_nothing_whatever_they_say() {
    let mut bench = Bench::new();
    let stragglers: Vec<_> = std::iter::from_fn(|| bench.admit().ok()).take(4).collect();
    bench.send(Trip);
    assert_eq!((bench.report(stragglers[0], Fault), bench.report(stragglers[1], Success)), (Moved::No, Moved::No));
    assert_eq!(bench.refuses_for(), 30);
    bench.pass(30);
    let probe = bench.admit().unwrap();
    assert_eq!(bench.report(stragglers[2], Fault), Moved::No);
    assert_eq!(bench.report(probe, Success), Moved::Recovers);
    assert_eq!(bench.report(stragglers[3], Trip), Moved::No);
    assert_eq!(bench.lets_in().len(), 1, "nor do they take a place");
}

#[tokio::test(start_paused = true)]
async fn without_a_time_to_recover_the_first_success_closes_it() {
    let settings = CircuitSettings { trip_after: 1, recover_over: Duration::ZERO, ..CircuitSettings::default() };
    let mut bench = Bench { machine: Machine::new(settings, AT_A_TIME), now: Instant::now() };
    bench.send(Fault);
    bench.pass(30);
    assert_eq!((bench.send(Success), bench.state()), (Moved::Closed, CircuitState::Closed { faults: 0 }));
}

#[tokio::test(start_paused = true)]
async fn a_reset_closes_it_and_forgets_what_was_under_way() {
    let mut bench = Bench::new();
    let straggler = bench.admit().unwrap();
    bench.send(Trip);
    bench.machine.reset();
    assert_eq!(bench.state(), CircuitState::Closed { faults: 0 });
    bench.report(straggler, Trip);
    assert_eq!(bench.send(Trip), Moved::Opened(Duration::from_secs(30)));
}
