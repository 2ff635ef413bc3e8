//! A gateway without sockets over a store that survives it, and a story that a seed tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use postrider::clock::Clock;
use postrider::config::{DomainPattern, Failover, InDoubt, Route, SendingDomainLimits, When};
use postrider::dispatch::rate::{ProviderLimits, SenderLimits};
use postrider::dispatch::{Dispatcher, Endpoint};
use postrider::queue::{Queue, RetrySchedule, Settings};
use postrider::route::Router;
use postrider::spool::memory::MemorySpool;
use postrider_providers::contract::{Body, BodyType, Connected, Envelope, Message, MessageId, Origin, Recipient, ReversePath};
use postrider_providers::settings::LimitSettings;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::provider::{Life, Mood, Moody, Truth};
use super::rng::Rng;

/// The waits between attempts.
pub const RETRY: [u64; 3] = [60, 300, 1800];

/// When a message is given up.
pub const EXPIRE: Duration = Duration::from_secs(4 * 3600);

/// The provider with a rate, how much of it, and over which time.
pub const LIMITED: &str = "sim.limited";
pub const RATE: (usize, Duration) = (30, Duration::from_secs(60));

/// How mail is told apart.
const SENDERS: [&str; 5] = ["a@all.example", "b@all.example", "c@hold.example", "d@spill.example", "e@keyed.example"];

/// Everything that outlives a crash of the gateway.
pub struct World {
    pub spool: MemorySpool,
    pub clock: Clock,
    pub providers: Vec<Moody>,
    pub truth: Arc<Mutex<Truth>>,
    pub life: Life,
    pub acknowledged: Vec<Arc<Message>>,
    pub crashes: Vec<Instant>,
    rng: Rng,
    window: usize,
    gateway: Option<DropGuard>,
    pub queue: Queue<MemorySpool>,
}

fn patterns(domain: &str) -> When {
    When { sender_domains: vec![domain.parse::<DomainPattern>().expect("a domain")], ..When::default() }
}

fn routes() -> Vec<Route> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    vec![
        Route {
            name: "hold".into(),
            when: patterns("hold.example"),
            providers: names(&["sim.second", "sim.first"]),
            in_doubt: InDoubt::Hold,
            ..Route::default()
        },
        Route {
            name: "spill".into(),
            when: patterns("spill.example"),
            providers: names(&[LIMITED, "sim.second"]),
            spill: true,
            ..Route::default()
        },
        Route { name: "keyed".into(), when: patterns("keyed.example"), providers: names(&["sim.keyed"]), ..Route::default() },
        Route { name: "all".into(), providers: names(&["sim.first", LIMITED, "sim.second"]), ..Route::default() },
    ]
}

impl World {
    pub async fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let (truth, life): (Arc<Mutex<Truth>>, Life) = (Arc::default(), Arc::new(AtomicU64::new(0)));
        let mut provider = |name, recognises| Moody::new(name, recognises, rng.fork(), Arc::clone(&truth), Arc::clone(&life));
        let providers =
            vec![provider("sim.first", false), provider("sim.second", false), provider(LIMITED, false), provider("sim.keyed", true)];
        let spool = MemorySpool::new();
        let clock = Clock::following_tokio(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let window = *rng.pick(&[4, 16, 400]);
        let queue = Queue::new(spool.clone(), settings(window), clock);
        let mut world =
            Self { spool, clock, providers, truth, life, acknowledged: Vec::new(), crashes: Vec::new(), rng, window, gateway: None, queue };
        world.start().await;
        world
    }

    /// Starts a gateway over what is in the store.
    async fn start(&mut self) {
        let queue = Queue::new(self.spool.clone(), settings(self.window), self.clock);
        let mut endpoints = Vec::new();
        for provider in &self.providers {
            let rate = (provider.name.as_str() == LIMITED).then(|| format!("{}/min", RATE.0).parse().expect("a rate"));
            let limits = LimitSettings { rate, concurrency: Some(4), ..LimitSettings::default() };
            let limits = ProviderLimits::restore(&provider.name, &limits, &queue).await.expect("a store that works");
            let connected = Connected { name: provider.name.clone(), default_concurrency: 4, provider: Arc::new(provider.clone()) };
            endpoints.push(Endpoint { connected, limits, concurrency: 4, rewrite: None });
        }
        let sender_limits = SenderLimits::new(&[], &SendingDomainLimits::default());
        let router = Arc::new(Router::new(routes()));
        let dispatcher = Arc::new(Dispatcher::new(queue.clone(), router, endpoints, &Failover::default(), sender_limits));
        let stop = CancellationToken::new();
        tokio::spawn(dispatcher.run(stop.clone(), Duration::ZERO));
        let (fed, stopped) = (queue.clone(), stop.clone());
        tokio::spawn(async move { fed.run(stopped).await });
        self.queue = queue;
        self.gateway = Some(stop.drop_guard());
    }

    /// The process dies with whatever it was doing, and another one starts.
    async fn crash(&mut self) {
        self.life.fetch_add(1, Ordering::SeqCst);
        self.crashes.push(Instant::now());
        // What the old one still wants to write is refused: its leases are gone.
        let (spool, _) = self.spool.crash();
        self.spool = spool;
        self.gateway = None;
        sleep(Duration::from_millis(self.rng.below(5000))).await;
        self.start().await;
    }

    /// An id that the seed decides: jitter is drawn from it.
    fn id(&mut self) -> MessageId {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&(self.acknowledged.len() as u64 + 1).to_be_bytes());
        octets[8..].copy_from_slice(&self.rng.next().to_be_bytes());
        MessageId::from_bytes(octets)
    }

    async fn submit(&mut self) {
        let from = if self.rng.once_in(12) {
            ReversePath::Null
        } else {
            ReversePath::Mailbox(self.rng.pick(&SENDERS).parse().expect("an address"))
        };
        let recipients = (0..=self.rng.below(5)).map(|number| {
            let address = format!("r{number}@d{}.example", self.rng.below(3));
            Recipient::from(address.parse::<postrider_providers::contract::Address>().expect("an address"))
        });
        let recipients = recipients.collect();
        let message = Arc::new(Message {
            id: self.id(),
            received: self.clock.now(),
            origin: Origin::default(),
            envelope: Envelope {
                reverse_path: from,
                recipients,
                body_type: BodyType::SevenBit,
                smtputf8: false,
                returned: None,
                envelope_id: None,
            },
            body: Body::Inline(Bytes::from_static(b"Subject: x\r\n\r\ntext\r\n")),
        });
        if self.queue.submit(Arc::clone(&message)).await.is_ok() {
            self.acknowledged.push(message);
        }
    }

    /// Lives through one seed.
    pub async fn live(&mut self) {
        for _ in 0..(10 + self.rng.below(30)) {
            match self.rng.below(10) {
                0..=3 => {
                    for _ in 0..=self.rng.below(12) {
                        self.submit().await;
                    }
                }
                4..=6 => {
                    let mood = *self.rng.pick(&Mood::ALL);
                    *self.rng.pick(&self.providers).mood.lock() = mood;
                }
                7 => self.crash().await,
                _ => *self.rng.pick(&self.providers).mood.lock() = Mood::Well,
            }
            let longest = *self.rng.pick(&[1000, 30_000, 900_000]);
            sleep(Duration::from_millis(self.rng.below(longest))).await;
        }
        // Everybody gets well, and what is not finished by then is given up in time.
        for provider in &self.providers {
            *provider.mood.lock() = Mood::Well;
        }
        sleep(EXPIRE + Duration::from_secs(3600)).await;
    }
}

fn settings(window_messages: usize) -> Settings {
    let retry = RetrySchedule { waits: RETRY.map(Duration::from_secs).to_vec(), expire_after: EXPIRE };
    // Renewing a lease every 20 seconds would be most of what happens in hours that pass in a moment.
    Settings { retry, window_messages, lease: Duration::from_secs(3 * 3600), ..Settings::default() }
}
