//! Bounds the handovers to one provider at the same time. Refuses instead of waiting.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use postrider_providers::contract::{ProviderName, Report};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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
    permits: Arc<Semaphore>,
    freed: Freed,
}

/// A service that takes so many requests at the same time.
#[derive(Clone)]
pub(super) struct Concurrency<T> {
    layer: ConcurrencyLayer,
    inner: T,
}

/// A permit that says when it comes back.
struct Permit {
    permit: Option<OwnedSemaphorePermit>,
    reason: WaitReason,
    freed: Freed,
}

impl ConcurrencyLayer {
    pub(super) fn new(name: &ProviderName, limit: usize, freed: impl Fn(&WaitReason) + Send + Sync + 'static) -> Self {
        Self {
            reason: WaitReason::new(format!("concurrency of {name}")),
            permits: Arc::new(Semaphore::new(limit.max(1))),
            freed: Arc::new(freed),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permit = None;
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
        let ConcurrencyLayer { reason, permits, freed } = &self.layer;
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
            let refusal = Refusal::Limited { reason: reason.clone(), until: Instant::now() + LOOK_AGAIN };
            return Box::pin(std::future::ready(Err(refusal)));
        };
        let permit = Permit { permit: Some(permit), reason: reason.clone(), freed: Arc::clone(freed) };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop(permit);
            answer
        })
    }
}
