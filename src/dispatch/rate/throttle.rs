//! What a provider has asked for itself: to be left alone.

use std::time::Duration;

use parking_lot::Mutex;
use postrider_providers::contract::{Failure, ProviderName, Report};
use tokio::time::Instant;

use crate::dispatch::transport::Refusal;
use crate::queue::WaitReason;

/// How long a provider is left alone that throttles and does not say for how long.
const UNSAID_THROTTLE: Duration = Duration::from_secs(5);

/// Until when.
#[derive(Debug)]
pub(super) struct Throttle {
    reason: WaitReason,
    until: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(super) fn of(name: &ProviderName) -> Self {
        Self { reason: WaitReason::new(format!("{name}, which asked to slow down")), until: Mutex::new(None) }
    }

    /// What there is to wait for, if the provider wants to be left alone now.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let until = (*self.until.lock()).filter(|until| *until > Instant::now())?;
        Some(Refusal::Limited { reason: self.reason.clone(), until })
    }

    /// Learns from an answer. One message that was throttled speaks for all that would follow it.
    pub(super) fn learn(&self, answer: &Result<Report, Refusal>) {
        let said = match answer {
            Err(Refusal::Failed(Failure::Throttled { retry_after, .. })) => Some(retry_after),
            Ok(report) => report.throttled.as_ref().map(|throttled| &throttled.retry_after),
            Err(_) => None,
        };
        if let Some(retry_after) = said {
            let until = Instant::now() + retry_after.unwrap_or(UNSAID_THROTTLE);
            let mut known = self.until.lock();
            *known = Some(known.map_or(until, |known| known.max(until)));
        }
    }
}
