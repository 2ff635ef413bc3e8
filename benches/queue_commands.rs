//! How long the questions and actions of a person take with a million messages in the queue.
//!
//! `cargo bench --bench queue_commands [-- MESSAGES [DIRECTORY]]`. The queue is filled past the spool, which
//! takes seconds instead of minutes; everything that is timed goes through it.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a bench prints what it measured, and stops when it cannot")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use postrider::clock::Clock;
use postrider::queue::{JobState, Queue, Settings as QueueSettings};
use postrider::spool::Spool;
use postrider::spool::action::Action;
use postrider::spool::filter::Filter;
use postrider::spool::sqlite::{Settings, SqliteSpool};
use postrider::spool::view::{Lane, QueueState};
use postrider_providers::contract::{Address, Body, BodyType, Envelope, Message, MessageId, Origin, Recipient, ReversePath};
use rusqlite::{Connection, params};
use tokio::time::{Instant, sleep};

/// The bar for a summary and for a list.
const BAR: Duration = Duration::from_secs(1);

/// One message in so many has this domain; the bulk action is done to it.
const TENTH: u64 = 10;

fn main() {
    // Cargo passes flags of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let messages = arguments.next().map_or(1_000_000, |count| count.parse().expect("the number of messages"));
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(&parent).expect("a directory to measure in");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let settings = || Settings { reserve: 0, ..Settings::new(dir.path()) };
        // It makes the schema.
        let (spool, _) = SqliteSpool::open(settings()).await.expect("an empty spool");
        spool.close(Duration::from_secs(60)).await.expect("a farewell");
        drop(spool);
        let started = Instant::now();
        fill(dir.path(), messages);
        println!("{messages} messages, filled in {:.1} s, on {}", started.elapsed().as_secs_f64(), parent.display());
        let started = Instant::now();
        let (spool, _) = SqliteSpool::open(settings()).await.expect("the filled spool");
        println!("opened in {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
        let queue = Queue::new(spool, QueueSettings::default(), Clock::system());
        questions(&queue).await;
        bulk(&queue).await;
        queue.spool().close(Duration::from_secs(60)).await.expect("a farewell");
    });
}

/// Six hours of mail: most of it deferred, some never attempted, little in doubt, held and dead.
fn fill(dir: &Path, messages: u64) {
    let mut db = Connection::open(dir.join("spool.db")).expect("the database");
    let now = millis(SystemTime::now());
    let tx = db.transaction().expect("a transaction");
    for id in 1..=40_i64 {
        // Four routes, and their priorities.
        let (route, priority) = match id % 4 {
            0 => ("alarms", "high"),
            1 => ("default", "normal"),
            2 => ("newsletter", "bulk"),
            _ => ("invoices", "normal"),
        };
        tx.execute(
            "INSERT INTO lanes (id, priority, route, domain) VALUES (?1, ?2, ?3, ?4)",
            params![id, priority, route, format!("d{id}.example")],
        )
        .expect("a lane");
    }
    {
        let mut message = tx
            .prepare(
                "INSERT INTO messages (id, received, reverse_path, body_type, smtputf8, size, attempts, due, lane, application, client, \
                 message_id, doubts, holds, deaths) VALUES (?1, ?2, ?3, '8bitmime', 0, 200, ?4, ?5, ?6, 'erp', '10.1.2.3', ?7, ?8, ?9, ?10)",
            )
            .expect("the table");
        let mut recipient = tx
            .prepare(
                "INSERT INTO recipients (message, position, address, state, provider, diagnostic, last_provider) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )
            .expect("the table");
        let mut body = tx.prepare("INSERT INTO bodies (id, data) VALUES (?1, ?2)").expect("the table");
        for number in 0..messages {
            let id = MessageId::generate();
            let received = now - 6 * 3_600_000 + i64::try_from(number * 6 * 3_600_000 / messages).expect("a moment");
            let state = match number % 1000 {
                0..5 => "in_doubt",
                5..8 => "held",
                8..10 => "dead",
                _ => "pending",
            };
            let attempts = if number % 3 == 0 && state == "pending" { 0 } else { 3 };
            let lane = i64::try_from(1 + number % 40).expect("a small number");
            let domain = if number % TENTH == 0 { "bulk.example".to_owned() } else { format!("d{lane}.example") };
            let is = |wanted: &str| i64::from(state == wanted);
            message
                .execute(params![
                    id.as_bytes(),
                    received,
                    format!("sender{}@{domain}", number % 100),
                    attempts,
                    (!matches!(state, "held" | "dead")).then_some(now + 3_600_000),
                    lane,
                    format!("{number}@erp.example"),
                    is("in_doubt"),
                    is("held"),
                    is("dead"),
                ])
                .expect("a message");
            for position in 0..=i64::from(number % 10 == 9) {
                let provider = matches!(state, "in_doubt" | "held").then_some("ses.eu");
                let last = (attempts > 0).then_some(if number % 2 == 0 { "ses.eu" } else { "smarthost.office" });
                let said = last.map(|_| "RCPT: 451 4.7.1 try again later, says the provider");
                let address = format!("recipient{number}.{position}@customers{}.example", number % 500);
                recipient.execute(params![id.as_bytes(), position, address, state, provider, said, last]).expect("a recipient");
            }
            body.execute(params![id.as_bytes(), [b'x'; 200]]).expect("a body");
        }
    }
    tx.commit().expect("space");
}

async fn questions(queue: &Queue<SqliteSpool>) {
    let mut slowest = Duration::ZERO;
    for round in ["first", "again"] {
        let started = Instant::now();
        let summary = queue.summary().await.expect("a summary");
        let took = started.elapsed();
        slowest = slowest.max(took);
        let counts: Vec<_> = QueueState::ALL.iter().map(|state| format!("{} {}", state.as_str(), summary.count(*state))).collect();
        println!("summary, {round}: {:6.0} ms   {} parts; {}", took.as_secs_f64() * 1e3, summary.lanes.len(), counts.join(", "));
    }
    println!("     list    count   messages   filter");
    for text in [
        "",
        "state=dead",
        "state=deferred",
        "state=deferred to=*@customers7.example older=1h provider=ses.eu",
        "state=queued older=5h",
        "state=active",
        "to=recipient4711.0@customers211.example",
        "to=*@nowhere.example",
        "state=queued to=*@nowhere.example",
        "reason=*5.7.1*",
        "from=*@bulk.example attempts>=3",
        "from=nobody@nowhere.example",
        "domain=nowhere.example state=deferred",
        "message_id=999@erp.example",
        "route=newsletter priority=high",
        "provider=ses.us",
    ] {
        let filter: Filter = text.parse().expect("a filter");
        let started = Instant::now();
        let listed = queue.list(&filter, None, 100).await.expect("a list").len();
        let list = started.elapsed();
        let started = Instant::now();
        let count = queue.count(&filter).await.expect("a count");
        assert!(u64::try_from(listed).expect("a number") == count.min(100), "the list and the count of {text} differ");
        println!("{:6.0} ms {:5.0} ms {count:10}   {text}", list.as_secs_f64() * 1e3, started.elapsed().as_secs_f64() * 1e3);
        slowest = slowest.max(list);
    }
    let verdict = if slowest <= BAR { "within" } else { "OVER" };
    println!("slowest summary or list: {:.0} ms, {verdict} the bar of {BAR:?}", slowest.as_secs_f64() * 1e3);
}

/// A bulk action, and what those feel meanwhile who hand mail in.
async fn bulk(queue: &Queue<SqliteSpool>) {
    println!("handing in alone:      {}", hand_in(queue, Instant::now() + Duration::from_secs(3), None).await);
    let filter: Filter = "domain=bulk.example state=deferred,queued".parse().expect("a filter");
    for action in [Action::Retry, Action::Hold, Action::Release, Action::Remove] {
        let name = action.name();
        let started = Instant::now();
        let filter = if name == "release" || name == "remove" { "domain=bulk.example".parse().expect("a filter") } else { filter.clone() };
        let job = queue.start_job(filter, action, "bench");
        let watching = async {
            loop {
                sleep(Duration::from_millis(200)).await;
                let progress = queue.job(job).expect("the job");
                if progress.state != JobState::Running {
                    return progress;
                }
                if started.elapsed().as_millis() % 2000 < 200 {
                    println!("  {name}: {} of {}", progress.matched, progress.expected.unwrap_or(0));
                }
            }
        };
        let (progress, latency) = tokio::join!(watching, hand_in(queue, started + Duration::from_secs(600), Some(job)));
        println!(
            "{name}: {:?}, {} done, {} refused, {:.1} s; handing in: {latency}",
            progress.state,
            progress.done,
            progress.refused,
            started.elapsed().as_secs_f64()
        );
    }
}

/// Stores one message after the other until then, or until the job ends; says how long each took.
async fn hand_in(queue: &Queue<SqliteSpool>, until: Instant, job: Option<postrider::queue::JobId>) -> String {
    let mut took = Vec::new();
    let lane = Lane { route: "default".into(), domain: "app.example".into(), ..Lane::default() };
    while Instant::now() < until && job.is_none_or(|job| queue.job(job).is_some_and(|progress| progress.state == JobState::Running)) {
        let envelope = Envelope {
            reverse_path: ReversePath::Mailbox(Address::parse("app@app.example").expect("an address")),
            recipients: vec![Recipient::from(Address::parse("somebody@example.org").expect("an address"))],
            body_type: BodyType::SevenBit,
            smtputf8: false,
            returned: None,
            envelope_id: None,
        };
        let body = Body::Inline(Bytes::from(vec![b'x'; 4096]));
        let message = Message { id: MessageId::generate(), received: SystemTime::now(), origin: Origin::default(), envelope, body };
        let started = Instant::now();
        queue.spool().store(Arc::new(message), &lane, false).await.expect("space");
        took.push(started.elapsed());
        sleep(Duration::from_millis(2)).await;
    }
    took.sort();
    let at = |share: usize| took.get(took.len().saturating_sub(1) * share / 100).copied().unwrap_or_default().as_secs_f64() * 1e3;
    format!("{} messages, p50 {:.1} ms, p99 {:.1} ms, slowest {:.1} ms", took.len(), at(50), at(99), at(100))
}

fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).expect("a moment of today"))
}
