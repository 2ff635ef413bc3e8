//! How fast records move into the history, and how long each kind of search takes.
//!
//! `cargo bench --bench history [-- MESSAGES [DIRECTORY]]`; the directory decides which disk is measured.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a bench prints what it measured, and stops when it cannot")]

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use postrider::clock::Clock;
use postrider::config;
use postrider::history::event::{About, Record, millis};
use postrider::history::{Event, History, PastState, Query};
use postrider::spool::Spool as _;
use postrider::spool::memory::MemorySpool;
use postrider_providers::contract::MessageId;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// So many records are in the journal at once.
const WAVE: u64 = 50_000;

fn main() {
    // Cargo passes flags of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let messages = arguments.next().map_or(1_000_000, |count| count.parse().expect("the number of messages"));
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let dir = tempfile::tempdir_in(&parent).expect("a directory to measure in");
    println!("{messages} messages, on {}", parent.display());
    runtime.block_on(measure(dir.path().to_owned(), messages));
}

fn record(number: u64, id: MessageId, at: u64) -> String {
    let provider = if number.is_multiple_of(3) { "ses.eu" } else { "smarthost.office" }.to_owned();
    let about = About {
        received: at,
        sender: format!("app{}@corp{}.example", number % 50, number % 7),
        recipients: vec![format!("r{}@example{}.net", number / 4, number % 1000)],
        message_id: Some(format!("{number}@corp.example").into()),
        size: 4096,
        application: Some(if number.is_multiple_of(100_000) { "rare" } else { "erp" }.into()),
        client: Some("192.0.2.1".to_owned()),
    };
    let words = format!("250 2.0.0 Ok: queued as {number:x}");
    let attempt = Event::Attempt {
        number: 1,
        provider: provider.clone(),
        route: "default".to_owned(),
        recipients: vec![0],
        verdict: "relayed".to_owned(),
        words: words.clone(),
        elapsed_ms: 80,
    };
    let end = if number % 100 == 7 {
        Event::Bounced { recipients: vec![0], words: "550 5.1.1 no such user".to_owned() }
    } else {
        Event::Relayed { recipients: vec![0], provider, remote_id: Some(format!("{number:016x}")), words }
    };
    Record { at, message: id.to_string(), about: Some(about), events: vec![attempt, end], ended: true }.to_json()
}

async fn measure(dir: PathBuf, messages: u64) {
    let settings = config::History { max_size: 64 << 30, ..config::History::default() };
    let history = History::at(dir, settings, Clock::system());
    let (spool, stop) = (MemorySpool::new(), CancellationToken::new());
    let (kept, taken, stopped) = (history.clone(), spool.clone(), stop.clone());
    let hint = std::sync::Arc::<tokio::sync::Notify>::default();
    let hinted = std::sync::Arc::clone(&hint);
    let indexing = tokio::spawn(async move { kept.run(taken, hinted, stopped).await });
    let start = millis(SystemTime::now()) - messages;
    let (mut took, mut last, mut middle) = (Duration::ZERO, MessageId::generate(), None);
    let mut number = 0;
    while number < messages {
        for _ in 0..WAVE.min(messages - number) {
            last = MessageId::generate();
            if number == messages / 2 {
                middle = Some(last);
            }
            spool.note(record(number, last, start + number)).await.expect("a journal");
            number += 1;
        }
        let began = Instant::now();
        hint.notify_one();
        while !spool.journal(0, 1).await.expect("a journal").is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        took += began.elapsed();
    }
    println!("indexed in {:.1} us a record, {:.0}/s", took.as_secs_f64() * 1e6 / messages as f64, messages as f64 / took.as_secs_f64());
    let size = history.size().await.expect("an open history");
    println!("{} messages, {} octets each", size.messages, size.octets / size.messages.max(1));

    let (half, all) = (messages / 2, Query { limit: 100, ..Query::default() });
    let text = |text: String| Some(text);
    let time = |at: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_millis(start + at));
    for (what, query) in [
        ("id", Query { id: middle, ..all.clone() }),
        ("Message-ID", Query { message_id: text(format!("{half}@corp.example")), ..all.clone() }),
        ("provider's id", Query { remote_id: text(format!("{half:016x}")), ..all.clone() }),
        ("sender", Query { sender: text("app7@corp3.example".to_owned()), ..all.clone() }),
        ("recipient", Query { recipient: text(format!("r{}@example{}.net", half / 4, half % 1000)), ..all.clone() }),
        ("unknown recipient", Query { recipient: text("nobody@example.net".to_owned()), ..all.clone() }),
        ("state=bounced", Query { state: Some(PastState::Bounced), ..all.clone() }),
        ("a second of time", Query { since: time(half), until: time(half + 1000), ..all.clone() }),
        ("the newest", all.clone()),
        ("provider", Query { provider: text("ses.eu".to_owned()), ..all.clone() }),
        ("recipient=*@domain", Query { recipient: text("*@example500.net".to_owned()), ..all.clone() }),
        ("rare application", Query { application: text("rare".to_owned()), ..all.clone() }),
        ("unknown *pattern*", Query { recipient: text("*nobody*".to_owned()), ..all.clone() }),
    ] {
        let began = Instant::now();
        let found = history.search(&query).await.expect("an answer");
        println!("{what:20} {:8.1} ms, {} found", began.elapsed().as_secs_f64() * 1e3, found.len());
    }
    let began = Instant::now();
    let traced = history.trace(last).await.expect("an answer");
    println!("{:20} {:8.1} ms, {} events", "trace", began.elapsed().as_secs_f64() * 1e3, traced.map_or(0, |trace| trace.events.len()));
    stop.cancel();
    indexing.await.expect("the indexer");
}
