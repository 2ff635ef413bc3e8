//! What people stop, drain, pause and pin, and what a restart finds of it.

use super::*;
use crate::config::{CircuitSettings, ProviderFailover};
use crate::dispatch::control::Command;
use crate::history::{Event, Record};

fn a() -> ProviderName {
    "test.a".into()
}

fn provider() -> Subject {
    Subject::Provider(a())
}

impl Bench {
    async fn alice(&self, command: Command) -> String {
        self.dispatcher.control(command, "alice").await.unwrap()
    }

    /// How the first provider is doing.
    fn status(&self) -> ProviderStatus {
        self.dispatcher.providers().remove(0)
    }

    async fn one(&self) {
        self.submit("x@y.example", &["r@z.example"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_tripped_provider_is_not_asked_until_a_reset_also_after_a_restart() {
    let (a_, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a_, &b], Setup::default()).await;
    assert_eq!(bench.alice(Command::Trip(a())).await, "provider test.a is tripped");
    assert_eq!(bench.alice(Command::Trip(a())).await, "provider test.a was tripped already");
    bench.one().await;
    bench.pass(100).await;
    let bench = bench.restarted(&[&a_, &b], Setup::default()).await;
    bench.one().await;
    bench.pass(2000).await;
    assert_eq!((a_.seconds().len(), b.seconds().len()), (0, 2));
    let status = bench.status();
    assert_eq!((status.circuit.state, status.circuit.why.as_str(), &*status.tripped.unwrap().who), ("open", "opened by alice", "alice"));
    bench.alice(Command::Reset(a())).await;
    bench.one().await;
    bench.pass(1).await;
    assert_eq!((a_.seconds().len(), b.seconds().len(), bench.status().circuit.state), (1, 2, "closed"));
}

#[tokio::test(start_paused = true)]
async fn a_drained_provider_gets_no_new_mail_and_is_asked_again_about_what_is_in_doubt() {
    let (a_, b) = (Scripted::new(vec![gives(Outcome::InDoubt(words()))]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a_, &b], Setup::default()).await;
    bench.one().await;
    bench.pass(1).await;
    bench.alice(Command::Drain(a())).await;
    bench.one().await;
    bench.pass(70).await;
    assert_eq!((a_.seconds(), b.seconds(), bench.left().await), (vec![0, 60], vec![1], 0));
    assert_eq!((bench.status().in_doubt, bench.status().in_doubt_by_route), (1, vec![("all".into(), 1)]));
    bench.alice(Command::Resume(provider())).await;
    bench.one().await;
    bench.pass(1).await;
    assert_eq!(a_.seconds().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_paused_provider_is_passed_over_and_keeps_even_its_doubts() {
    let (a_, b) = (Scripted::new(vec![gives(Outcome::InDoubt(words()))]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a_, &b], Setup::default()).await;
    bench.one().await;
    bench.pass(1).await;
    bench.alice(Command::Pause(provider())).await;
    bench.one().await;
    // Ten times as long as mail lives here.
    bench.pass(10_000).await;
    assert_eq!((a_.seconds(), b.seconds(), bench.left().await), (vec![0], vec![1], 1), "its doubt has not expired");
    bench.alice(Command::Resume(provider())).await;
    bench.pass(1).await;
    assert_eq!((a_.seconds().len(), bench.left().await), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pause_neither_counts_attempts_nor_ages_a_message_also_over_a_restart() {
    for subject in [Subject::Route("all".into()), Subject::Domain("Y.example".into()), Subject::Application("erp".into()), provider()] {
        let faults = || fails(Failure::Unavailable(words()));
        // The last one succeeds.
        let a_ = Scripted::new(vec![faults(), faults(), faults()]);
        let bench = Bench::start(&[&a_], Setup::default()).await;
        bench.submit_of("erp", &["r@z.example"]).await;
        bench.pass(30).await;
        assert_eq!(bench.alice(Command::Pause(subject.clone())).await.split(' ').next_back(), Some("paused"));
        bench.pass(5000).await;
        let bench = bench.restarted(&[&a_], Setup::default()).await;
        bench.pass(5000).await;
        assert_eq!(a_.seconds(), [0], "{subject:?}");
        let resumed = a_.start.elapsed().as_secs();
        assert_eq!(bench.dispatcher.pauses().len(), 1);
        bench.alice(Command::Resume(subject.clone())).await;
        assert_eq!(bench.dispatcher.pauses().len(), 0);
        // Second and third attempt, by the schedule; the end of its life is the last one.
        bench.pass(2000).await;
        let after: Vec<u64> = a_.seconds().iter().skip(1).map(|second| second - resumed).collect();
        assert_eq!((after, bench.left().await), (vec![0, 300, 600], 0), "{subject:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_other_mail_waits_for_is_not_paused_with_it() {
    let a_ = Scripted::new(vec![]);
    let bench = Bench::start(&[&a_], Setup::default()).await;
    bench.alice(Command::Pause(Subject::Domain("y.example".into()))).await;
    bench.one().await;
    bench.submit("x@w.example", &["r@z.example"]).await;
    bench.submit("", &["r@z.example"]).await;
    bench.pass(1).await;
    assert_eq!((a_.seconds().len(), bench.left().await), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_pinned_route_asks_one_provider_alone_until_it_is_unpinned() {
    let (a_, b) = (Scripted::new(vec![]), Scripted::new(vec![fails(Failure::Unavailable(words()))]));
    let bench = Bench::start(&[&a_, &b], Setup::default()).await;
    bench.alice(Command::Pin { route: "all".into(), provider: "test.b".into() }).await;
    bench.one().await;
    bench.pass(70).await;
    let bench = bench.restarted(&[&a_, &b], Setup::default()).await;
    bench.one().await;
    bench.pass(1).await;
    assert_eq!((a_.seconds().len(), b.seconds().len(), bench.dispatcher.pins().len()), (0, 3, 1));
    assert_eq!(bench.dispatcher.providers()[1].pins[0].route, "all".into());
    bench.alice(Command::Unpin("all".into())).await;
    bench.one().await;
    bench.pass(1).await;
    assert_eq!((a_.seconds().len(), b.seconds().len()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_exist_is_refused_and_changes_nothing() {
    let (a_, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a_, &b], Setup::default()).await;
    for (command, words) in [
        (Command::Trip("test.x".into()), "there is no provider \"test.x\"; there are test.a, test.b"),
        (Command::Pause(Subject::Route("none".into())), "there is no route \"none\"; there are all, other"),
        (Command::Pause(Subject::Application("none".into())), "there is no application \"none\"; there are erp"),
        (Command::Pin { route: "none".into(), provider: a() }, "there is no route \"none\"; there are all, other"),
        (Command::Pin { route: "other".into(), provider: a() }, "route \"other\" does not name test.a, so it cannot be pinned to it"),
    ] {
        assert_eq!(bench.dispatcher.control(command, "alice").await.unwrap_err().to_string(), words);
    }
    bench.spool.set_fault(Some(SpoolError::Full("no space left".to_owned())));
    assert!(bench.dispatcher.control(Command::Trip(a()), "alice").await.is_err());
    bench.spool.set_fault(None);
    assert!(bench.status().tripped.is_none());
    assert_eq!(bench.spool.journal(0, 10).await.unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_history_has_who_did_what() {
    let a_ = Scripted::new(vec![]);
    let bench = Bench::start(&[&a_], Setup::default()).await;
    bench.alice(Command::Drain(a())).await;
    let (_, record) = bench.spool.journal(0, 10).await.unwrap().remove(0);
    let record: Record = serde_json::from_str(&record).unwrap();
    let action = Event::Action { action: "drain".into(), words: "provider test.a is drained".into(), by: "alice".into() };
    assert_eq!((record.message.as_str(), record.at, record.events), ("", 1_000_000_000, vec![action]));
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_open_after_a_restart_and_its_wait_goes_on_growing() {
    let unavailable = || fails(Failure::Unavailable(words()));
    let a_ = Scripted::new((0..6).map(|_| unavailable()).collect());
    let bench = Bench::start(&[&a_], Setup::default()).await;
    for _ in 0..5 {
        bench.one().await;
    }
    bench.pass(5).await;
    assert_eq!(bench.status().circuit.why, "DATA: 550 5.7.1 no");
    let bench = bench.restarted(&[&a_], Setup::default()).await;
    bench.one().await;
    bench.pass(20).await;
    assert_eq!((a_.seconds(), bench.status().circuit.state), (vec![0; 5], "open"));
    // The probe fails: twice the wait from there.
    bench.pass(65).await;
    assert_eq!(a_.seconds(), [0, 0, 0, 0, 0, 30, 90, 90, 90, 90, 90, 90]);
    assert_eq!(bench.status().circuit.state, "recovering");
    let bench = bench.restarted(&[&a_], Setup::default()).await;
    assert_eq!((bench.status().circuit.state, bench.status().circuit.at_once), ("recovering", Some(1)));
    bench.pass(31).await;
    assert_eq!(bench.status().circuit.state, "closed");
    bench.one().await;
    bench.pass(1).await;
    assert_eq!(bench.spool.recall("circuit/").await.unwrap(), [], "a closed circuit leaves no note");
}

#[tokio::test(start_paused = true)]
async fn a_doubt_outlives_the_circuit_that_it_opens() {
    for (route, held) in [((|_| {}) as fn(&mut Route), 0), (|route: &mut Route| route.in_doubt = InDoubt::Hold, 5)] {
        let (a_, b) = (Scripted::new((0..5).map(|_| gives(Outcome::InDoubt(words()))).collect()), Scripted::new(vec![]));
        let bench = Bench::start(&[&a_, &b], Setup { route, ..Setup::default() }).await;
        for _ in 0..5 {
            bench.one().await;
        }
        bench.pass(5).await;
        assert_eq!((bench.status().circuit.state, bench.status().in_doubt), ("open", 5));
        bench.pass(300).await;
        let counts = bench.queue.counts().await.unwrap();
        assert_eq!((counts.messages, counts.held, b.seconds().len()), (held, held, 0), "nobody else was asked");
        assert_eq!(a_.seconds().len(), 10 - usize::try_from(held).unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_sender_is_not_tried_there_again_for_an_hour_nor_bounced_for_that() {
    let refused = || fails(Failure::SenderRefused(Diagnostic::local("the sender is not verified")));
    let (a_, b) = (Scripted::new(vec![refused()]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a_, &b], Setup::default()).await;
    for _ in 0..3 {
        bench.one().await;
        bench.pass(1).await;
    }
    bench.submit("x@w.example", &["r@z.example"]).await;
    bench.pass(1).await;
    assert_eq!((a_.seconds().len(), b.seconds().len()), (2, 3), "only the other domain was tried");
    let known = bench.status().refused_senders.remove(0);
    assert_eq!((&*known.sender, known.until.duration_since(known.since).unwrap().as_secs()), ("y.example", 3600));
    let bench = bench.restarted(&[&a_, &b], Setup::default()).await;
    bench.one().await;
    bench.pass(1).await;
    assert_eq!((a_.seconds().len(), b.seconds().len()), (2, 4), "nor after a restart");
    bench.alice(Command::Reset(a())).await;
    bench.one().await;
    bench.pass(1).await;
    assert_eq!((a_.seconds().len(), bench.status().refused_senders), (3, vec![]));

    let alone = Scripted::new(vec![refused()]);
    let bench =
        Bench::start(&[&alone], Setup { route: |route| route.expire_after = Some(Duration::from_secs(9000)), ..Setup::default() }).await;
    bench.one().await;
    bench.pass(3500).await;
    assert_eq!((alone.seconds(), bench.left().await), (vec![0], 1));
    bench.pass(101).await;
    assert_eq!((alone.seconds(), bench.left().await), (vec![0, 3600], 0));
}

#[tokio::test(start_paused = true)]
async fn a_long_pause_that_a_provider_asks_for_holds_for_every_route_and_over_a_restart() {
    let throttled = Failure::Throttled { retry_after: Some(Duration::from_secs(600)), diagnostic: words() };
    let (a_, b) = (Scripted::new(vec![]), Scripted::new(vec![fails(throttled)]));
    let setup = || Setup { route: |route| route.providers.reverse(), ..Setup::default() };
    let bench = Bench::start(&[&a_, &b], setup()).await;
    bench.one().await;
    bench.pass(1).await;
    // By the other route, and another sender.
    bench.submit("x@other.example", &["r@z.example"]).await;
    bench.pass(100).await;
    let bench = bench.restarted(&[&a_, &b], setup()).await;
    bench.submit("x@other.example", &["r@z.example"]).await;
    bench.pass(1).await;
    assert!(bench.dispatcher.providers()[1].throttled_until.is_some());
    bench.pass(800).await;
    assert_eq!((a_.seconds(), b.seconds(), bench.left().await), (vec![], vec![0, 600, 600, 600], 0));
}

#[tokio::test(start_paused = true)]
async fn the_schedule_is_that_of_the_provider_that_was_asked_last_then_of_the_route_then_of_the_queue() {
    let seconds = |waits: &[u64]| waits.iter().copied().map(Duration::from_secs).collect::<Vec<_>>();
    let failing = || Scripted::new((0..3).map(|_| fails(Failure::Unavailable(words()))).collect());
    let own = |waits| {
        let own = ProviderFailover { circuit: CircuitSettings::default(), retry: Some(seconds(waits)) };
        Failover { providers: [("test.b".into(), own)].into(), ..Failover::default() }
    };
    for (failover, route, expected) in [
        (Failover::default(), (|_| {}) as fn(&mut Route), vec![0, 60, 360, 660]),
        (Failover::default(), |route| route.retry = Some(vec![Duration::from_secs(7)]), vec![0, 7, 14, 21]),
        (own(&[11, 12, 13]), |route| route.retry = Some(vec![Duration::from_secs(7)]), vec![0, 11, 23, 36]),
    ] {
        let (a_, b) = (failing(), failing());
        let bench = Bench::start(&[&a_, &b], Setup { failover, route, ..Setup::default() }).await;
        bench.one().await;
        bench.pass(700).await;
        assert_eq!((a_.seconds(), bench.left().await), (expected, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_does_not_flood_a_provider_that_is_back() {
    let mut a_ = Scripted::new((0..5).map(|_| fails(Failure::Unavailable(words()))).collect());
    a_.takes = Duration::from_secs(1);
    let bench = Bench::start(&[&a_], Setup::default()).await;
    for _ in 0..5 {
        bench.one().await;
    }
    bench.pass(5).await;
    for _ in 0..300 {
        bench.one().await;
    }
    // The probe is due at 31 and done at 32; thirty seconds later all twenty may go at a time.
    bench.pass(100).await;
    let asked = a_.seconds();
    let in_second = |second| asked.iter().filter(|at| **at == second).count();
    assert_eq!((in_second(31), bench.status().circuit.state), (1, "closed"), "{asked:?}");
    let ramp: Vec<usize> = (32..62).map(in_second).collect();
    assert!(ramp.iter().zip(0..).all(|(count, nth)| *count <= 2 + nth * 19 / 30), "{ramp:?}");
    assert!(ramp.iter().sum::<usize>() > 200, "{ramp:?}");
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_what_went_on() {
    let (a_, b) = (Scripted::new(vec![fails(Failure::Unavailable(words().advised(Some("look"))))]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a_, &b], Setup::default()).await;
    bench.one().await;
    bench.pass(1).await;
    bench.one().await;
    bench.pass(1).await;
    let status = bench.status();
    assert_eq!((status.kind.as_str(), status.in_flight, status.concurrency, status.last_success.is_some()), ("test", 0, 20, true));
    let error = &status.last_errors[0];
    assert_eq!((error.verdict, error.words.as_str(), error.advice.as_deref()), ("unavailable", "DATA: 550 5.7.1 no", Some("look")));
}
