//! How fast messages become durable, and how fast they pass through the spool.
//!
//! `cargo bench --bench spool [-- MESSAGES [DIRECTORY]]`; the directory decides which disk is measured.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a bench prints what it measured, and stops when it cannot")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use postrider::spool::sqlite::{Settings, SqliteSpool};
use postrider::spool::view::Lane;
use postrider::spool::{Change, RecipientState, Settlement, Spool, Want};
use postrider_providers::contract::{MessageId, ProviderName, RecipientIndex};
use support::message;
use tokio::time::Instant;

const BODY: usize = 4096;

fn main() {
    // Cargo passes flags of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let messages = arguments.next().map_or(50_000, |count| count.parse().expect("the number of messages"));
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    println!("{messages} messages of {BODY} octets, on {}", parent.display());
    for in_flight in [1, 8, 32, 128, 512] {
        // One at a time waits for an fsync each time.
        let messages = if in_flight == 1 { messages / 50 } else { messages };
        let dir = tempfile::tempdir_in(&parent).expect("a directory to measure in");
        runtime.block_on(measure(Settings::new(dir.path()), messages, in_flight));
    }
}

async fn measure(settings: Settings, messages: usize, in_flight: usize) {
    let (spool, _) = SqliteSpool::open(settings).await.expect("an empty spool");
    let stored = {
        let spool = spool.clone();
        rate(messages, in_flight, move || {
            let spool = spool.clone();
            async move {
                store(spool, false).await;
            }
        })
    }
    .await;
    println!("{in_flight:4} in flight: {stored:7.0} stored/s");

    let started = Instant::now();
    let mut claimed = 0;
    loop {
        let wants = [Want { lane: Lane::default(), limit: 500 }];
        let due = spool.claim(SystemTime::now(), &wants, 64 * 1024 * 1024).await.expect("a claim").remove(0).messages;
        if due.is_empty() {
            break;
        }
        claimed += due.len();
    }
    assert_eq!(claimed, messages);
    println!("                {:7.0} claimed/s", claimed as f64 / started.elapsed().as_secs_f64());

    let passed = {
        let spool = spool.clone();
        rate(messages, in_flight, move || pass(spool.clone()))
    }
    .await;
    println!("                {passed:7.0} stored, begun and settled/s");
    spool.close(Duration::from_secs(60)).await.expect("a farewell");
}

/// Does `work` so many times, so many at a time, and tells how often a second.
async fn rate<F: Future<Output = ()> + Send + 'static>(
    times: usize,
    in_flight: usize,
    work: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> f64 {
    let left = Arc::new(AtomicUsize::new(times));
    let started = Instant::now();
    let workers: Vec<_> = (0..in_flight)
        .map(|_| {
            let (left, work) = (Arc::clone(&left), work.clone());
            tokio::spawn(async move {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    work().await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no panic");
    }
    times as f64 / started.elapsed().as_secs_f64()
}

async fn store(spool: SqliteSpool, lease: bool) -> MessageId {
    let message = message(BODY);
    let id = message.id;
    spool.store(message, &Lane::default(), lease).await.expect("space");
    id
}

/// What the queue does to a message that is handed over at once.
async fn pass(spool: SqliteSpool) {
    let id = store(spool.clone(), true).await;
    spool.begin(id, &ProviderName::from("ses.eu"), &[RecipientIndex(0)]).await.expect("the lease");
    let (recipient, state, words) = (RecipientIndex(0), RecipientState::Relayed, "250 2.0.0 ok".into());
    let changes = vec![Change { recipient, state, words, not_before: None }];
    let settlement = Settlement {
        id,
        lane: Lane::default(),
        changes,
        attempts: 1,
        due: SystemTime::now(),
        notifications: Vec::new(),
        warned: false,
        journal: Vec::new(),
    };
    spool.settle(settlement).await.expect("the lease");
}
