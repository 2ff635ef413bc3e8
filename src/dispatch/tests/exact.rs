//! How exact limits are, at the provider's side: through the whole dispatcher, on a clock that is moved.

use postrider_providers::settings::Rate;

use super::*;
use crate::config::Share;

/// A provider that notes when it is asked, and for how many recipients.
#[derive(Clone, Default)]
struct Recording {
    asked: Arc<Mutex<Vec<Asked>>>,
    allowance: Arc<Mutex<Option<Allowance>>>,
}

/// One handover.
#[derive(Clone)]
struct Asked {
    at: Instant,
    from: String,
    recipients: u64,
}

impl Provider for Recording {
    fn capabilities(&self) -> Capabilities {
        Capabilities::EVERYTHING
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let from = attempt.message.envelope.reverse_path.as_str().to_owned();
        self.asked.lock().push(Asked { at: Instant::now(), from, recipients: attempt.recipients.len() as u64 });
        Ok(Report::uniform(&attempt.recipients, &relayed()))
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        Ok(Probed::default())
    }

    async fn allowance(&self) -> Result<Option<Allowance>, Failure> {
        Ok(*self.allowance.lock())
    }
}

impl Recording {
    /// What it was asked for, of messages with such a reverse-path.
    fn of(&self, from: &str) -> Vec<(Instant, u64)> {
        let asked = self.asked.lock();
        asked.iter().filter(|asked| asked.from.contains(from)).map(|asked| (asked.at, asked.recipients)).collect()
    }

    fn messages(&self, from: &str) -> Vec<(Instant, u64)> {
        self.of(from).into_iter().map(|(at, _)| (at, 1)).collect()
    }
}

/// A gateway that can be stopped and started again over the same spool.
struct Rig {
    queue: Queue<MemorySpool>,
    spool: MemorySpool,
    clock: Clock,
    provider: Recording,
    routes: Vec<Route>,
    limits: LimitSettings,
    applications: Vec<(&'static str, &'static str)>,
    dispatcher: Option<Arc<Dispatcher<MemorySpool>>>,
    stop: Option<tokio_util::sync::DropGuard>,
}

impl Rig {
    fn new(limits: LimitSettings) -> Self {
        let (spool, clock) = (MemorySpool::new(), Clock::following_tokio(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)));
        let route = Route { name: "all".into(), providers: vec!["test.a".into()], ..Route::default() };
        Self {
            queue: Self::queue(&spool, clock),
            spool,
            clock,
            provider: Recording::default(),
            routes: vec![route],
            limits,
            applications: Vec::new(),
            dispatcher: None,
            stop: None,
        }
    }

    fn queue(spool: &MemorySpool, clock: Clock) -> Queue<MemorySpool> {
        let retry = RetrySchedule { expire_after: Duration::from_secs(400 * 86_400), ..RetrySchedule::default() };
        Queue::new(spool.clone(), Settings { retry, ..Settings::default() }, clock)
    }

    async fn submit(&self, number: usize, application: Option<&str>, from: &str, recipients: usize) -> MessageId {
        let mut last = MessageId::generate();
        for _ in 0..number {
            let to = (0..recipients).map(|number| Recipient::from(format!("r{number}@z.example").parse::<Address>().unwrap()));
            let message = Message {
                id: MessageId::generate(),
                received: self.clock.now(),
                origin: Origin { application: application.map(Into::into), ..Origin::default() },
                envelope: Envelope {
                    reverse_path: ReversePath::Mailbox(from.parse().unwrap()),
                    recipients: to.collect(),
                    body_type: BodyType::SevenBit,
                    smtputf8: false,
                    returned: None,
                    envelope_id: None,
                },
                body: Body::Inline(Bytes::from_static(b"Subject: x\r\n\r\ntext\r\n")),
            };
            last = message.id;
            self.queue.submit(Arc::new(message)).await.unwrap();
        }
        last
    }

    async fn start(&mut self) {
        let name: ProviderName = "test.a".into();
        let limits = ProviderLimits::restore(&name, &self.limits, &self.queue).await.unwrap();
        let connected = Connected { name, default_concurrency: 20, provider: Arc::new(self.provider.clone()) };
        let endpoint = Endpoint { connected, limits, concurrency: 20, rewrite: None };
        let router = Arc::new(Router::new(self.routes.clone()));
        let sender_limits = super::limits::of_applications(&self.applications);
        let dispatcher = Arc::new(Dispatcher::new(self.queue.clone(), router, vec![endpoint], &Failover::default(), sender_limits));
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&dispatcher).run(stop.clone(), Duration::ZERO));
        let (queue, stopped) = (self.queue.clone(), stop.clone());
        tokio::spawn(async move { queue.run(stopped).await });
        (self.dispatcher, self.stop) = (Some(dispatcher), Some(stop.drop_guard()));
    }

    /// The process ends at once, and another one takes over what it had.
    async fn restart(&mut self) {
        (self.dispatcher, self.stop) = (None, None);
        sleep(Duration::from_secs(90)).await;
        self.spool = self.spool.crash().0;
        self.queue = Self::queue(&self.spool, self.clock);
        self.start().await;
    }

    /// Lets time pass until nothing is left; looks that often.
    async fn drain(&self, seconds: u64) {
        while self.queue.counts().await.unwrap().messages > 0 {
            sleep(Duration::from_secs(seconds)).await;
        }
    }

    /// Lets time pass with a few messages waiting always.
    async fn keep_busy(&self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            if self.queue.counts().await.unwrap().messages < 30 {
                self.submit(30, None, "x@y.example", 1).await;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}

/// The most that any period holds, wherever it begins.
fn most(asked: &[(Instant, u64)], period: Duration) -> u64 {
    let (mut most, mut sum, mut first) = (0, 0, 0);
    for (at, count) in asked {
        sum += count;
        while asked[first].0 + period <= *at {
            sum -= asked[first].1;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

/// What part of a rate was used while work waited.
fn used(asked: &[(Instant, u64)], rate: Rate, burst: u64) -> f64 {
    let total: u64 = asked.iter().map(|(_, count)| count).sum();
    let took = asked.last().unwrap().0 - asked[0].0;
    // Whatever went with the first ones cost no time.
    let at_once = burst.max(asked[0].1);
    total.saturating_sub(at_once) as f64 * rate.period.as_secs_f64() / (f64::from(rate.count) * took.as_secs_f64())
}

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

fn limited(text: &str) -> LimitSettings {
    LimitSettings { rate: Some(rate(text)), ..LimitSettings::default() }
}

/// What goes at once of a rate, as it is documented.
fn documented_burst(rate: Rate) -> u64 {
    (u64::from(rate.count) / (rate.period.as_secs() * 10)).max(1)
}

#[tokio::test(start_paused = true)]
async fn twenty_rates_are_kept_in_every_window_and_used_to_the_full() {
    let rates = [
        "1/min",
        "2/min",
        "5/min",
        "10/min",
        "30/min",
        "45/min",
        "90/min",
        "100/hour",
        "1000/hour",
        "10000/day",
        "1/s",
        "2/s",
        "7/s",
        "14/s",
        "19/s",
        "50/s",
        "100/s",
        "333/s",
        "1000/s",
        "2000/s",
    ];
    println!("{:>10} {:>8} {:>6} {:>16} {:>10} {:>8}", "rate", "permits", "burst", "most in a window", "allowed", "used");
    for text in rates {
        let limit = rate(text);
        let mut rig = Rig::new(limited(text));
        let number = if limit.period.as_secs() == 1 { (limit.count as usize * 3).max(210) } else { 210 };
        let each = limit.period / limit.count;
        if each < Duration::from_millis(20) {
            rig.submit(number, None, "x@y.example", 1).await;
            rig.start().await;
        } else {
            // A few wait always, and no more than have to.
            rig.start().await;
            for at in 0..number {
                rig.submit(1, None, "x@y.example", 1).await;
                if at >= 5 {
                    sleep(each).await;
                }
            }
        }
        rig.drain(limit.period.as_secs().min(60)).await;
        let (asked, burst) = (rig.provider.messages(""), documented_burst(limit));
        let (most, allowed, used) = (most(&asked, limit.period), burst + u64::from(limit.count), used(&asked, limit, burst));
        println!("{text:>10} {:>8} {burst:>6} {most:>16} {allowed:>10} {:>7.2}%", asked.len(), used * 100.0);
        assert_eq!(asked.len(), number, "{text}");
        assert!(most <= allowed, "{text}: {most} in one period");
        assert!(used >= 0.98, "{text}: only {used} of the rate is used");
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_goes_at_once_and_no_more() {
    let mut rig = Rig::new(LimitSettings { burst: Some(20), ..limited("30/min") });
    rig.submit(230, None, "x@y.example", 1).await;
    rig.start().await;
    rig.drain(5).await;
    let asked = rig.provider.messages("");
    assert_eq!(most(&asked, Duration::from_millis(1)), 20);
    assert!(most(&asked, Duration::from_secs(60)) <= 50);
    assert!(used(&asked, rate("30/min"), 20) >= 0.98);
}

#[tokio::test(start_paused = true)]
async fn of_limits_that_hold_together_each_is_exact_and_what_waits_for_one_takes_nothing_of_the_other() {
    let limits = LimitSettings { per_sending_domain: Some(rate("4/s")), ..limited("10/s") };
    let mut rig = Rig { applications: vec![("erp", "90/min")], ..Rig::new(limits) };
    // More than its domain may send, in front of all others.
    rig.submit(80, Some("erp"), "x@a.example", 1).await;
    rig.submit(210, None, "x@b.example", 1).await;
    rig.submit(210, None, "x@c.example", 1).await;
    rig.start().await;
    rig.drain(5).await;
    let provider = &rig.provider;
    assert!(most(&provider.messages(""), Duration::from_secs(1)) <= 11);
    for domain in ["a.example", "b.example", "c.example"] {
        assert!(most(&provider.messages(domain), Duration::from_secs(1)) <= 5, "{domain}");
    }
    assert!(most(&provider.messages("a.example"), Duration::from_secs(60)) <= 91);
    assert!(used(&provider.messages("a.example"), rate("90/min"), 1) >= 0.98);
    for domain in ["b.example", "c.example"] {
        assert!(used(&provider.messages(domain), rate("4/s"), 1) >= 0.98, "nobody else takes what {domain} may have");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_waited_for_a_quota_keep_to_the_rate_when_it_opens() {
    let limits = LimitSettings { quota: Some(rate("150/hour")).into(), ..limited("10/s") };
    let mut rig = Rig::new(limits);
    rig.submit(300, None, "x@y.example", 1).await;
    rig.start().await;
    rig.drain(5).await;
    let asked = rig.provider.messages("");
    assert!(most(&asked, Duration::from_secs(3600)) <= 150);
    assert!(most(&asked, Duration::from_secs(1)) <= 11, "{} in a second", most(&asked, Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn where_recipients_are_counted_no_window_holds_more_of_them() {
    let mut rig = Rig::new(limited("600 recipients/min"));
    rig.submit(150, None, "x@y.example", 7).await;
    rig.submit(3, None, "x@y.example", 120).await;
    rig.start().await;
    rig.drain(5).await;
    let asked = rig.provider.of("");
    assert_eq!(asked.iter().map(|(_, count)| count).sum::<u64>(), 150 * 7 + 3 * 120);
    assert!(most(&asked, Duration::from_secs(60)) <= 650);
    assert!(used(&asked, rate("600 recipients/min"), 50) >= 0.98);
}

#[tokio::test(start_paused = true)]
async fn quotas_hold_in_any_window_also_over_restarts() {
    let quota = vec![rate("100/hour"), rate("600 recipients/day")];
    let mut rig = Rig::new(LimitSettings { quota: quota.into(), ..LimitSettings::default() });
    rig.submit(900, None, "x@y.example", 2).await;
    rig.start().await;
    for hours in [1, 3, 2, 20, 1] {
        sleep(Duration::from_secs(hours * 3600 + 977)).await;
        rig.restart().await;
    }
    rig.drain(120).await;
    let (messages, recipients) = (rig.provider.messages(""), rig.provider.of(""));
    assert_eq!(messages.len(), 900);
    assert_eq!(most(&messages, Duration::from_secs(3600)), 100, "all of it may be used");
    assert_eq!(most(&recipients, Duration::from_secs(86_400)), 600);
    let took = (messages.last().unwrap().0 - messages[0].0).as_secs_f64();
    // Three days' worth: the first at once, and two days later the last.
    assert!(took <= 2.0 * 86_400.0 / 0.98 + 3.0 * 3600.0, "{took}");
}

#[tokio::test(start_paused = true)]
async fn an_accounts_rate_holds_in_every_window_while_it_changes() {
    let mut rig = Rig::new(LimitSettings::default());
    let says = |per_second| Some(Allowance { per_second: Some(per_second), per_day: None, used_today: None });
    *rig.provider.allowance.lock() = says(5.0);
    rig.start().await;
    rig.keep_busy(Duration::from_secs(200)).await;
    *rig.provider.allowance.lock() = says(20.0);
    let raised = Instant::now();
    // It is asked every five minutes, and up to half a minute later.
    rig.keep_busy(Duration::from_secs(331)).await;
    *rig.provider.allowance.lock() = says(3.0);
    rig.keep_busy(Duration::from_secs(331)).await;
    let lowered = Instant::now();
    rig.keep_busy(Duration::from_secs(20)).await;
    rig.drain(1).await;
    let asked = rig.provider.messages("");
    let part = |from: Option<Instant>, to: Option<Instant>| -> Vec<(Instant, u64)> {
        asked.iter().copied().filter(|(at, _)| from.is_none_or(|from| *at >= from) && to.is_none_or(|to| *at < to)).collect()
    };
    let second = Duration::from_secs(1);
    assert_eq!(most(&part(None, Some(raised)), second), 5);
    assert_eq!(most(&part(Some(raised), Some(lowered)), second), 20);
    assert_eq!(most(&part(Some(lowered), None), second), 3);
    assert!(used(&part(None, Some(raised)), rate("5/s"), 5) >= 0.98);
}

#[tokio::test(start_paused = true)]
async fn what_a_route_has_reserved_is_there_for_it_and_for_nobody_else() {
    let mut rig = Rig::new(LimitSettings { quota: Some(rate("100/hour")).into(), ..LimitSettings::default() });
    let when = When { sender_domains: vec!["alerts.example".parse().unwrap()], ..When::default() };
    let alerts = Route { name: "alerts".into(), when, reserve: Share::percent(20), ..rig.routes[0].clone() };
    rig.routes.insert(0, alerts);
    rig.submit(500, None, "x@news.example", 1).await;
    rig.start().await;
    sleep(Duration::from_secs(1800)).await;
    assert_eq!(rig.provider.messages("news").len(), 80, "a fifth is kept");
    rig.submit(15, None, "x@alerts.example", 1).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.provider.messages("alerts").len(), 15, "nothing waits in front of them");
    // What was reserved and used is known after a restart.
    rig.restart().await;
    rig.submit(15, None, "x@alerts.example", 1).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.provider.messages("alerts").len(), 20);
    rig.drain(120).await;
    let hour = Duration::from_secs(3600);
    assert!(most(&rig.provider.messages(""), hour) <= 100);
    assert!(most(&rig.provider.messages("news"), hour) <= 80);
}

#[tokio::test(start_paused = true)]
async fn how_limits_stand_and_why_a_message_waits_can_be_asked() {
    let limits = LimitSettings { quota: vec![rate("3/hour"), rate("50/day")].into(), ..limited("10/s") };
    let mut rig = Rig { applications: vec![("erp", "60/min")], ..Rig::new(limits) };
    rig.submit(3, Some("erp"), "x@y.example", 1).await;
    rig.start().await;
    sleep(Duration::from_secs(10)).await;
    let dispatcher = rig.dispatcher.clone().unwrap();
    let all = dispatcher.limits();
    let told: Vec<_> = all.iter().map(|limit| (limit.setting.as_str(), limit.key.as_deref(), limit.used, limit.left)).collect();
    let expected = [
        ("provider.test.a.limits.rate", None, 0, 1),
        ("provider.test.a.limits.quota", None, 3, 0),
        ("provider.test.a.limits.quota", None, 3, 47),
        ("app.*.rate", Some("erp"), 0, 1),
    ];
    assert_eq!(told, expected);
    let (reason, until) = dispatcher.would_wait(&"test.a".into(), &"all".into(), Some("erp"), Some("y.example"), 1).unwrap();
    assert_eq!(reason.as_str(), "quota of test.a, 3/hour");
    assert_eq!(all[1].next_free, Some(until));
    let id = rig.submit(1, Some("erp"), "x@y.example", 1).await;
    sleep(Duration::from_millis(10)).await;
    let (reason, back) = rig.queue.waiting_for(id).unwrap();
    assert_eq!((reason.as_str(), back), ("quota of test.a, 3/hour", until));
    rig.drain(120).await;
    assert_eq!(rig.provider.messages("").last().unwrap().0.duration_since(until).as_secs(), 0);
}
