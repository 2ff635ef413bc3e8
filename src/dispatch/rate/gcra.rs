//! One rate (GCRA, by `governor`): when so many may go, without taking anything.
//!
//! `governor` takes a token when it says yes. A message that has to pass several limits needs an answer
//! first, and takes from all of them or from none. So the state is the key here: a [`Rule`] decides about a
//! [`Tat`] that it is given, and whoever holds the real one replaces it when all limits have said yes.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use postrider_providers::settings::{Counted, Rate};
use tokio::time::Instant;

/// How late a message may come and still count as in time. Where one token is all that there is, what coarse
/// timers and a wait for another limit waste would be lost. At most half the time of a token, so that it
/// never lets one more through than burst and rate.
const GRACE: Duration = Duration::from_millis(250);

/// tokio's clock for governor, so that limits stand still when tests pause time.
#[derive(Debug, Clone)]
struct TokioClock {
    origin: Instant,
}

impl governor::clock::Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.origin.elapsed().into()
    }
}

/// How full one bucket is: when it will have refilled (the theoretical arrival time). `None`: it is full.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tat(Cell<Option<Nanos>>);

impl Hash for Tat {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.get().map(u64::from).hash(state);
    }
}

/// Lets governor read and write the very state it is asked about.
#[derive(Debug)]
struct InKey;

impl StateStore for InKey {
    type Key = Tat;

    fn measure_and_replace<T, F, E>(&self, key: &Tat, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, next) = decide(key.0.get())?;
        key.0.set(Some(next));
        Ok(outcome)
    }
}

/// One rate, for any number of buckets.
#[derive(Debug)]
pub(super) struct Rule {
    rate: Rate,
    burst: NonZeroU32,
    /// The time of one token.
    each: Duration,
    clock: TokioClock,
    limiter: RateLimiter<Tat, InKey, TokioClock, NoOpMiddleware<Nanos>>,
}

impl Rule {
    /// A rate of which `burst` go at once after a pause; without one, a tenth of a second's worth. So a
    /// provider that counts by the second sees no second with twice its rate. A fifth of that is kept back,
    /// for what is still on its way to the provider when the next one is let go. Where recipients are
    /// counted, a call of up to 50 stays in one piece.
    pub(super) fn new(rate: Rate, burst: Option<u32>) -> Self {
        let tenth = u64::from(rate.count) / (rate.period.as_secs().max(1) * 10);
        let burst = burst.map_or_else(
            || match rate.counted {
                Counted::Messages => tenth - tenth / 5,
                Counted::Recipients => tenth.max(50).min(u64::from(rate.count)),
            },
            u64::from,
        );
        let burst = NonZeroU32::new(u32::try_from(burst).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
        // Rounded up: a period must not hold one more for a part of a nanosecond.
        let each = rate.period.as_nanos().div_ceil(u128::from(rate.count.max(1))).max(1);
        let each = Duration::from_nanos(u64::try_from(each).unwrap_or(u64::MAX));
        let clock = TokioClock { origin: Instant::now() };
        let quota = Quota::with_period(each).unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN)).allow_burst(burst);
        Self { rate, burst, each, limiter: RateLimiter::new(quota, InKey, clock.clone()), clock }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// What may go at once.
    pub(super) fn burst(&self) -> NonZeroU32 {
        self.burst
    }

    /// The most recipients in one call, where they are counted.
    pub(super) fn max_recipients(&self) -> usize {
        match self.rate.counted {
            Counted::Messages => usize::MAX,
            Counted::Recipients => self.burst.get() as usize,
        }
    }

    /// The time in which a burst has come back.
    pub(super) fn refill(&self) -> Duration {
        self.each * self.burst.get()
    }

    /// The bucket after `cost` was taken from it, or the time at which that may be.
    pub(super) fn decide(&self, bucket: &Tat, cost: u32) -> Result<Tat, Instant> {
        let after = bucket.clone();
        // Nobody asks for more at once, except for what was in one call under a larger limit.
        let Some(cells) = NonZeroU32::new(cost.min(self.burst.get())) else { return Ok(after) };
        // The other error, more than the burst, was excluded above.
        if let Ok(Err(not_until)) = self.limiter.check_key_n(&after, cells) {
            return Err(Instant::now() + not_until.wait_time_from(self.clock.now()));
        }
        if let Some(tat) = bucket.0.get().map(Duration::from) {
            let late = Duration::from(self.clock.now()).saturating_sub(tat);
            if late <= GRACE.min(self.each / 2) && !late.is_zero() {
                // It pays as if it had come in time.
                after.0.set(Some((tat + self.each * cells.get()).into()));
            }
        }
        Ok(after)
    }

    /// Whether the bucket is full, so that it need not be remembered.
    pub(super) fn is_idle(&self, bucket: &Tat) -> bool {
        self.ahead(bucket).is_zero()
    }

    /// How much of the burst is used now.
    pub(super) fn used(&self, bucket: &Tat) -> u32 {
        let used = self.ahead(bucket).as_nanos().div_ceil(self.each.as_nanos().max(1));
        u32::try_from(used).unwrap_or(u32::MAX).min(self.burst.get())
    }

    fn ahead(&self, bucket: &Tat) -> Duration {
        let tat = bucket.0.get().map_or(Duration::ZERO, Duration::from);
        tat.saturating_sub(self.clock.now().into())
    }
}

/// One rate with its one bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) rule: Rule,
    pub(super) tat: parking_lot::Mutex<Tat>,
}

impl Bucket {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, tat: parking_lot::Mutex::default() }
    }

    pub(super) fn look(&self, cost: u32) -> Result<(), Instant> {
        self.rule.decide(&self.tat.lock(), cost).map(drop)
    }

    /// Takes what has been looked at; gives the bucket before and after.
    pub(super) fn take(&self, cost: u32) -> Option<(Tat, Tat)> {
        let mut tat = self.tat.lock();
        let after = self.rule.decide(&tat, cost).ok()?;
        Some((std::mem::replace(&mut tat, after.clone()), after))
    }

    /// Undoes a taking, if nothing was taken since: later ones have built on it.
    pub(super) fn give_back(&self, (before, after): (Tat, Tat)) {
        let mut tat = self.tat.lock();
        if *tat == after {
            *tat = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(rate: &str, burst: Option<u32>) -> Bucket {
        Bucket::new(Rule::new(rate.parse().unwrap(), burst))
    }

    fn take(bucket: &Bucket, cost: u32) -> Result<(), Instant> {
        bucket.look(cost)?;
        bucket.take(cost).map(drop).ok_or_else(Instant::now)
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_holds_more_than_burst_and_rate_and_none_is_wasted() {
        for (text, burst, span) in
            [("1/min", None, 12_000), ("30/min", None, 600), ("30/min", Some(10), 600), ("14/s", None, 20), ("500/s", None, 2)]
        {
            let (bucket, span, start) = (bucket(text, burst), Duration::from_secs(span), Instant::now());
            let mut times = Vec::new();
            while start.elapsed() < span {
                match take(&bucket, 1) {
                    Ok(()) => times.push(start.elapsed()),
                    Err(until) => tokio::time::sleep_until(until).await,
                }
            }
            let Rate { count, period, .. } = bucket.rule.rate();
            let (burst, count) = (bucket.rule.burst().get() as usize, count as usize);
            for (first, start) in times.iter().enumerate() {
                let in_window = times[first..].iter().take_while(|time| **time - *start < period).count();
                assert!(in_window <= burst + count, "{text}: {in_window} in one period");
            }
            let possible = span.as_secs_f64() / period.as_secs_f64() * count as f64;
            assert!(times.len() as f64 >= 0.98 * possible, "{text}: {} of {possible}", times.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_takes_nothing_and_a_taking_can_be_undone_while_it_is_the_last() {
        let bucket = bucket("100 recipients/min", None);
        assert_eq!(take(&bucket, 40), Ok(()));
        assert!(bucket.look(20).is_err(), "50 go at once");
        assert_eq!(bucket.look(10), Ok(()), "the refusal took nothing");
        assert_eq!(bucket.look(10), Ok(()), "nor did the look");
        let taken = bucket.take(10).unwrap();
        assert!(bucket.look(1).is_err());
        bucket.give_back(taken);
        assert_eq!(take(&bucket, 4), Ok(()));
        let taken = bucket.take(3).unwrap();
        bucket.take(3).unwrap();
        bucket.give_back(taken);
        assert!(bucket.look(1).is_err(), "it was not the last");
    }
}
