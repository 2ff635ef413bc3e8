//! Quotas: no more than so many in any period, however it is laid over time, and over restarts.
//!
//! What was used is kept by slots, and a slot counts whole until the last moment of it has left the period.
//! So no period ever holds more than the quota, and at most a slot's time is given away: less than one part
//! in a hundred. Each use is written before the handover, with the commit of its intent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postrider_providers::settings::{Counted, Rate};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::Share;
use crate::queue::WaitReason;
use crate::spool::QuotaUse;

/// Into how many slots a period is cut.
const SLOTS: u128 = 120;

/// Routes that keep a share for themselves.
pub(super) type Reserves = [(Arc<str>, Share)];

/// What was used of one period that ends now, by who has a share of it.
#[derive(Debug)]
pub(super) struct Uses {
    /// Under which name it is stored.
    quota: Arc<str>,
    period: Duration,
    /// Of one slot, in milliseconds.
    grain: u64,
    clock: Clock,
    slots: Mutex<BTreeMap<u64, Shares>>,
}

/// What was used in one slot, by route; `""` is everybody who has no share.
type Shares = BTreeMap<Arc<str>, u64>;

/// One quota.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) reason: WaitReason,
    pub(super) rate: Rate,
    pub(super) uses: Arc<Uses>,
}

/// How a quota stands for one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// What was used by all.
    pub(super) used: u64,
    /// What this route may still use now.
    pub(super) left: u64,
}

impl Uses {
    /// What is used of `quota`, with what is on record of it.
    pub(super) fn restore(quota: Arc<str>, period: Duration, clock: Clock, stored: Vec<QuotaUse>) -> Self {
        let grain = u64::try_from(period.as_millis() / SLOTS).unwrap_or(u64::MAX).max(1);
        let mut slots: BTreeMap<u64, Shares> = BTreeMap::new();
        for QuotaUse { share, slot, used } in stored {
            *slots.entry(slot).or_default().entry(share).or_default() += used;
        }
        Self { quota, period, grain, clock, slots: Mutex::new(slots) }
    }

    fn slot(&self) -> u64 {
        let millis = self.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX) / self.grain
    }

    /// When this slot counts no more.
    fn ends(&self, slot: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis((slot + 1).saturating_mul(self.grain)) + self.period
    }

    /// Forgets what counts no more; gives what does, by share.
    fn current(&self, slots: &mut BTreeMap<u64, Shares>) -> Shares {
        let now = self.clock.now();
        while slots.first_key_value().is_some_and(|(slot, _)| self.ends(*slot) <= now) {
            slots.pop_first();
        }
        let mut shares = Shares::new();
        for (share, used) in slots.values().flatten() {
            *shares.entry(Arc::clone(share)).or_default() += used;
        }
        shares
    }

    /// What other routes than `route` have reserved of `whole` and not used.
    pub(super) fn kept(&self, whole: u64, route: &str, reserves: &Reserves) -> u64 {
        kept(&self.current(&mut self.slots.lock()), whole, route, reserves)
    }

    /// Notes that `route` uses `count` more; gives what to write down, and where it stands.
    pub(super) fn take(&self, count: u64, route: &Arc<str>, reserves: &Reserves) -> QuotaUse {
        let share = if reserves.iter().any(|(reserving, _)| reserving == route) { Arc::clone(route) } else { "".into() };
        let (mut slots, slot) = (self.slots.lock(), self.slot());
        let used = slots.entry(slot).or_default().entry(Arc::clone(&share)).or_default();
        *used += count;
        QuotaUse { share, slot, used: *used }
    }

    /// Takes a use back that was none.
    pub(super) fn give_back(&self, of: &QuotaUse, count: u64) -> Option<QuotaUse> {
        let mut slots = self.slots.lock();
        let used = slots.get_mut(&of.slot)?.get_mut(&of.share)?;
        *used = used.saturating_sub(count);
        Some(QuotaUse { used: *used, ..of.clone() })
    }

    /// Under which name it is stored.
    pub(super) fn quota(&self) -> &str {
        &self.quota
    }

    /// The first slot that still counts.
    pub(super) fn since(&self) -> u64 {
        self.slots.lock().first_key_value().map_or(0, |(slot, _)| *slot)
    }
}

fn kept(shares: &Shares, whole: u64, route: &str, reserves: &Reserves) -> u64 {
    let others = reserves.iter().filter(|(reserving, _)| **reserving != *route);
    others.map(|(reserving, share)| share.of(whole).saturating_sub(shares.get(reserving).copied().unwrap_or(0))).sum()
}

impl Budget {
    fn left(&self, shares: &Shares, route: &str, reserves: &Reserves) -> u64 {
        let (whole, used) = (u64::from(self.rate.count), shares.values().sum::<u64>());
        whole.saturating_sub(used).saturating_sub(kept(shares, whole, route, reserves))
    }

    /// How it stands for `route` now.
    pub(super) fn standing(&self, route: &str, reserves: &Reserves) -> Standing {
        let shares = self.uses.current(&mut self.uses.slots.lock());
        Standing { used: shares.values().sum(), left: self.left(&shares, route, reserves) }
    }

    /// The most recipients in one call, where they are counted: what `route` could ever have at once.
    pub(super) fn max_recipients(&self, route: &str, reserves: &Reserves) -> usize {
        match self.rate.counted {
            Counted::Messages => usize::MAX,
            Counted::Recipients => usize::try_from(self.left(&Shares::new(), route, reserves)).unwrap_or(usize::MAX).max(1),
        }
    }

    /// Whether `count` more may go by `route`, or when.
    pub(super) fn look(&self, count: u64, route: &str, reserves: &Reserves) -> Result<(), Instant> {
        let mut slots = self.uses.slots.lock();
        let mut shares = self.uses.current(&mut slots);
        if count <= self.left(&shares, route, reserves) {
            return Ok(());
        }
        for (slot, freed) in slots.iter() {
            for (share, used) in freed {
                if let Some(sum) = shares.get_mut(share) {
                    *sum -= used;
                }
            }
            if count <= self.left(&shares, route, reserves) {
                return Err(self.uses.clock.instant_of(self.uses.ends(*slot)));
            }
        }
        // More than it could ever have, because everything is reserved by others.
        Err(Instant::now() + self.uses.period)
    }

    /// Why a message of `route` waits: its time is another one than that of routes with a share.
    pub(super) fn reason(&self, route: &str, reserves: &Reserves) -> WaitReason {
        match reserves.iter().find(|(reserving, _)| **reserving == *route) {
            Some(_) => WaitReason::new(format!("{}, with what route {route} has reserved", self.reason)),
            None => self.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(rate: &str, stored: Vec<QuotaUse>) -> Budget {
        let rate: Rate = rate.parse().unwrap();
        let clock = Clock::following_tokio(SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567_891));
        Budget { reason: WaitReason::new("quota"), rate, uses: Arc::new(Uses::restore("q".into(), rate.period, clock, stored)) }
    }

    fn takes(budget: &Budget, route: &str, reserves: &Reserves, most: u64) -> u64 {
        (0..most)
            .take_while(|_| {
                let may_go = budget.look(1, route, reserves).is_ok();
                if may_go {
                    let _ = budget.uses.take(1, &route.into(), reserves);
                }
                may_go
            })
            .count() as u64
    }

    #[tokio::test(start_paused = true)]
    async fn any_period_holds_the_quota_at_most_and_nearly_all_of_it_is_used() {
        let (budget, start) = (budget("100 recipients/hour", vec![]), Instant::now());
        let mut times = Vec::new();
        while start.elapsed() < Duration::from_secs(100 * 3600) {
            match budget.look(1, "r", &[]) {
                Ok(()) => {
                    let _ = budget.uses.take(1, &"r".into(), &[]);
                    times.push(start.elapsed());
                    // Neither all at once nor evenly.
                    tokio::time::sleep(Duration::from_millis(times.len() as u64 * 7919 % 60_000)).await;
                }
                Err(until) => {
                    assert!(until > Instant::now());
                    tokio::time::sleep_until(until).await;
                }
            }
        }
        for (first, at) in times.iter().enumerate() {
            assert!(times[first..].iter().take_while(|time| **time - *at < Duration::from_secs(3600)).count() <= 100);
        }
        assert!(times.len() >= 9_800, "{} of 10000", times.len());
        assert!(budget.uses.slots.lock().len() <= 122, "only what counts is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn routes_with_a_share_always_have_it_and_others_have_the_rest() {
        let share = |percent| Share::percent(percent).unwrap();
        let reserves = [("alerts".into(), share(20)), ("resets".into(), share(30))];
        let budget = budget("100/day", vec![]);
        assert_eq!(takes(&budget, "alerts", &reserves, 5), 5, "of its own share");
        assert_eq!(takes(&budget, "news", &reserves, 1000), 50, "half is reserved");
        assert_eq!(takes(&budget, "resets", &reserves, 1000), 30);
        assert_eq!(takes(&budget, "alerts", &reserves, 1000), 15);
        assert_eq!(budget.standing("alerts", &reserves), Standing { used: 100, left: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_with_a_share_also_takes_of_what_nobody_has_reserved() {
        let reserves = [("alerts".into(), Share::percent(20).unwrap())];
        let budget = budget("100/day", vec![]);
        assert_eq!(takes(&budget, "alerts", &reserves, 1000), 100);
        assert_eq!(takes(&budget, "news", &reserves, 1000), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_record_counts() {
        let one = budget("10/hour", vec![]);
        let stored: Vec<QuotaUse> = (0..7).map(|_| one.uses.take(1, &"r".into(), &[])).fold(None, |_, of| Some(of)).into_iter().collect();
        let other = budget("10/hour", stored);
        assert_eq!(takes(&other, "r", &[], 1000), 3);
    }
}
