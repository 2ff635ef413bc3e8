//! Lanes by number: how they are written down, and where mail waits.

use std::time::SystemTime;

use postrider_providers::contract::Priority;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::record::from_millis;
use crate::spool::WaitingLane;
use crate::spool::view::Lane;

/// The number of a lane, if mail was ever put there.
pub(super) fn find(db: &Connection, lane: &Lane) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM lanes WHERE priority = ?1 AND route = ?2 AND domain = ?3")?
        .query_row(params![lane.priority.as_str(), lane.route, lane.domain], |row| row.get(0))
        .optional()
}

/// The number of a lane, which it gets if it has none.
pub(super) fn number(db: &Connection, lane: &Lane) -> rusqlite::Result<i64> {
    if let Some(number) = find(db, lane)? {
        return Ok(number);
    }
    db.prepare_cached("INSERT INTO lanes (priority, route, domain) VALUES (?1, ?2, ?3)")?.execute(params![
        lane.priority.as_str(),
        lane.route,
        lane.domain
    ])?;
    Ok(db.last_insert_rowid())
}

/// The lane of a number.
pub(super) fn get(db: &Connection, number: i64) -> rusqlite::Result<Lane> {
    let mut lane = db.prepare_cached("SELECT priority, route, domain FROM lanes WHERE id = ?1")?;
    Ok(lane.query_row([number], read).optional()?.unwrap_or_default())
}

/// When the first message of a lane is due that nobody leases.
pub(super) fn next_due(db: &Connection, number: i64) -> rusqlite::Result<Option<SystemTime>> {
    let due = db
        .prepare_cached("SELECT due FROM messages WHERE owner IS NULL AND due IS NOT NULL AND lane = ?1 ORDER BY due LIMIT 1")?
        .query_row([number], |row| row.get(0))
        .optional()?;
    Ok(due.map(from_millis))
}

/// The lanes in which mail waits, the first due first: steps through the index from lane to lane.
pub(super) fn waiting(db: &Connection, limit: usize) -> rusqlite::Result<Vec<WaitingLane>> {
    let mut lanes = db.prepare_cached(
        "WITH RECURSIVE in_use (lane) AS ( \
             SELECT min(lane) FROM messages WHERE owner IS NULL AND due IS NOT NULL \
             UNION ALL \
             SELECT (SELECT min(lane) FROM messages WHERE owner IS NULL AND due IS NOT NULL AND lane > in_use.lane) \
             FROM in_use WHERE in_use.lane IS NOT NULL \
         ) \
         SELECT priority, route, domain, \
             (SELECT due FROM messages WHERE owner IS NULL AND due IS NOT NULL AND lane = in_use.lane ORDER BY due LIMIT 1) AS first_due \
         FROM in_use JOIN lanes ON lanes.id = in_use.lane ORDER BY first_due LIMIT ?1",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    lanes.query_map([limit], |row| Ok(WaitingLane { lane: read(row)?, due: from_millis(row.get(3)?) }))?.collect()
}

/// Forgets the lanes in which there is no message. Only when nobody leases any.
pub(super) fn drop_empty(db: &Connection) -> rusqlite::Result<()> {
    db.execute(
        "DELETE FROM lanes WHERE id > 0 \
         AND NOT EXISTS (SELECT 1 FROM messages WHERE owner IS NULL AND due IS NOT NULL AND lane = lanes.id) \
         AND NOT EXISTS (SELECT 1 FROM messages WHERE owner IS NULL AND due IS NULL AND lane = lanes.id) \
         AND NOT EXISTS (SELECT 1 FROM messages WHERE owner IS NOT NULL AND owner = 0 AND lane = lanes.id)",
        [],
    )?;
    Ok(())
}

/// A lane in the columns `priority`, `route` and `domain`, which come first.
fn read(row: &Row<'_>) -> rusqlite::Result<Lane> {
    let (priority, route, domain): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(Lane { priority: Priority::parse(&priority).unwrap_or_default(), route: route.into(), domain: domain.into() })
}
