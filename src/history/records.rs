//! From the records of the journal to the rows of the history.

use std::collections::BTreeMap;

use postrider_providers::contract::MessageId;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tracing::warn;

use super::event::{About, Event, Record};
use super::query::PastState;
use super::store::Fault;

/// A message that is not known to have ended is taken to end this long after the last thing that happened
/// to it: nothing waits that long unless a person holds it.
const WITHOUT_AN_END: i64 = 90 * 86_400_000;

/// How far the journal of `spool` has been taken over.
pub(super) fn last(db: &Connection, spool: &str) -> Result<u64, Fault> {
    let last: Option<i64> =
        db.prepare_cached("SELECT last FROM progress WHERE spool = ?1")?.query_row([spool], |row| row.get(0)).optional()?;
    Ok(last.and_then(|last| u64::try_from(last).ok()).unwrap_or(0))
}

/// Takes records over, in one transaction; those that were taken over before are passed over. Returns how
/// far it is now: once this has returned, the journal may forget them.
pub(super) fn take_over(db: &mut Connection, spool: &str, records: &[(u64, String)]) -> Result<u64, Fault> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let before = last(&tx, spool)?;
    let mut now = before;
    for (number, text) in records.iter().filter(|(number, _)| *number > before) {
        match serde_json::from_str::<Record>(text) {
            Ok(record) => take(&tx, &record)?,
            // Of a version to come, perhaps; nobody is served by stopping here.
            Err(error) => warn!(number, %error, "a record of the journal cannot be read and is not in the history"),
        }
        now = now.max(*number);
    }
    tx.prepare_cached("INSERT INTO progress (spool, last) VALUES (?1, ?2) ON CONFLICT (spool) DO UPDATE SET last = excluded.last")?
        .execute(params![spool, signed(now)])?;
    tx.commit()?;
    Ok(now)
}

/// An address as it is compared: the domain in lower case.
pub(super) fn comparable(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.to_lowercase()),
        None => address.to_owned(),
    }
}

/// A number as SQLite has it.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What a record says of one recipient.
#[derive(Default, Clone)]
struct Change<'a> {
    state: Option<PastState>,
    provider: Option<&'a str>,
    route: Option<&'a str>,
    remote_id: Option<&'a str>,
    words: Option<&'a str>,
}

fn take(tx: &Transaction<'_>, record: &Record) -> Result<(), Fault> {
    let message = match record.message.parse::<MessageId>() {
        Ok(id) => Some(message(tx, id, record)?),
        Err(_) => None,
    };
    if !record.events.is_empty() {
        // Events are texts and numbers, which always become JSON.
        let events = serde_json::to_string(&record.events).unwrap_or_default();
        tx.prepare_cached("INSERT INTO events (message, at, events) VALUES (?1, ?2, ?3)")?.execute(params![
            message,
            signed(record.at),
            events
        ])?;
    }
    Ok(())
}

/// Brings the message of a record up to date, and says what number it has. A recipient that is finished stays
/// so, and a doubt stays until it is resolved.
fn message(tx: &Transaction<'_>, id: MessageId, record: &Record) -> Result<i64, Fault> {
    let at = signed(record.at);
    let aged = if record.ended { at } else { at.saturating_add(WITHOUT_AN_END) };
    let ended = record.ended.then_some(at);
    let unknown = About { received: record.at, ..About::default() };
    let about = record.about.as_ref().unwrap_or(&unknown);
    let (number, is_outdated): (i64, bool) = tx
        .prepare_cached(
            "INSERT INTO messages (id, received, last, ended, aged, sender, message_id, size, application, client) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
             ON CONFLICT (id) DO UPDATE SET last = max(last, excluded.last), ended = coalesce(excluded.ended, ended), \
             aged = CASE WHEN ended IS NOT NULL AND excluded.ended IS NULL THEN aged ELSE excluded.aged END \
             RETURNING number, received <> ?2 OR size <> ?8",
        )?
        .query_row(
            params![
                id.as_bytes(),
                signed(about.received),
                at,
                ended,
                aged,
                comparable(&about.sender),
                about.message_id.as_deref(),
                signed(about.size),
                about.application.as_deref(),
                about.client,
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
    let mut changes = changes(&record.events);
    // Whether everybody is known to have come to an end.
    let mut all_ended = record.about.is_some();
    if let Some(about) = record.about.as_ref().filter(|_| is_outdated) {
        // What came before did not say what it is about.
        tx.prepare_cached(
            "UPDATE messages SET received = ?2, sender = ?3, message_id = ?4, size = ?5, application = ?6, client = ?7 \
             WHERE number = ?1",
        )?
        .execute(params![
            number,
            signed(about.received),
            comparable(&about.sender),
            about.message_id.as_deref(),
            signed(about.size),
            about.application.as_deref(),
            about.client,
        ])?;
    }
    if let Some(about) = &record.about {
        let mut add = tx.prepare_cached(
            "INSERT INTO recipients (message, position, address, received, state, provider, route, remote_id, words) \
             VALUES (?1, ?2, ?3, ?4, ifnull(?5, 2), ?6, ?7, ?8, ifnull(?9, '')) \
             ON CONFLICT (message, position) DO UPDATE SET address = excluded.address, received = excluded.received, \
             state = CASE WHEN ?5 IS NULL OR (?5 = 2 AND state = 1) OR (?5 IN (1, 2) AND state > 2) THEN state ELSE ?5 END, provider = ifnull(?6, provider), \
             route = ifnull(?7, route), remote_id = ifnull(?8, remote_id), words = ifnull(?9, words)",
        )?;
        for (position, address) in (0_u32..).zip(&about.recipients) {
            let change = changes.remove(&position).unwrap_or_default();
            all_ended &= change.state.is_some_and(|state| state > PastState::Queued);
            add.execute(params![
                number,
                position,
                comparable(address),
                signed(about.received),
                change.state.map(code),
                change.provider,
                change.route,
                change.remote_id,
                change.words
            ])?;
        }
    }
    // Without what it is about, a recipient's address comes later; in its place it is remembered what happened.
    let mut update = tx.prepare_cached(
        "INSERT INTO recipients (message, position, address, received, state, provider, route, remote_id, words) \
         VALUES (?1, ?2, '', ?3, ifnull(?4, 2), ?5, ?6, ?7, ifnull(?8, '')) \
         ON CONFLICT (message, position) DO UPDATE SET \
         state = CASE WHEN ?4 IS NULL OR (?4 = 2 AND state = 1) OR (?4 IN (1, 2) AND state > 2) THEN state ELSE ?4 END, provider = ifnull(?5, provider), \
         route = ifnull(?6, route), remote_id = ifnull(?7, remote_id), words = ifnull(?8, words)",
    )?;
    for (position, change) in &changes {
        update.execute(params![
            number,
            position,
            signed(about.received),
            change.state.map(code),
            change.provider,
            change.route,
            change.remote_id,
            change.words
        ])?;
    }
    if record.ended && !all_ended {
        // Whoever was still waited for when it left the queue was taken out by a person.
        tx.prepare_cached("UPDATE recipients SET state = ?2 WHERE message = ?1 AND state < 3")?
            .execute(params![number, code(PastState::Removed)])?;
    }
    Ok(number)
}

/// What events say of each recipient, the last word counting.
fn changes(events: &[Event]) -> BTreeMap<u32, Change<'_>> {
    let mut changes = BTreeMap::new();
    for event in events {
        let (recipients, change) = match event {
            Event::Attempt { recipients, provider, route, .. } => {
                (recipients, Change { provider: Some(provider), route: Some(route), ..Change::default() })
            }
            Event::Relayed { recipients, provider, remote_id, words } => {
                let provider = Some(provider.as_str()).filter(|name| !name.is_empty());
                let state = Some(PastState::Relayed);
                (recipients, Change { state, provider, remote_id: remote_id.as_deref(), words: Some(words), route: None })
            }
            Event::InDoubt { recipients, provider, words, .. } => {
                let state = Some(PastState::InDoubt);
                (recipients, Change { state, provider: Some(provider), words: Some(words), ..Change::default() })
            }
            Event::Deferred { recipients, words, .. } => (recipients, Change::of(PastState::Queued, words)),
            Event::Bounced { recipients, words } => (recipients, Change::of(PastState::Bounced, words)),
            Event::Expired { recipients, words } => (recipients, Change::of(PastState::Expired, words)),
            Event::Dead { recipients, words } => (recipients, Change::of(PastState::Dead, words)),
            Event::Notified { .. } | Event::Action { .. } => continue,
        };
        for position in recipients {
            let all: &mut Change<'_> = changes.entry(*position).or_default();
            all.state = change.state.or(all.state);
            all.provider = change.provider.or(all.provider);
            all.route = change.route.or(all.route);
            all.remote_id = change.remote_id.or(all.remote_id);
            all.words = change.words.or(all.words);
        }
    }
    changes
}

impl<'a> Change<'a> {
    fn of(state: PastState, words: &'a str) -> Self {
        Self { state: Some(state), words: Some(words), ..Self::default() }
    }
}

/// A state as it is stored: by urgency, so that the least of a message's recipients is the message's.
pub(super) fn code(state: PastState) -> i64 {
    PastState::ALL.into_iter().zip(0..).find_map(|(other, code)| (other == state).then_some(code)).unwrap_or(2)
}
