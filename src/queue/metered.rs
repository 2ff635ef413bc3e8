//! Counts what an attempt came to, for the metrics.

use postrider_providers::contract::{Message, RecipientIndex};

use super::Disposition;
use crate::spool::{Change, RecipientState, Settlement};
use crate::telemetry::metrics::{Metrics, Outcome};

/// What an attempt brought, before it is known what follows from it.
pub(super) struct Brought(Vec<(RecipientIndex, Option<String>)>);

impl Brought {
    /// Who had each recipient in hand, by what the attempt brought.
    pub(super) fn of(dispositions: &[(RecipientIndex, Disposition)]) -> Self {
        let provider = |disposition: &Disposition| match disposition {
            Disposition::Relayed(provider, _) | Disposition::InDoubt { provider, .. } => Some(provider.to_string()),
            Disposition::Bounced(_) | Disposition::Deferred(_) | Disposition::Waiting(..) => None,
        };
        Self(dispositions.iter().map(|(index, disposition)| (*index, provider(disposition))).collect())
    }

    /// Counts what was settled. `route` is where the message waited.
    pub(super) fn count(&self, metrics: &Metrics, message: &Message, route: &str, settlement: &Settlement, asked: bool) {
        let age = message.received.elapsed().unwrap_or_default();
        for Change { recipient, state, .. } in &settlement.changes {
            let provider = self.0.iter().find(|(known, _)| known == recipient).and_then(|(_, provider)| provider.as_deref());
            let outcome = match state {
                RecipientState::Relayed => Outcome::Relayed,
                // Only waiting for a limit is no attempt.
                RecipientState::Pending if asked => Outcome::Deferred,
                RecipientState::Pending => continue,
                RecipientState::InDoubt(_) => Outcome::InDoubt,
                RecipientState::Held(_) => Outcome::Held,
                RecipientState::Bounced => Outcome::Bounced,
                RecipientState::Expired => Outcome::Expired,
                RecipientState::Dead => Outcome::Dead,
            };
            metrics.ended(outcome, provider, route, message.origin.application.as_ref());
            if outcome == Outcome::Relayed {
                metrics.delivered(age);
            }
        }
    }
}
