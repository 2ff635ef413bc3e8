//! Limits that follow on others when the config changes: what was used stays used.

use std::sync::Arc;

use super::{KeyedLimits, ProviderLimits};

impl ProviderLimits {
    /// These limits in place of `before`. What attempts at hand still take by that counts for both, where it is
    /// counted by hour or day.
    pub(in crate::dispatch) fn after(mut self, before: &Self) -> Self {
        if let (Some((_, bucket)), Some((_, before))) = (&self.rate, &before.rate) {
            *bucket.tat.lock() = before.tat.lock().clone();
        }
        self.domains = match (self.domains, &before.domains) {
            (Some(domains), Some(before)) => Some(domains.after(before)),
            (domains, _) => domains,
        };
        for quota in &mut self.quotas {
            if let Some(before) = before.quotas.iter().find(|before| before.uses.quota() == quota.uses.quota()) {
                quota.uses = Arc::clone(&before.uses);
            }
        }
        self.account = Arc::clone(&before.account);
        self.live.take_over(&before.live);
        self.throttle.take_over(&before.throttle);
        self
    }
}

impl KeyedLimits {
    /// These limits in place of `before`, counted together with it.
    pub(in crate::dispatch) fn after(mut self, before: &Self) -> Self {
        self.buckets = Arc::clone(&before.buckets);
        self
    }
}
