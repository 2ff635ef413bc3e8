//! Answers queries from the rows of the history.
//!
//! Each query walks one index from the newest to the oldest and stops when the page is full: that of the most
//! telling term it has, or else the times of acceptance. All other terms are checked on the way.

use postrider_providers::contract::MessageId;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::Size;
use super::event::{About, Event, millis};
use super::prune::used;
use super::query::{MOST, Moment, Past, PastRecipient, PastState, Query, Trace};
use super::records::{code, comparable, signed};
use super::store::Fault;

/// So many recipients are listed of each message that was found; its trace lists all.
const LISTED: i64 = 100;

/// A condition with the values that it names by `?`.
type Terms = Vec<(String, Vec<Value>)>;

/// Which table's index is walked.
enum Walk {
    Messages(&'static str),
    Recipients(&'static str),
}

/// The messages that match, the newest first.
pub(super) fn search(db: &Connection, query: &Query) -> Result<Vec<Past>, Fault> {
    let (walk, mut terms) = (walk(query), Terms::new());
    let time = match walk {
        Walk::Messages(_) => "m.received",
        Walk::Recipients(_) => "r.received",
    };
    of_message(query, &mut terms);
    if let Some(since) = query.since {
        terms.push((format!("{time} >= ?"), vec![signed(millis(since)).into()]));
    }
    if let Some(until) = query.until {
        terms.push((format!("{time} < ?"), vec![signed(millis(until)).into()]));
    }
    if let Some(before) = query.before {
        let number: Option<i64> = db
            .prepare_cached("SELECT number FROM messages WHERE id = ?1")?
            .query_row([before.id.as_bytes()], |row| row.get(0))
            .optional()?;
        // Should it have been pruned meanwhile, some of the same moment may come twice.
        let number = number.unwrap_or(i64::MAX);
        terms.push((format!("({time}, m.number) < (?, ?)"), vec![signed(before.received).into(), number.into()]));
        terms.push((format!("{time} <= ?"), vec![signed(before.received).into()]));
    }
    let mut of_recipient = Terms::new();
    self::of_recipient(query, &mut of_recipient);
    let (from, order) = match walk {
        Walk::Messages(index) => {
            if !of_recipient.is_empty() {
                let (sql, values): (Vec<_>, Vec<_>) = of_recipient.into_iter().unzip();
                let sql = format!("EXISTS (SELECT 1 FROM recipients r WHERE r.message = m.number AND {})", sql.join(" AND "));
                terms.push((sql, values.into_iter().flatten().collect()));
            }
            (format!("messages m {index}"), "m.received DESC, m.number DESC")
        }
        Walk::Recipients(index) => {
            terms.extend(of_recipient);
            (format!("recipients r INDEXED BY {index} CROSS JOIN messages m ON m.number = r.message"), "r.received DESC, r.message DESC")
        }
    };
    let (sql, values): (Vec<_>, Vec<_>) = terms.into_iter().unzip();
    let condition = if sql.is_empty() { "1".to_owned() } else { sql.join(" AND ") };
    let sql = format!("SELECT m.number FROM {from} WHERE {condition} ORDER BY {order}");
    let limit = if query.limit == 0 { MOST } else { query.limit.min(MOST) };
    let mut found: Vec<i64> = Vec::new();
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values.into_iter().flatten()))?;
    while let Some(row) = rows.next()? {
        let number = row.get(0)?;
        // Several recipients of one message come one after the other.
        if found.last() != Some(&number) {
            found.push(number);
            if found.len() == limit {
                break;
            }
        }
    }
    drop(rows);
    found.into_iter().map(|number| past(db, number, LISTED)).collect()
}

/// All that happened to one message.
pub(super) fn trace(db: &Connection, id: MessageId) -> Result<Option<Trace>, Fault> {
    let number: Option<i64> =
        db.prepare_cached("SELECT number FROM messages WHERE id = ?1")?.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
    let Some(number) = number else { return Ok(None) };
    let mut records = db.prepare_cached("SELECT at, events FROM events WHERE message = ?1 ORDER BY number")?;
    let mut moments = Vec::new();
    let mut rows = records.query([number])?;
    while let Some(row) = rows.next()? {
        moments.extend(self::moments(row)?);
    }
    Ok(Some(Trace { past: past(db, number, i64::MAX)?, events: moments }))
}

/// What was done to the gateway itself, the newest first.
pub(super) fn actions(db: &Connection, limit: usize) -> Result<Vec<Moment>, Fault> {
    let mut records = db.prepare_cached("SELECT at, events FROM events WHERE message IS NULL ORDER BY at DESC, number DESC LIMIT ?1")?;
    let mut rows = records.query([i64::try_from(limit.min(MOST)).unwrap_or(0)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let mut moments = moments(row)?;
        moments.reverse();
        found.extend(moments);
    }
    Ok(found)
}

/// How much there is.
pub(super) fn size(db: &Connection) -> Result<Size, Fault> {
    let messages: i64 = db.query_row("SELECT count(*) FROM messages", [], |row| row.get(0))?;
    let oldest: Option<i64> = db.query_row("SELECT min(received) FROM messages", [], |row| row.get(0))?;
    Ok(Size { messages: unsigned(messages), octets: unsigned(used(db)?), oldest: oldest.map(unsigned) })
}

fn walk(query: &Query) -> Walk {
    let is_exact = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.contains('*'));
    if query.id.is_some() || query.message_id.is_some() {
        Walk::Messages("")
    } else if query.remote_id.is_some() {
        Walk::Recipients("recipients_remote_id")
    } else if is_exact(&query.recipient) {
        Walk::Recipients("recipients_address")
    } else if is_exact(&query.sender) {
        Walk::Messages("INDEXED BY messages_sender")
    } else if query.state.is_some_and(|state| state != PastState::Relayed) {
        Walk::Recipients("recipients_state")
    } else {
        Walk::Messages("INDEXED BY messages_received")
    }
}

fn of_message(query: &Query, terms: &mut Terms) {
    let mut is = |column: &str, value: Value| terms.push((format!("{column} = ?"), vec![value]));
    if let Some(id) = query.id {
        is("m.id", id.as_bytes().to_vec().into());
    }
    if let Some(id) = &query.message_id {
        is("m.message_id", id.trim().trim_start_matches('<').trim_end_matches('>').to_owned().into());
    }
    if let Some(application) = &query.application {
        is("m.application", application.clone().into());
    }
    if let Some(client) = &query.client {
        is("m.client", client.clone().into());
    }
    if let Some(sender) = &query.sender {
        terms.push(address("m.sender", sender));
    }
}

fn of_recipient(query: &Query, terms: &mut Terms) {
    if let Some(recipient) = &query.recipient {
        terms.push(address("r.address", recipient));
    }
    for (column, value) in [("remote_id", &query.remote_id), ("provider", &query.provider), ("route", &query.route)] {
        if let Some(value) = value {
            terms.push((format!("r.{column} = ?"), vec![value.clone().into()]));
        }
    }
    if let Some(state) = query.state {
        // As a number, not as a parameter: the index is of those that were not relayed.
        let other = if state == PastState::Relayed { "" } else { " AND r.state <> 6" };
        terms.push((format!("r.state = {}{other}", code(state)), Vec::new()));
    }
}

/// An address, or a pattern with `*` at either end, which is matched whatever the case.
fn address(column: &str, pattern: &str) -> (String, Vec<Value>) {
    let text = || Value::from(pattern.trim_matches('*').to_lowercase());
    match (pattern.starts_with('*'), pattern.ends_with('*')) {
        (false, false) => (format!("{column} = ?"), vec![comparable(pattern).into()]),
        (true, false) => (format!("substr(lower({column}), -length(?)) = ?"), vec![text(), text()]),
        (false, true) => (format!("substr(lower({column}), 1, length(?)) = ?"), vec![text(), text()]),
        (true, true) => (format!("instr(lower({column}), ?) > 0"), vec![text()]),
    }
}

/// A message as it stands, with so many of its recipients.
fn past(db: &Connection, number: i64, listed: i64) -> Result<Past, Fault> {
    let mut recipients = db.prepare_cached(
        "SELECT address, state, provider, route, remote_id, words FROM recipients WHERE message = ?1 ORDER BY position LIMIT ?2",
    )?;
    let recipients: Vec<PastRecipient> = recipients.query_map([number, listed], recipient)?.collect::<rusqlite::Result<_>>()?;
    let worst = "SELECT min(state) FROM recipients WHERE message = ?1";
    let worst: Option<i64> = db.prepare_cached(worst)?.query_row([number], |row| row.get(0))?;
    let mut message = db.prepare_cached(
        "SELECT id, received, last, ended, sender, message_id, size, application, client FROM messages WHERE number = ?1",
    )?;
    Ok(message.query_row([number], |row| {
        Ok(Past {
            id: MessageId::from_bytes(row.get(0)?),
            about: About {
                received: unsigned(row.get(1)?),
                sender: row.get(4)?,
                recipients: recipients.iter().map(|recipient| recipient.address.clone()).collect(),
                message_id: row.get::<_, Option<String>>(5)?.map(Into::into),
                size: unsigned(row.get(6)?),
                application: row.get::<_, Option<String>>(7)?.map(Into::into),
                client: row.get(8)?,
            },
            state: state(worst.unwrap_or(2)),
            last: unsigned(row.get(2)?),
            ended: row.get::<_, Option<i64>>(3)?.map(unsigned),
            recipients,
        })
    })?)
}

fn recipient(row: &Row<'_>) -> rusqlite::Result<PastRecipient> {
    Ok(PastRecipient {
        address: row.get(0)?,
        state: state(row.get(1)?),
        provider: row.get::<_, Option<String>>(2)?.map(Into::into),
        route: row.get::<_, Option<String>>(3)?.map(Into::into),
        remote_id: row.get(4)?,
        words: row.get(5)?,
    })
}

/// The events of a record. What this version cannot read is left out.
fn moments(row: &Row<'_>) -> rusqlite::Result<Vec<Moment>> {
    let (at, events) = (unsigned(row.get(0)?), row.get_ref(1)?.as_str()?);
    let events: Vec<Event> = serde_json::from_str(events).unwrap_or_default();
    Ok(events.into_iter().map(|event| Moment { at, event }).collect())
}

fn state(code: i64) -> PastState {
    usize::try_from(code).ok().and_then(|code| PastState::ALL.get(code)).copied().unwrap_or(PastState::Queued)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
