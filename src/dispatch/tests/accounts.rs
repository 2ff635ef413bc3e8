//! Accounts that say what they allow, and change their mind.

use super::*;

fn says(per_second: Option<f64>, per_day: Option<u64>, used: u64) -> Result<Option<Allowance>, Failure> {
    Ok(Some(Allowance { per_second, per_day, used_today: Some(used) }))
}

/// A provider whose account is asked.
fn with_account(allowance: Result<Option<Allowance>, Failure>) -> Scripted {
    let scripted = Scripted::new(vec![]);
    scripted.says(allowance);
    scripted
}

impl Scripted {
    fn says(&self, allowance: Result<Option<Allowance>, Failure>) {
        *self.allowance.lock() = allowance;
    }

    /// Recipients in each second up to `end`.
    fn per_second(&self, end: u64) -> Vec<usize> {
        let asked = self.asked.lock();
        (0..end).map(|second| asked.iter().filter(|(at, ..)| *at == second).map(|(_, _, recipients)| recipients.len()).sum()).collect()
    }

    fn reached(&self) -> usize {
        self.asked.lock().iter().map(|(_, _, recipients)| recipients.len()).sum()
    }
}

async fn submit(bench: &Bench, messages: usize) {
    for _ in 0..messages {
        bench.submit("x@y.example", &["r@z.example"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn mail_is_held_to_the_rate_of_the_account_and_a_change_of_it_takes_effect() {
    let a = with_account(says(Some(1.0), None, 0));
    let bench = Bench::start(&[&a], Setup::default()).await;
    submit(&bench, 450).await;
    bench.pass(99).await;
    assert_eq!(a.per_second(100), [1; 100]);
    a.says(says(Some(10.0), None, 100));
    bench.pass(300).await;
    // It is asked again after five minutes, and at most half a minute more.
    let seconds = a.per_second(400);
    assert!(seconds[..300].iter().all(|count| *count == 1) && seconds.iter().all(|count| *count <= 10), "{seconds:?}");
    assert!(seconds.iter().filter(|count| **count == 10).count() >= 10, "{seconds:?}");
    assert_eq!((a.reached(), bench.left().await), (450, 0));
}

#[tokio::test(start_paused = true)]
async fn the_smaller_of_the_accounts_rate_and_the_configured_one_wins() {
    for (configured, account, expected) in [("1 recipients/s", 3.0, 1), ("3 recipients/s", 1.0, 1)] {
        let a = with_account(says(Some(account), None, 0));
        let limits = LimitSettings { rate: Some(configured.parse().unwrap()), ..LimitSettings::default() };
        let bench = Bench::start(&[&a], Setup { limits, ..Setup::default() }).await;
        submit(&bench, 20).await;
        bench.pass(9).await;
        assert!(a.per_second(10)[1..].iter().all(|count| *count == expected), "{:?}", a.per_second(10));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_to_more_than_the_rate_goes_in_parts() {
    let a = with_account(says(Some(2.0), None, 0));
    let bench = Bench::start(&[&a], Setup::default()).await;
    bench.submit("x@y.example", &["r0@z.example", "r1@z.example", "r2@z.example", "r3@z.example", "r4@z.example"]).await;
    bench.pass(5).await;
    let (mut seconds, mut all) = (a.per_second(6), Vec::new());
    seconds.retain(|count| *count > 0);
    assert_eq!(seconds, [2, 2, 1]);
    all.extend(a.asked.lock().iter().flat_map(|(_, _, recipients)| recipients.clone()));
    all.sort();
    assert_eq!(all, ["r0@z.example", "r1@z.example", "r2@z.example", "r3@z.example", "r4@z.example"]);
    assert_eq!(bench.left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn small_messages_do_not_keep_a_large_one_from_ever_going() {
    let a = with_account(says(Some(4.0), None, 0));
    let bench = Bench::start(&[&a], Setup::default()).await;
    let large: Vec<String> = (0..8).map(|n| format!("r{n}@large.example")).collect();
    for at in 0..100 {
        bench.submit("x@y.example", &["r@z.example"]).await;
        if at == 2 {
            bench.submit("x@y.example", &large.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        // No second is without some of these.
        sleep(Duration::from_millis(400)).await;
    }
    bench.pass(1).await;
    assert!(a.per_second(40).iter().all(|count| *count <= 4), "{:?}", a.per_second(40));
    assert_eq!((a.reached(), bench.left().await), (108, 0));
}

#[tokio::test(start_paused = true)]
async fn an_account_without_limits_delays_nobody() {
    let a = with_account(says(None, None, 9));
    let bench = Bench::start(&[&a], Setup::default()).await;
    submit(&bench, 300).await;
    bench.pass(1).await;
    assert_eq!((a.reached(), bench.left().await), (300, 0));
}

#[tokio::test(start_paused = true)]
async fn an_account_that_fails_to_answer_keeps_what_it_said_last() {
    let a = with_account(says(Some(1.0), None, 0));
    let bench = Bench::start(&[&a], Setup::default()).await;
    bench.pass(1).await;
    a.says(Err(Failure::Unavailable(words())));
    bench.pass(700).await;
    assert_eq!(a.asks.load(Ordering::SeqCst), 3);
    submit(&bench, 10).await;
    let before = a.reached();
    bench.pass(4).await;
    assert_eq!(a.reached() - before, 5);
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_asked_is_not_asked_again() {
    let a = with_account(Ok(None));
    let bench = Bench::start(&[&a], Setup::default()).await;
    submit(&bench, 30).await;
    bench.pass(2000).await;
    assert_eq!((a.asks.load(Ordering::SeqCst), a.seconds()), (1, vec![0; 30]));
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_others_have_used_up_makes_mail_wait_for_the_next_answer() {
    let a = with_account(says(None, Some(200), 197));
    let bench = Bench::start(&[&a], Setup::default()).await;
    submit(&bench, 10).await;
    bench.pass(100).await;
    assert_eq!((a.reached(), bench.left().await), (3, 7), "{:?}", a.per_second(101));
    a.says(says(None, Some(200), 150));
    bench.pass(240).await;
    assert_eq!((a.reached(), bench.left().await), (10, 0));
    let last = a.seconds()[9];
    assert!((300..=331).contains(&last), "{last}");
}

#[tokio::test(start_paused = true)]
async fn at_the_start_mail_waits_for_the_answer_and_not_for_long() {
    // It takes two seconds, and then ten.
    for (takes, expected) in [(2, 2), (10, 5)] {
        let a = with_account(says(Some(100.0), None, 0));
        *a.answers_after.lock() = Duration::from_secs(takes);
        let bench = Bench::start(&[&a], Setup::default()).await;
        submit(&bench, 3).await;
        bench.pass(12).await;
        assert_eq!(a.seconds(), [expected; 3]);
    }
}
