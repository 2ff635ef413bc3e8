//! What has to survive a restart and is no message, and what is on its way into the history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, params};

use super::error::Fault;
use super::writer::{Op, Work};

/// About so much of the journal is read at once.
const JOURNAL_OCTETS: usize = 4 << 20;

/// Keeps a value, or forgets it.
pub(super) struct Remember {
    pub(super) key: String,
    pub(super) value: Option<String>,
}

impl Op for Remember {
    type Answer = ();

    fn run(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        match &self.value {
            Some(value) => {
                work.db
                    .prepare_cached(
                        "INSERT INTO notes (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    )?
                    .execute(params![self.key, value])?;
            }
            None => forget(work.db, &self.key)?,
        }
        Ok(())
    }
}

/// Forgets a value, in a transaction that is open.
pub(super) fn forget(db: &Connection, key: &str) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM notes WHERE key = ?1")?.execute([key]).map(drop)
}

/// The values under keys that begin with `prefix`.
pub(super) fn recall(db: &Connection, prefix: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let mut notes = db.prepare_cached("SELECT key, value FROM notes WHERE key >= ?1 AND substr(key, 1, length(?1)) = ?1 ORDER BY key")?;
    notes.query_map([prefix], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Adds a record to the journal.
pub(super) struct Note {
    pub(super) record: String,
}

impl Op for Note {
    type Answer = ();

    fn run(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        append(work.db, &self.record)?;
        Ok(())
    }
}

/// Adds a record to the journal, in a transaction that is open.
pub(super) fn append(db: &Connection, record: &str) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO journal (record) VALUES (?1)")?.execute([record]).map(drop)
}

/// The oldest records of the journal behind number `after`.
pub(super) fn journal(db: &Connection, after: u64, limit: usize) -> rusqlite::Result<Vec<(u64, String)>> {
    let (after, limit) = (i64::try_from(after).unwrap_or(i64::MAX), i64::try_from(limit).unwrap_or(i64::MAX));
    let mut records = db.prepare_cached("SELECT seq, record FROM journal WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let mut rows = records.query([after, limit])?;
    let (mut found, mut octets) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let record: String = row.get(1)?;
        octets += record.len();
        found.push((u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0), record));
        if octets > JOURNAL_OCTETS {
            break;
        }
    }
    Ok(found)
}

/// How many records the journal has behind number `forgotten`. Their numbers have no gaps: it is forgotten
/// from its beginning only.
pub(super) fn journal_length(db: &Connection, forgotten: u64) -> rusqlite::Result<u64> {
    let mut ends = db.prepare_cached("SELECT (SELECT min(seq) FROM journal), (SELECT max(seq) FROM journal)")?;
    let (first, last): (Option<i64>, Option<i64>) = ends.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let number = |seq: Option<i64>| seq.and_then(|seq| u64::try_from(seq).ok());
    Ok(number(first).zip(number(last)).map_or(0, |(first, last)| (last + 1).saturating_sub(first.max(forgotten + 1))))
}

/// How far the journal is no longer needed; 0 when nothing waits to be forgotten.
#[derive(Debug, Clone, Default)]
pub(super) struct Forgotten(Arc<AtomicU64>);

impl Forgotten {
    /// Lets the next commit forget everything up to and including `last`.
    pub(super) fn up_to(&self, last: u64) {
        self.0.fetch_max(last, Ordering::Relaxed);
    }

    /// How far that is.
    pub(super) fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Forgets it in the open transaction; says how far, to be told to [`Forgotten::done`] once that is
    /// committed.
    pub(super) fn apply(&self, db: &Connection) -> rusqlite::Result<u64> {
        let last = self.0.load(Ordering::Relaxed);
        if last > 0 {
            db.prepare_cached("DELETE FROM journal WHERE seq <= ?1")?.execute([i64::try_from(last).unwrap_or(i64::MAX)])?;
        }
        Ok(last)
    }

    pub(super) fn done(&self, last: u64) {
        // If more has come meanwhile, it stays.
        let _ = self.0.compare_exchange(last, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}
