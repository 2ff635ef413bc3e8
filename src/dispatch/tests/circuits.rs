//! Providers that are down, busy or slow, and a spool that is.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_open_circuit_costs_no_attempt_and_mail_flows_as_soon_as_the_probe_succeeds() {
    let a = Scripted::new((0..5).map(|_| fails(Failure::Unavailable(words()))).collect());
    let bench = Bench::start(&[&a], Setup::default()).await;
    for _ in 0..200 {
        bench.submit("x@y.example", &["r@z.example"]).await;
    }
    bench.pass(5).await;
    assert!(matches!(bench.circuits[0].1.state(), CircuitState::Open { .. }));
    let asked = a.asked.lock().len();
    assert!(asked <= 20, "{asked}: as many as were at it when the circuit opened");
    bench.pass(30).await;
    assert!(matches!(bench.circuits[0].1.state(), CircuitState::Recovering { .. }));
    assert!(a.asked.lock().len() >= 195, "{}", a.asked.lock().len());
    bench.pass(60).await;
    assert_eq!((bench.left().await, bench.circuits[0].1.state()), (0, CircuitState::Closed { faults: 0 }));
}

#[tokio::test(start_paused = true)]
async fn no_more_handovers_are_under_way_than_the_provider_may_have() {
    let mut a = Scripted::new(vec![]);
    a.takes = Duration::from_secs(1);
    let limits = LimitSettings { concurrency: Some(3), ..LimitSettings::default() };
    let bench = Bench::start(&[&a], Setup { limits, ..Setup::default() }).await;
    for _ in 0..30 {
        bench.submit("x@y.example", &["r@z.example"]).await;
    }
    bench.pass(10).await;
    assert_eq!((a.most_at_once.load(Ordering::SeqCst), a.seconds().len(), bench.left().await), (3, 30, 0));
}

#[tokio::test(start_paused = true)]
async fn a_backlog_keeps_the_provider_busy_to_its_end() {
    let mut a = Scripted::new(vec![]);
    a.takes = Duration::from_millis(100);
    let bench = Bench::start(&[&a], Setup::default()).await;
    // Several times what is held in memory: 20 at a time take 10 seconds.
    for _ in 0..2_000 {
        bench.submit("x@y.example", &["r@z.example"]).await;
    }
    bench.pass(13).await;
    assert_eq!((a.seconds().len(), bench.left().await), (2_000, 0));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_with_a_backlog_delays_no_other_route() {
    let (mut a, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    a.takes = Duration::from_secs(600);
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    for _ in 0..1_500 {
        bench.submit("x@y.example", &["r@z.example"]).await;
    }
    bench.pass(10).await;
    for _ in 0..100 {
        bench.submit("x@other.example", &["r@z.example"]).await;
        bench.pass(0).await;
    }
    let late = b.asked.lock().iter().zip(0u64..).filter(|((at, ..), nth)| *at > 11 + nth.div_ceil(2)).count();
    assert_eq!((b.seconds().len(), late), (100, 0), "each went within a second");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_while_the_intent_cannot_be_recorded() {
    let a = Scripted::new(vec![]);
    let bench = Bench::start(&[&a], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.spool.set_fault(Some(SpoolError::Full("no space left".to_owned())));
    bench.pass(100).await;
    assert_eq!(a.asked.lock().len(), 0);
    bench.spool.set_fault(None);
    bench.pass(20).await;
    assert_eq!((a.seconds().len(), bench.left().await), (1, 0));
}
