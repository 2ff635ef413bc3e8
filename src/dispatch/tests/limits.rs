//! What limits hold back, and whom they do not.

use super::*;
use crate::dispatch::rate::KeyedLimits;

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
async fn a_recipient_that_was_refused_for_now_is_not_asked_for_earlier_because_another_one_was_limited() {
    let busy = gives(Outcome::Deferred(Diagnostic::reply("RCPT", 450, "4.2.1 busy")));
    let (a, b) = (Scripted::new(vec![]), Scripted::new(vec![busy]));
    let limits = LimitSettings { rate: Some("6/min".parse().unwrap()), ..LimitSettings::default() };
    let by_recipient = When { recipient_domains: vec!["other.example".parse().unwrap()], ..When::default() };
    let bench =
        Bench::start(&[&a, &b], Setup { limits, route: |route| route.providers.truncate(1), other: by_recipient, ..Setup::default() })
            .await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.submit("x@y.example", &["r@z.example", "r@other.example"]).await;
    bench.pass(100).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0, 10], vec![0, 60]));
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
pub(super) fn of_applications(rates: &[(&str, &str)]) -> SenderLimits {
    let rates = rates.iter().map(|&(name, rate)| (name.into(), rate.parse().unwrap()));
    let applications = KeyedLimits::new("rate of application", rates, None).set_by("app.*.rate");
    SenderLimits { applications, ..SenderLimits::default() }
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
    // The one of the other lane does not stand behind all of this one.
    assert_eq!((a.seconds(), b.seconds()), (vec![0, 0, 0, 60, 90], vec![30]));
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
            Ok(Report::new(attempt.recipients().map(|(index, to)| (index, outcome(to))).collect()))
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
    let limits = LimitSettings { quota: Some("2 recipients/hour".parse().unwrap()).into(), ..LimitSettings::default() };
    let bench = Bench::start(&[&a], Setup { limits: limits.clone(), ..Setup::default() }).await;
    bench.submit("x@y.example", &["r@z.example", "s@z.example"]).await;
    bench.pass(1).await;
    assert_eq!(a.seconds(), [0]);
    // The limits of a process that starts now, over the same spool.
    let restored = ProviderLimits::restore(&"test.a".into(), &limits, &bench.queue).await.unwrap();
    let quota = &restored.status()[0];
    assert_eq!((quota.used, quota.left, quota.setting.as_str()), (2, 0, "provider.test.a.limits.quota"));
    let wait = quota.next_free.unwrap().duration_since(Instant::now()).as_secs();
    assert!((3590..=3630).contains(&wait), "{wait} seconds");
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
async fn a_provider_that_throttles_in_the_midst_of_a_message_is_left_alone_with_the_rest_of_it() {
    let report = || {
        let throttled = Some(Throttled { retry_after: Some(Duration::from_secs(600)), diagnostic: words() });
        Ok(Report { outcomes: vec![(RecipientIndex(0), relayed()), (RecipientIndex(1), Outcome::Deferred(words()))], throttled })
    };
    let (a, b) = (Scripted::new(vec![Box::new(move |_| report())]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example", "s@z.example"]).await;
    bench.pass(1).await;
    bench.submit("x@y.example", &["t@z.example"]).await;
    bench.pass(700).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0, 600, 600], vec![]), "the route does not spill");
    assert_eq!(bench.left().await, 0);
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
