//! What the sender of a message has to pass, wherever the message goes.
//!
//! A message pays once in each attempt, whichever candidate takes it: the limits are on the sender, and a
//! candidate that fails hands nothing over. Where recipients are counted, each is paid for once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use postrider_providers::contract::RecipientIndex;
use postrider_providers::settings::Counted;
use tokio::time::Instant;

use super::keyed::{KeyedLimits, Piece, Taken};
use super::status::LimitStatus;
use crate::queue::WaitReason;

/// Only one message at a time looks at its limits and takes from them, so that no other comes between.
/// Held for microseconds.
#[derive(Debug, Clone, Default)]
pub struct Turnstile(Arc<Mutex<()>>);

/// What one attempt at a message has paid for, over all of its routes.
pub type Paid = Arc<Mutex<HashMap<WaitReason, BTreeSet<RecipientIndex>>>>;

/// The limits on whoever sends one message by one route, and on the way of it.
#[derive(Debug)]
pub struct Pass {
    turnstile: Turnstile,
    tolls: Vec<Toll>,
    paid: Paid,
    /// By which route it goes.
    pub route: Arc<str>,
    /// The domain of the reverse-path.
    pub domain: Option<Arc<str>>,
}

/// One of them.
#[derive(Debug)]
struct Toll {
    limits: Arc<KeyedLimits>,
    key: Arc<str>,
    reason: WaitReason,
    counted: Counted,
}

/// What was paid of one toll.
#[derive(Debug)]
pub(super) struct Payment {
    toll: usize,
    taken: Taken,
    recipients: Vec<RecipientIndex>,
}

impl Turnstile {
    pub(super) fn enter(&self) -> MutexGuard<'_, ()> {
        self.0.lock()
    }
}

impl Pass {
    /// What `limits` ask, each with the message's key.
    #[must_use]
    pub fn new(
        turnstile: Turnstile,
        limits: impl IntoIterator<Item = (Arc<KeyedLimits>, Arc<str>)>,
        paid: Paid,
        route: Arc<str>,
        domain: Option<Arc<str>>,
    ) -> Self {
        let toll = |(limits, key): (Arc<KeyedLimits>, Arc<str>)| {
            let (reason, counted) = (limits.reason(&key), limits.counted(&key)?);
            Some(Toll { limits, key, reason, counted })
        };
        Self { turnstile, tolls: limits.into_iter().filter_map(toll).collect(), paid, route, domain }
    }

    pub(super) fn turnstile(&self) -> &Turnstile {
        &self.turnstile
    }

    /// The most recipients that may go at once, and when as many may go again.
    #[must_use]
    pub fn piece(&self) -> Option<Piece> {
        self.tolls.iter().filter_map(|toll| toll.limits.piece(&toll.key)).min_by_key(|piece| piece.recipients)
    }

    fn cost(&self, toll: &Toll, recipients: &[RecipientIndex]) -> u32 {
        let paid = self.paid.lock();
        let paid = paid.get(&toll.reason);
        match toll.counted {
            Counted::Messages => u32::from(paid.is_none_or(BTreeSet::is_empty)),
            Counted::Recipients => {
                let unpaid = recipients.iter().filter(|index| paid.is_none_or(|paid| !paid.contains(index))).count();
                u32::try_from(unpaid).unwrap_or(u32::MAX)
            }
        }
    }

    /// Whether `recipients` may go, or what they wait for longest. Takes nothing.
    ///
    /// # Errors
    /// What to wait for, and until when.
    pub fn look(&self, recipients: &[RecipientIndex]) -> Result<(), (WaitReason, Instant)> {
        let look = |toll: &Toll| {
            let until = toll.limits.look(&toll.key, self.cost(toll, recipients)).err()?;
            Some((toll.reason.clone(), until))
        };
        self.tolls.iter().filter_map(look).max_by_key(|(_, until)| *until).map_or(Ok(()), Err)
    }

    /// How each of the limits stands.
    #[must_use]
    pub fn status(&self) -> Vec<LimitStatus> {
        self.tolls.iter().filter_map(|toll| toll.limits.status_of(&toll.key)).collect()
    }

    /// Takes what has been looked at.
    pub(super) fn take(&self, recipients: &[RecipientIndex]) -> Vec<Payment> {
        let pay = |(position, toll): (usize, &Toll)| {
            let cost = self.cost(toll, recipients);
            let taken = (cost > 0).then(|| toll.limits.take(&toll.key, cost)).flatten()?;
            let mut paid = self.paid.lock();
            let paid = paid.entry(toll.reason.clone()).or_default();
            let recipients = recipients.iter().copied().filter(|index| paid.insert(*index)).collect();
            Some(Payment { toll: position, taken, recipients })
        };
        self.tolls.iter().enumerate().filter_map(pay).collect()
    }

    /// Gives back what was paid for nothing.
    pub(super) fn give_back(&self, payments: Vec<Payment>) {
        for Payment { toll, taken, recipients } in payments {
            let Some(toll) = self.tolls.get(toll) else { continue };
            toll.limits.give_back(taken);
            if let Some(paid) = self.paid.lock().get_mut(&toll.reason) {
                paid.retain(|index| !recipients.contains(index));
            }
        }
    }
}
