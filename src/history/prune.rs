//! Keeps the history within its time and size, in small steps.

use rusqlite::{Connection, TransactionBehavior, params};

use super::store::Fault;

/// So many messages go in one step.
const STEP: usize = 200;

/// So many pages are given back to the file system in one step.
const PAGES: i64 = 200;

/// Removes a few of what is older than `before`, or too much; milliseconds and octets. Says whether there
/// is more to remove.
pub(super) fn prune(db: &mut Connection, before: i64, max_size: u64) -> Result<bool, Fault> {
    let mut numbers = oldest(db, before)?;
    if numbers.len() < STEP && used(db)? > i64::try_from(max_size).unwrap_or(i64::MAX) {
        numbers = oldest(db, i64::MAX)?;
    }
    let more = numbers.len() == STEP;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let actions = "DELETE FROM events WHERE number IN (SELECT number FROM events WHERE message IS NULL AND at < ?1 ORDER BY at LIMIT ?2)";
    let actions = tx.prepare_cached(actions)?.execute(params![before, STEP as i64])?;
    for number in &numbers {
        tx.prepare_cached("DELETE FROM events WHERE message = ?1")?.execute([number])?;
        tx.prepare_cached("DELETE FROM recipients WHERE message = ?1")?.execute([number])?;
        tx.prepare_cached("DELETE FROM messages WHERE number = ?1")?.execute([number])?;
    }
    if actions + numbers.len() > 0 {
        tx.commit()?;
    } else {
        drop(tx);
    }
    shrink(db)?;
    Ok(more)
}

/// A few messages whose age counts from before then, the oldest first.
fn oldest(db: &Connection, before: i64) -> Result<Vec<i64>, Fault> {
    let mut oldest = db.prepare_cached("SELECT number FROM messages WHERE aged < ?1 ORDER BY aged LIMIT ?2")?;
    Ok(oldest.query_map(params![before, STEP as i64], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Gives space back when a good part of the file is free; what is free otherwise is used again.
fn shrink(db: &Connection) -> Result<(), Fault> {
    if pragma(db, "freelist_count")? > (pragma(db, "page_count")? / 8).max(PAGES) {
        db.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    }
    Ok(())
}

/// Octets in use.
pub(super) fn used(db: &Connection) -> Result<i64, Fault> {
    Ok((pragma(db, "page_count")? - pragma(db, "freelist_count")?) * pragma(db, "page_size")?)
}

fn pragma(db: &Connection, name: &str) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, name, |row| row.get(0))
}
