//! The limits that an account has by its own word, which change while the gateway runs.
//!
//! What other routes have reserved of the day's budget is `kept` from a message.
//!
//! `governor` cannot do this: a limiter's quota is fixed, and a new limiter does not know what has just
//! been sent. Here the past is kept instead of a state that only one quota can read: what was taken in the
//! last minutes. Whatever the limit is now is compared with that, so a change forgets nothing and owes
//! nothing. Invariants:
//!
//! - In no window of the rate's period has more been taken than the rate that holds at its end.
//! - No more is taken than what the account had left when it was asked, less what it may not have counted.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use postrider_providers::contract::{Allowance, ProviderName};
use postrider_providers::settings::Counted;
use tokio::time::Instant;

use super::status::LimitStatus;
use crate::queue::WaitReason;

/// How long an account takes to count what it was sent: no service says, and none was seen to take longer.
/// What is older than this when the account is asked is taken to be in its number.
const COUNTED_AFTER: Duration = Duration::from_secs(60);

/// How long the past is kept: that, and the time until an answer is there.
const MEMORY: Duration = Duration::from_secs(180);

/// What falls into this time is one entry, which counts until the last of it is old enough.
const GRAIN: Duration = Duration::from_millis(10);

/// For how long the account's word about its day's budget holds mail up. The day rolls on, and frees what is
/// not known here; what is too much in truth is refused by the account itself.
const STALE: Duration = Duration::from_secs(3600);

/// How soon a message looks again when the account should have been asked by now.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What one account allows. Nothing, until it has been asked.
#[derive(Debug)]
pub(crate) struct Live {
    rate: WaitReason,
    quota: WaitReason,
    reading: WaitReason,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether there was an answer, or none in time.
    is_read: bool,
    /// Whether it cannot be asked at all, so that nothing has to be remembered.
    is_mute: bool,
    /// Nothing goes before then, unless the answer comes earlier.
    held: Option<Instant>,
    rate: Option<Pace>,
    day: Option<Left>,
    past: VecDeque<Taken>,
}

/// So many recipients in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    count: u64,
    period: Duration,
}

/// What is left of the day's budget.
#[derive(Debug, Clone, Copy)]
struct Left {
    /// Of so many altogether.
    quota: u64,
    recipients: u64,
    /// When the account was asked, and when it will be again.
    asked: Instant,
    next: Instant,
}

/// Recipients that were taken at about the same time.
#[derive(Debug, Clone, Copy)]
struct Taken {
    first: Instant,
    last: Instant,
    recipients: u64,
}

/// The limits while one message is looked at, so that no other one comes between look and take.
pub(super) struct Entered<'a> {
    live: &'a Live,
    state: MutexGuard<'a, State>,
    now: Instant,
}

impl Pace {
    fn of(per_second: f64) -> Option<Self> {
        let is_rate = per_second.is_finite() && per_second > 0.0;
        is_rate.then(|| match per_second >= 1.0 {
            // What is beyond a whole number is not used.
            true => Self { count: per_second as u64, period: Duration::from_secs(1) },
            false => Self { count: 1, period: Duration::from_secs_f64((1.0 / per_second).min(MEMORY.as_secs_f64())) },
        })
    }
}

impl Live {
    pub(super) fn new(name: &ProviderName) -> Self {
        let reason = |text: String| WaitReason::new(text);
        Self {
            rate: reason(format!("rate of {name}, as its account says")),
            quota: reason(format!("quota of {name}, as its account says")),
            reading: reason(format!("the account of {name}, which is asked what it allows")),
            state: Mutex::default(),
        }
    }

    /// Goes on where another one was, which is asked no more.
    pub(super) fn take_over(&self, before: &Self) {
        *self.state.lock() = std::mem::take(&mut *before.state.lock());
    }

    /// Looks at the limits as they are now.
    pub(super) fn enter(&self) -> Entered<'_> {
        Entered { live: self, state: self.state.lock(), now: Instant::now() }
    }

    /// What the account allows in a day, by its last word.
    pub(super) fn per_day(&self) -> Option<u64> {
        self.enter().per_day()
    }

    /// The most recipients in one call: what the rate lets go at once, and what is left of the day.
    pub(super) fn max_recipients(&self, kept: u64) -> usize {
        let (state, now) = (self.state.lock(), Instant::now());
        let left = state.day.filter(|day| day.holds(now)).map(|day| day.recipients.saturating_sub(kept));
        let most = [state.rate.map(|rate| rate.count), left].into_iter().flatten().min();
        most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX).max(1))
    }

    /// The most recipients in one call that may go at this moment, and at least one. A message to more than
    /// that goes in smaller parts: if it waited for a whole window, small ones would always be there first.
    pub(super) fn room(&self, kept: u64) -> usize {
        let most = self.max_recipients(kept);
        let (state, now) = (self.state.lock(), Instant::now());
        let used = state.rate.map(|rate| state.used(rate, now));
        let free = state.rate.zip(used).map(|(rate, used)| usize::try_from(rate.count.saturating_sub(used)).unwrap_or(usize::MAX));
        free.map_or(most, |free| free.min(most)).max(1)
    }

    /// Lets nothing go until the account has answered for the first time, or until then.
    pub(crate) fn hold(&self, until: Instant) {
        let mut state = self.state.lock();
        if !state.is_read {
            state.held = Some(until);
        }
    }

    /// What the account said when it was `asked`; it will be asked again at `next`. Gives what may wait
    /// for it, and how many recipients have room.
    pub(crate) fn learn(&self, allowance: &Allowance, asked: Instant, next: Instant) -> Vec<(WaitReason, usize)> {
        let mut state = self.state.lock();
        state.rate = allowance.per_second.and_then(Pace::of);
        state.day = allowance.per_day.zip(allowance.used_today).map(|(quota, used)| {
            let counted = asked.checked_sub(COUNTED_AFTER);
            let uncounted = state.past.iter().filter(|taken| counted.is_none_or(|counted| taken.last >= counted));
            let uncounted: u64 = uncounted.map(|taken| taken.recipients).sum();
            Left { quota, recipients: quota.saturating_sub(used.saturating_add(uncounted)), asked, next }
        });
        let left = state.day.map_or(usize::MAX, |day| usize::try_from(day.recipients).unwrap_or(usize::MAX));
        vec![self.read(&mut state), (self.quota.clone(), left), (self.rate.clone(), usize::MAX)]
    }

    /// The account did not answer. What it said last stays.
    pub(crate) fn keep(&self) -> Vec<(WaitReason, usize)> {
        vec![self.read(&mut self.state.lock())]
    }

    /// The account cannot be asked, now or later.
    pub(crate) fn close(&self) -> Vec<(WaitReason, usize)> {
        let mut state = self.state.lock();
        (state.is_mute, state.rate, state.day) = (true, None, None);
        state.past.clear();
        vec![self.read(&mut state)]
    }

    /// How the account's limits stand.
    pub(super) fn status(&self, setting: &str) -> Vec<LimitStatus> {
        let (state, now) = (self.state.lock(), Instant::now());
        let status = |what: &str, reason: &WaitReason, count, period, used, left, next_free: Option<Instant>| LimitStatus {
            setting: format!("{setting}, {what} of its account"),
            provider: None,
            key: None,
            reason: reason.clone(),
            counted: Counted::Recipients,
            count,
            period,
            burst: count,
            used,
            left,
            next_free: next_free.filter(|free| *free > now),
        };
        let rate = state.rate.map(|rate| {
            let used = state.used(rate, now);
            let full = (used >= rate.count).then(|| state.past.iter().map(|taken| taken.last + rate.period).find(|at| *at > now));
            status("rate", &self.rate, rate.count, rate.period, used, rate.count.saturating_sub(used), full.flatten())
        });
        let day = state.day.map(|day| {
            let (used, next) = (day.quota.saturating_sub(day.recipients), (day.recipients == 0).then_some(day.next));
            status("quota", &self.quota, day.quota, Duration::from_secs(86_400), used, day.recipients, next)
        });
        rate.into_iter().chain(day).collect()
    }

    fn read(&self, state: &mut State) -> (WaitReason, usize) {
        (state.is_read, state.held) = (true, None);
        (self.reading.clone(), usize::MAX)
    }
}

impl State {
    /// What was taken in the rate's period that ends now.
    fn used(&self, rate: Pace, now: Instant) -> u64 {
        let in_window = |taken: &&Taken| taken.last + rate.period > now;
        self.past.iter().rev().take_while(in_window).map(|taken| taken.recipients).sum()
    }
}

impl Left {
    fn holds(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.asked) < STALE
    }
}

impl Entered<'_> {
    /// What the account allows in a day, by its last word.
    pub(super) fn per_day(&self) -> Option<u64> {
        self.state.day.map(|day| day.quota)
    }

    /// What `recipients` have to wait for, and until when; `None`: they may go.
    pub(super) fn refusal(&self, recipients: usize, kept: u64) -> Option<(WaitReason, Instant)> {
        let recipients = recipients as u64;
        if let Some(held) = self.state.held.filter(|held| *held > self.now) {
            return Some((self.live.reading.clone(), held));
        }
        let left = |day: &Left| day.recipients.saturating_sub(kept);
        if let Some(day) = self.state.day.filter(|day| day.holds(self.now) && recipients > left(day)) {
            // Nobody tells when the oldest of the account's day falls out of it, so the time that can be
            // known is that of the next answer. A part for which there is room does not wait.
            let until = if left(&day) > 0 { self.now } else { day.next.max(self.now + LOOK_AGAIN) };
            return Some((self.live.quota.clone(), until));
        }
        let until = self.state.rate.and_then(|rate| self.next(rate, recipients))?;
        Some((self.live.rate.clone(), until))
    }

    /// When so many may go by the rate; `None`: now.
    fn next(&self, rate: Pace, recipients: u64) -> Option<Instant> {
        if recipients > rate.count {
            // The rate has just become smaller: the message comes again, and goes in smaller parts.
            return Some(self.now);
        }
        let in_window = |taken: &&Taken| taken.last + rate.period > self.now;
        let mut used = self.state.used(rate, self.now);
        if used + recipients <= rate.count {
            return None;
        }
        for taken in self.state.past.iter().filter(in_window) {
            used -= taken.recipients;
            if used + recipients <= rate.count {
                return Some(taken.last + rate.period);
            }
        }
        None
    }

    /// Takes what has been looked at. Also before the account has answered: it will count this.
    pub(super) fn take(mut self, recipients: usize) {
        if self.state.is_mute {
            return;
        }
        let (recipients, now) = (recipients as u64, self.now);
        if let Some(day) = &mut self.state.day {
            day.recipients = day.recipients.saturating_sub(recipients);
        }
        let past = &mut self.state.past;
        while past.front().is_some_and(|taken| taken.last + MEMORY < now) {
            past.pop_front();
        }
        match past.back_mut() {
            Some(taken) if now < taken.first + GRAIN => {
                taken.last = now;
                taken.recipients += recipients;
            }
            _ => past.push_back(Taken { first: now, last: now, recipients }),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until};

    use super::*;

    fn says(per_second: Option<f64>, per_day: Option<u64>, used_today: u64) -> Allowance {
        Allowance { per_second, per_day, used_today: Some(used_today) }
    }

    fn live(allowance: &Allowance) -> Live {
        let live = Live::new(&"ses.eu".into());
        learn(&live, allowance);
        live
    }

    fn learn(live: &Live, allowance: &Allowance) {
        live.learn(allowance, Instant::now(), Instant::now() + Duration::from_secs(300));
    }

    fn take(live: &Live, recipients: usize) -> Result<(), (String, Duration)> {
        let entered = live.enter();
        match entered.refusal(recipients, 0) {
            Some((reason, until)) => Err((reason.to_string(), until - Instant::now())),
            None => {
                entered.take(recipients);
                Ok(())
            }
        }
    }

    /// Takes whatever goes until `end`; gives when, and how many recipients at a time.
    async fn takes(live: &Live, end: Instant, recipients: usize) -> Vec<(Instant, usize)> {
        let mut taken = Vec::new();
        while Instant::now() < end {
            let recipients = recipients.min(live.max_recipients(0));
            match take(live, recipients) {
                Ok(()) => taken.push((Instant::now(), recipients)),
                Err((_, wait)) => sleep_until(Instant::now() + wait).await,
            }
        }
        taken
    }

    fn most_in_a_window(taken: &[(Instant, usize)], period: Duration) -> usize {
        let window = |at: usize| taken[at..].iter().take_while(move |(time, _)| *time < taken[at].0 + period).map(|(_, count)| count).sum();
        (0..taken.len()).map(window).max().unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_holds_more_than_the_account_allows_and_none_is_wasted() {
        for (rate, each, period) in [(1.0, 1, 1.0), (14.0, 1, 1.0), (14.5, 5, 1.0), (14.0, 50, 1.0), (500.0, 50, 1.0), (0.1, 1, 10.0)] {
            let live = live(&says(Some(rate), None, 0));
            let (begun, period) = (Instant::now(), Duration::from_secs_f64(period));
            let taken = takes(&live, begun + 20 * period, each).await;
            let count = if rate < 1.0 { 1 } else { rate as usize };
            let most = most_in_a_window(&taken, period);
            assert!(most <= count, "{rate}: {most} recipients in one period");
            let all: usize = taken.iter().map(|(_, count)| count).sum();
            // Parts of five do not fill fourteen.
            let full = if count % each == 0 || each > count { count } else { count / each * each };
            assert!(all >= 20 * full * 98 / 100, "{rate}: {all} of {}", 20 * full);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_at_odd_times_are_held_to_every_window_too() {
        let live = live(&says(Some(20.0), None, 0));
        let (mut taken, mut odd) = (Vec::new(), 7_u64);
        for _ in 0..4000 {
            odd = odd.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            advance(Duration::from_millis(odd >> 57)).await;
            let recipients = 1 + (odd >> 40) as usize % 9;
            if take(&live, recipients).is_ok() {
                taken.push((Instant::now(), recipients));
            }
        }
        assert!(taken.len() > 500 && most_in_a_window(&taken, Duration::from_secs(1)) <= 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_the_rate_holds_at_once_and_forgets_nothing() {
        let live = live(&says(Some(10.0), None, 0));
        assert_eq!(take(&live, 10), Ok(()));
        // A new limiter would let twenty go now.
        learn(&live, &says(Some(20.0), None, 10));
        assert_eq!(take(&live, 10), Ok(()));
        let (reason, wait) = take(&live, 1).unwrap_err();
        assert_eq!((reason.as_str(), wait), ("rate of ses.eu, as its account says", Duration::from_secs(1)));
        learn(&live, &says(Some(5.0), None, 20));
        assert_eq!(take(&live, 1).unwrap_err().1, Duration::from_secs(1));
        assert_eq!((take(&live, 6).unwrap_err().1, live.max_recipients(0)), (Duration::ZERO, 5), "it comes again in parts");
        advance(Duration::from_secs(1)).await;
        assert_eq!((take(&live, 5), take(&live, 1).is_err()), (Ok(()), true));
    }

    #[tokio::test(start_paused = true)]
    async fn unlimited_is_unlimited_and_so_is_an_account_that_was_not_asked() {
        let mute = Live::new(&"ses.eu".into());
        mute.close();
        for live in [live(&says(None, None, 9)), Live::new(&"ses.eu".into()), mute] {
            assert_eq!(live.max_recipients(0), usize::MAX);
            for _ in 0..10_000 {
                assert_eq!(take(&live, 50), Ok(()));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_goes_before_the_first_answer_unless_it_does_not_come() {
        let live = Live::new(&"ses.eu".into());
        live.hold(Instant::now() + Duration::from_secs(5));
        assert_eq!(take(&live, 1).unwrap_err().1, Duration::from_secs(5));
        advance(Duration::from_secs(5)).await;
        assert_eq!(take(&live, 1), Ok(()));
        live.keep();
        live.hold(Instant::now() + Duration::from_secs(5));
        assert_eq!(take(&live, 1), Ok(()), "only before the first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_that_is_used_up_elsewhere_makes_mail_wait_until_the_account_is_asked_again() {
        let live = live(&says(None, Some(200), 195));
        assert_eq!(live.max_recipients(0), 5);
        assert_eq!(take(&live, 6).unwrap_err().1, Duration::ZERO, "five of them may go");
        assert_eq!(take(&live, 5), Ok(()));
        let (reason, wait) = take(&live, 1).unwrap_err();
        assert_eq!((reason.as_str(), wait), ("quota of ses.eu, as its account says", Duration::from_secs(300)));
        advance(Duration::from_secs(300)).await;
        assert_eq!(take(&live, 1).unwrap_err().1, LOOK_AGAIN, "the answer is late");
        // Those five are counted by now, and forty of yesterday's are gone.
        learn(&live, &says(None, Some(200), 160));
        assert_eq!((take(&live, 40), take(&live, 1).is_err()), (Ok(()), true));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_account_may_not_have_counted_is_not_spent_twice() {
        let live = live(&says(None, Some(100), 0));
        assert_eq!(take(&live, 30), Ok(()));
        advance(Duration::from_secs(30)).await;
        // It says nothing of the thirty yet, nor of those that leave before its answer is here.
        let asked = Instant::now();
        assert_eq!(take(&live, 20), Ok(()));
        advance(Duration::from_secs(2)).await;
        live.learn(&says(None, Some(100), 0), asked, asked + Duration::from_secs(300));
        assert_eq!(live.max_recipients(0), 50);
        // After a minute it does.
        advance(Duration::from_secs(100)).await;
        learn(&live, &says(None, Some(100), 50));
        assert_eq!(live.max_recipients(0), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_an_hour_ago_holds_nobody_up() {
        let live = live(&says(None, Some(200), 200));
        assert!(take(&live, 1).is_err());
        live.keep();
        advance(STALE - Duration::from_secs(1)).await;
        assert!(take(&live, 1).is_err());
        advance(Duration::from_secs(1)).await;
        assert_eq!((take(&live, 50), live.max_recipients(0)), (Ok(()), usize::MAX));
    }
}
