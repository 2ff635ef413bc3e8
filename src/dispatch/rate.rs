//! Rate limits and quotas (GCRA, by `governor`). A limit that is reached says until when. Those of a
//! provider are here, those of senders in `keyed`, those that an account has by its own word in `live`.

mod keyed;
mod live;
mod throttle;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use governor::clock::Clock as GovernorClock;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use postrider_providers::contract::{ProviderName, Report};
use postrider_providers::settings::{Counted, LimitSettings, Rate};
use tokio::time::Instant;
use tower::{Layer, Service};

use self::live::Live;
use self::throttle::Throttle;
use super::transport::{Refusal, Try};
use crate::clock::Clock;
use crate::queue::{Queue, WaitReason};
use crate::spool::{Spool, SpoolError};

pub(super) use throttle::THROTTLES;

pub use keyed::{KeyedLimits, Piece, SenderLimits};

/// tokio's clock for governor, so that limits stand still when tests pause time.
#[derive(Debug, Clone)]
pub(super) struct TokioClock {
    origin: Instant,
}

impl GovernorClock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.origin.elapsed().into()
    }
}

impl TokioClock {
    fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

/// How a rate is spread. At most a tenth of a second's worth goes at once after idling, so that a
/// provider that counts by the second sees no second with twice its rate; where recipients are
/// counted, a call of up to 50 stays in one piece.
fn spread(rate: Rate) -> Quota {
    let tenth = u64::from(rate.count) / (rate.period.as_secs().max(1) * 10);
    let burst = match rate.counted {
        Counted::Messages => tenth,
        Counted::Recipients => tenth.max(50).min(u64::from(rate.count)),
    };
    quota(rate, u32::try_from(burst).unwrap_or(u32::MAX))
}

fn quota(rate: Rate, burst: u32) -> Quota {
    let count = NonZeroU32::new(rate.count).unwrap_or(NonZeroU32::MIN);
    let each = (rate.period / count.get()).max(Duration::from_nanos(1));
    Quota::with_period(each).unwrap_or_else(|| Quota::per_second(count)).allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN))
}

fn weight(counted: Counted, recipients: usize, burst: NonZeroU32) -> NonZeroU32 {
    let weight = match counted {
        Counted::Messages => 1,
        Counted::Recipients => u32::try_from(recipients).unwrap_or(u32::MAX),
    };
    NonZeroU32::new(weight).unwrap_or(NonZeroU32::MIN).min(burst)
}

/// One limit of a provider.
#[derive(Debug)]
struct Limit {
    reason: WaitReason,
    counted: Counted,
    quota: Quota,
    clock: TokioClock,
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock, governor::middleware::NoOpMiddleware<Nanos>>,
}

impl Limit {
    fn new(reason: String, counted: Counted, quota: Quota) -> Self {
        let clock = TokioClock::new();
        Self { reason: WaitReason::new(reason), counted, quota, limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock }
    }

    /// Takes what `recipients` cost, or says when it can be had. A refusal takes nothing.
    fn take(&self, recipients: usize) -> Result<u32, Instant> {
        let cells = weight(self.counted, recipients, self.quota.burst_size());
        match self.limiter.check_n(cells) {
            Ok(Err(not_until)) => Err(Instant::now() + not_until.wait_time_from(self.clock.now())),
            // The other case, more than the burst, was excluded by `weight`.
            Ok(Ok(())) | Err(_) => Ok(cells.get()),
        }
    }
}

/// A quota whose use survives a restart.
#[derive(Debug)]
struct Budget {
    limit: Limit,
    /// The theoretical arrival time, in wall time: how far ahead of the refill this is.
    tat: Mutex<SystemTime>,
    clock: Clock,
}

impl Budget {
    fn take(&self, recipients: usize) -> Result<SystemTime, Instant> {
        let cells = self.limit.take(recipients)?;
        let mut tat = self.tat.lock();
        *tat = (*tat).max(self.clock.now()) + self.limit.quota.replenish_interval() * cells;
        Ok(*tat)
    }
}

/// The limits of one provider. All of them hold, so the smallest wins.
#[derive(Debug)]
pub struct ProviderLimits {
    rate: Option<Limit>,
    budget: Option<Budget>,
    store: Option<Store>,
    live: Live,
    throttle: Throttle,
}

/// Saves a quota's use.
#[derive(Clone)]
struct Store(Arc<Save>);

type Save = dyn Fn(String, SystemTime) -> BoxFuture<'static, Result<(), SpoolError>> + Send + Sync;

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl ProviderLimits {
    /// The limits as configured, with what of a quota was used before a restart.
    ///
    /// # Errors
    /// When the spool cannot tell what was used.
    pub async fn restore<S: Spool>(name: &ProviderName, settings: &LimitSettings, queue: &Queue<S>) -> Result<Self, SpoolError> {
        let rate = settings.rate.map(|rate| Limit::new(format!("rate of {name}"), rate.counted, spread(rate)));
        let Some(budget) = settings.quota.first().copied() else {
            return Ok(Self { rate, budget: None, store: None, live: Live::new(name), throttle: Throttle::of(name) });
        };
        let limit = Limit::new(format!("quota of {name}"), budget.counted, quota(budget, budget.count));
        let now = queue.clock().now();
        let tat = queue.spool().load_limit(limit.reason.as_str()).await?.unwrap_or(now);
        let used = tat.duration_since(now).unwrap_or_default().as_nanos().div_ceil(limit.quota.replenish_interval().as_nanos().max(1));
        if let Some(cells) = u32::try_from(used).ok().map(|used| used.min(budget.count)).and_then(NonZeroU32::new) {
            // A fresh limiter has its whole burst, so this always passes.
            let _ = limit.limiter.check_n(cells);
        }
        let spool = queue.spool().clone();
        let store = Store(Arc::new(move |key, tat| {
            let spool = spool.clone();
            Box::pin(async move { spool.save_limit(&key, tat).await })
        }));
        Ok(Self {
            rate,
            budget: Some(Budget { limit, tat: Mutex::new(tat), clock: queue.clock() }),
            store: Some(store),
            live: Live::new(name),
            throttle: Throttle::of(name),
        })
    }

    /// When a message to one recipient may go that comes now, and what it would wait for; `None`: at
    /// once. Takes a permit in that case.
    #[cfg(test)]
    pub(super) fn next_permit(&self) -> Option<(Instant, WaitReason)> {
        match self.take(1, &mut Vec::new()) {
            Err(Refusal::Limited { reason, until }) => Some((until, reason)),
            _ => None,
        }
    }

    /// What the provider has asked for itself.
    pub(super) fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// The limits that the account has by its own word.
    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// The same, less what has been used of the account's own rate just now.
    pub(super) fn room(&self) -> usize {
        self.max_recipients().min(self.live.room())
    }

    /// The most recipients that one try may have now without exceeding what a limit lets go at once.
    #[must_use]
    pub fn max_recipients(&self) -> usize {
        [self.rate.as_ref(), self.budget.as_ref().map(|budget| &budget.limit)]
            .into_iter()
            .flatten()
            .filter(|limit| limit.counted == Counted::Recipients)
            .map(|limit| limit.quota.burst_size().get() as usize)
            .chain([self.live.max_recipients()])
            .min()
            .unwrap_or(usize::MAX)
    }
}

/// Puts a provider's rate and quota before it.
#[derive(Debug, Clone)]
pub(super) struct RateLayer(Arc<ProviderLimits>);

/// A service behind limits.
#[derive(Debug, Clone)]
pub(super) struct RateLimited<T> {
    limits: Arc<ProviderLimits>,
    inner: T,
}

impl RateLayer {
    pub(super) fn new(limits: Arc<ProviderLimits>) -> Self {
        Self(limits)
    }
}

impl<T> Layer<T> for RateLayer {
    type Service = RateLimited<T>;

    fn layer(&self, inner: T) -> RateLimited<T> {
        RateLimited { limits: Arc::clone(&self.0), inner }
    }
}

impl ProviderLimits {
    /// Takes a token of each limit. One that was granted while the other refused is kept with the
    /// message until both have let it pass. Gives the quota's new state, to be saved.
    fn take(&self, recipients: usize, grants: &mut Vec<WaitReason>) -> Result<Option<(String, SystemTime)>, Refusal> {
        if let Some(refusal) = self.throttle.refusal() {
            return Err(refusal);
        }
        // Looked at first and taken last: what the configured limits then refuse costs nothing here.
        let live = self.live.enter();
        if let Some((reason, until)) = live.refusal(recipients) {
            return Err(Refusal::Limited { reason, until });
        }
        let refused = |limit: &Limit, until| Refusal::Limited { reason: limit.reason.clone(), until };
        if let Some(limit) = self.rate.as_ref().filter(|limit| !grants.contains(&limit.reason)) {
            limit.take(recipients).map_err(|until| refused(limit, until))?;
            grants.push(limit.reason.clone());
        }
        let mut saved = None;
        if let Some(budget) = &self.budget {
            let tat = budget.take(recipients).map_err(|until| refused(&budget.limit, until))?;
            saved = Some((budget.limit.reason.as_str().to_owned(), tat));
        }
        live.take(recipients);
        // All are used now.
        if let Some(limit) = &self.rate {
            grants.retain(|grant| *grant != limit.reason);
        }
        Ok(saved)
    }
}

impl<T> Service<Try> for RateLimited<T>
where
    T: Service<Try, Response = Report, Error = Refusal> + Clone + Send + 'static,
    T::Future: Send + 'static,
{
    type Response = Report;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Report, Refusal>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Try) -> Self::Future {
        let taken = self.limits.take(request.attempt.recipients.len(), &mut request.grants.lock());
        let saved = match taken {
            Ok(saved) => saved,
            Err(refusal) => return Box::pin(std::future::ready(Err(refusal))),
        };
        // The instance that was polled ready must be the one that is called.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let limits = Arc::clone(&self.limits);
        Box::pin(async move {
            if let (Some((key, tat)), Some(store)) = (saved, &limits.store) {
                store.0(key, tat).await.map_err(Refusal::Spool)?;
            }
            let answer = inner.call(request).await;
            limits.throttle.learn(&answer);
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes whenever it may until `span` has passed; gives the times of the permits.
    async fn permits(limit: &Limit, span: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let mut times = Vec::new();
        while start.elapsed() < span {
            match limit.take(1) {
                Ok(_) => times.push(start.elapsed()),
                Err(until) => tokio::time::sleep_until(until).await,
            }
        }
        times
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_of_a_limit_holds_more_than_burst_and_rate_and_none_is_wasted() {
        for (text, span) in [("1/min", 12_000), ("30/min", 600), ("14/s", 20), ("500/s", 2)] {
            let rate: Rate = text.parse().unwrap();
            let limit = Limit::new("test".to_owned(), rate.counted, spread(rate));
            let span = Duration::from_secs(span);
            let times = permits(&limit, span).await;
            let (burst, count) = (limit.quota.burst_size().get() as usize, rate.count as usize);
            for (first, start) in times.iter().enumerate() {
                let in_window = times[first..].iter().take_while(|time| **time - *start < rate.period).count();
                assert!(in_window <= burst + count, "{text}: {in_window} in one period");
            }
            let possible = span.as_secs_f64() / rate.period.as_secs_f64() * f64::from(rate.count);
            assert!(times.len() as f64 >= 0.98 * possible, "{text}: {} of {possible}", times.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn recipients_are_counted_where_the_rate_says_so() {
        let limit = Limit::new("test".to_owned(), Counted::Recipients, spread("100 recipients/min".parse().unwrap()));
        assert_eq!(limit.take(40), Ok(40));
        assert!(limit.take(20).is_err(), "50 go at once");
        assert_eq!(limit.take(10), Ok(10), "a refusal took nothing");
    }
}
