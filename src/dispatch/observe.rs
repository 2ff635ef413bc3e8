//! Outermost: a log event for each try that reached a provider and did not simply succeed, and the meters.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use postrider_providers::contract::{Failure, ProviderName, Report};
use tokio::time::Instant;
use tower::{Layer, Service};
use tracing::{debug, error, info, warn};

use super::transport::{Refusal, Try};
use super::vitals::Vitals;
use crate::telemetry::metrics::Metrics;

/// Puts a log event behind each try.
#[derive(Debug, Clone)]
pub(super) struct ObserveLayer {
    name: ProviderName,
    metrics: Metrics,
    vitals: Arc<Vitals>,
}

/// A service whose answers are logged.
#[derive(Debug, Clone)]
pub(super) struct Observe<T> {
    name: ProviderName,
    metrics: Metrics,
    vitals: Arc<Vitals>,
    inner: T,
}

/// The verdict of a report: the one of all, or "mixed".
fn told(report: &Report) -> &'static str {
    let mut names = report.outcomes.iter().map(|(_, outcome)| outcome.name());
    let Some(first) = names.next() else { return "none" };
    if names.all(|name| name == first) { first } else { "mixed" }
}

impl ObserveLayer {
    pub(super) fn new(name: ProviderName, vitals: Arc<Vitals>, metrics: Metrics) -> Self {
        Self { name, vitals, metrics }
    }
}

impl<T> Layer<T> for ObserveLayer {
    type Service = Observe<T>;

    fn layer(&self, inner: T) -> Observe<T> {
        Observe { name: self.name.clone(), vitals: Arc::clone(&self.vitals), metrics: self.metrics.clone(), inner }
    }
}

impl<T> Service<Try> for Observe<T>
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
        let (id, number, provider, start) = (request.attempt.message.id, request.attempt.number, self.name.clone(), Instant::now());
        let metrics = self.metrics.clone();
        let under_way = Vitals::begin(&self.vitals);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            under_way.end(&answer);
            let elapsed_ms = start.elapsed().as_millis();
            match &answer {
                Ok(report) => metrics.asked(provider.as_str(), told(report), start.elapsed()),
                Err(Refusal::Failed(failure)) => metrics.asked(provider.as_str(), failure.name(), start.elapsed()),
                // Nobody was asked.
                Err(Refusal::CircuitOpen { .. } | Refusal::Limited { .. } | Refusal::Spool(_)) => {}
            }
            match &answer {
                Ok(report) => {
                    for (index, outcome) in &report.outcomes {
                        debug!(message_id = %id, %provider, attempt = number, recipient = index.0, outcome = outcome.name(), elapsed_ms, "asked");
                    }
                }
                Err(Refusal::Failed(failure)) => {
                    let (outcome, reason, advice) = (failure.name(), failure.diagnostic(), failure.diagnostic().advice);
                    match failure {
                        // Only a person can change these.
                        Failure::Unauthorized(_) | Failure::SenderRefused(_) => {
                            error!(message_id = %id, %provider, attempt = number, outcome, %reason, advice, elapsed_ms, "the provider refuses our credential or this sender");
                        }
                        Failure::Unavailable(_) => {
                            warn!(message_id = %id, %provider, attempt = number, outcome, %reason, advice, elapsed_ms, "the provider did not take the message");
                        }
                        Failure::Throttled { .. } | Failure::Unsuitable(_) | Failure::Rejected(_) => {
                            info!(message_id = %id, %provider, attempt = number, outcome, %reason, advice, elapsed_ms, "the provider did not take the message");
                        }
                    }
                }
                Err(Refusal::CircuitOpen { reason, .. } | Refusal::Limited { reason, .. }) => {
                    debug!(message_id = %id, %provider, attempt = number, %reason, "not asked");
                }
                Err(Refusal::Spool(reason)) => error!(message_id = %id, %provider, %reason, "not asked: the intent could not be recorded"),
            }
            answer
        })
    }
}
