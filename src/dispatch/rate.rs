//! Limits: rates (GCRA, by `governor`), quotas over a rolling period, and what accounts say they allow.
//!
//! Invariants:
//!
//! 1. A try looks at all limits that it has to pass, of the provider and of its sender, and takes from all of
//!    them or from none. Nobody else takes anything between the look and the taking ([`pass::Turnstile`]).
//! 2. A refusal says what is waited for and until when: the limit that lets the message go last.
//! 3. What was taken is used: the only guard behind this one that can say no is the intent's, and what it
//!    refuses is given back.
//!
//! One rate is in `gcra`, a quota in `quota`, rates by key in `keyed`, an account's own word in `live`; what
//! the sender has to pass in `pass`; how all of them stand in `status`.

mod gcra;
mod guard;
mod keyed;
mod live;
mod pass;
mod quota;
mod status;
mod successor;
mod throttle;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use postrider_providers::contract::{ProviderName, RecipientIndex};
use postrider_providers::settings::{Counted, LimitSettings, Rate};
use tokio::time::Instant;

use self::gcra::{Bucket, Rule, Tat};
use self::live::{Entered, Live};
use self::pass::Payment;
use self::quota::{Budget, Uses};
use self::throttle::Throttle;
use super::transport::Refusal;
use crate::config::{Route, Share};
use crate::queue::{Queue, WaitReason};
use crate::spool::{QuotaUse, Spool, SpoolError};

pub(super) use guard::RateLayer;
pub use keyed::{KeyedLimits, Piece, SenderLimits};
pub use pass::{Paid, Pass, Turnstile};
pub use status::LimitStatus;
pub(super) use throttle::THROTTLES;

/// The limits of one provider. All of them hold, so the smallest wins.
#[derive(Debug)]
pub struct ProviderLimits {
    name: ProviderName,
    rate: Option<(WaitReason, Bucket)>,
    domains: Option<KeyedLimits>,
    quotas: Vec<Budget>,
    /// What was used of the account's own quota by routes that have a share of it.
    account: Arc<Uses>,
    /// The routes that keep a share of each quota for themselves.
    reserves: RwLock<Arc<quota::Reserves>>,
    store: Store,
    live: Live,
    throttle: Throttle,
}

/// Saves what was used of a quota, with the next commit.
#[derive(Clone)]
struct Store(Arc<Save>);

/// The quota's name, the use, and the first slot that still counts.
type Save = dyn Fn(&str, QuotaUse, u64) + Send + Sync;

/// What one try has taken.
#[derive(Debug)]
struct Taken {
    rate: Option<(Tat, Tat)>,
    domain: Option<keyed::Taken>,
    /// By quota, and how many.
    quotas: Vec<(QuotaUse, u64)>,
    sender: Vec<Payment>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl ProviderLimits {
    /// The limits as configured, with what of the quotas was used before a restart.
    ///
    /// # Errors
    /// When the spool cannot tell what was used.
    pub async fn restore<S: Spool>(name: &ProviderName, settings: &LimitSettings, queue: &Queue<S>) -> Result<Self, SpoolError> {
        let bucket = |rate: Rate| (WaitReason::new(format!("rate of {name}")), Bucket::new(Rule::new(rate, settings.burst)));
        let per_domain = |rate: Rate| {
            KeyedLimits::new(format!("rate at {name} of sending domain"), [], Some(rate))
                .set_by(format!("provider.{name}.limits.per_sending_domain"))
        };
        let restored = async |quota: String, period| {
            let stored = queue.spool().quota_use(&quota).await?;
            Ok::<_, SpoolError>(Uses::restore(quota.into(), period, queue.clock(), stored))
        };
        let mut quotas = Vec::new();
        for &rate in settings.quota.iter() {
            let what = match rate.counted {
                Counted::Messages => "messages",
                Counted::Recipients => "recipients",
            };
            // The number is not in the name: when it is changed, what was used still was.
            let uses = restored(format!("{name} {what}/{}s", rate.period.as_secs()), rate.period).await?;
            let reason = match settings.quota.len() {
                1 => format!("quota of {name}"),
                _ => format!("quota of {name}, {rate}"),
            };
            quotas.push(Budget { reason: WaitReason::new(reason), rate, uses: Arc::new(uses) });
        }
        let spool = queue.spool().clone();
        Ok(Self {
            rate: settings.rate.map(bucket),
            domains: settings.per_sending_domain.map(per_domain),
            quotas,
            account: Arc::new(restored(format!("{name} account"), Duration::from_secs(86_400)).await?),
            reserves: RwLock::default(),
            store: Store(Arc::new(move |quota, of, since| spool.use_quota(quota, of, since))),
            live: Live::new(name),
            throttle: Throttle::of(name),
            name: name.clone(),
        })
    }

    /// Which routes keep a share of the quotas for themselves, of those that may use this provider.
    pub fn set_reserves<'a>(&self, routes: impl IntoIterator<Item = &'a Route>) {
        let uses_it = |route: &&Route| route.providers.contains(&self.name);
        let reserve = |route: &Route| Some((Arc::clone(&route.name), route.reserve?));
        *self.reserves.write() = routes.into_iter().filter(uses_it).filter_map(reserve).collect();
    }

    fn reserves(&self) -> Arc<[(Arc<str>, Share)]> {
        Arc::clone(&self.reserves.read())
    }

    /// What the provider has asked for itself.
    pub(super) fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// The limits that the account has by its own word.
    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// What other routes have reserved of the account's quota and not used.
    fn kept(&self, route: &str, reserves: &[(Arc<str>, Share)]) -> u64 {
        if reserves.is_empty() {
            return 0;
        }
        self.live.per_day().map_or(0, |day| self.account.kept(day, route, reserves))
    }

    /// The most recipients that one try of `route` may have without exceeding what a limit lets go at once.
    #[must_use]
    pub fn max_recipients(&self, route: &str) -> usize {
        let reserves = self.reserves();
        let rate = self.rate.iter().map(|(_, bucket)| bucket.rule.max_recipients());
        let domains = self.domains.iter().filter_map(|domains| domains.piece("")).map(|piece| piece.recipients);
        let quotas = self.quotas.iter().map(|quota| quota.max_recipients(route, &reserves));
        let live = self.live.max_recipients(self.kept(route, &reserves));
        rate.chain(domains).chain(quotas).chain([live]).min().unwrap_or(usize::MAX)
    }

    /// The same, less what has been used just now of limits that refill slowly, and at least one: a message
    /// to more than are left goes in parts, because small ones would always be there before it.
    pub(super) fn room(&self, route: &str) -> usize {
        let reserves = self.reserves();
        let counting = self.quotas.iter().filter(|quota| quota.rate.counted == Counted::Recipients);
        let quotas = counting.map(|quota| usize::try_from(quota.standing(route, &reserves).left).unwrap_or(usize::MAX));
        let live = self.live.room(self.kept(route, &reserves));
        quotas.chain([live, self.max_recipients(route)]).min().unwrap_or(usize::MAX).max(1)
    }

    /// What a try for `recipients` waits for longest, and until when; `None`: nothing. Takes nothing.
    pub(super) fn look(&self, pass: &Pass, recipients: &[RecipientIndex]) -> Option<(WaitReason, Instant)> {
        self.look_at(&self.live.enter(), pass, recipients)
    }

    fn look_at(&self, live: &Entered<'_>, pass: &Pass, recipients: &[RecipientIndex]) -> Option<(WaitReason, Instant)> {
        let (reserves, route) = (self.reserves(), &*pass.route);
        let count = u32::try_from(recipients.len()).unwrap_or(u32::MAX);
        let mut waits: Vec<(WaitReason, Instant)> = Vec::new();
        waits.extend(self.throttle.wait());
        let kept = live.per_day().filter(|_| !reserves.is_empty()).map_or(0, |day| self.account.kept(day, route, &reserves));
        waits.extend(live.refusal(recipients.len(), kept));
        if let Some((reason, bucket)) = &self.rate {
            waits.extend(bucket.look(cost(bucket.rule.rate().counted, count)).err().map(|until| (reason.clone(), until)));
        }
        if let Some((domains, key)) = self.domains.as_ref().zip(pass.domain.as_ref()) {
            let cost = domains.counted(key).map_or(0, |counted| cost(counted, count));
            waits.extend(domains.look(key, cost).err().map(|until| (domains.reason(key), until)));
        }
        for quota in &self.quotas {
            let refused = quota.look(u64::from(cost(quota.rate.counted, count)), route, &reserves).err();
            waits.extend(refused.map(|until| (quota.reason(route, &reserves), until)));
        }
        waits.extend(pass.look(recipients).err());
        waits.into_iter().max_by_key(|(_, until)| *until)
    }

    /// Takes what a try for `recipients` costs, of all limits or of none.
    fn admit(&self, pass: &Pass, recipients: &[RecipientIndex]) -> Result<Taken, Refusal> {
        let _alone = pass.turnstile().enter();
        let live = self.live.enter();
        if let Some((reason, until)) = self.look_at(&live, pass, recipients) {
            return Err(Refusal::Limited { reason, until });
        }
        let (reserves, count) = (self.reserves(), u32::try_from(recipients.len()).unwrap_or(u32::MAX));
        live.take(recipients.len());
        if reserves.iter().any(|(reserving, _)| *reserving == pass.route) {
            self.save(&self.account, self.account.take(u64::from(count), &pass.route, &reserves));
        }
        let quotas = self.quotas.iter().map(|quota| {
            let cost = u64::from(cost(quota.rate.counted, count));
            let of = quota.uses.take(cost, &pass.route, &reserves);
            self.save(&quota.uses, of.clone());
            (of, cost)
        });
        Ok(Taken {
            quotas: quotas.collect(),
            rate: self.rate.as_ref().and_then(|(_, bucket)| bucket.take(cost(bucket.rule.rate().counted, count))),
            domain: self.domains.as_ref().zip(pass.domain.as_ref()).and_then(|(domains, key)| {
                let cost = cost(domains.counted(key)?, count);
                domains.take(key, cost)
            }),
            sender: pass.take(recipients),
        })
    }

    /// Gives back what was not used after all. What an account itself counts stays taken: it is asked again.
    fn give_back(&self, pass: &Pass, Taken { rate, domain, quotas, sender }: Taken) {
        let _alone = pass.turnstile().enter();
        if let Some(((_, bucket), taken)) = self.rate.as_ref().zip(rate) {
            bucket.give_back(taken);
        }
        if let Some((domains, taken)) = self.domains.as_ref().zip(domain) {
            domains.give_back(taken);
        }
        for (quota, (of, count)) in self.quotas.iter().zip(quotas) {
            if let Some(of) = quota.uses.give_back(&of, count) {
                self.save(&quota.uses, of);
            }
        }
        pass.give_back(sender);
    }

    fn save(&self, uses: &Uses, of: QuotaUse) {
        (self.store.0)(uses.quota(), of, uses.since());
    }

    /// How each limit stands.
    #[must_use]
    pub fn status(&self) -> Vec<LimitStatus> {
        self.status_with(self.domains.iter().flat_map(KeyedLimits::status))
    }

    /// The same, of those that a message from this sending domain has to pass.
    pub(super) fn status_for(&self, domain: Option<&Arc<str>>) -> Vec<LimitStatus> {
        self.status_with(self.domains.as_ref().zip(domain).and_then(|(domains, key)| domains.status_of(key)))
    }

    fn status_with(&self, of_domains: impl IntoIterator<Item = LimitStatus>) -> Vec<LimitStatus> {
        let (reserves, setting) = (self.reserves(), format!("provider.{}.limits", self.name));
        let mut all = Vec::new();
        if let Some((reason, bucket)) = &self.rate {
            all.push(LimitStatus::of_rule(format!("{setting}.rate"), None, reason.clone(), &bucket.rule, &bucket.tat.lock()));
        }
        all.extend(self.quotas.iter().map(|quota| LimitStatus::of_quota(format!("{setting}.quota"), quota, &reserves)));
        all.extend(self.live.status(&setting));
        all.extend(of_domains);
        all.into_iter().map(|status| LimitStatus { provider: Some(self.name.clone()), ..status }).collect()
    }
}

/// What a try for so many recipients costs.
fn cost(counted: Counted, recipients: u32) -> u32 {
    match counted {
        Counted::Messages => 1,
        Counted::Recipients => recipients,
    }
}
