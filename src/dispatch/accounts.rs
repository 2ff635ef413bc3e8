//! Follows what accounts allow: asks each provider now and then, and its limits keep to the answer.
//!
//! A provider that cannot be asked says so at the first time and is left alone. One that fails to answer
//! keeps the limits that it told last, and that is logged once.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use postrider_providers::contract::{Allowance, DynProvider, ProviderName};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::{info, warn};

use super::rate::ProviderLimits;
use super::rules::Rules;
use super::transport::Guarded;
use crate::queue::{Queue, WaitReason};
use crate::spool::Spool;

/// How often an account is asked.
const EVERY: Duration = Duration::from_secs(300);

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// For how long mail waits at the start, so that it does not exceed limits that are about to be known.
const AT_START: Duration = Duration::from_secs(5);

/// Lets messages go that wait for this.
type Wake = Arc<dyn Fn(&WaitReason, usize) + Send + Sync>;

/// An account that is followed.
struct Account {
    name: ProviderName,
    provider: Arc<dyn DynProvider>,
    limits: Arc<ProviderLimits>,
    wake: Wake,
}

/// The accounts that are followed, until this is dropped.
#[derive(Default)]
pub(super) struct Accounts {
    followed: HashMap<ProviderName, (Arc<Guarded>, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Accounts {
    /// Follows the account of each provider of these rules, and of no other.
    pub(super) fn follow<S: Spool>(&mut self, rules: &Rules, queue: &Queue<S>) {
        let is_same = |name: &ProviderName, guarded: &Arc<Guarded>| rules.transports.get(name).is_some_and(|now| Arc::ptr_eq(now, guarded));
        self.followed.retain(|name, (guarded, task)| {
            let stays = is_same(name, guarded);
            if !stays {
                task.abort();
            }
            stays
        });
        while self.tasks.try_join_next().is_some() {}
        for (name, guarded) in &rules.transports {
            if self.followed.contains_key(name) {
                continue;
            }
            let queue = queue.clone();
            let wake: Wake = Arc::new(move |reason, count| queue.wake(reason, count));
            let limits = Arc::clone(&guarded.limits);
            let account = Account { name: name.clone(), provider: guarded.provider(), limits: Arc::clone(&limits), wake };
            let mut following = Box::pin(account.follow());
            // Most providers say at once that they cannot be asked; mail to them waits for nothing.
            if (&mut following).now_or_never().is_none() {
                limits.live().hold(Instant::now() + AT_START);
                let task = self.tasks.spawn(following);
                self.followed.insert(name.clone(), (Arc::clone(guarded), task));
            }
        }
    }
}

impl Account {
    async fn follow(self) {
        let (live, name) = (self.limits.live(), &self.name);
        let (mut told, mut is_failing, mut is_mute) = (None, false, false);
        while !is_mute {
            let asked = Instant::now();
            let next = asked + EVERY + jitter();
            let woken = match self.ask().await {
                Ok(None) => {
                    is_mute = true;
                    live.close()
                }
                Ok(Some(allowance)) => {
                    let limits = (allowance.per_second, allowance.per_day);
                    if told.replace(limits) != Some(limits) || is_failing {
                        info!(provider = %name, per_second = ?limits.0, per_day = ?limits.1, used_today = ?allowance.used_today, "limits of the account");
                    }
                    is_failing = false;
                    live.learn(&allowance, asked, next)
                }
                Err(reason) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        warn!(provider = %name, %reason, "the account cannot be asked what it allows; what it said last stays");
                    }
                    live.keep()
                }
            };
            for (reason, count) in woken {
                (self.wake)(&reason, count);
            }
            if !is_mute {
                tokio::time::sleep_until(next).await;
            }
        }
    }

    /// What the account allows, or why that is not known.
    async fn ask(&self) -> Result<Option<Allowance>, String> {
        let asking = std::panic::AssertUnwindSafe(self.provider.allowance()).catch_unwind();
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(Ok(allowance))) => Ok(allowance),
            Ok(Ok(Err(failure))) => {
                let diagnostic = failure.diagnostic();
                Err(match diagnostic.advice {
                    Some(advice) => format!("{diagnostic}; {advice}"),
                    None => diagnostic.to_string(),
                })
            }
            Ok(Err(_)) => Err("the provider panicked".to_owned()),
            Err(_) => Err(format!("no answer for {} seconds", PATIENCE.as_secs())),
        }
    }
}

/// Up to a tenth, so that several gateways that were started together do not ask together for ever.
fn jitter() -> Duration {
    let random = RandomState::new().hash_one(()) % 1000;
    EVERY / 10 * u32::try_from(random).unwrap_or_default() / 1000
}
