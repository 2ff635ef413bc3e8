//! Acting on what waits, wherever it is, alone and in jobs.

use std::sync::Arc;
use std::time::Duration;

use postrider_providers::contract::{Body, Message, ProviderName};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::Clock;
use crate::queue::Settings;
use crate::spool::memory::MemorySpool;
use crate::spool::suite::{at, lane, message, message_for};
use crate::spool::view::QueueState;

fn queue() -> Queue<MemorySpool> {
    Queue::new(MemorySpool::new(), Settings::default(), Clock::following_tokio(at(0)))
}

/// What the journal tells of actions.
async fn actions(queue: &Queue<MemorySpool>) -> Vec<(String, String, String)> {
    let records = queue.spool().journal(0, 10_000).await.unwrap();
    let events = records.into_iter().flat_map(|(_, record)| serde_json::from_str::<Record>(&record).unwrap().events);
    events
        .filter_map(|event| match event {
            Event::Action { action, words, by } => Some((action, words, by)),
            _ => None,
        })
        .collect()
}

async fn parked(queue: &Queue<MemorySpool>) -> Arc<Message> {
    let stored = message(0, b"x");
    queue.submit(stored.clone()).await.unwrap();
    queue.lease().await.park(WaitReason::new("a limit"), Instant::now() + Duration::from_secs(3600)).await;
    stored
}

/// Lets the job come to its end.
async fn finished(queue: &Queue<MemorySpool>, job: JobId) -> Progress {
    for _ in 0..10_000 {
        let progress = queue.job(job).unwrap();
        if progress.state != JobState::Running {
            return progress;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the job does not end: {:?}", queue.job(job));
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_or_ready_is_taken_out_of_the_window_and_held() {
    let queue = queue();
    let parked = parked(&queue).await;
    let ready = message(1, b"y");
    queue.submit(ready.clone()).await.unwrap();
    assert_eq!(queue.find(parked.id).await.unwrap().unwrap().waits_for, Some(WaitReason::new("a limit")));
    assert_eq!(queue.in_window(), 2);
    for id in [parked.id, ready.id] {
        assert_eq!(queue.act(id, Action::Hold, "anna").await.unwrap(), Done::Done);
    }
    assert_eq!(queue.in_window(), 0);
    assert_eq!(queue.summary().await.unwrap().count(QueueState::Held), 2);
    assert_eq!(actions(&queue).await, vec![("hold".to_owned(), String::new(), "anna".to_owned()); 2]);
    // What does not apply leaves everything as it was.
    assert!(matches!(queue.act(ready.id, Action::Hold, "anna").await.unwrap(), Done::Refused(_)));
    assert_eq!(actions(&queue).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_or_fails_stays_in_the_window() {
    let queue = queue();
    let parked = parked(&queue).await;
    assert!(matches!(queue.act(parked.id, Action::Release, "anna").await.unwrap(), Done::Refused(_)));
    queue.spool().set_fault(Some(SpoolError::Full("as asked".into())));
    assert!(queue.act(parked.id, Action::Hold, "anna").await.is_err());
    queue.spool().set_fault(None);
    assert_eq!(queue.in_window(), 1);
    assert_eq!(queue.lease().await.message().id, parked.id);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_attempted_is_busy_and_unharmed() {
    let queue = queue();
    let stored = message(0, b"x");
    queue.submit(stored.clone()).await.unwrap();
    let lease = queue.lease().await;
    for action in [Action::Hold, Action::Remove, Action::Bounce("no".into())] {
        assert_eq!(queue.act(stored.id, action, "anna").await.unwrap(), Done::Busy);
    }
    assert!(actions(&queue).await.is_empty());
    lease.begin(&ProviderName::from("ses.eu"), &[RecipientIndex(0)]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_retried_is_fetched_at_once() {
    let queue = queue();
    let stored = message(0, b"x");
    queue.submit(stored.clone()).await.unwrap();
    let later = vec![(RecipientIndex(0), Disposition::Deferred(Diagnostic::local("not now")))];
    queue.lease().await.settle(later, true).await;
    let running = CancellationToken::new();
    let feeder = tokio::spawn({
        let (queue, running) = (queue.clone(), running.clone());
        async move { queue.run(running).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(queue.in_window(), 0);
    assert_eq!(queue.act(stored.id, Action::Retry, "anna").await.unwrap(), Done::Done);
    let lease = tokio::time::timeout(Duration::from_secs(1), queue.lease()).await.unwrap();
    assert_eq!(lease.message().id, stored.id);
    running.cancel();
    feeder.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_is_bounced_by_a_person_is_told_in_their_words() {
    let queue = queue();
    let parked = parked(&queue).await;
    let stored = message_for(0, &["a@example.org", "b@example.org"], Body::Inline("Subject: x\r\n\r\nx\r\n".into()));
    queue.spool().store(stored.clone(), &lane(), false).await.unwrap();
    queue.act(stored.id, Action::Hold, "anna").await.unwrap();
    for id in [parked.id, stored.id] {
        assert_eq!(queue.act(id, Action::Bounce("the project has ended".into()), "anna").await.unwrap(), Done::Done);
        assert!(queue.find(id).await.unwrap().is_none());
    }
    assert_eq!(queue.in_window(), 0);
    let notifications = queue.list(&"from=<>".parse().unwrap(), None, 10).await.unwrap();
    assert_eq!(notifications.len(), 2);
    let text = queue.export(notifications[1].id).await.unwrap().unwrap().bytes().await.unwrap();
    assert!(String::from_utf8_lossy(&text).contains("the project has ended"));
    assert_eq!(actions(&queue).await[1..], vec![("bounce".to_owned(), "the project has ended".to_owned(), "anna".to_owned()); 2]);
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_is_in_the_history_with_what_it_was() {
    let queue = queue();
    let parked = parked(&queue).await;
    assert_eq!(queue.act(parked.id, Action::Remove, "anna").await.unwrap(), Done::Done);
    let (_, last) = queue.spool().journal(0, 10).await.unwrap().pop().unwrap();
    let record: Record = serde_json::from_str(&last).unwrap();
    assert!(record.ended);
    assert_eq!((record.message, record.about.unwrap().recipients), (parked.id.to_string(), vec!["rcpt@example.org".to_owned()]));
    assert_eq!(queue.in_window(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_does_it_to_all_that_the_filter_means_and_counts() {
    let queue = queue();
    for number in 0..700 {
        let to = if number % 2 == 0 { "even@example.org" } else { "odd@example.org" };
        queue.spool().store(message_for(0, &[to], Body::Inline("x".into())), &lane(), false).await.unwrap();
    }
    let busy = message_for(0, &["even@example.org"], Body::Inline("x".into()));
    queue.submit(busy.clone()).await.unwrap();
    let lease = queue.lease().await;
    let job = queue.start_job("to=even@*".parse().unwrap(), Action::Hold, "anna");
    let running = tokio::time::timeout(Duration::from_secs(3), finished(&queue, job)).await;
    assert!(running.is_err(), "it tries again what is being attempted");
    drop(lease);
    let progress = finished(&queue, job).await;
    assert_eq!((progress.state, progress.expected, progress.matched), (JobState::Finished, Some(351), 351));
    assert_eq!((progress.done, progress.busy, progress.refused, progress.gone), (351, 0, 0, 0));
    assert_eq!(queue.count(&"state=held".parse().unwrap()).await.unwrap(), 351);
    let again = queue.start_job("state=held,queued".parse().unwrap(), Action::Hold, "anna");
    let progress = finished(&queue, again).await;
    assert_eq!((progress.matched, progress.done, progress.refused), (701, 350, 351));
    assert!(progress.first_refusal.unwrap().contains("already"));
    assert_eq!(queue.jobs().iter().map(|job| job.id).collect::<Vec<_>>(), [again, job]);
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_when_it_is_cancelled_and_gives_up_what_stays_busy() {
    let queue = queue();
    queue.submit(message(0, b"x")).await.unwrap();
    let _lease = queue.lease().await;
    let job = queue.start_job(Filter::default(), Action::Remove, "anna");
    let progress = finished(&queue, job).await;
    assert_eq!((progress.state, progress.done, progress.busy), (JobState::Finished, 0, 1));
    let job = queue.start_job(Filter::default(), Action::Remove, "anna");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(queue.cancel_job(job));
    assert_eq!(finished(&queue, job).await.state, JobState::Cancelled);
    assert!(!queue.cancel_job(job), "it has ended");
    queue.spool().set_fault(Some(SpoolError::Full("as asked".into())));
    let job = queue.start_job(Filter::default(), Action::Retry, "anna");
    assert!(matches!(finished(&queue, job).await.state, JobState::Failed(_)));
}

#[tokio::test(start_paused = true)]
async fn old_jobs_are_forgotten_and_running_ones_are_not() {
    let queue = queue();
    queue.submit(message(0, b"x")).await.unwrap();
    let _lease = queue.lease().await;
    let running = queue.start_job(Filter::default(), Action::Remove, "anna");
    let first = queue.start_job("app=none".parse().unwrap(), Action::Remove, "anna");
    for _ in 0..60 {
        let job = queue.start_job("app=none".parse().unwrap(), Action::Remove, "anna");
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(queue.job(job).unwrap().state, JobState::Finished);
    }
    assert_eq!(queue.job(running).unwrap().state, JobState::Running);
    assert!(queue.job(first).is_none());
    assert_eq!(queue.jobs().len(), 50);
}
