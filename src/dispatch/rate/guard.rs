//! The guard that lets a try pass the limits of a provider and of its sender.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use postrider_providers::contract::Report;
use tower::{Layer, Service};

use super::ProviderLimits;
use crate::dispatch::transport::{Refusal, Try};

/// Puts a provider's limits before it, and its sender's.
#[derive(Debug, Clone)]
pub(in crate::dispatch) struct RateLayer(Arc<ProviderLimits>);

/// A service behind limits.
#[derive(Debug, Clone)]
pub(in crate::dispatch) struct RateLimited<T> {
    limits: Arc<ProviderLimits>,
    inner: T,
}

impl RateLayer {
    pub(in crate::dispatch) fn new(limits: Arc<ProviderLimits>) -> Self {
        Self(limits)
    }
}

impl<T> Layer<T> for RateLayer {
    type Service = RateLimited<T>;

    fn layer(&self, inner: T) -> RateLimited<T> {
        RateLimited { limits: Arc::clone(&self.0), inner }
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
        let taken = match self.limits.admit(&request.pass, &request.attempt.recipients) {
            Ok(taken) => taken,
            Err(refusal) => return Box::pin(std::future::ready(Err(refusal))),
        };
        // The instance that was polled ready must be the one that is called.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let (limits, pass) = (Arc::clone(&self.limits), Arc::clone(&request.pass));
        Box::pin(async move {
            let answer = inner.call(request).await;
            if let Err(Refusal::Spool(_)) = answer {
                limits.give_back(&pass, taken);
            }
            limits.throttle.learn(&answer);
            answer
        })
    }
}
