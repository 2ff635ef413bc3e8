//! The dispatcher with scripted providers, on paused time: who is asked, when, and what becomes of it.

mod accounts;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use postrider_providers::contract::{
    Address, Allowance, Attempt, Body, BodyType, Capabilities, Delivery, Diagnostic, Envelope, Failure, Message, MessageId, Origin,
    Outcome, Probed, Provider, Receipt, Recipient, RecipientIndex, Report, ReversePath, SizeLimit,
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
    circuits: Vec<(ProviderName, Circuit)>,
    _stop: tokio_util::sync::DropGuard,
}

/// What a test may set.
struct Setup {
    limits: LimitSettings,
    sender_limits: SenderLimits,
    route: fn(&mut Route),
}

impl Default for Setup {
    fn default() -> Self {
        Self { limits: LimitSettings::default(), sender_limits: SenderLimits::default(), route: |_| {} }
    }
}

impl Bench {
    async fn start(providers: &[&Scripted], setup: Setup) -> Self {
        let names: Vec<ProviderName> =
            (b'a'..).zip(providers).map(|(letter, _)| ProviderName::new("test", &char::from(letter).to_string())).collect();
        let spool = MemorySpool::new();
        let retry = RetrySchedule { waits: [60, 300].map(Duration::from_secs).to_vec(), expire_after: Duration::from_secs(1000) };
        let clock = Clock::following_tokio(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let queue = Queue::new(spool.clone(), Settings { retry, window_messages: 400, ..Settings::default() }, clock);
        // Mail of this domain takes the second provider alone.
        let when = When { sender_domains: vec!["other.example".parse().unwrap()], ..When::default() };
        let other = Route {
            name: "other".into(),
            when,
            providers: names.iter().skip(1).cloned().collect(),
            spill: false,
            in_doubt: InDoubt::Retry,
            per_sending_domain: None,
        };
        let mut route = Route {
            name: "all".into(),
            when: When::default(),
            providers: names.clone(),
            spill: false,
            in_doubt: InDoubt::Retry,
            per_sending_domain: None,
        };
        (setup.route)(&mut route);
        let mut endpoints = Vec::new();
        for (name, provider) in names.into_iter().zip(providers) {
            // The first provider is the one with limits.
            let settings = if endpoints.is_empty() { setup.limits.clone() } else { LimitSettings::default() };
            let limits = ProviderLimits::restore(&name, &settings, &queue).await.unwrap();
            let connected = Connected { name, default_concurrency: 20, provider: Arc::new((*provider).clone()) };
            endpoints.push(Endpoint { connected, limits, concurrency: settings.concurrency.unwrap_or(20) as usize });
        }
        let failover = Failover { trip_after: 5, probe_after: Duration::from_secs(30), probe_max: Duration::from_secs(600) };
        let dispatcher =
            Arc::new(Dispatcher::new(queue.clone(), Arc::new(Router::new(vec![other, route])), endpoints, &failover, setup.sender_limits));
        let circuits = dispatcher.circuits();
        let stop = CancellationToken::new();
        tokio::spawn(dispatcher.run(stop.clone(), Duration::from_secs(1)));
        let (fed, stopped) = (queue.clone(), stop.clone());
        tokio::spawn(async move { fed.run(stopped).await });
        Self { queue, spool, circuits, _stop: stop.drop_guard() }
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
            origin: Origin { application: application.map(Into::into), client: None },
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

    /// Lets so much time pass, in which everything that is due happens.
    async fn pass(&self, seconds: u64) {
        sleep(Duration::from_secs(seconds) + Duration::from_millis(500)).await;
    }

    async fn left(&self) -> u64 {
        self.queue.counts().await.unwrap().messages
    }
}

#[tokio::test(start_paused = true)]
async fn a_limited_message_waits_for_its_time_and_is_not_offered_elsewhere() {
    let (a, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    let limits = LimitSettings { rate: Some("1/min".parse().unwrap()), ..LimitSettings::default() };
    let bench = Bench::start(&[&a, &b], Setup { limits, ..Setup::default() }).await;
    for _ in 0..4 {
        bench.submit("x@y.example", &["r@z.example"]).await;
    }
    bench.pass(200).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0, 60, 120, 180], vec![]));
    assert_eq!(bench.left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_spills_offers_a_limited_message_to_the_next_provider() {
    let (a, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    let limits = LimitSettings { rate: Some("1/min".parse().unwrap()), ..LimitSettings::default() };
    let bench = Bench::start(&[&a, &b], Setup { limits, route: |route| route.spill = true, ..Setup::default() }).await;
    for _ in 0..3 {
        bench.submit("x@y.example", &["r@z.example"]).await;
    }
    bench.pass(1).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0], vec![0, 0]));
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_one_sending_domain_delays_no_other() {
    let a = Scripted::new(vec![]);
    let domains = KeyedLimits::new("rate of sending domain", [("slow.example".into(), "1/min".parse().unwrap())], None);
    let sender_limits = SenderLimits { domains, ..SenderLimits::default() };
    let bench = Bench::start(&[&a], Setup { sender_limits, ..Setup::default() }).await;
    for from in ["x@slow.example", "x@slow.example", "x@fast.example", "x@SLOW.example", "y@fast.example"] {
        bench.submit(from, &["r@z.example"]).await;
    }
    bench.pass(130).await;
    assert_eq!(a.seconds(), [0, 0, 0, 60, 120]);
}

/// Limits on applications alone.
fn of_applications(rates: &[(&str, &str)]) -> SenderLimits {
    let rates = rates.iter().map(|&(name, rate)| (name.into(), rate.parse().unwrap()));
    SenderLimits { applications: KeyedLimits::new("rate of application", rates, None), ..SenderLimits::default() }
}

#[tokio::test(start_paused = true)]
async fn an_application_is_held_to_its_rate_on_all_routes_and_delays_no_other() {
    let (a, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup { sender_limits: of_applications(&[("erp", "2/min")]), ..Setup::default() }).await;
    for _ in 0..3 {
        bench.submit_of("erp", &["r@z.example"]).await;
    }
    // The same application by the other route, another one, and none.
    let other = bench.message_of(Some("erp"), "x@other.example", &["r@z.example"]);
    bench.queue.submit(other).await.unwrap();
    bench.submit_of("crm", &["r@z.example"]).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(130).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0, 0, 0, 30, 60], vec![90]));
    assert_eq!(bench.left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_applications_rate_in_messages_does_not_count_recipients() {
    let (a, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup { sender_limits: of_applications(&[("erp", "1/min")]), ..Setup::default() }).await;
    for _ in 0..2 {
        bench.submit_of("erp", &["r0@z.example", "r1@z.example", "r2@z.example"]).await;
    }
    bench.pass(70).await;
    assert_eq!((a.seconds(), bench.left().await), (vec![0, 60], 0));
}

#[tokio::test(start_paused = true)]
async fn no_window_holds_more_recipients_of_an_application_than_its_rate_and_what_may_go_at_once() {
    let a = Scripted::new(vec![]);
    let bench = Bench::start(&[&a], Setup { sender_limits: of_applications(&[("erp", "100 recipients/min")]), ..Setup::default() }).await;
    let addresses: Vec<String> = (0..230).map(|number| format!("r{number}@z.example")).collect();
    let to: Vec<&str> = addresses.iter().map(String::as_str).collect();
    // One that is larger than what may go at once, and some that are not.
    bench.submit_of("erp", &to[..130]).await;
    for part in to[130..].chunks(20) {
        bench.submit_of("erp", part).await;
    }
    bench.pass(200).await;
    let asked = a.asked.lock().clone();
    let mut reached: Vec<&String> = asked.iter().flat_map(|(_, _, recipients)| recipients).collect();
    reached.sort();
    reached.dedup();
    let copies: usize = asked.iter().map(|(_, _, recipients)| recipients.len()).sum();
    assert_eq!((reached.len(), copies, bench.left().await), (230, 230, 0), "everyone got one copy");
    for (start, ..) in &asked {
        let window = asked.iter().filter(|(at, ..)| (*start..start + 60).contains(at));
        let recipients: usize = window.map(|(_, _, recipients)| recipients.len()).sum();
        assert!(recipients <= 150, "{recipients} in the minute from second {start}: {asked:?}");
    }
    let last = asked.last().unwrap().0;
    assert!((108..=140).contains(&last), "at 100 a minute after the first 50, 230 take 108 seconds, not {last}");
}

#[tokio::test(start_paused = true)]
async fn recipients_that_are_put_off_again_and_again_do_not_keep_the_others_of_a_large_message_waiting() {
    // The first hundred are on a host that is down.
    let busy = || {
        let answer: Answer = Box::new(|attempt| {
            let outcome = |to: &Recipient| {
                if to.address.domain() == "down.example" { Outcome::Deferred(words()) } else { relayed() }
            };
            Ok(Report { outcomes: attempt.recipients().map(|(index, to)| (index, outcome(to))).collect() })
        });
        answer
    };
    let a = Scripted::new((0..100).map(|_| busy()).collect());
    let bench = Bench::start(&[&a], Setup { sender_limits: of_applications(&[("erp", "100 recipients/min")]), ..Setup::default() }).await;
    let domain = |number| if number < 100 { "down" } else { "up" };
    let addresses: Vec<String> = (0..250).map(|number| format!("r{number}@{}.example", domain(number))).collect();
    bench.submit_of("erp", &addresses.iter().map(String::as_str).collect::<Vec<_>>()).await;
    bench.pass(300).await;
    let asked = a.asked.lock().clone();
    let reached = asked.iter().flat_map(|(_, _, recipients)| recipients).filter(|to| to.ends_with("@up.example")).count();
    assert_eq!(reached, 150, "each of them once: {asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_remembered_over_a_restart() {
    let a = Scripted::new(vec![]);
    let limits = LimitSettings { quota: Some("2 recipients/hour".parse().unwrap()), ..LimitSettings::default() };
    let bench = Bench::start(&[&a], Setup { limits: limits.clone(), ..Setup::default() }).await;
    bench.submit("x@y.example", &["r@z.example", "s@z.example"]).await;
    bench.pass(1).await;
    assert_eq!(a.seconds(), [0]);
    // The limits of a process that starts now, over the same spool.
    let restored = ProviderLimits::restore(&"test.a".into(), &limits, &bench.queue).await.unwrap();
    let (until, reason) = restored.next_permit().unwrap();
    let wait = until.duration_since(Instant::now()).as_secs();
    assert!((1700..=1800).contains(&wait), "{wait} seconds for {reason}");
}

#[tokio::test(start_paused = true)]
async fn a_throttling_provider_is_left_alone_for_as_long_as_it_says() {
    let throttled = Failure::Throttled { retry_after: Some(Duration::from_secs(600)), diagnostic: words() };
    let (a, b) = (Scripted::new(vec![fails(throttled)]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(700).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0, 600], vec![]));
}

#[tokio::test(start_paused = true)]
async fn one_throttled_message_speaks_for_those_behind_it() {
    let throttled = Failure::Throttled { retry_after: Some(Duration::from_secs(120)), diagnostic: words() };
    let a = Scripted::new(vec![fails(throttled)]);
    let bench = Bench::start(&[&a], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(1).await;
    for _ in 0..10 {
        bench.submit("x@y.example", &["r@z.example"]).await;
    }
    bench.pass(130).await;
    assert_eq!(a.seconds().iter().filter(|second| **second < 120).count(), 1);
    assert_eq!((a.seconds().len(), bench.left().await), (12, 0));
}

#[tokio::test(start_paused = true)]
async fn doubt_that_a_crash_left_is_held_where_the_route_holds_and_asked_again_where_it_does_not() {
    for (route, held, asked) in [((|_| {}) as fn(&mut Route), 0, 1), (|route: &mut Route| route.in_doubt = InDoubt::Hold, 1, 0)] {
        let a = Scripted::new(vec![]);
        let bench = Bench::start(&[&a], Setup { route, ..Setup::default() }).await;
        // What a process leaves that was killed while it asked the provider.
        let node = bench.spool.another_node();
        let message = bench.message("x@y.example", &["r@z.example"]);
        let now = bench.queue.clock().now();
        node.renew(now, now + Duration::from_secs(1)).await.unwrap();
        node.store(Arc::clone(&message), true).await.unwrap();
        node.begin(message.id, &"test.a".into(), &[RecipientIndex(0)]).await.unwrap();
        bench.pass(200).await;
        assert_eq!((bench.queue.counts().await.unwrap().held, a.seconds().len()), (held, asked));
    }
}

#[tokio::test(start_paused = true)]
async fn in_doubt_goes_to_the_same_provider_again_and_never_to_another() {
    let (a, b) = (Scripted::new(vec![gives(Outcome::InDoubt(words())), fails(Failure::Unavailable(words()))]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(400).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0, 60, 360], vec![]), "not even when the first cannot be reached then");
    assert_eq!(bench.left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn in_doubt_is_held_where_the_route_says_so() {
    let (a, b) = (Scripted::new(vec![gives(Outcome::InDoubt(words()))]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup { route: |route| route.in_doubt = InDoubt::Hold, ..Setup::default() }).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(5000).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0], vec![]));
    assert_eq!(bench.queue.counts().await.unwrap().held, 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_or_a_missing_verdict_is_in_doubt_and_not_the_end() {
    let panics: Answer = Box::new(|_| panic!("a defect in a provider"));
    let silent: Answer = Box::new(|_| Ok(Report { outcomes: vec![] }));
    let (a, b) = (Scripted::new(vec![panics, silent]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(400).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0, 60, 360], vec![]));
    assert_eq!(bench.left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn only_the_recipients_that_were_deferred_go_to_the_next_provider() {
    let partly: Answer = Box::new(|_| {
        let outcomes = [relayed(), Outcome::Deferred(words()), Outcome::Bounced(words()), Outcome::InDoubt(words())];
        Ok(Report { outcomes: (0..).map(RecipientIndex).zip(outcomes).collect() })
    });
    let (a, b) = (Scripted::new(vec![partly]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r0@z.example", "r1@z.example", "r2@z.example", "r3@z.example"]).await;
    bench.pass(100).await;
    assert_eq!(b.asked.lock()[0], (0, "x@y.example".to_owned(), vec!["r1@z.example".to_owned()]));
    // The notification about the one that bounced, and the one in doubt once more.
    let later: Vec<_> = a.asked.lock()[1..].to_vec();
    assert_eq!(
        later,
        [(0, String::new(), vec!["x@y.example".to_owned()]), (60, "x@y.example".to_owned(), vec!["r3@z.example".to_owned()])]
    );
    assert_eq!(bench.left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_message_bounces_and_is_not_shopped_around() {
    let (a, b) = (Scripted::new(vec![fails(Failure::Rejected(words()))]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(1).await;
    assert_eq!(b.asked.lock().len(), 0);
    assert_eq!(a.asked.lock()[1], (0, String::new(), vec!["x@y.example".to_owned()]), "the sender is told");
}

#[tokio::test(start_paused = true)]
async fn what_one_provider_cannot_carry_another_may_and_what_none_can_bounces() {
    let (mut a, mut b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    a.capabilities.max_size = Some(SizeLimit::message(10));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(1).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![], vec![0]));

    b.capabilities.max_size = Some(SizeLimit::message(10));
    let none = Bench::start(&[&a, &b], Setup::default()).await;
    none.submit("", &["r@z.example"]).await;
    none.pass(1).await;
    assert_eq!((a.seconds().len(), b.seconds().len(), none.left().await), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refused_sender_or_credential_is_tried_elsewhere_at_once() {
    let refusals = vec![fails(Failure::SenderRefused(words())), fails(Failure::Unauthorized(words()))];
    let (a, b) = (Scripted::new(refusals), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(1).await;
    assert!(matches!(bench.circuits[0].1.state(), CircuitState::Closed { .. }), "a refused sender is no fault");
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(1).await;
    assert!(matches!(bench.circuits[0].1.state(), CircuitState::Open { .. }), "a refused credential opens it at once");
    assert_eq!((a.asked.lock().len(), b.asked.lock().len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn attempts_follow_the_schedule_and_the_sender_hears_when_time_is_over() {
    let down = || fails(Failure::Unavailable(words()));
    let a = Scripted::new((0..6).map(|_| down()).collect());
    let bench = Bench::start(&[&a], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(1100).await;
    let asked = a.asked.lock().clone();
    let seconds: Vec<_> = asked.iter().map(|(at, ..)| *at).collect();
    // The last attempt is at the end of its life; the notification waits for the circuit's next probe.
    assert_eq!(seconds, [0, 60, 360, 660, 960, 1000, 1060], "{asked:?}");
    assert_eq!(asked.last().unwrap().1, "", "the last is the notification: {asked:?}");
    assert_eq!(bench.left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_costs_no_attempt_and_mail_flows_as_soon_as_the_probe_succeeds() {
    let a = Scripted::new((0..5).map(|_| fails(Failure::Unavailable(words()))).collect());
    let bench = Bench::start(&[&a], Setup::default()).await;
    for _ in 0..200 {
        bench.submit("x@y.example", &["r@z.example"]).await;
    }
    bench.pass(5).await;
    assert!(matches!(bench.circuits[0].1.state(), CircuitState::Open { .. }));
    let asked = a.asked.lock().len();
    assert!(asked <= 20, "{asked}: as many as were at it when the circuit opened");
    bench.pass(30).await;
    assert!(matches!(bench.circuits[0].1.state(), CircuitState::Closed { .. }));
    assert!(a.asked.lock().len() >= 195, "{}", a.asked.lock().len());
    bench.pass(60).await;
    assert_eq!(bench.left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_handovers_are_under_way_than_the_provider_may_have() {
    let mut a = Scripted::new(vec![]);
    a.takes = Duration::from_secs(1);
    let limits = LimitSettings { concurrency: Some(3), ..LimitSettings::default() };
    let bench = Bench::start(&[&a], Setup { limits, ..Setup::default() }).await;
    for _ in 0..30 {
        bench.submit("x@y.example", &["r@z.example"]).await;
    }
    bench.pass(10).await;
    assert_eq!((a.most_at_once.load(Ordering::SeqCst), a.seconds().len(), bench.left().await), (3, 30, 0));
}

#[tokio::test(start_paused = true)]
async fn a_backlog_keeps_the_provider_busy_to_its_end() {
    let mut a = Scripted::new(vec![]);
    a.takes = Duration::from_millis(100);
    let bench = Bench::start(&[&a], Setup::default()).await;
    // Several times what is held in memory: 20 at a time take 10 seconds.
    for _ in 0..2_000 {
        bench.submit("x@y.example", &["r@z.example"]).await;
    }
    bench.pass(13).await;
    assert_eq!((a.seconds().len(), bench.left().await), (2_000, 0));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_with_a_backlog_delays_no_other_route() {
    let (mut a, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    a.takes = Duration::from_secs(600);
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    for _ in 0..1_500 {
        bench.submit("x@y.example", &["r@z.example"]).await;
    }
    bench.pass(10).await;
    for _ in 0..100 {
        bench.submit("x@other.example", &["r@z.example"]).await;
        bench.pass(0).await;
    }
    let late = b.asked.lock().iter().zip(0u64..).filter(|((at, ..), nth)| *at > 11 + nth.div_ceil(2)).count();
    assert_eq!((b.seconds().len(), late), (100, 0), "each went within a second");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_while_the_intent_cannot_be_recorded() {
    let a = Scripted::new(vec![]);
    let bench = Bench::start(&[&a], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.spool.set_fault(Some(SpoolError::Full("no space left".to_owned())));
    bench.pass(100).await;
    assert_eq!(a.asked.lock().len(), 0);
    bench.spool.set_fault(None);
    bench.pass(20).await;
    assert_eq!((a.seconds().len(), bench.left().await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_message_with_more_recipients_than_one_call_takes_is_split() {
    let mut a = Scripted::new(vec![]);
    a.capabilities.max_recipients = Some(2);
    let bench = Bench::start(&[&a], Setup::default()).await;
    bench.submit("x@y.example", &["r0@z.example", "r1@z.example", "r2@z.example", "r3@z.example", "r4@z.example"]).await;
    bench.pass(1).await;
    let parts: Vec<usize> = a.asked.lock().iter().map(|(_, _, recipients)| recipients.len()).collect();
    assert_eq!((parts, bench.left().await), (vec![2, 2, 1], 0));
}
