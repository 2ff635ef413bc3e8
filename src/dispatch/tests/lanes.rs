//! Lanes: whose mail waits for whose, and whose does not.

use postrider_providers::contract::Priority;

use super::*;

/// One handover every ten milliseconds.
fn slow() -> Scripted {
    Scripted { takes: Duration::from_millis(10), ..Scripted::new(vec![]) }
}

fn one_at_a_time() -> LimitSettings {
    LimitSettings { concurrency: Some(1), ..LimitSettings::default() }
}

/// The reverse-paths in the order in which a provider was asked.
fn senders(provider: &Scripted) -> Vec<String> {
    provider.asked.lock().iter().map(|(_, from, _)| from.clone()).collect()
}

impl Bench {
    async fn submit_urgent(&self, priority: Priority, from: &str) {
        let mut message = Arc::unwrap_or_clone(self.message(from, &["r@z.example"]));
        message.origin.priority = Some(priority);
        self.queue.submit(Arc::new(message)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_domain_delays_the_message_of_another_by_a_few_turns() {
    let a = slow();
    let bench = Bench::start(&[&a], Setup { limits: one_at_a_time(), ..Setup::default() }).await;
    for _ in 0..600 {
        bench.submit("x@flood.example", &["r@z.example"]).await;
    }
    bench.pass(1).await;
    let before = senders(&a).len();
    bench.submit("x@quiet.example", &["r@z.example"]).await;
    bench.pass(9).await;
    let order = senders(&a);
    let position = order.iter().position(|from| from == "x@quiet.example").unwrap();
    assert!(position <= before + 4, "asked for {before}th, it came {position}th");
    assert_eq!((order.len(), bench.left().await), (601, 0), "and nothing is lost");
}

#[tokio::test(start_paused = true)]
async fn a_lane_with_a_backlog_in_the_store_does_not_keep_another_one_there() {
    let a = slow();
    let bench = Bench::start(&[&a], Setup { limits: one_at_a_time(), ..Setup::default() }).await;
    // Both have more than their share of the window, and one has ten times as much as the other.
    for number in 0..2_200 {
        let from = if number % 11 == 0 { "x@small.example" } else { "x@large.example" };
        bench.submit(from, &["r@z.example"]).await;
    }
    bench.pass(25).await;
    let order = senders(&a);
    let last = order.iter().rposition(|from| from == "x@small.example").unwrap();
    assert_eq!(order.iter().filter(|from| *from == "x@small.example").count(), 200);
    assert!(last < 450, "all of the small one went while both took turns, not behind {last}");
    assert_eq!((order.len(), bench.left().await), (2_200, 0));
}

#[tokio::test(start_paused = true)]
async fn priorities_share_what_a_provider_takes_by_weight() {
    let a = slow();
    let bench = Bench::start(&[&a], Setup { limits: one_at_a_time(), ..Setup::default() }).await;
    for _ in 0..200 {
        for (priority, from) in [(Priority::Bulk, "b@y.example"), (Priority::Normal, "n@y.example"), (Priority::High, "h@y.example")] {
            bench.submit_urgent(priority, from).await;
        }
    }
    bench.pass(9).await;
    let order = senders(&a);
    let first = &order[20..20 + 13 * 20];
    let count = |from: &str| first.iter().filter(|one| *one == from).count() as i64;
    let counts = (count("h@y.example"), count("n@y.example"), count("b@y.example"));
    let is_near = |found: i64, expected: i64| (found - expected).abs() <= expected / 5 + 2;
    assert!(is_near(counts.0, 160) && is_near(counts.1, 80) && is_near(counts.2, 20), "8 : 4 : 1, not {counts:?}");
    assert_eq!((order.len(), bench.left().await), (600, 0));
}

#[tokio::test(start_paused = true)]
async fn the_route_says_how_urgent_mail_is_when_nobody_else_does() {
    let a = slow();
    let bench =
        Bench::start(&[&a], Setup { limits: one_at_a_time(), route: |route| route.priority = Priority::Bulk, ..Setup::default() }).await;
    for _ in 0..100 {
        bench.submit("b@y.example", &["r@z.example"]).await;
    }
    for _ in 0..10 {
        bench.submit_urgent(Priority::High, "h@y.example").await;
    }
    bench.pass(3).await;
    let last = senders(&a).iter().rposition(|from| from == "h@y.example").unwrap();
    assert!(last < 20, "the urgent ones were first, not behind {last}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_provider_with_a_backlog_leaves_the_window_to_others() {
    for hangs in [false, true] {
        let down: Vec<Answer> = (0..10_000).map(|_| fails(Failure::Unavailable(words()))).collect();
        let (mut a, b) = (Scripted::new(if hangs { vec![] } else { down }), Scripted::new(vec![]));
        if hangs {
            a.takes = Duration::from_secs(600);
        }
        let bench = Bench::start(&[&a, &b], Setup::default()).await;
        // Many domains, each with a lane of its own; the window has room for 400 messages.
        for number in 0..2_000 {
            let from = format!("x@{}.example", number % 500);
            let mut message = Arc::unwrap_or_clone(bench.message(&from, &["r@z.example"]));
            message.received -= Duration::from_secs(1);
            bench.queue.submit(Arc::new(message)).await.unwrap();
        }
        bench.pass(5).await;
        assert!(bench.queue.in_window() <= 400, "{}", bench.queue.in_window());
        for _ in 0..50 {
            let before = b.asked.lock().len();
            bench.submit("x@other.example", &["r@z.example"]).await;
            sleep(Duration::from_millis(20)).await;
            assert_eq!(b.asked.lock().len(), before + 1, "handed over within 20 milliseconds (hangs: {hangs})");
        }
        assert!(bench.queue.in_window() <= 400, "{}", bench.queue.in_window());
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_comes_back_gets_all_that_waited_in_thousands_of_lanes() {
    let a = Scripted::new((0..5).map(|_| fails(Failure::Unavailable(words()))).collect());
    let bench = Bench::start(&[&a], Setup::default()).await;
    for number in 0..5_000 {
        bench.submit(&format!("x@{number}.example"), &["r@z.example"]).await;
    }
    bench.pass(400).await;
    let mut senders = senders(&a);
    senders.sort();
    senders.dedup();
    assert_eq!((senders.len(), bench.left().await), (5_000, 0));
}

#[tokio::test(start_paused = true)]
async fn mail_whose_route_has_changed_moves_to_the_lane_of_the_new_one() {
    let a = Scripted::new(vec![fails(Failure::Unavailable(words()))]);
    let bench = Bench::start(&[&a], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(1).await;
    let lanes = async || bench.spool.lanes(9).await.unwrap().iter().map(|waiting| waiting.lane.route.to_string()).collect::<Vec<_>>();
    assert_eq!(lanes().await, ["all"]);
    let route = Route { name: "new".into(), providers: vec!["test.a".into()], ..Route::default() };
    bench.queue.use_router(Arc::new(Router::new(vec![route])));
    a.script.lock().push_back(fails(Failure::Unavailable(words())));
    bench.pass(61).await;
    assert_eq!(lanes().await, ["new"]);
}
