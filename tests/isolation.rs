//! A provider that hangs, and a domain that floods, over the durable spool: how long others wait.
//!
//! The large ones measure, and are run by hand:
//! `cargo test --release --test isolation -- --ignored --nocapture --test-threads 1`

#![allow(clippy::unwrap_used, reason = "what cannot be set up has failed")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use postrider::clock::Clock;
use postrider::config::{Failover, Route, When};
use postrider::dispatch::rate::{ProviderLimits, SenderLimits};
use postrider::dispatch::{Dispatcher, Endpoint};
use postrider::queue::{Queue, Settings};
use postrider::route::Router;
use postrider::spool::sqlite::{self, SqliteSpool};
use postrider_providers::contract::{
    Address, Attempt, Body, Capabilities, Connected, Delivery, Envelope, Failure, Message, MessageId, Origin, Outcome, Probed, Provider,
    Receipt, Recipient, Report, ReversePath,
};
use postrider_providers::settings::LimitSettings;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How many messages are handed in at the same time.
const AT_ONCE: usize = 64;

/// A provider that takes its time, and writes down when it was asked for what.
#[derive(Clone)]
struct Recording {
    takes: Duration,
    asked: Arc<Mutex<HashMap<MessageId, Instant>>>,
}

impl Recording {
    fn taking(takes: Duration) -> Self {
        Self { takes, asked: Arc::default() }
    }

    fn count(&self) -> usize {
        self.asked.lock().len()
    }
}

impl Provider for Recording {
    fn capabilities(&self) -> Capabilities {
        Capabilities::EVERYTHING
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        self.asked.lock().entry(attempt.message.id).or_insert_with(Instant::now);
        sleep(self.takes).await;
        Ok(Report::uniform(&attempt.recipients, &Outcome::Relayed(Receipt::default())))
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        Ok(Probed::default())
    }
}

/// A queue over SQLite with two routes: that of `dead.example` leads to one provider, all else to another.
struct Bench {
    queue: Queue<SqliteSpool>,
    alive: Recording,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn start(dead: &Recording, alive: &Recording) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (spool, _) = SqliteSpool::open(sqlite::Settings { reserve: 0, ..sqlite::Settings::new(dir.path()) }).await.unwrap();
        let queue = Queue::new(spool, Settings::default(), Clock::system());
        let when = When { sender_domains: vec!["dead.example".parse().unwrap(), "*.dead.example".parse().unwrap()], ..When::default() };
        let route = |name: &str, when| Route { name: name.into(), when, providers: vec![name.into()], ..Route::default() };
        let router = Arc::new(Router::new(vec![route("test.dead", when), route("test.alive", When::default())]));
        queue.use_router(Arc::clone(&router));
        let mut endpoints = Vec::new();
        for (name, provider) in [("test.dead", dead), ("test.alive", alive)] {
            let name = name.into();
            let limits = ProviderLimits::restore(&name, &LimitSettings::default(), &queue).await.unwrap();
            let connected = Connected { name, default_concurrency: 5, provider: Arc::new(provider.clone()) };
            endpoints.push(Endpoint { connected, limits, concurrency: 5, rewrite: None });
        }
        let dispatcher = Arc::new(Dispatcher::new(queue.clone(), router, endpoints, &Failover::default(), SenderLimits::default()));
        let stop = CancellationToken::new();
        tokio::spawn(dispatcher.run(stop.clone(), Duration::from_millis(1)));
        let (fed, stopped) = (queue.clone(), stop.clone());
        tokio::spawn(async move { fed.run(stopped).await });
        Self { queue, alive: alive.clone(), stop, _dir: dir }
    }

    async fn submit(&self, domain: &str) -> MessageId {
        let from = ReversePath::Mailbox(format!("x@{domain}").parse().unwrap());
        let to = Recipient::from("r@z.example".parse::<Address>().unwrap());
        let body = Body::Inline(Bytes::from(vec![b'x'; 2048]));
        let (id, received) = (MessageId::generate(), SystemTime::now());
        let message = Message { id, received, origin: Origin::default(), envelope: Envelope::new(from, vec![to]), body };
        self.queue.submit(Arc::new(message)).await.unwrap();
        id
    }

    /// Hands in so many messages of one domain, or of several below it.
    async fn flood(&self, domain: &str, messages: usize, lanes: usize) {
        let name = |number: usize| if lanes == 1 { domain.to_owned() } else { format!("{}.{domain}", number % lanes) };
        futures_util::stream::iter(0..messages)
            .for_each_concurrent(AT_ONCE, |number| async move {
                self.submit(&name(number)).await;
            })
            .await;
    }

    /// How long one message of another domain takes from being accepted to being handed over.
    async fn delay(&self) -> Duration {
        let id = self.submit("quiet.example").await;
        let accepted = Instant::now();
        let handed = async {
            loop {
                if let Some(asked) = self.alive.asked.lock().get(&id) {
                    return *asked;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(60), handed).await.unwrap().saturating_duration_since(accepted)
    }

    /// So many of them, one after the other, sorted.
    async fn delays(&self, messages: usize) -> Vec<Duration> {
        let mut delays = Vec::with_capacity(messages);
        for _ in 0..messages {
            delays.push(self.delay().await);
            sleep(Duration::from_millis(5)).await;
        }
        delays.sort_unstable();
        delays
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// A provider that answers nothing while a test runs.
fn hanging() -> Recording {
    Recording::taking(Duration::from_secs(3600))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_behind_a_provider_that_hangs_keeps_no_other_from_going() {
    let (dead, alive) = (hanging(), Recording::taking(Duration::ZERO));
    let bench = Bench::start(&dead, &alive).await;
    bench.flood("dead.example", 2_000, 50).await;
    bench.delays(20).await;
    assert_eq!((dead.count(), alive.count()), (5, 20), "as many as the provider that hangs may have at once");
    // What the other took is settled a moment after it was handed over.
    while bench.queue.counts().await.unwrap().messages > 2_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.queue.counts().await.unwrap().messages, 2_000, "what hangs is all still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_another_domain_does_not_stand_behind_a_flood() {
    let (dead, alive) = (hanging(), Recording::taking(Duration::from_millis(20)));
    let bench = Bench::start(&dead, &alive).await;
    bench.flood("flood.example", 2_000, 1).await;
    let before = alive.count();
    bench.delay().await;
    let (after, all) = (alive.count(), 2_001);
    assert!(before < all / 2, "the flood is still there: {before}");
    assert!(after - before < (all - before) / 2, "it was not the last one: {before}, {after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, for minutes"]
async fn measure_a_provider_that_hangs_with_100_000_messages_behind_it() {
    let (dead, alive) = (hanging(), Recording::taking(Duration::ZERO));
    let bench = Bench::start(&dead, &alive).await;
    bench.delays(50).await;
    let without = bench.delays(500).await;
    let start = Instant::now();
    bench.flood("dead.example", 100_000, 1000).await;
    println!("100,000 messages behind a provider that hangs, in {:.1} s", start.elapsed().as_secs_f64());
    let with = bench.delays(500).await;
    for percent in [50, 99] {
        let (without, with) = (percentile(&without, percent), percentile(&with, percent));
        let ratio = with.as_secs_f64() / without.as_secs_f64();
        println!("accepted to handed over, p{percent}: {without:?} undisturbed, {with:?} with it: {ratio:.2} times");
    }
    let waiting = bench.queue.counts().await.unwrap().messages;
    assert!(waiting >= 100_000, "{waiting}");
    assert!(percentile(&with, 99) <= 2 * percentile(&without, 99).max(Duration::from_millis(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, for minutes"]
async fn measure_a_flood_of_200_000_messages_of_one_domain() {
    let (dead, alive) = (hanging(), Recording::taking(Duration::from_millis(5)));
    let bench = Bench::start(&dead, &alive).await;
    let (during, behind) = tokio::join!(bench.flood("flood.example", 200_000, 1), bench.delays(200));
    let () = during;
    let left = bench.queue.counts().await.unwrap().messages;
    let after = bench.delays(200).await;
    for (when, delays) in [("while it comes in", behind), ("with it in the queue", after)] {
        let (p50, p99, most) = (percentile(&delays, 50), percentile(&delays, 99), percentile(&delays, 100));
        println!("a single message of another domain, {when}: p50 {p50:?}, p99 {p99:?}, most {most:?}");
        assert!(most < Duration::from_secs(1), "{when}: {most:?}");
    }
    assert!(left > 50_000, "the flood is still there: {left}");
}
