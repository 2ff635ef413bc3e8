//! A rate for each key by itself: applications, sending domains, sending domains at one provider.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_providers::settings::{Counted, Rate};
use tokio::time::Instant;

use super::gcra::{Rule, Tat};
use super::status::LimitStatus;
use crate::config::{Application, SendingDomainLimits};
use crate::queue::WaitReason;

/// Keys that are remembered before those that have idled are looked for and forgotten.
const SWEEP_AT: usize = 1000;

/// Keys that are remembered at most. A new one waits then until another has idled: to forget one that
/// has not would let it exceed its rate.
const MAX_KEYS: usize = 100_000;

/// When a key for which there is no room comes again.
const CROWDED: Duration = Duration::from_secs(1);

/// How many keys' standing is told of one limit.
const TOLD: usize = 100;

/// What senders may send over all routes.
#[derive(Debug, Default)]
pub struct SenderLimits {
    /// The names of all applications, with a limit or without.
    pub names: Vec<Arc<str>>,
    /// By the name of the application that handed the message in.
    pub applications: KeyedLimits,
    /// By the domain of the reverse-path.
    pub domains: KeyedLimits,
}

/// One limit for each key: some have one of their own, the others each the default.
#[derive(Debug, Default)]
pub struct KeyedLimits {
    what: String,
    setting: String,
    named: HashMap<Arc<str>, Rule>,
    default: Option<Rule>,
    pub(super) buckets: Arc<Mutex<Buckets>>,
}

/// Those that are not full. What is not here has its whole burst.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    used: HashMap<Arc<str>, Tat>,
    sweep_at: usize,
}

/// What a limit in recipients lets through at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// How many recipients.
    pub recipients: usize,
    /// After which time as many may go again.
    pub again_after: Duration,
}

/// What was taken of a key's rate, to be given back if it was not used.
#[derive(Debug)]
pub(super) struct Taken {
    key: Arc<str>,
    before: Tat,
    after: Tat,
}

impl SenderLimits {
    /// `[app.*] rate` and `[limits.sending_domain]`.
    #[must_use]
    pub fn new(applications: &[Arc<Application>], domains: &SendingDomainLimits) -> Self {
        let rates = applications.iter().filter_map(|application| Some((Arc::clone(&application.name), application.rate?)));
        let named = domains.domains.iter().map(|(domain, rate)| (domain.as_str().into(), *rate));
        Self {
            names: applications.iter().map(|application| Arc::clone(&application.name)).collect(),
            applications: KeyedLimits::new("rate of application", rates, None).set_by("app.*.rate"),
            domains: KeyedLimits::new("rate of sending domain", named, domains.default).set_by("limits.sending_domain"),
        }
    }
}

impl KeyedLimits {
    /// Limits that are called `what`, followed by the key, when something waits for them.
    #[must_use]
    pub fn new(what: impl Into<String>, named: impl IntoIterator<Item = (Arc<str>, Rate)>, default: Option<Rate>) -> Self {
        let named = named.into_iter().map(|(key, rate)| (key, Rule::new(rate, None))).collect();
        let default = default.map(|rate| Rule::new(rate, None));
        Self { what: what.into(), setting: String::new(), named, default, buckets: Arc::default() }
    }

    /// The same, with the setting that they come from.
    #[must_use]
    pub fn set_by(self, setting: impl Into<String>) -> Self {
        Self { setting: setting.into(), ..self }
    }

    /// A route's `limits.per_sending_domain`.
    #[must_use]
    pub fn of_route(route: &str, rate: Rate) -> Self {
        Self::new(format!("route {route}'s rate of sending domain"), [], Some(rate))
            .set_by(format!("route {route}: limits.per_sending_domain"))
    }

    fn rule(&self, key: &str) -> Option<&Rule> {
        self.named.get(key).or(self.default.as_ref())
    }

    /// What something waits for that waits for this key.
    #[must_use]
    pub fn reason(&self, key: &str) -> WaitReason {
        WaitReason::new(format!("{} {key}", self.what))
    }

    /// What is counted of this key; `None`: there is no limit for it.
    #[must_use]
    pub fn counted(&self, key: &str) -> Option<Counted> {
        self.rule(key).map(|rule| rule.rate().counted)
    }

    /// The most recipients of one message that may go at once, where recipients are counted. A larger
    /// message goes in pieces, so that the limit holds for it, too.
    #[must_use]
    pub fn piece(&self, key: &str) -> Option<Piece> {
        let rule = self.rule(key)?;
        (rule.rate().counted == Counted::Recipients).then(|| Piece { recipients: rule.burst().get() as usize, again_after: rule.refill() })
    }

    /// Whether `cost` may be taken for this key. Takes nothing.
    ///
    /// # Errors
    /// The time at which it may.
    pub fn look(&self, key: &str, cost: u32) -> Result<(), Instant> {
        let Some(rule) = self.rule(key) else { return Ok(()) };
        let mut buckets = self.buckets.lock();
        if let Some(bucket) = buckets.used.get(key) {
            return rule.decide(bucket, cost).map(drop);
        }
        if buckets.used.len() >= MAX_KEYS {
            self.sweep(&mut buckets);
            if buckets.used.len() >= MAX_KEYS {
                return Err(Instant::now() + CROWDED);
            }
        }
        Ok(())
    }

    /// Takes what has been looked at.
    pub(super) fn take(&self, key: &Arc<str>, cost: u32) -> Option<Taken> {
        let rule = self.rule(key)?;
        let mut buckets = self.buckets.lock();
        if buckets.used.len() >= buckets.sweep_at.max(SWEEP_AT) {
            self.sweep(&mut buckets);
        }
        let bucket = buckets.used.entry(Arc::clone(key)).or_default();
        let after = rule.decide(bucket, cost).ok()?;
        let before = std::mem::replace(bucket, after.clone());
        Some(Taken { key: Arc::clone(key), before, after })
    }

    /// Undoes a taking, if nothing was taken of this key since.
    pub(super) fn give_back(&self, Taken { key, before, after }: Taken) {
        if let Some(bucket) = self.buckets.lock().used.get_mut(&key).filter(|bucket| **bucket == after) {
            *bucket = before;
        }
    }

    /// Forgets the keys that have idled. The next time is when there are twice as many as stay, so that
    /// the cost for each message stays the same.
    fn sweep(&self, buckets: &mut Buckets) {
        buckets.used.retain(|key, bucket| self.rule(key).is_some_and(|rule| !rule.is_idle(bucket)));
        buckets.sweep_at = buckets.used.len() * 2;
    }

    /// How the limits stand: all that have a name, and those of the others that are used just now, as far
    /// as they are not too many.
    #[must_use]
    pub fn status(&self) -> Vec<LimitStatus> {
        let buckets = self.buckets.lock();
        let others = buckets.used.keys().filter(|key| !self.named.contains_key(*key)).take(TOLD);
        let mut keys: Vec<&Arc<str>> = self.named.keys().chain(others).collect();
        keys.sort_unstable();
        keys.into_iter().filter_map(|key| self.status_in(&buckets, key)).collect()
    }

    /// How the limit for this key stands, if there is one.
    pub(super) fn status_of(&self, key: &Arc<str>) -> Option<LimitStatus> {
        self.status_in(&self.buckets.lock(), key)
    }

    fn status_in(&self, buckets: &Buckets, key: &Arc<str>) -> Option<LimitStatus> {
        let (rule, full) = (self.rule(key)?, Tat::default());
        let bucket = buckets.used.get(key).unwrap_or(&full);
        Some(LimitStatus::of_rule(self.setting.clone(), Some(Arc::clone(key)), self.reason(key), rule, bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    fn take(limits: &KeyedLimits, key: &str, cost: u32) -> Result<(), Duration> {
        limits.look(key, cost).map_err(|until| until - Instant::now())?;
        let _ = limits.take(&key.into(), cost);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn each_key_has_its_own_rate_and_a_look_takes_nothing() {
        let limits = KeyedLimits::new("rate of sending domain", [("a.example".into(), rate("1/min"))], Some(rate("1/hour")));
        assert_eq!(limits.look("a.example", 1), Ok(()));
        assert_eq!(take(&limits, "a.example", 1), Ok(()));
        let wait = take(&limits, "a.example", 1).unwrap_err();
        assert!((59_990..=60_000).contains(&wait.as_millis()), "{wait:?}");
        assert_eq!(limits.reason("a.example").as_str(), "rate of sending domain a.example");
        assert_eq!(take(&limits, "b.example", 1), Ok(()));
        assert_eq!(take(&limits, "c.example", 1), Ok(()));
        assert!(take(&limits, "b.example", 1).unwrap_err() > Duration::from_secs(3599));
    }

    #[tokio::test(start_paused = true)]
    async fn where_recipients_are_counted_each_costs_its_own() {
        let limits = KeyedLimits::new("rate of application", [("erp".into(), rate("100 recipients/min"))], None);
        assert_eq!(limits.piece("erp"), Some(Piece { recipients: 50, again_after: Duration::from_secs(30) }));
        assert_eq!((limits.piece("crm"), limits.counted("crm")), (None, None));
        assert_eq!(take(&limits, "erp", 30), Ok(()));
        assert!(take(&limits, "erp", 30).is_err());
        assert_eq!(take(&limits, "erp", 20), Ok(()), "the refusal took nothing");
        assert_eq!(take(&limits, "crm", 1_000), Ok(()), "no limit is set for it");
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_have_idled_are_forgotten_and_others_are_not() {
        let limits = KeyedLimits::new("rate of sending domain", [("slow.example".into(), rate("1/day"))], Some(rate("10/s")));
        assert_eq!(take(&limits, "slow.example", 1), Ok(()));
        for number in 0..20_000 {
            assert_eq!(take(&limits, &format!("d{number}.example"), 1), Ok(()));
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert!(limits.buckets.lock().used.len() <= 2 * SWEEP_AT, "{}", limits.buckets.lock().used.len());
        assert!(take(&limits, "slow.example", 1).is_err());
        assert!(take(&limits, "d19999.example", 1).is_err());
    }
}
