//! The circuit as a guard around a service.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use postrider_providers::contract::{BreakerSignal, Outcome, Report};
use tower::{Layer, Service};

use super::state::Circuit;
use crate::dispatch::transport::{Refusal, Try};

/// Puts a circuit around a service.
#[derive(Debug, Clone)]
pub(in crate::dispatch) struct BreakerLayer(pub(in crate::dispatch) Circuit);

/// A service behind a circuit.
#[derive(Debug, Clone)]
pub(in crate::dispatch) struct Breaker<T> {
    circuit: Circuit,
    inner: T,
}

impl<T> Layer<T> for BreakerLayer {
    type Service = Breaker<T>;

    fn layer(&self, inner: T) -> Breaker<T> {
        Breaker { circuit: self.0.clone(), inner }
    }
}

impl<T> Service<Try> for Breaker<T>
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
        let permit = match self.circuit.admit() {
            Ok(permit) => permit,
            Err(refusal) => return Box::pin(std::future::ready(Err(refusal))),
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            match &answer {
                Ok(report) => permit.report(report.breaker_signal(), &doubt(report)),
                Err(Refusal::Failed(failure)) => permit.report(failure.breaker_signal(), &failure.diagnostic().to_string()),
                // The provider was not asked.
                Err(Refusal::CircuitOpen { .. } | Refusal::Limited { .. } | Refusal::Spool(_)) => permit.report(BreakerSignal::Neutral, ""),
            }
            answer
        })
    }
}

/// What was seen where an answer was lost.
fn doubt(report: &Report) -> String {
    let in_doubt = report.outcomes.iter().find_map(|(_, outcome)| match outcome {
        Outcome::InDoubt(diagnostic) => Some(diagnostic.to_string()),
        _ => None,
    });
    in_doubt.unwrap_or_default()
}
