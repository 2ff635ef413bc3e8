//! Counts what owners and operator are told, and gathers what would be too much for them. What is gathered
//! is in the spool's notes, so that a restart forgets none of it, and goes out at the end of its period
//! even if nothing else happens.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_providers::contract::{Address, Message};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::conclusion::Desk;
use super::{Queue, Settings};
use crate::bounce::digest::{self, Period, Rule};
use crate::bounce::{Notice, Reader};
use crate::history::event::{Event, Record, millis};
use crate::spool::{Spool, SpoolError};

/// The key of a period in the notes is this and the address.
const PREFIX: &str = "digest/";

/// The longest sleep: the wall clock may have been set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The periods of all who are told anything, by address. There are as many as the config names.
#[derive(Debug, Default)]
pub(super) struct Digests {
    periods: Mutex<BTreeMap<String, Kept>>,
    /// Whether what was left by an earlier start is among them.
    loaded: tokio::sync::OnceCell<()>,
    /// Held while something is written, so that nothing older is written over it.
    writing: tokio::sync::Mutex<()>,
    /// Something was gathered.
    gathered: Notify,
}

/// A period, and how much of it is in the spool.
#[derive(Debug)]
struct Kept {
    period: Period,
    version: u64,
    written: u64,
}

impl Digests {
    /// Whether a notification goes out by itself. Otherwise it is gathered, durably when this returns, so
    /// that a crash before the settlement tells of it twice rather than never.
    pub(super) async fn admit<S: Spool>(&self, desk: &Desk<'_, S>, reader: Reader<'_>, message: &Message, notices: &[Notice<'_>]) -> bool {
        if let Err(error) = self.load(desk.spool).await {
            warn!(%error, "what was gathered for digests cannot be read; notifications go out one by one");
            return true;
        }
        let (address, rule) = (reader.address.as_str(), rule(desk.settings));
        let (is_sent, version) = {
            let mut periods = self.periods.lock();
            let fresh = || Kept { period: Period::new(reader.who, desk.now), version: 0, written: 0 };
            let kept = periods.entry(address.to_owned()).or_insert_with(fresh);
            kept.version += 1;
            (kept.period.admit(rule, desk.now, message, notices), kept.version)
        };
        let turn = self.writing.lock().await;
        if let Err(error) = self.write(desk.spool, address, version).await {
            warn!(%error, to = address, "what is gathered for a digest could not be written; it is in memory");
        }
        drop(turn);
        if !is_sent {
            info!(message_id = %message.id, to = address, who = reader.who.as_str(), "gathered for a digest");
            self.gathered.notify_one();
        }
        is_sent
    }

    async fn load<S: Spool>(&self, spool: &S) -> Result<(), SpoolError> {
        let load = async || {
            let notes = spool.recall(PREFIX).await?;
            let mut periods = self.periods.lock();
            for (key, value) in notes {
                match serde_json::from_str(&value) {
                    Ok(period) => {
                        let address = key.trim_start_matches(PREFIX).to_owned();
                        periods.insert(address, Kept { period, version: 0, written: 0 });
                    }
                    Err(error) => warn!(%error, key, "what was gathered for a digest cannot be read"),
                }
            }
            Ok(())
        };
        self.loaded.get_or_try_init(load).await.copied()
    }

    /// Writes the period at `address`, unless somebody has written this version, or a later one. For
    /// whoever holds `writing`.
    async fn write<S: Spool>(&self, spool: &S, address: &str, version: u64) -> Result<(), SpoolError> {
        let (json, version) = {
            let periods = self.periods.lock();
            let Some(kept) = periods.get(address).filter(|kept| kept.written < version) else { return Ok(()) };
            (serde_json::to_string(&kept.period).unwrap_or_default(), kept.version)
        };
        spool.remember(&format!("{PREFIX}{address}"), Some(json)).await?;
        if let Some(kept) = self.periods.lock().get_mut(address) {
            kept.written = kept.written.max(version);
        }
        Ok(())
    }

    /// When the next period ends.
    fn next_end(&self, rule: Rule) -> Option<std::time::SystemTime> {
        self.periods.lock().values().map(|kept| kept.period.ends(rule)).min()
    }
}

/// Sends digests when their time has come, for ever.
pub(super) async fn run<S: Spool>(queue: &Queue<S>) {
    let (digests, clock) = (&queue.0.digests, queue.0.clock);
    loop {
        let look = match end_periods(queue).await {
            Ok(()) => {
                let next = digests.next_end(rule(&queue.0.settings.load())).map(|next| clock.instant_of(next));
                next.map_or(LOOK_AGAIN, |next| next.saturating_duration_since(Instant::now()).min(LOOK_AGAIN))
            }
            Err(SpoolError::Closed) => return,
            Err(error) => {
                warn!(%error, "a digest could not be stored; trying again");
                LOOK_AGAIN
            }
        };
        tokio::select! {
            () = sleep_until(Instant::now() + look) => {}
            () = digests.gathered.notified() => {}
        }
    }
}

/// Ends the periods that are over: sends what was gathered, and forgets the rest.
async fn end_periods<S: Spool>(queue: &Queue<S>) -> Result<(), SpoolError> {
    let (digests, settings, now) = (&queue.0.digests, queue.0.settings.load_full(), queue.0.clock.now());
    digests.load(&queue.0.spool).await?;
    let is_over = |kept: &Kept| kept.period.is_over(rule(&settings), now);
    let over: Vec<String> = digests.periods.lock().iter().filter(|(_, kept)| is_over(kept)).map(|(address, _)| address.clone()).collect();
    for address in over {
        // Nothing is written about this one until its digest is stored.
        let _turn = digests.writing.lock().await;
        let Some(kept) = digests.periods.lock().remove(&address) else { continue };
        if let Err(error) = end(queue, &address, &kept.period).await {
            let mut periods = digests.periods.lock();
            let meanwhile = periods.insert(address.clone(), kept);
            if let (Some(meanwhile), Some(kept)) = (meanwhile, periods.get_mut(&address)) {
                kept.period.gathered.extend(meanwhile.period.gathered);
                kept.version += 1;
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Sends the digest of one period, which takes the place of the period in the spool.
async fn end<S: Spool>(queue: &Queue<S>, address: &str, period: &Period) -> Result<(), SpoolError> {
    let (now, settings, key) = (queue.0.clock.now(), queue.0.settings.load_full(), format!("{PREFIX}{address}"));
    let to = address.parse::<Address>().ok().filter(|_| period.gathered.messages > 0);
    let Some(to) = to else { return queue.0.spool.remember(&key, None).await };
    let notification = digest::compose(&to, period, settings.relay(), now);
    let id = notification.id;
    let event = Event::Notified {
        who: period.who.as_str().to_owned(),
        to: address.to_owned(),
        notification: id.to_string(),
        what: "digest".to_owned(),
    };
    let record = Record { at: millis(now), message: String::new(), about: None, events: vec![event], ended: false };
    queue.submit_instead(&key, notification.into(), settings.record.then(|| record.to_json())).await?;
    info!(notification = %id, to = address, who = period.who.as_str(), messages = period.gathered.messages, "digest sent");
    Ok(())
}

fn rule(settings: &Settings) -> Rule {
    Rule { after: settings.bounce.digest_after, every: settings.bounce.digest_every }
}

#[cfg(test)]
mod tests;
