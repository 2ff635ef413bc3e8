//! Records durably who is about to be asked, so that a crash leaves "in doubt" and not a guess.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use postrider_providers::contract::{ProviderName, Report};
use tower::{Layer, Service};

use super::transport::{Refusal, Try};

/// Puts the record before the handover.
#[derive(Debug, Clone)]
pub(super) struct IntentLayer {
    name: ProviderName,
}

/// A service whose requests are recorded before it sees them.
#[derive(Debug, Clone)]
pub(super) struct Intent<T> {
    name: ProviderName,
    inner: T,
}

impl IntentLayer {
    pub(super) fn new(name: ProviderName) -> Self {
        Self { name }
    }
}

impl<T> Layer<T> for IntentLayer {
    type Service = Intent<T>;

    fn layer(&self, inner: T) -> Intent<T> {
        Intent { name: self.name.clone(), inner }
    }
}

impl<T> Service<Try> for Intent<T>
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
        // The instance that was polled ready must be the one that is called.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let name = self.name.clone();
        Box::pin(async move {
            request.ledger.begin(&name, &request.attempt.recipients).await.map_err(Refusal::Spool)?;
            inner.call(request).await
        })
    }
}
