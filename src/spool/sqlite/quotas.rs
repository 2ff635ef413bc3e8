//! What of each quota was used, which waits for the next commit and rides along with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, params};

use crate::spool::QuotaUse;

/// What waits; each use stays here until a commit has carried it.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits(Arc<Mutex<Pending>>);

/// By quota, slot and share.
type Pending = BTreeMap<(Arc<str>, u64, Arc<str>), Waiting>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    used: u64,
    /// What was used in slots before this one is needed no longer.
    since: u64,
}

impl Limits {
    pub(super) fn add(&self, quota: &str, QuotaUse { share, slot, used }: QuotaUse, since: u64) {
        self.0.lock().insert((quota.into(), slot, share), Waiting { used, since });
    }

    /// What waits of `quota`.
    pub(super) fn waiting(&self, quota: &str) -> Vec<QuotaUse> {
        let pending = self.0.lock();
        let of_quota = pending.iter().filter(|((name, ..), _)| **name == *quota);
        of_quota.map(|((_, slot, share), waiting)| QuotaUse { share: Arc::clone(share), slot: *slot, used: waiting.used }).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Writes what waits in the open transaction; gives it, to be told to [`Limits::saved`] once that is
    /// committed.
    pub(super) fn save(&self, db: &Connection) -> rusqlite::Result<Pending> {
        let pending = self.0.lock().clone();
        for ((quota, slot, share), Waiting { used, since }) in &pending {
            let insert = "INSERT INTO quota_use (quota, share, slot, used) VALUES (?1, ?2, ?3, ?4) \
                          ON CONFLICT (quota, share, slot) DO UPDATE SET used = excluded.used";
            let mut save = db.prepare_cached(insert)?;
            save.execute(params![quota, share, number(*slot), number(*used)])?;
            db.prepare_cached("DELETE FROM quota_use WHERE quota = ?1 AND share = ?2 AND slot < ?3")?.execute(params![
                quota,
                share,
                number(*since)
            ])?;
        }
        Ok(pending)
    }

    pub(super) fn saved(&self, saved: &Pending) {
        if !saved.is_empty() {
            // If more has been used meanwhile, that stays.
            self.0.lock().retain(|key, waiting| saved.get(key) != Some(waiting));
        }
    }
}

/// What is on record and what waited for it a moment before, together: the more counts.
pub(super) fn latest(stored: Vec<QuotaUse>, waiting: Vec<QuotaUse>) -> Vec<QuotaUse> {
    let mut all: BTreeMap<(u64, Arc<str>), u64> = BTreeMap::new();
    for QuotaUse { share, slot, used } in stored.into_iter().chain(waiting) {
        let known = all.entry((slot, share)).or_default();
        *known = used.max(*known);
    }
    all.into_iter().map(|((slot, share), used)| QuotaUse { share, slot, used }).collect()
}

/// What is on record of `quota`.
pub(super) fn stored(db: &Connection, quota: &str) -> rusqlite::Result<Vec<QuotaUse>> {
    let mut uses = db.prepare_cached("SELECT share, slot, used FROM quota_use WHERE quota = ?1")?;
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    uses.query_map([quota], |row| {
        Ok(QuotaUse { share: row.get::<_, String>(0)?.into(), slot: number(row.get(1)?), used: number(row.get(2)?) })
    })?
    .collect()
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
