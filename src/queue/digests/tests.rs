//! Floods of failures, with a clock that is paused.

use postrider_providers::contract::{Body, Diagnostic};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::bounce::{Event as Fate, Who};
use crate::clock::Clock;
use crate::spool::memory::MemorySpool;
use crate::spool::suite::{at, message_for};

const HOUR: Duration = Duration::from_secs(3600);

fn queue(spool: &MemorySpool) -> Queue<MemorySpool> {
    let mut settings = Settings { hostname: "relay.example".into(), ..Settings::default() };
    settings.bounce.digest_after = 2;
    settings.bounce.digest_every = HOUR;
    Queue::new(spool.clone(), settings, Clock::following_tokio(at(0)))
}

/// How many of `failures` are told by themselves.
async fn fail(queue: &Queue<MemorySpool>, failures: usize) -> usize {
    let (shared, owner) = (&queue.0, "owner@corp.example".parse().unwrap());
    let mut told = 0;
    for _ in 0..failures {
        let message = message_for(0, &["a@x.example"], Body::Inline("".into()));
        let event = Fate::Failed { diagnostic: Diagnostic::reply("RCPT", 550, "5.1.1 no"), expired: false };
        let notices = [Notice { recipient: &message.envelope.recipients[0], event }];
        let desk = Desk { spool: &shared.spool, settings: &shared.settings.load(), digests: &shared.digests, now: shared.clock.now() };
        let reader = Reader { who: Who::Owner, address: &owner, sender_is_told: false };
        told += usize::from(shared.digests.admit(&desk, reader, &message, &notices).await);
    }
    told
}

/// The text of the digest that is lent next.
async fn digest(queue: &Queue<MemorySpool>) -> String {
    let lease = queue.lease().await;
    assert_eq!(lease.message().envelope.recipients[0].address.as_str(), "owner@corp.example");
    let text = String::from_utf8(lease.message().body.bytes().await.unwrap().to_vec()).unwrap();
    lease.settle(Vec::new(), false).await;
    text
}

#[tokio::test(start_paused = true)]
async fn a_flood_ends_in_one_digest_at_the_end_of_its_period_though_nothing_more_happens() {
    let spool = MemorySpool::new();
    let queue = queue(&spool);
    let running = tokio::spawn({
        let queue = queue.clone();
        async move { queue.run(CancellationToken::new()).await }
    });
    let start = Instant::now();
    assert_eq!(fail(&queue, 1000).await, 2);
    assert_eq!(spool.recall(PREFIX).await.unwrap().len(), 1);
    let text = digest(&queue).await;
    assert!(text.contains("Undelivered mail: 998 more messages"), "{text}");
    assert!((HOUR..HOUR + LOOK_AGAIN).contains(&start.elapsed()), "{:?}", start.elapsed());
    let record = spool.journal(0, 10).await.unwrap().into_iter().map(|(_, record)| record).find(|record| record.contains("digest"));
    assert!(record.is_some_and(|record| record.contains("owner@corp.example")));
    assert_eq!(fail(&queue, 3).await, 2, "a new period");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_gathered_survives_a_crash() {
    let spool = MemorySpool::new();
    assert_eq!(fail(&queue(&spool), 5).await, 2);
    let (spool, _) = spool.crash();
    let queue = queue(&spool);
    assert_eq!(fail(&queue, 1).await, 0, "it knows how many were told");
    tokio::time::advance(HOUR).await;
    end_periods(&queue).await.unwrap();
    let text = digest(&queue).await;
    assert!(text.contains("Undelivered mail: 4 more messages"), "{text}");
    assert_eq!(spool.recall(PREFIX).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_digest_that_cannot_be_stored_is_kept_and_sent_later_with_what_came_meanwhile() {
    let spool = MemorySpool::new();
    let queue = queue(&spool);
    fail(&queue, 5).await;
    tokio::time::advance(HOUR).await;
    spool.set_fault(Some(SpoolError::Full("as asked".into())));
    assert!(end_periods(&queue).await.is_err());
    assert_eq!(fail(&queue, 1).await, 0);
    spool.set_fault(None);
    end_periods(&queue).await.unwrap();
    assert!(digest(&queue).await.contains("Undelivered mail: 4 more messages"));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_period_is_forgotten() {
    let spool = MemorySpool::new();
    let queue = queue(&spool);
    assert_eq!(fail(&queue, 2).await, 2);
    tokio::time::advance(HOUR).await;
    end_periods(&queue).await.unwrap();
    assert_eq!((spool.recall(PREFIX).await.unwrap(), queue.in_window()), (vec![], 0));
}
