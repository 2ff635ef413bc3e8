//! The dispatcher with scripted providers, on paused time: who is asked, when, and what becomes of it.

mod accounts;
mod carriage;
mod circuits;
mod control;
mod doubt;
mod exact;
mod explain;
mod lanes;
mod limits;
mod order;
mod record;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use postrider_providers::contract::{
    Address, Allowance, Attempt, Body, BodyType, Capabilities, Delivery, Diagnostic, Envelope, Failure, Message, MessageId, Origin,
    Outcome, Probed, Provider, Receipt, Recipient, RecipientIndex, Report, ReversePath, SizeLimit, Throttled,
};
use postrider_providers::settings::LimitSettings;
use tokio::time::{Instant, sleep};

use super::*;
use crate::clock::Clock;
use crate::config::{InDoubt, Route, When};
use crate::queue::{RetrySchedule, Settings};
use crate::spool::SpoolError;
use crate::spool::memory::MemorySpool;

/// Answers one attempt.
type Answer = Box<dyn Fn(&Attempt) -> Delivery + Send>;

/// What a provider was asked: when, the reverse-path, and for whom.
type Asked = (u64, String, Vec<String>);

/// A provider that answers from a script, and relays once that is at its end.
#[derive(Clone)]
struct Scripted {
    script: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    start: Instant,
    takes: Duration,
    capabilities: Capabilities,
    /// What it was given.
    attempts: Arc<Mutex<Vec<Attempt>>>,
    at_once: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
    allowance: Arc<Mutex<Result<Option<Allowance>, Failure>>>,
    answers_after: Arc<Mutex<Duration>>,
    asks: Arc<AtomicUsize>,
}

impl Scripted {
    fn new(answers: Vec<Answer>) -> Self {
        Self {
            script: Arc::new(Mutex::new(answers.into())),
            asked: Arc::default(),
            start: Instant::now(),
            takes: Duration::ZERO,
            capabilities: Capabilities::EVERYTHING,
            attempts: Arc::default(),
            at_once: Arc::default(),
            most_at_once: Arc::default(),
            allowance: Arc::new(Mutex::new(Ok(None))),
            answers_after: Arc::default(),
            asks: Arc::default(),
        }
    }

    /// The seconds at which it was asked.
    fn seconds(&self) -> Vec<u64> {
        self.asked.lock().iter().map(|(at, ..)| *at).collect()
    }
}

impl Provider for Scripted {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let recipients = attempt.recipients().map(|(_, recipient)| recipient.address.to_string()).collect();
        self.asked.lock().push((self.start.elapsed().as_secs(), attempt.message.envelope.reverse_path.as_str().to_owned(), recipients));
        self.attempts.lock().push(attempt.clone());
        self.most_at_once.fetch_max(self.at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        sleep(self.takes).await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        let answer = self.script.lock().pop_front();
        answer.map_or_else(|| Ok(Report::uniform(&attempt.recipients, &relayed())), |answer| answer(&attempt))
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        Ok(Probed::default())
    }

    async fn allowance(&self) -> Result<Option<Allowance>, Failure> {
        self.asks.fetch_add(1, Ordering::SeqCst);
        let takes = *self.answers_after.lock();
        if takes > Duration::ZERO {
            sleep(takes).await;
        }
        self.allowance.lock().clone()
    }
}

fn relayed() -> Outcome {
    Outcome::Relayed(Receipt::default())
}

fn fails(failure: Failure) -> Answer {
    Box::new(move |_| Err(failure.clone()))
}

fn gives(outcome: Outcome) -> Answer {
    Box::new(move |attempt| Ok(Report::uniform(&attempt.recipients, &outcome)))
}

fn words() -> Diagnostic {
    Diagnostic::reply("DATA", 550, "5.7.1 no")
}

/// A dispatcher at work over providers `test.a`, `test.b`, …
struct Bench {
    queue: Queue<MemorySpool>,
    spool: MemorySpool,
    dispatcher: Arc<Dispatcher<MemorySpool>>,
    circuits: Vec<(ProviderName, Circuit)>,
    _stop: tokio_util::sync::DropGuard,
}

/// What a test may set.
struct Setup {
    limits: LimitSettings,
    sender_limits: SenderLimits,
    route: fn(&mut Route),
    /// Whose mail takes the second provider alone.
    other: When,
    /// In whose name the first provider gets mail.
    rewrite: Option<Rewrite>,
    failover: Failover,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: LimitSettings::default(),
            sender_limits: SenderLimits { names: vec!["erp".into()], ..SenderLimits::default() },
            route: |_| {},
            other: When { sender_domains: vec!["other.example".parse().unwrap()], ..When::default() },
            rewrite: None,
            failover: Failover::default(),
        }
    }
}

impl Bench {
    async fn start(providers: &[&Scripted], setup: Setup) -> Self {
        let clock = Clock::following_tokio(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        Self::start_over(MemorySpool::new(), clock, providers, setup).await
    }

    /// The same after a restart: what is not in the spool is gone.
    async fn restarted(self, providers: &[&Scripted], setup: Setup) -> Self {
        let Self { queue, spool, _stop, .. } = self;
        drop(_stop);
        sleep(Duration::from_secs(2)).await;
        spool.close(Duration::from_secs(1)).await.unwrap();
        Self::start_over(spool.crash().0, queue.clock(), providers, setup).await
    }

    async fn start_over(spool: MemorySpool, clock: Clock, providers: &[&Scripted], setup: Setup) -> Self {
        let names: Vec<ProviderName> =
            (b'a'..).zip(providers).map(|(letter, _)| ProviderName::new("test", &char::from(letter).to_string())).collect();
        let retry = RetrySchedule { waits: [60, 300].map(Duration::from_secs).to_vec(), expire_after: Duration::from_secs(1000) };
        let queue = Queue::new(spool.clone(), Settings { retry, window_messages: 400, ..Settings::default() }, clock);
        let other =
            Route { name: "other".into(), when: setup.other, providers: names.iter().skip(1).cloned().collect(), ..Route::default() };
        let mut route = Route { name: "all".into(), providers: names.clone(), ..Route::default() };
        (setup.route)(&mut route);
        let mut endpoints = Vec::new();
        for (name, provider) in names.into_iter().zip(providers) {
            // The first provider is the one with limits.
            let settings = if endpoints.is_empty() { setup.limits.clone() } else { LimitSettings::default() };
            let rewrite = setup.rewrite.clone().filter(|_| endpoints.is_empty()).map(Arc::new);
            let limits = ProviderLimits::restore(&name, &settings, &queue).await.unwrap();
            let connected = Connected { name, default_concurrency: 20, provider: Arc::new((*provider).clone()) };
            endpoints.push(Endpoint { connected, limits, concurrency: settings.concurrency.unwrap_or(20) as usize, rewrite });
        }
        let failover = setup.failover;
        let router = Arc::new(Router::new(vec![other, route]));
        queue.use_router(Arc::clone(&router));
        let dispatcher = Arc::new(Dispatcher::new(queue.clone(), router, endpoints, &failover, setup.sender_limits));
        dispatcher.restore().await.unwrap();
        let circuits = dispatcher.circuits();
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&dispatcher).run(stop.clone(), Duration::from_secs(1)));
        let (fed, stopped) = (queue.clone(), stop.clone());
        tokio::spawn(async move { fed.run(stopped).await });
        Self { queue, spool, dispatcher, circuits, _stop: stop.drop_guard() }
    }

    fn message(&self, from: &str, to: &[&str]) -> Arc<Message> {
        self.message_of(None, from, to)
    }

    fn message_of(&self, application: Option<&str>, from: &str, to: &[&str]) -> Arc<Message> {
        let recipients = to.iter().map(|address| Recipient::from(address.parse::<Address>().unwrap())).collect();
        let reverse_path = if from.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(from.parse().unwrap()) };
        Arc::new(Message {
            id: MessageId::generate(),
            received: self.queue.clock().now(),
            origin: Origin { application: application.map(Into::into), client: None, ..Origin::default() },
            envelope: Envelope {
                reverse_path,
                recipients,
                body_type: BodyType::SevenBit,
                smtputf8: false,
                returned: None,
                envelope_id: None,
            },
            body: Body::Inline(Bytes::from_static(b"Subject: x\r\n\r\ntext\r\n")),
        })
    }

    async fn submit(&self, from: &str, to: &[&str]) {
        self.queue.submit(self.message(from, to)).await.unwrap();
    }

    /// A message that an application has handed in.
    async fn submit_of(&self, application: &str, to: &[&str]) {
        self.queue.submit(self.message_of(Some(application), "x@y.example", to)).await.unwrap();
    }

    /// A message of `x@y.example` with this content.
    async fn submit_content(&self, content: &str) {
        let mut message = Arc::unwrap_or_clone(self.message("x@y.example", &["r@z.example"]));
        message.body = Body::Inline(content.to_owned().into());
        self.queue.submit(Arc::new(message)).await.unwrap();
    }

    /// Lets so much time pass, in which everything that is due happens.
    async fn pass(&self, seconds: u64) {
        sleep(Duration::from_secs(seconds) + Duration::from_millis(500)).await;
    }

    async fn left(&self) -> u64 {
        self.queue.counts().await.unwrap().messages
    }
}
