//! Each fault of a provider, and what the gateway did: who got the mail, when, and what became of the circuit.
//!
//! A provider answers by a script, on a clock that stands still while anything is to be done, so the table in
//! `docs/drills.md` is exact. `UPDATE_EXPECTED=1 cargo test --test drills` writes it anew; `-- --nocapture`
//! prints it. What a server has to do for each verdict is in `tests/failover.rs` and `tests/sink_faults.rs`.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postrider::clock::Clock;
use postrider::config::{Failover, Route};
use postrider::dispatch::rate::{ProviderLimits, SenderLimits};
use postrider::dispatch::{Dispatcher, Endpoint};
use postrider::queue::{Queue, Settings};
use postrider::route::Router;
use postrider::spool::memory::MemorySpool;
use postrider_providers::contract::{
    Attempt, Body, BodyType, Capabilities, Connected, Delivery, Diagnostic, Envelope, Failure, Message, MessageId, Origin, Outcome, Probed,
    Provider, Receipt, Recipient, Report, ReversePath,
};
use postrider_providers::settings::LimitSettings;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// For how long the first provider fails.
const FAULT: u64 = 600;

/// One message each ten seconds, for half an hour.
const EVERY: u64 = 10;
const MESSAGES: u64 = 180;

/// When the drill is over at the latest.
const END: u64 = 2 * 3600;

/// What a provider does while it fails.
struct Fault {
    name: &'static str,
    /// After so many seconds it answers this.
    takes: u64,
    answer: fn() -> Answer,
}

/// An answer, and whether the message was delivered all the same.
enum Answer {
    Fails(Failure),
    Gives(Outcome),
    Lost,
}

/// One call: when it began and when it ended, in seconds, of which message, and what came of it.
struct Call {
    begun: u64,
    ended: u64,
    message: MessageId,
    verdict: &'static str,
    delivered: bool,
}

/// A provider that fails for a time.
#[derive(Clone)]
struct Drilled {
    start: Instant,
    fault: Option<Arc<Fault>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Provider for Drilled {
    fn capabilities(&self) -> Capabilities {
        Capabilities::EVERYTHING
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let begun = self.start.elapsed().as_secs();
        let relayed = || Outcome::Relayed(Receipt::default());
        let (delivery, delivered) = match self.fault.as_ref().filter(|_| begun < FAULT) {
            None => (Ok(Report::uniform(&attempt.recipients, &relayed())), true),
            Some(fault) => {
                sleep(Duration::from_secs(fault.takes)).await;
                match (fault.answer)() {
                    Answer::Fails(failure) => (Err(failure), false),
                    Answer::Lost => (Ok(Report::uniform(&attempt.recipients, &Outcome::InDoubt(words()))), true),
                    Answer::Gives(outcome) => {
                        let delivered = matches!(outcome, Outcome::Relayed(_));
                        (Ok(Report::uniform(&attempt.recipients, &outcome)), delivered)
                    }
                }
            }
        };
        let verdict = match &delivery {
            Ok(report) => report.outcomes[0].1.name(),
            Err(failure) => failure.name(),
        };
        // Notifications are not what is counted.
        if attempt.message.envelope.reverse_path != ReversePath::Null {
            let ended = self.start.elapsed().as_secs();
            self.calls.lock().push(Call { begun, ended, message: attempt.message.id, verdict, delivered });
        }
        delivery
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        Ok(Probed::default())
    }
}

fn words() -> Diagnostic {
    Diagnostic::local("drilled")
}

fn faults() -> Vec<Fault> {
    let fault = |name, takes, answer| Fault { name, takes, answer };
    vec![
        fault("connection refused", 0, || Answer::Fails(Failure::Unavailable(words()))),
        fault("name not found (DNS)", 0, || Answer::Fails(Failure::Unavailable(words()))),
        fault("TLS fails", 1, || Answer::Fails(Failure::Unavailable(words()))),
        fault("421 to everything", 0, || Answer::Fails(Failure::Unavailable(words()))),
        fault("hangs before the message", 60, || Answer::Fails(Failure::Unavailable(words()))),
        fault("hangs after the message", 120, || Answer::Gives(Outcome::InDoubt(words()))),
        fault("takes it, and its answer is lost", 0, || Answer::Lost),
        fault("a drip: each message takes 4 minutes", 240, || Answer::Gives(Outcome::Relayed(Receipt::default()))),
        fault("450 to every recipient", 0, || Answer::Gives(Outcome::Deferred(words()))),
        fault("550 to every recipient", 0, || Answer::Gives(Outcome::Bounced(words()))),
        fault("554 to every message", 0, || Answer::Fails(Failure::Rejected(words()))),
        fault("our credential refused", 0, || Answer::Fails(Failure::Unauthorized(words()))),
        fault("the sender refused", 0, || Answer::Fails(Failure::SenderRefused(words()))),
        fault("429, come again in 2 minutes", 0, || {
            Answer::Fails(Failure::Throttled { retry_after: Some(Duration::from_secs(120)), diagnostic: words() })
        }),
    ]
}

/// The gateway over two providers, of which the first fails.
struct Drill {
    queue: Queue<MemorySpool>,
    dispatcher: Arc<Dispatcher<MemorySpool>>,
    first: Drilled,
    second: Drilled,
    _stop: tokio_util::sync::DropGuard,
}

impl Drill {
    async fn start(fault: Fault) -> Self {
        let clock = Clock::following_tokio(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let queue = Queue::new(MemorySpool::new(), Settings::default(), clock);
        let start = Instant::now();
        let first = Drilled { start, fault: Some(Arc::new(fault)), calls: Arc::default() };
        let second = Drilled { start, fault: None, calls: Arc::default() };
        let mut endpoints = Vec::new();
        for (name, provider) in [("drill.first", &first), ("drill.second", &second)] {
            let limits = ProviderLimits::restore(&name.into(), &LimitSettings::default(), &queue).await.unwrap();
            let connected = Connected { name: name.into(), default_concurrency: 20, provider: Arc::new(provider.clone()) };
            endpoints.push(Endpoint { connected, limits, concurrency: 20, rewrite: None });
        }
        let providers = vec!["drill.first".into(), "drill.second".into()];
        let route = Route { name: "default".into(), providers, ..Route::default() };
        let router = Arc::new(Router::new(vec![route]));
        let dispatcher = Arc::new(Dispatcher::new(queue.clone(), router, endpoints, &Failover::default(), SenderLimits::default()));
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&dispatcher).run(stop.clone(), Duration::from_secs(1)));
        let (fed, stopped) = (queue.clone(), stop.clone());
        tokio::spawn(async move { fed.run(stopped).await });
        Self { queue, dispatcher, first, second, _stop: stop.drop_guard() }
    }

    async fn submit(&self) -> MessageId {
        let id = MessageId::generate();
        let envelope = Envelope {
            reverse_path: ReversePath::Mailbox("a@corp.example".parse().unwrap()),
            recipients: vec![Recipient::from("b@example.net".parse::<postrider_providers::contract::Address>().unwrap())],
            body_type: BodyType::SevenBit,
            smtputf8: false,
            returned: None,
            envelope_id: None,
        };
        let body = Body::Inline("Subject: x\r\n\r\ntext\r\n".into());
        let received = self.queue.clock().now();
        self.queue.submit(Arc::new(Message { id, received, origin: Origin::default(), envelope, body })).await.unwrap();
        id
    }

    /// One line of the table.
    async fn run(self, name: &str) -> String {
        let start = self.first.start;
        let (mut sent, mut circuit, mut state) = (BTreeMap::new(), String::new(), "closed");
        for second in 0..END {
            sleep_until(start + Duration::from_secs(second)).await;
            if second % EVERY == 0 && second / EVERY < MESSAGES {
                sent.insert(self.submit().await, second);
            }
            if second > EVERY * MESSAGES + 60 && self.queue.counts().await.unwrap().messages == 0 {
                break;
            }
            // In the midst of the second, when all that it brought has happened.
            sleep(Duration::from_millis(500)).await;
            let now = self.dispatcher.providers()[0].circuit.state;
            // Seen when a message is let in, so the time is that of the next message.
            if now != state && now != "half-open" {
                write!(circuit, "{}{now} {second}", if circuit.is_empty() { "" } else { ", " }).unwrap();
                state = now;
            }
        }
        let (first, second) = (self.first.calls.lock(), self.second.calls.lock());
        let mut verdicts: Vec<&str> = first.iter().filter(|call| call.begun < FAULT).map(|call| call.verdict).collect();
        let failing = verdicts.len();
        verdicts.dedup();
        let delivered = |calls: &[Call]| calls.iter().filter(|call| call.delivered).count();
        let calls = || first.iter().chain(second.iter());
        let copies = |id: &MessageId| calls().filter(|call| call.message == *id && call.delivered).count();
        let doubled = sent.keys().filter(|id| copies(id) > 1).count();
        let undelivered = sent.keys().filter(|id| copies(id) == 0).count();
        let ends = sent
            .iter()
            .filter_map(|(id, at)| Some(calls().filter(|call| call.message == *id && call.delivered).map(|call| call.ended).min()? - at));
        let latest = ends.max().map_or_else(|| "-".to_owned(), |latest| latest.to_string());
        let (oldest, _) = sent.iter().min_by_key(|(_, at)| **at).unwrap();
        let mut attempts: Vec<u64> = calls().filter(|call| call.message == *oldest).map(|call| call.begun).collect();
        attempts.sort_unstable();
        attempts.dedup();
        let attempts = attempts.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let circuit = if circuit.is_empty() { "stays closed" } else { &circuit };
        format!(
            "| {name} | {} | {failing} | {} | {} | {undelivered} | {doubled} | {latest} | {attempts} | {circuit} |\n",
            verdicts.join(", ").replace('_', " "),
            delivered(&first),
            delivered(&second),
        )
    }
}

#[tokio::test(start_paused = true)]
async fn each_fault_ends_as_the_page_says() {
    let mut table = String::from(
        "| the first provider | verdict | tries in 600 s | got from it | from the second | bounced | twice | longest way, s | first message tried at | circuit |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for fault in faults() {
        let name = fault.name;
        table += &Drill::start(fault).await.run(name).await;
    }
    println!("{table}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/drills.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- drills -->\n", "<!-- end -->");
    let (head, rest) = page.split_once(begin).unwrap();
    let (written, tail) = rest.split_once(end).unwrap();
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(path, [head, begin, &table, end, tail].concat()).unwrap();
    } else {
        assert_eq!(settled(written), settled(&table), "docs/drills.md differs from what was found; UPDATE_EXPECTED=1 writes it anew");
    }
}

/// The columns that do not depend on which of several messages that are due at once comes first: the fault,
/// the verdict, the tries, who bounced, and the circuit.
fn settled(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .map(|row| {
            let columns: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            [0, 1, 2, 5, 9].iter().filter_map(|column| columns.get(*column).copied()).collect()
        })
        .collect()
}
