//! A gateway without sockets over a store that survives it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use postrider::clock::Clock;
use postrider::config::{DomainPattern, Failover, InDoubt, Route, SendingDomainLimits, When};
use postrider::dispatch::rate::{ProviderLimits, SenderLimits};
use postrider::dispatch::{Dispatcher, Endpoint, Successor};
use postrider::queue::{Queue, RetrySchedule, Settings};
use postrider::route::Router;
use postrider::spool::Recovered;
use postrider::spool::memory::MemorySpool;
use postrider_providers::contract::{
    Body, BodyType, Connected, Envelope, Message, MessageId, Origin, ProviderName, Recipient, ReversePath,
};
use postrider_providers::settings::LimitSettings;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::operator::Deed;
use super::provider::{Life, Moody, Truth};
use super::rng::Rng;

/// The waits between attempts.
pub const RETRY: [u64; 3] = [60, 300, 1800];

/// When a message is given up.
pub const EXPIRE: Duration = Duration::from_secs(4 * 3600);

/// The provider with a rate, how much of it, and over which time.
pub const LIMITED: &str = "sim.limited";
pub const RATE: (usize, Duration) = (30, Duration::from_secs(60));

/// How mail is told apart.
pub const SENDERS: [&str; 5] = ["a@all.example", "b@all.example", "c@hold.example", "d@spill.example", "e@keyed.example"];

/// What the config says and a reload may change.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    /// The providers of each route come in the opposite order.
    pub turned: bool,
    /// One provider is not configured.
    pub without_second: bool,
}

/// Everything that outlives a crash of the gateway, and the gateway.
pub struct World {
    pub spool: MemorySpool,
    pub clock: Clock,
    pub providers: Vec<Moody>,
    pub truth: Arc<Mutex<Truth>>,
    pub life: Life,
    pub acknowledged: Vec<Arc<Message>>,
    /// Who a person has put in the place of somebody, by message.
    pub readdressed: BTreeMap<MessageId, Vec<String>>,
    pub deeds: Vec<Deed>,
    pub crashes: Vec<Instant>,
    pub reloads: usize,
    pub rng: Rng,
    pub terms: Terms,
    window: usize,
    gateway: Option<DropGuard>,
    pub queue: Queue<MemorySpool>,
    pub dispatcher: Arc<Dispatcher<MemorySpool>>,
}

fn patterns(domain: &str) -> When {
    When { sender_domains: vec![domain.parse::<DomainPattern>().expect("a domain")], ..When::default() }
}

fn router(terms: Terms) -> Arc<Router> {
    let names = |names: &[&str]| {
        let mut names: Vec<ProviderName> =
            names.iter().filter(|name| !(terms.without_second && **name == "sim.second")).map(|name| (*name).into()).collect();
        if terms.turned {
            names.reverse();
        }
        names
    };
    Arc::new(Router::new(vec![
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
    ]))
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
        let terms = Terms::default();
        let sender_limits = SenderLimits::new(&[], &SendingDomainLimits::default());
        let dispatcher = Dispatcher::new(queue.clone(), router(terms), Vec::new(), &Failover::default(), sender_limits);
        let mut world = Self {
            spool,
            clock,
            providers,
            truth,
            life,
            acknowledged: Vec::new(),
            readdressed: BTreeMap::new(),
            deeds: Vec::new(),
            crashes: Vec::new(),
            reloads: 0,
            rng,
            terms,
            window,
            gateway: None,
            queue,
            dispatcher: Arc::new(dispatcher),
        };
        world.start(&Recovered::default()).await;
        world
    }

    /// The providers that are configured.
    fn configured(&self) -> impl Iterator<Item = &Moody> {
        self.providers.iter().filter(|provider| !(self.terms.without_second && provider.name.as_str() == "sim.second"))
    }

    async fn endpoint(&self, provider: &Moody, queue: &Queue<MemorySpool>) -> Endpoint {
        let rate = (provider.name.as_str() == LIMITED).then(|| format!("{}/min", RATE.0).parse().expect("a rate"));
        let limits = LimitSettings { rate, concurrency: Some(4), ..LimitSettings::default() };
        let limits = ProviderLimits::restore(&provider.name, &limits, queue).await.expect("a store that works");
        let connected = Connected { name: provider.name.clone(), default_concurrency: 4, provider: Arc::new(provider.clone()) };
        Endpoint { connected, limits, concurrency: 4, rewrite: None }
    }

    /// Starts a gateway over what is in the store.
    async fn start(&mut self, recovered: &Recovered) {
        let queue = Queue::new(self.spool.clone(), settings(self.window), self.clock);
        let router = router(self.terms);
        queue.use_router(Arc::clone(&router));
        queue.recovered(recovered).await;
        let mut endpoints = Vec::new();
        for provider in self.configured() {
            endpoints.push(self.endpoint(provider, &queue).await);
        }
        let sender_limits = SenderLimits::new(&[], &SendingDomainLimits::default());
        let dispatcher = Arc::new(Dispatcher::new(queue.clone(), router, endpoints, &Failover::default(), sender_limits));
        dispatcher.restore().await.expect("a store that works");
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&dispatcher).run(stop.clone(), Duration::ZERO));
        let (fed, stopped) = (queue.clone(), stop.clone());
        tokio::spawn(async move { fed.run(stopped).await });
        self.queue = queue;
        self.dispatcher = dispatcher;
        self.gateway = Some(stop.drop_guard());
    }

    /// The process dies with whatever it was doing, and another one starts.
    pub async fn crash(&mut self) {
        self.life.fetch_add(1, Ordering::SeqCst);
        self.crashes.push(Instant::now());
        self.spool.set_fault(None);
        // What the old one still wants to write is refused: its leases are gone.
        let (spool, recovered) = self.spool.crash();
        self.spool = spool;
        self.gateway = None;
        sleep(Duration::from_millis(self.rng.below(5000))).await;
        self.start(&recovered).await;
    }

    /// The config has changed, and the gateway is told.
    pub async fn reload(&mut self, terms: Terms) {
        let before: Vec<ProviderName> = self.configured().map(|provider| provider.name.clone()).collect();
        self.terms = terms;
        self.reloads += 1;
        let mut successors = Vec::new();
        for provider in self.configured() {
            let Endpoint { connected, limits, concurrency, .. } = self.endpoint(provider, &self.queue).await;
            // Limits that are as before come along or do not: what was used stays used.
            let limits = (!before.contains(&provider.name) || self.reloads.is_multiple_of(2)).then_some(limits);
            successors.push(Successor { connected, limits, concurrency, rewrite: None });
        }
        let router = router(terms);
        self.dispatcher.replace(
            Arc::clone(&router),
            successors,
            &Failover::default(),
            SenderLimits::new(&[], &SendingDomainLimits::default()),
        );
        self.queue.use_router(router);
        self.queue.change(settings(self.window));
        self.queue.wake_all();
    }

    /// An id that the seed decides: jitter is drawn from it.
    fn id(&mut self) -> MessageId {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&(self.acknowledged.len() as u64 + 1).to_be_bytes());
        octets[8..].copy_from_slice(&self.rng.next().to_be_bytes());
        MessageId::from_bytes(octets)
    }

    pub async fn submit(&mut self) {
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
}

fn settings(window_messages: usize) -> Settings {
    let retry = RetrySchedule { waits: RETRY.map(Duration::from_secs).to_vec(), expire_after: EXPIRE };
    // Renewing a lease every 20 seconds would be most of what happens in hours that pass in a moment.
    Settings { retry, window_messages, lease: Duration::from_secs(3 * 3600), ..Settings::default() }
}
