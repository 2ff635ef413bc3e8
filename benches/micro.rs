//! What the parts cost that every message passes: parser, data reader, spool, claim, dispatch.
//!
//! `make micro`, or `cargo bench --bench micro [-- PART]`; each figure is compared with that of the run before.
//! The spools are below `TMPDIR`, whose disk decides what a commit takes.

#![allow(clippy::expect_used, reason = "a bench stops when it cannot measure")]

mod support;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput};
use futures_util::future::join_all;
use postrider::clock::Clock;
use postrider::config::{Failover, OddCommands, Route};
use postrider::dispatch::rate::{ProviderLimits, SenderLimits};
use postrider::dispatch::{Dispatcher, Endpoint};
use postrider::queue::{Queue, Settings as QueueSettings};
use postrider::route::Router;
use postrider::smtp::command::Command;
use postrider::smtp::decoder::Decoder;
use postrider::smtp::fold::LineFolder;
use postrider::spool::memory::MemorySpool;
use postrider::spool::sqlite::{Settings, SqliteSpool};
use postrider::spool::view::Lane;
use postrider::spool::{Change, RecipientState, Settlement, Spool, Want};
use postrider_providers::contract::{
    Attempt, Capabilities, Connected, Delivery, Failure, Outcome, Probed, Provider, ProviderName, Receipt, RecipientIndex, Report,
};
use support::message;
use tokio::runtime::Runtime;
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    commands(&mut criterion);
    data(&mut criterion);
    commits(&mut criterion);
    claims(&mut criterion);
    dispatch(&mut criterion);
    criterion.final_summary();
}

fn commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("command");
    for (name, line) in [
        ("EHLO", "EHLO erp.corp.example"),
        ("MAIL", "MAIL FROM:<erp@corp.example> SIZE=4096 BODY=8BITMIME"),
        ("RCPT", "RCPT TO:<desk@customers.example>"),
        ("RCPT with DSN", "RCPT TO:<desk@customers.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;desk@customers.example"),
        ("DATA", "DATA"),
    ] {
        group.bench_function(name, |bench| bench.iter(|| Command::parse(black_box(line.as_bytes()), OddCommands::Accept)));
    }
    group.finish();
}

/// The content as it comes from the wire, in the pieces that a socket gives.
fn data(criterion: &mut Criterion) {
    const PIECE: usize = 16 * 1024;
    const LINE: &[u8] = b"The quick brown fox jumps over the lazy dog, and the relay takes it all down.\r\n";
    let mut group = criterion.benchmark_group("data");
    for octets in [4 * 1024, 100 * 1024] {
        let mut wire = LINE.repeat(octets / LINE.len());
        wire.extend_from_slice(b"..a dot at the start of a line\r\n.\r\n");
        group.throughput(Throughput::Bytes(wire.len() as u64));
        group.bench_function(BenchmarkId::new("decode", octets), |bench| {
            bench.iter(|| {
                let mut decoder = Decoder::default();
                for piece in black_box(&wire[..]).chunks(PIECE) {
                    let mut out = BytesMut::with_capacity(piece.len());
                    decoder.decode(piece, &mut out);
                    black_box(out);
                }
                assert!(decoder.is_done());
            });
        });
        group.bench_function(BenchmarkId::new("fold", octets), |bench| {
            bench.iter(|| {
                let mut folder = LineFolder::default();
                for piece in black_box(&wire[..]).chunks(PIECE) {
                    black_box(folder.pass(piece));
                }
                black_box(folder.finish());
            });
        });
    }
    group.finish();
}

/// A message on its way through the spool, alone and in company: they share the commits.
fn commits(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory to measure in");
    let spool = open(&runtime, dir.path());
    let mut group = criterion.benchmark_group("spool");
    for company in [1, 50] {
        group.throughput(Throughput::Elements(company));
        group.bench_function(BenchmarkId::new("store and settle", company), |bench| {
            bench.to_async(&runtime).iter(|| join_all((0..company).map(|_| store_and_settle(&spool))));
        });
    }
    group.finish();
    runtime.block_on(spool.close(Duration::from_secs(60))).expect("a farewell");
}

async fn store_and_settle(spool: &SqliteSpool) {
    let message = message(4096);
    let id = message.id;
    spool.store(message, &Lane::default(), true).await.expect("space");
    let relayed =
        Change { recipient: RecipientIndex(0), state: RecipientState::Relayed, words: "250 2.0.0 ok".to_owned(), not_before: None };
    let settlement = Settlement {
        id,
        lane: Lane::default(),
        changes: vec![relayed],
        attempts: 1,
        due: SystemTime::now(),
        notifications: Vec::new(),
        warned: false,
        journal: Vec::new(),
    };
    spool.settle(settlement).await.expect("the lease");
}

/// Fetching what is due; it may not take longer because more waits. What was claimed is given back off the
/// clock, as due as it was.
fn claims(criterion: &mut Criterion) {
    const CLAIMED: usize = 100;
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("claim");
    group.throughput(Throughput::Elements(CLAIMED as u64)).sample_size(20);
    for waiting in [1_000, 100_000] {
        let dir = tempfile::tempdir().expect("a directory to measure in");
        let spool = open(&runtime, dir.path());
        let mut filled = false;
        group.bench_function(BenchmarkId::new("100 of", waiting), |bench| {
            // Not when this part was not asked for.
            if !std::mem::replace(&mut filled, true) {
                runtime.block_on(fill(&spool, waiting));
            }
            bench.to_async(&runtime).iter_custom(|times| {
                let spool = spool.clone();
                async move {
                    let mut took = Duration::ZERO;
                    for _ in 0..times {
                        let wants = [Want { lane: Lane::default(), limit: CLAIMED }];
                        let began = Instant::now();
                        let claimed = spool.claim(SystemTime::now(), &wants, 64 << 20).await.expect("a claim").remove(0).messages;
                        took += began.elapsed();
                        assert_eq!(claimed.len(), CLAIMED);
                        let back = claimed.iter().map(|stored| spool.release(stored.message.id, &wants[0].lane, stored.message.received));
                        join_all(back).await.into_iter().collect::<Result<(), _>>().expect("the leases");
                    }
                    took
                }
            });
        });
        runtime.block_on(spool.close(Duration::from_secs(60))).expect("a farewell");
    }
    group.finish();
}

async fn fill(spool: &SqliteSpool, messages: usize) {
    const AT_ONCE: usize = 500;
    let lane = Lane::default();
    for _ in 0..messages / AT_ONCE {
        let stored = join_all((0..AT_ONCE).map(|_| spool.store(message(1024), &lane, false))).await;
        stored.into_iter().collect::<Result<(), _>>().expect("space");
    }
}

/// What an attempt costs beside the provider: from the hand-in until it is settled, with a provider that takes no
/// time and a store that takes next to none.
fn dispatch(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stop = CancellationToken::new();
    let queue = runtime.block_on(dispatching(&stop));
    let mut group = criterion.benchmark_group("dispatch");
    for at_once in [1, 100] {
        group.throughput(Throughput::Elements(at_once));
        group.bench_function(BenchmarkId::new("attempts at once", at_once), |bench| {
            bench.to_async(&runtime).iter_custom(|times| {
                let queue = &queue;
                async move {
                    let mut took = Duration::ZERO;
                    for _ in 0..times {
                        let messages: Vec<_> = (0..at_once).map(|_| message(4096)).collect();
                        let began = Instant::now();
                        for message in messages {
                            queue.submit(message).await.expect("memory");
                        }
                        while queue.in_window() > 0 {
                            yield_now().await;
                        }
                        took += began.elapsed();
                        // Nobody reads it here, and it would grow.
                        queue.spool().forget_journal(u64::MAX).await.expect("memory");
                    }
                    took
                }
            });
        });
    }
    group.finish();
    stop.cancel();
}

/// A queue whose mail goes to [`Instantly`], with all guards but without limits.
async fn dispatching(stop: &CancellationToken) -> Queue<MemorySpool> {
    let queue = Queue::new(MemorySpool::new(), QueueSettings::default(), Clock::system());
    let name = ProviderName::new("bench", "instantly");
    let limits = ProviderLimits::restore(&name, &Default::default(), &queue).await.expect("memory");
    let connected = Connected { name: name.clone(), default_concurrency: 20, provider: Arc::new(Instantly) };
    let endpoint = Endpoint { connected, limits, concurrency: 20, rewrite: None };
    let router = Arc::new(Router::new(vec![Route { name: "default".into(), providers: vec![name], ..Route::default() }]));
    queue.use_router(Arc::clone(&router));
    let dispatcher = Dispatcher::new(queue.clone(), router, vec![endpoint], &Failover::default(), SenderLimits::default());
    tokio::spawn(Arc::new(dispatcher).run(stop.clone(), Duration::from_secs(1)));
    let (fed, stop) = (queue.clone(), stop.clone());
    tokio::spawn(async move { fed.run(stop).await });
    queue
}

/// Takes every message at once.
struct Instantly;

impl Provider for Instantly {
    fn capabilities(&self) -> Capabilities {
        Capabilities::EVERYTHING
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        Ok(Report::uniform(&attempt.recipients, &Outcome::Relayed(Receipt::default())))
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        Ok(Probed::default())
    }
}

fn open(runtime: &Runtime, dir: &Path) -> SqliteSpool {
    let settings = Settings { reserve: 0, ..Settings::new(dir) };
    runtime.block_on(SqliteSpool::open(settings)).expect("an empty spool").0
}
