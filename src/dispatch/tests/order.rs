//! Who is asked after whom, by what the one before said.

use super::*;

#[tokio::test(start_paused = true)]
async fn only_the_recipients_that_were_deferred_go_to_the_next_provider() {
    let partly: Answer = Box::new(|_| {
        let outcomes = [relayed(), Outcome::Deferred(words()), Outcome::Bounced(words()), Outcome::InDoubt(words())];
        Ok(Report::new((0..).map(RecipientIndex).zip(outcomes).collect()))
    });
    let (a, b) = (Scripted::new(vec![partly]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r0@z.example", "r1@z.example", "r2@z.example", "r3@z.example"]).await;
    bench.pass(100).await;
    assert_eq!(b.asked.lock()[0], (0, "x@y.example".to_owned(), vec!["r1@z.example".to_owned()]));
    // The notification about the one that bounced, and the one in doubt once more.
    let later: Vec<_> = a.asked.lock()[1..].to_vec();
    assert_eq!(
        later,
        [(0, String::new(), vec!["x@y.example".to_owned()]), (60, "x@y.example".to_owned(), vec!["r3@z.example".to_owned()])]
    );
    assert_eq!(bench.left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_message_bounces_and_is_not_shopped_around() {
    let (a, b) = (Scripted::new(vec![fails(Failure::Rejected(words()))]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(1).await;
    assert_eq!(b.asked.lock().len(), 0);
    assert_eq!(a.asked.lock()[1], (0, String::new(), vec!["x@y.example".to_owned()]), "the sender is told");
}

#[tokio::test(start_paused = true)]
async fn what_one_provider_cannot_carry_another_may_and_what_none_can_bounces() {
    let (mut a, mut b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    a.capabilities.max_size = Some(SizeLimit::message(10));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(1).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![], vec![0]));

    b.capabilities.max_size = Some(SizeLimit::message(10));
    let none = Bench::start(&[&a, &b], Setup::default()).await;
    none.submit("", &["r@z.example"]).await;
    none.pass(1).await;
    let counts = none.queue.counts().await.unwrap();
    assert_eq!((a.seconds().len(), b.seconds().len(), counts.messages, counts.dead), (0, 1, 1, 1), "nobody can be told: a dead letter");
}

#[tokio::test(start_paused = true)]
async fn a_refused_sender_or_credential_is_tried_elsewhere_at_once() {
    let refusals = vec![fails(Failure::SenderRefused(words())), fails(Failure::Unauthorized(words()))];
    let (a, b) = (Scripted::new(refusals), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(1).await;
    assert!(matches!(bench.circuits[0].1.state(), CircuitState::Closed { .. }), "a refused sender is no fault");
    bench.submit("x@w.example", &["r@z.example"]).await;
    bench.pass(1).await;
    assert!(matches!(bench.circuits[0].1.state(), CircuitState::Open { .. }), "a refused credential opens it at once");
    assert_eq!((a.asked.lock().len(), b.asked.lock().len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn attempts_follow_the_schedule_and_the_sender_hears_when_time_is_over() {
    let down = || fails(Failure::Unavailable(words()));
    let a = Scripted::new((0..6).map(|_| down()).collect());
    let bench = Bench::start(&[&a], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(1100).await;
    let asked = a.asked.lock().clone();
    let seconds: Vec<_> = asked.iter().map(|(at, ..)| *at).collect();
    // The last attempt is at the end of its life; the notification waits for the circuit's next probe.
    assert_eq!(seconds, [0, 60, 360, 660, 960, 1000, 1060], "{asked:?}");
    assert_eq!(asked.last().unwrap().1, "", "the last is the notification: {asked:?}");
    assert_eq!(bench.left().await, 0);
}
