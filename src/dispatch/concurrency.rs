//! Bounds the handovers to one provider at the same time. Refuses instead of waiting.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use postrider_providers::contract::{ProviderName, Report};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::transport::{Refusal, Try};
use crate::queue::WaitReason;

/// A message that finds no permit is woken when one is given back. This is only the time after which
/// it looks again by itself, should that have happened just before it was parked.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Called when a permit came back: one message that waits for this reason may go.
type Freed = Arc<dyn Fn(&WaitReason) + Send + Sync>;

/// Puts a bound on the handovers at the same time.
#[derive(Clone)]
pub(super) struct ConcurrencyLayer {
    reason: WaitReason,
    hands: Arc<Hands>,
    freed: Freed,
}

/// How many handovers are under way, and how many may be.
#[derive(Debug)]
struct Hands {
    under_way: AtomicUsize,
    most: AtomicUsize,
}

/// A service that takes so many requests at the same time.
#[derive(Clone)]
pub(super) struct Concurrency<T> {
    layer: ConcurrencyLayer,
    inner: T,
}

/// A permit that says when it comes back.
struct Permit {
    hands: Arc<Hands>,
    reason: WaitReason,
    freed: Freed,
}

impl ConcurrencyLayer {
    pub(super) fn new(name: &ProviderName, limit: usize, freed: impl Fn(&WaitReason) + Send + Sync + 'static) -> Self {
        Self {
            reason: WaitReason::new(format!("concurrency of {name}")),
            hands: Arc::new(Hands { under_way: AtomicUsize::new(0), most: AtomicUsize::new(limit.max(1)) }),
            freed: Arc::new(freed),
        }
    }

    /// Allows so many from now on; those that are under way count.
    pub(super) fn change(&self, limit: usize) {
        self.hands.most.store(limit.max(1), Ordering::Relaxed);
    }

    /// What a message would wait for that came now. Takes nothing.
    pub(super) fn look(&self) -> Option<WaitReason> {
        let is_full = self.hands.under_way.load(Ordering::Relaxed) >= self.hands.most.load(Ordering::Relaxed);
        is_full.then(|| self.reason.clone())
    }

    fn take(&self) -> Option<Permit> {
        let Self { reason, hands, freed } = self;
        let most = hands.most.load(Ordering::Relaxed);
        let one_more = |under_way: usize| (under_way < most).then(|| under_way + 1);
        hands.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Permit { hands: Arc::clone(hands), reason: reason.clone(), freed: Arc::clone(freed) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.hands.under_way.fetch_sub(1, Ordering::Relaxed);
        (self.freed)(&self.reason);
    }
}

impl fmt::Debug for ConcurrencyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLayer").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<T> Layer<T> for ConcurrencyLayer {
    type Service = Concurrency<T>;

    fn layer(&self, inner: T) -> Concurrency<T> {
        Concurrency { layer: self.clone(), inner }
    }
}

impl<T> Service<Try> for Concurrency<T>
where
    T: Service<Try, Response = Report, Error = Refusal>,
    T::Future: Send + 'static,
{
    type Response = Report;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Report, Refusal>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Try) -> Self::Future {
        let Some(permit) = self.layer.take() else {
            let refusal = Refusal::Limited { reason: self.layer.reason.clone(), until: Instant::now() + LOOK_AGAIN };
            return Box::pin(std::future::ready(Err(refusal)));
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop(permit);
            answer
        })
    }
}
