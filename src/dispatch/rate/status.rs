//! How a limit stands, for people and for metrics.

use std::sync::Arc;
use std::time::Duration;

use postrider_providers::contract::ProviderName;
use postrider_providers::settings::Counted;
use tokio::time::Instant;

use super::gcra::{Rule, Tat};
use super::quota::{Budget, Reserves};
use crate::queue::WaitReason;

/// One limit as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitStatus {
    /// The setting it comes from, as in `provider.smarthost.office.limits.rate`.
    pub setting: String,
    /// The provider whose limit this is; `None` for limits on senders.
    pub provider: Option<ProviderName>,
    /// The application or the sending domain it is for; `None`: for all mail.
    pub key: Option<Arc<str>>,
    /// What is waited for where it refuses, as it stands in logs and with waiting messages.
    pub reason: WaitReason,
    /// What it counts.
    pub counted: Counted,
    /// How many in each period.
    pub count: u64,
    /// The period.
    pub period: Duration,
    /// How many at once.
    pub burst: u64,
    /// Of a quota: what was used in the period that ends now. Of a rate: what is used of its burst.
    pub used: u64,
    /// How many more could go now.
    pub left: u64,
    /// When the next one may go; `None`: now.
    pub next_free: Option<Instant>,
}

impl LimitStatus {
    pub(super) fn of_rule(setting: String, key: Option<Arc<str>>, reason: WaitReason, rule: &Rule, bucket: &Tat) -> Self {
        let (rate, burst, used) = (rule.rate(), u64::from(rule.burst().get()), u64::from(rule.used(bucket)));
        Self {
            setting,
            provider: None,
            key,
            reason,
            counted: rate.counted,
            count: u64::from(rate.count),
            period: rate.period,
            burst,
            used,
            left: burst.saturating_sub(used),
            next_free: rule.decide(bucket, 1).err(),
        }
    }

    /// As it stands for routes that have reserved nothing.
    pub(super) fn of_quota(setting: String, quota: &Budget, reserves: &Reserves) -> Self {
        let (count, standing) = (u64::from(quota.rate.count), quota.standing("", reserves));
        Self {
            setting,
            provider: None,
            key: None,
            reason: quota.reason.clone(),
            counted: quota.rate.counted,
            count,
            period: quota.rate.period,
            burst: count,
            used: standing.used,
            left: standing.left,
            next_free: quota.look(1, "", reserves).err(),
        }
    }
}
