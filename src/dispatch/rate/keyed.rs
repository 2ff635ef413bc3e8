//! Limits on who sends: applications and sending domains, each key by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use postrider_providers::settings::{Counted, Rate};
use tokio::time::Instant;

use super::{Limit, TokioClock, spread, weight};
use crate::config::{Application, SendingDomainLimits};
use crate::queue::WaitReason;

/// Keys remembered by one limit before those that have idled are forgotten.
const MAX_IDLE_KEYS: usize = 10_000;

/// What senders may send over all routes.
#[derive(Debug, Default)]
pub struct SenderLimits {
    /// By the name of the application that handed the message in.
    pub applications: KeyedLimits,
    /// By the domain of the reverse-path.
    pub domains: KeyedLimits,
}

/// One limit for each key: some have one of their own, the others each the default.
#[derive(Debug, Default)]
pub struct KeyedLimits {
    named: HashMap<Arc<str>, Limit>,
    default: Option<EachLimit>,
}

/// A limit that every key has for itself.
#[derive(Debug)]
struct EachLimit {
    what: String,
    rate: Rate,
    clock: TokioClock,
    limiter: RateLimiter<Arc<str>, DashMapStateStore<Arc<str>>, TokioClock, NoOpMiddleware<Nanos>>,
}

/// What a limit in recipients lets through at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// How many recipients.
    pub recipients: usize,
    /// After which time as many may go again.
    pub again_after: Duration,
}

impl SenderLimits {
    /// `[app.*] rate` and `[limits.sending_domain]`.
    #[must_use]
    pub fn new(applications: &[Arc<Application>], domains: &SendingDomainLimits) -> Self {
        let rates = applications.iter().filter_map(|application| Some((Arc::clone(&application.name), application.rate?)));
        let named = domains.domains.iter().map(|(domain, rate)| (domain.as_str().into(), *rate));
        Self {
            applications: KeyedLimits::new("rate of application", rates, None),
            domains: KeyedLimits::new("rate of sending domain", named, domains.default),
        }
    }
}

impl KeyedLimits {
    /// Limits that are called `what`, followed by the key, when something waits for them.
    #[must_use]
    pub fn new(what: impl Into<String>, named: impl IntoIterator<Item = (Arc<str>, Rate)>, default: Option<Rate>) -> Self {
        let what = what.into();
        let limit = |key: &str, rate: Rate| Limit::new(format!("{what} {key}"), rate.counted, spread(rate));
        let named = named.into_iter().map(|(key, rate)| (Arc::clone(&key), limit(&key, rate))).collect();
        Self { named, default: default.map(|rate| EachLimit::new(what, rate)) }
    }

    /// A route's `limits.per_sending_domain`.
    #[must_use]
    pub fn of_route(route: &str, rate: Rate) -> Self {
        Self::new(format!("route {route}'s rate of sending domain"), [], Some(rate))
    }

    /// The most recipients of one message that may go at once, where recipients are counted. A larger
    /// message goes in pieces, so that the limit holds for it, too.
    #[must_use]
    pub fn piece(&self, key: &str) -> Option<Piece> {
        let (counted, quota) = match (self.named.get(key), &self.default) {
            (Some(limit), _) => (limit.counted, limit.quota),
            (None, Some(each)) => (each.rate.counted, spread(each.rate)),
            (None, None) => return None,
        };
        (counted == Counted::Recipients)
            .then(|| Piece { recipients: quota.burst_size().get() as usize, again_after: quota.burst_size_replenished_in() })
    }

    /// Takes what a message to `recipients` costs, unless `grants` says that it was taken before: for
    /// the message, or where recipients are counted, for this `part` of it.
    ///
    /// # Errors
    /// What to wait for, and until when.
    pub fn take(&self, key: &str, recipients: usize, part: &str, grants: &mut Vec<WaitReason>) -> Result<(), (WaitReason, Instant)> {
        let (reason, counted) = match (self.named.get(key), &self.default) {
            (Some(limit), _) => (limit.reason.clone(), limit.counted),
            (None, Some(each)) => (WaitReason::new(format!("{} {key}", each.what)), each.rate.counted),
            (None, None) => return Ok(()),
        };
        let grant = match counted {
            Counted::Messages => reason.clone(),
            Counted::Recipients => WaitReason::new(format!("{reason}, {recipients} {part}")),
        };
        if grants.contains(&grant) {
            return Ok(());
        }
        let taken = match (self.named.get(key), &self.default) {
            (Some(limit), _) => limit.take(recipients).map(|_| ()),
            (None, Some(each)) => each.take(key, recipients),
            (None, None) => Ok(()),
        };
        taken.map_err(|until| (reason, until))?;
        grants.push(grant);
        Ok(())
    }
}

impl EachLimit {
    fn new(what: String, rate: Rate) -> Self {
        let clock = TokioClock::new();
        Self { what, rate, limiter: RateLimiter::dashmap_with_clock(spread(rate), clock.clone()), clock }
    }

    fn take(&self, key: &str, recipients: usize) -> Result<(), Instant> {
        if self.limiter.len() > MAX_IDLE_KEYS {
            self.limiter.retain_recent();
        }
        let cells = weight(self.rate.counted, recipients, spread(self.rate).burst_size());
        match self.limiter.check_key_n(&key.into(), cells) {
            Ok(Err(not_until)) => Err(Instant::now() + not_until.wait_time_from(self.clock.now())),
            // The other case, more than the burst, was excluded by `weight`.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_is_kept_while_another_limit_refuses() {
        let limits = KeyedLimits::new("rate of sending domain", [("a.example".into(), rate("1/min"))], Some(rate("1/min")));
        let mut grants = Vec::new();
        assert!(limits.take("a.example", 1, "", &mut grants).is_ok());
        assert!(limits.take("a.example", 1, "of another route", &mut grants).is_ok(), "it was granted before");
        let (reason, until) = limits.take("a.example", 1, "", &mut Vec::new()).unwrap_err();
        assert_eq!((reason.as_str(), until), ("rate of sending domain a.example", Instant::now() + Duration::from_secs(60)));
        assert!(limits.take("b.example", 1, "", &mut Vec::new()).is_ok());
        assert!(limits.take("c.example", 1, "", &mut Vec::new()).is_ok(), "each key has its own");
        assert!(limits.take("b.example", 1, "", &mut Vec::new()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn where_recipients_are_counted_each_part_of_a_message_costs_its_own() {
        let limits = KeyedLimits::new("rate of application", [("erp".into(), rate("100 recipients/min"))], None);
        assert_eq!(limits.piece("erp"), Some(Piece { recipients: 50, again_after: Duration::from_secs(30) }));
        assert_eq!(limits.piece("crm"), None);
        let mut grants = Vec::new();
        assert!(limits.take("erp", 30, "on a", &mut grants).is_ok());
        assert!(limits.take("erp", 30, "on a", &mut grants).is_ok(), "it was granted before");
        let (reason, until) = limits.take("erp", 30, "on b", &mut grants).unwrap_err();
        assert_eq!((reason.as_str(), until), ("rate of application erp", Instant::now() + Duration::from_secs(6)));
        assert!(limits.take("erp", 20, "on b", &mut grants).is_ok());
        assert!(limits.take("crm", 1_000, "on a", &mut grants).is_ok(), "no limit is set for it");
    }
}
