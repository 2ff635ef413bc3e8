//! What the history is told of attempts and their ends.

use super::*;
use crate::history::{Event, History, Moment, Past, PastState, Query};

/// A history of what the bench does.
async fn history(bench: &Bench) -> History {
    let history = History::in_memory(crate::config::History::default(), bench.queue.clock());
    let (kept, spool, hint) = (history.clone(), bench.spool.clone(), bench.queue.journaled());
    tokio::spawn(async move { kept.run(spool, hint, CancellationToken::new()).await });
    history
}

/// The only message with this sender, and what happened to it.
async fn traced(history: &History, sender: &str) -> (Past, Vec<Event>) {
    let mut found = history.search(&Query { sender: Some(sender.to_owned()), ..Query::default() }).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let past = found.remove(0);
    let trace = history.trace(past.id).await.unwrap().unwrap();
    assert_eq!(trace.past, past);
    (past, trace.events.into_iter().map(|Moment { event, .. }| event).collect())
}

#[tokio::test(start_paused = true)]
async fn a_trace_tells_who_refused_and_who_took_it_with_words_times_and_ids() {
    let (mut a, b) = (Scripted::new(vec![fails(Failure::Unavailable(words()))]), Scripted::new(vec![]));
    a.takes = Duration::from_millis(40);
    let receipt = Receipt { remote_id: Some("id-1".into()), reply: "250 taken".into(), ..Receipt::default() };
    b.script.lock().push_back(gives(Outcome::Relayed(receipt)));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    let history = history(&bench).await;
    bench.submit("x@y.example", &["r@z.example", "s@z.example"]).await;
    bench.pass(1).await;
    let (past, events) = traced(&history, "x@y.example").await;
    assert_eq!((past.state, past.ended.is_some(), past.about.recipients.len()), (PastState::Relayed, true, 2));
    let attempt = |provider: &str, verdict: &str, said: String, elapsed_ms| {
        let (provider, route, verdict) = (provider.to_owned(), "all".to_owned(), verdict.to_owned());
        Event::Attempt { number: 1, provider, route, recipients: vec![0, 1], verdict, words: said, elapsed_ms }
    };
    let (provider, remote_id) = ("test.b".to_owned(), Some("id-1".to_owned()));
    assert_eq!(
        events,
        [
            attempt("test.a", "unavailable", words().to_string(), 40),
            attempt("test.b", "relayed", "250 taken".to_owned(), 0),
            Event::Relayed { recipients: vec![0, 1], provider, remote_id, words: "250 taken".to_owned() },
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_trace_tells_of_deferrals_with_the_next_try_and_of_the_bounce_with_its_notification() {
    let partly: Answer = Box::new(|_| {
        let outcomes = [Outcome::Deferred(words()), Outcome::Bounced(words())];
        Ok(Report::new((0..).map(RecipientIndex).zip(outcomes).collect()))
    });
    let a = Scripted::new(vec![partly]);
    let bench = Bench::start(&[&a], Setup::default()).await;
    let history = history(&bench).await;
    let accepted = bench.queue.clock().now();
    bench.submit("x@y.example", &["r@z.example", "s@z.example"]).await;
    bench.pass(1).await;
    let (past, events) = traced(&history, "x@y.example").await;
    let states: Vec<PastState> = past.recipients.iter().map(|recipient| recipient.state).collect();
    assert_eq!((past.ended, states), (None, vec![PastState::Queued, PastState::Bounced]));
    let Some(Event::Deferred { recipients, due, .. }) = events.iter().find(|event| matches!(event, Event::Deferred { .. })) else {
        panic!("{events:?}")
    };
    assert_eq!(*recipients, [0]);
    let next = Duration::from_millis(*due) - Duration::from_millis(crate::history::event::millis(accepted));
    assert!((45..=75).contains(&next.as_secs()), "{next:?}");
    assert!(events.contains(&Event::Bounced { recipients: vec![1], words: words().to_string() }), "{events:?}");
    let Some(Event::Notified { who, to, what, notification }) = events.last() else { panic!("{events:?}") };
    assert_eq!((who.as_str(), to.as_str(), what.as_str()), ("sender", "x@y.example", "failure"));
    // The notification is a message with a history of its own.
    bench.pass(1).await;
    let of_notification = history.trace(notification.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(of_notification.past.about.recipients, ["x@y.example"]);
    bench.pass(100).await;
    let (past, events) = traced(&history, "x@y.example").await;
    assert!(past.ended.is_some());
    assert!(matches!(&events[events.len() - 2], Event::Attempt { number: 2, .. }), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn mail_that_only_waits_writes_nothing() {
    let mut a = Scripted::new(vec![]);
    a.takes = Duration::from_secs(30);
    let limits = LimitSettings { concurrency: std::num::NonZeroU32::new(1).map(std::num::NonZeroU32::get), ..LimitSettings::default() };
    let bench = Bench::start(&[&a], Setup { limits, ..Setup::default() }).await;
    for _ in 0..3 {
        bench.submit("x@y.example", &["r@z.example"]).await;
    }
    bench.pass(20).await;
    assert!(bench.spool.journal(0, 10).await.unwrap().is_empty());
    bench.pass(100).await;
    assert_eq!(bench.spool.journal(0, 10).await.unwrap().len(), 3);
}
