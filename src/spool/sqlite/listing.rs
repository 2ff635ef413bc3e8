//! What people ask about the queue. It has a connection of its own, so that neither the writer nor the
//! reading of what was claimed waits for it.

mod query;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use postrider_providers::contract::{MessageId, ProviderName};
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use self::query::Query;
use super::error;
use super::lanes;
use super::record::{self, Unread, from_millis};
use crate::spool::filter::Filter;
use crate::spool::view::{Lane, LaneSummary, Listed, ListedRecipient, QueueState, Summary};
use crate::spool::{SpoolError, Stored};

/// Positions in [`QueueState::ALL`], from the columns that `standing` is made of: what is generated is never
/// read from an index.
const SUMMARY: [&str; 2] = [
    "SELECT CASE WHEN deaths > 0 THEN 0 WHEN holds > 0 OR held_at IS NOT NULL THEN 1 WHEN doubts > 0 THEN 3 WHEN attempts > 0 THEN 4 \
     ELSE 5 END, lane, received, due, size FROM messages INDEXED BY messages_standing WHERE owner IS NULL",
    // These are few.
    "SELECT CASE WHEN deaths > 0 THEN 0 WHEN holds > 0 OR held_at IS NOT NULL THEN 1 ELSE 2 END, lane, received, NULL, size \
     FROM messages INDEXED BY messages_leased WHERE owner IS NOT NULL AND owner > 0",
];

/// How much waits, and where.
pub(super) fn summary(db: &Connection) -> rusqlite::Result<Summary> {
    // Of one moment.
    let db = db.unchecked_transaction()?;
    // Grouped here: SQLite would sort a million rows for it.
    let mut parts: HashMap<(i64, usize), LaneSummary> = HashMap::new();
    for sql in SUMMARY {
        let mut statement = db.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let state = usize::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
            let (lane, received, due): (_, _, Option<i64>) = (row.get(1)?, from_millis(row.get(2)?), row.get(3)?);
            let part = parts.entry((lane, state)).or_insert_with(|| LaneSummary {
                lane: Lane::default(),
                state: QueueState::ALL[state],
                messages: 0,
                octets: 0,
                oldest: received,
                next_due: None,
            });
            part.messages += 1;
            part.octets += u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0);
            part.oldest = part.oldest.min(received);
            part.next_due = part.next_due.into_iter().chain(due.map(from_millis)).min();
        }
    }
    let mut lanes = Vec::with_capacity(parts.len());
    for ((number, _), part) in parts {
        lanes.push(LaneSummary { lane: lanes::get(&db, number)?, ..part });
    }
    lanes.sort_by(|one, other| (&one.lane, one.state).cmp(&(&other.lane, other.state)));
    let set_aside: i64 = db.query_row("SELECT count(*) FROM set_aside", [], |row| row.get(0))?;
    Ok(Summary { lanes, set_aside: u64::try_from(set_aside).unwrap_or(0) })
}

/// What `filter` means, as [`crate::spool::Spool::list`] says.
pub(super) fn list(
    db: &Connection,
    filter: &Filter,
    now: SystemTime,
    after: Option<MessageId>,
    limit: usize,
) -> rusqlite::Result<Vec<Listed>> {
    let db = db.unchecked_transaction()?;
    let ids = ids(&db, filter, now, after, limit)?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        match listed(&db, id) {
            Ok(listed) => found.extend(listed),
            // It is set aside, with its reason, as soon as somebody claims it.
            Err(error) if error::is_about_the_record(&error) => tracing::warn!(message_id = %id, %error, "a message cannot be listed"),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

pub(super) fn ids(
    db: &Connection,
    filter: &Filter,
    now: SystemTime,
    after: Option<MessageId>,
    limit: usize,
) -> rusqlite::Result<Vec<MessageId>> {
    let Query { sql, parameters } = Query::ids(filter, now, after, Some(limit));
    let mut statement = db.prepare(&sql)?;
    statement.query_map(params_from_iter(parameters), |row| row.get(0).map(MessageId::from_bytes))?.collect()
}

pub(super) fn count(db: &Connection, filter: &Filter, now: SystemTime) -> rusqlite::Result<u64> {
    let Query { sql, parameters } = Query::count(filter, now);
    let count: i64 = db.prepare(&sql)?.query_row(params_from_iter(parameters), |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// One message in full, whoever leases it.
pub(super) fn read(db: &Connection, bodies: &Path, id: MessageId) -> Result<Option<(Stored, Listed)>, SpoolError> {
    let found = || -> Result<Option<(Stored, Listed)>, Unread> {
        let db = db.unchecked_transaction()?;
        let Some(listed) = listed(&db, id)? else { return Ok(None) };
        Ok(Some((record::load(&db, bodies, id)?, listed)))
    };
    found().map_err(|unread| match unread {
        Unread::Record(reason) => SpoolError::Unavailable(format!("message {id} cannot be read: {reason}")),
        Unread::Database(error) => error,
    })
}

/// A message without its body; `None` if it is gone, or was set aside.
fn listed(db: &Connection, id: MessageId) -> rusqlite::Result<Option<Listed>> {
    let mut statement = db.prepare_cached(
        "SELECT standing, lane, received, CASE WHEN owner IS NULL THEN due END, held_at, attempts, reverse_path, size, application, client, \
         message_id, rerouted FROM messages WHERE id = ?1 AND owner IS NOT 0",
    )?;
    let read = |row: &Row<'_>| {
        let time = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(from_millis));
        let name = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<String>>(column)?.map(Arc::from));
        Ok(Listed {
            id,
            state: parse_state(row.get_ref(0)?.as_str()?)?,
            lane: lanes::get(db, row.get(1)?)?,
            received: from_millis(row.get(2)?),
            due: time(3)?,
            held_at: time(4)?,
            attempts: row.get(5)?,
            sender: row.get(6)?,
            recipients: Vec::new(),
            size: u64::try_from(row.get::<_, i64>(7)?).unwrap_or(0),
            application: name(8)?,
            client: row.get::<_, Option<String>>(9)?.and_then(|client| client.parse().ok()),
            message_id: name(10)?,
            rerouted: name(11)?,
        })
    };
    let Some(mut listed) = statement.query_row([id.as_bytes()], read).optional()? else { return Ok(None) };
    let mut recipients = db.prepare_cached(
        "SELECT address, state, provider, coalesce(asked, last_provider), diagnostic FROM recipients WHERE message = ?1 ORDER BY position",
    )?;
    let read = |row: &Row<'_>| {
        let state = record::parse_state(row.get_ref(1)?.as_str()?, row.get::<_, Option<String>>(2)?.as_deref());
        Ok(ListedRecipient {
            address: row.get(0)?,
            state: state.map_err(|reason| broken(1, reason))?,
            last_provider: row.get::<_, Option<String>>(3)?.map(|name| ProviderName::from(name.as_str())),
            diagnostic: row.get(4)?,
        })
    };
    listed.recipients = recipients.query_map([id.as_bytes()], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(Some(listed))
}

fn parse_state(text: &str) -> rusqlite::Result<QueueState> {
    let known = QueueState::ALL.into_iter().find(|state| state.as_str() == text);
    known.ok_or_else(|| broken(0, format!("'{text}' is no state of a message")))
}

fn broken(column: usize, words: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, words.into())
}

/// The words of the spool for what SQLite says.
pub(super) fn asked<T>(result: rusqlite::Result<T>) -> Result<T, SpoolError> {
    result.map_err(|error| error::sql(&error))
}
