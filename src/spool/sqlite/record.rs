//! Between rows and types: how a message is written down, and how it is read back with suspicion.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use postrider_providers::contract::{
    Address, Body, BodyType, Envelope, Message, MessageId, Notify, Origin, OriginalRecipient, Priority, ProviderName, Recipient, Returned,
    ReversePath, xtext,
};
use rusqlite::{Connection, OptionalExtension, Row};

use super::error;
use crate::spool::{Handling, RecipientState, SpoolError, Stored};

/// Why a record was not read.
pub(super) enum Unread {
    /// The record is to blame: it is set aside, with these words.
    Record(String),
    /// The database is to blame: the record may be as good as ever.
    Database(SpoolError),
}

impl From<rusqlite::Error> for Unread {
    fn from(error: rusqlite::Error) -> Self {
        if error::is_about_the_record(&error) { Self::Record(error.to_string()) } else { Self::Database(error::sql(&error)) }
    }
}

/// Milliseconds since 1970, rounded down. What lies before is 1970: no clock was right then.
pub(super) fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Milliseconds since 1970, rounded up: for what must not happen earlier.
pub(super) fn millis_up(time: SystemTime) -> i64 {
    millis(time.checked_add(Duration::from_nanos(999_999)).unwrap_or(time))
}

/// The time at `millis` after 1970.
pub(super) fn from_millis(millis: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

/// The text of a body type.
pub(super) fn body_type_text(body_type: BodyType) -> &'static str {
    match body_type {
        BodyType::SevenBit => "7bit",
        BodyType::EightBitMime => "8bitmime",
    }
}

/// The columns `state` and `provider` of a recipient.
pub(super) fn state_columns(state: &RecipientState) -> (&'static str, Option<&str>) {
    match state {
        RecipientState::Pending => ("pending", None),
        RecipientState::InDoubt(provider) => ("in_doubt", Some(provider.as_str())),
        RecipientState::Held(provider) => ("held", Some(provider.as_str())),
        RecipientState::Relayed => ("relayed", None),
        RecipientState::Bounced => ("bounced", None),
        RecipientState::Expired => ("expired", None),
        RecipientState::Dead => ("dead", None),
    }
}

/// The state in the columns `state` and `provider`.
pub(super) fn parse_state(state: &str, provider: Option<&str>) -> Result<RecipientState, String> {
    let provider = provider.map(ProviderName::from);
    match (state, provider) {
        ("pending", _) => Ok(RecipientState::Pending),
        ("in_doubt", Some(provider)) => Ok(RecipientState::InDoubt(provider)),
        ("held", Some(provider)) => Ok(RecipientState::Held(provider)),
        ("relayed", _) => Ok(RecipientState::Relayed),
        ("bounced", _) => Ok(RecipientState::Bounced),
        ("expired", _) => Ok(RecipientState::Expired),
        ("dead", _) => Ok(RecipientState::Dead),
        ("in_doubt" | "held", None) => Err(format!("the state '{state}' needs a provider")),
        _ => Err(format!("'{state}' is no state of a recipient")),
    }
}

/// Reads a whole message and checks that it is what was written.
pub(super) fn load(db: &Connection, bodies: &Path, id: MessageId) -> Result<Stored, Unread> {
    let mut statement = db.prepare_cached(
        "SELECT received, reverse_path, body_type, smtputf8, size, body_file, attempts, returned, envelope_id, application, client, \
         message_id, priority, idle, warned, rerouted FROM messages WHERE id = ?1",
    )?;
    let row = statement.query_row([id.as_bytes()], MessageRow::read)?;
    let reverse_path = match &row.reverse_path {
        None => ReversePath::Null,
        Some(text) => ReversePath::Mailbox(parse_address(text)?),
    };
    let body_type = match row.body_type.as_str() {
        "7bit" => BodyType::SevenBit,
        "8bitmime" => BodyType::EightBitMime,
        other => return Err(Unread::Record(format!("'{other}' is no body type"))),
    };
    let Recipients { recipients, states, handovers, not_before } = load_recipients(db, id)?;
    let body = match row.body_file {
        None => inline_body(db, id, row.size)?,
        Some(name) => file_body(bodies, &name, row.size)?,
    };
    let returned = row.returned.as_deref().map(|text| known(text, Returned::parse(text), "part to be returned")).transpose()?;
    if let Some(text) = row.envelope_id.as_deref().filter(|text| !xtext::is_printable(text, false)) {
        return Err(Unread::Record(format!("{text:?} is no envelope id")));
    }
    let envelope_id = row.envelope_id.map(Arc::from);
    let client = row.client.as_deref().map(|text| known(text, text.parse().ok(), "IP address")).transpose()?;
    let priority = row.priority.as_deref().map(|text| known(text, Priority::parse(text), "priority")).transpose()?;
    let origin = Origin { application: row.application.map(Arc::from), client, message_id: row.message_id.map(Arc::from), priority };
    let envelope = Envelope { reverse_path, recipients, body_type, smtputf8: row.smtputf8, returned, envelope_id };
    let message = Message { id, received: from_millis(row.received), origin, envelope, body };
    let handling = Handling {
        idle: Duration::from_millis(u64::try_from(row.idle).unwrap_or(0)),
        warned: row.warned,
        rerouted: row.rerouted.map(Arc::from),
    };
    Ok(Stored { message: Arc::new(message), recipients: states, handovers, not_before, attempts: row.attempts, handling })
}

struct MessageRow {
    received: i64,
    reverse_path: Option<String>,
    body_type: String,
    smtputf8: bool,
    size: i64,
    body_file: Option<String>,
    attempts: u32,
    returned: Option<String>,
    envelope_id: Option<String>,
    application: Option<String>,
    client: Option<String>,
    message_id: Option<String>,
    priority: Option<String>,
    idle: i64,
    warned: bool,
    rerouted: Option<String>,
}

impl MessageRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            received: row.get(0)?,
            reverse_path: row.get(1)?,
            body_type: row.get(2)?,
            smtputf8: row.get(3)?,
            size: row.get(4)?,
            body_file: row.get(5)?,
            attempts: row.get(6)?,
            returned: row.get(7)?,
            envelope_id: row.get(8)?,
            application: row.get(9)?,
            client: row.get(10)?,
            message_id: row.get(11)?,
            priority: row.get(12)?,
            idle: row.get(13)?,
            warned: row.get(14)?,
            rerouted: row.get(15)?,
        })
    }
}

/// The columns of the recipients, each in their order.
#[derive(Default)]
struct Recipients {
    recipients: Vec<Recipient>,
    states: Vec<RecipientState>,
    handovers: Vec<Option<u64>>,
    not_before: Vec<Option<SystemTime>>,
}

fn load_recipients(db: &Connection, id: MessageId) -> Result<Recipients, Unread> {
    let mut statement = db.prepare_cached(
        "SELECT position, address, state, provider, notify, original_type, original, handover, not_before FROM recipients \
         WHERE message = ?1 ORDER BY position",
    )?;
    let mut rows = statement.query([id.as_bytes()])?;
    let mut read = Recipients::default();
    while let Some(row) = rows.next()? {
        let position: i64 = row.get(0)?;
        if usize::try_from(position) != Ok(read.recipients.len()) {
            return Err(Unread::Record(format!("recipient {} is missing", read.recipients.len())));
        }
        let address: String = row.get(1)?;
        let state: String = row.get(2)?;
        let provider: Option<String> = row.get(3)?;
        let notify: Option<String> = row.get(4)?;
        read.recipients.push(Recipient {
            address: parse_address(&address)?,
            notify: notify.map(|text| known(&text, Notify::parse(&text), "request for notifications")).transpose()?,
            original: original(row.get(5)?, row.get(6)?)?,
        });
        read.handovers.push(row.get::<_, Option<i64>>(7)?.and_then(|number| u64::try_from(number).ok()));
        read.not_before.push(row.get::<_, Option<i64>>(8)?.map(from_millis));
        read.states.push(parse_state(&state, provider.as_deref()).map_err(Unread::Record)?);
    }
    if read.recipients.is_empty() { Err(Unread::Record("it has no recipients".into())) } else { Ok(read) }
}

fn original(address_type: Option<String>, address: Option<String>) -> Result<Option<OriginalRecipient>, Unread> {
    let (address_type, address) = match (address_type, address) {
        (None, None) => return Ok(None),
        (address_type, address) => (address_type.unwrap_or_default(), address.unwrap_or_default()),
    };
    OriginalRecipient::new(&address_type, &address)
        .map(Some)
        .map_err(|error| Unread::Record(format!("the original recipient {address:?} of type {address_type:?}: {error}")))
}

/// What a text was read as, if anything.
fn known<T>(text: &str, value: Option<T>, what: &str) -> Result<T, Unread> {
    value.ok_or_else(|| Unread::Record(format!("'{text}' is no {what}")))
}

fn inline_body(db: &Connection, id: MessageId, size: i64) -> Result<Body, Unread> {
    let mut statement = db.prepare_cached("SELECT data FROM bodies WHERE id = ?1")?;
    let data: Option<Vec<u8>> = statement.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
    match data {
        None => Err(Unread::Record("its body is missing".into())),
        Some(data) if i64::try_from(data.len()) == Ok(size) => Ok(Body::Inline(Bytes::from(data))),
        Some(data) => Err(Unread::Record(format!("its body has {} octets, {size} were stored", data.len()))),
    }
}

fn file_body(bodies: &Path, name: &str, size: i64) -> Result<Body, Unread> {
    let path = bodies.join(name);
    match std::fs::metadata(&path) {
        Err(error) => Err(Unread::Record(format!("its body {}: {error}", path.display()))),
        Ok(found) if i64::try_from(found.len()) == Ok(size) => Ok(Body::File { path, len: found.len() }),
        Ok(found) => Err(Unread::Record(format!("its body {} has {} octets, {size} were stored", path.display(), found.len()))),
    }
}

fn parse_address(text: &str) -> Result<Address, Unread> {
    Address::parse(text).map_err(|error| Unread::Record(format!("{text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_as_it_was_written() {
        let provider = || ProviderName::from("ses.eu");
        for state in [
            RecipientState::Pending,
            RecipientState::InDoubt(provider()),
            RecipientState::Held(provider()),
            RecipientState::Relayed,
            RecipientState::Bounced,
            RecipientState::Expired,
        ] {
            let (text, name) = state_columns(&state);
            assert_eq!(parse_state(text, name), Ok(state));
        }
        assert!(parse_state("in_doubt", None).is_err());
        assert!(parse_state("lost", None).is_err());
    }

    #[test]
    fn times_round_to_the_side_that_was_asked_for() {
        let whole = UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
        let later = whole + Duration::from_nanos(1);
        assert_eq!((millis(whole), millis_up(whole)), (1_800_000_000_123, 1_800_000_000_123));
        assert_eq!((millis(later), millis_up(later)), (1_800_000_000_123, 1_800_000_000_124));
        assert_eq!(from_millis(millis(whole)), whole);
        assert_eq!(millis(UNIX_EPOCH - Duration::from_secs(1)), 0);
        assert_eq!(from_millis(-1), UNIX_EPOCH);
    }
}
