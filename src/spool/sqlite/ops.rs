//! The writes, each as it stands in a transaction.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use postrider_providers::contract::{Body, Message, MessageId, Priority, ProviderName, RecipientIndex, Returned};
use rusqlite::{Connection, OptionalExtension, params};

use super::error::Fault;
use super::record::{body_type_text, millis, millis_up, state_columns};
use super::writer::{Op, Work, remove_body};
use super::{Doubted, lanes, notes};
use crate::spool::view::Lane;
use crate::spool::{Change, Doubt, Recovered, Settlement, SpoolError, Want, handover};

/// The `owner` of records that were set aside: a node that never is.
const SET_ASIDE: i64 = 0;

/// Stores a message.
pub(super) struct Store {
    pub(super) message: Arc<Message>,
    pub(super) lane: Lane,
    pub(super) owner: Option<i64>,
    /// The directory of body files.
    pub(super) bodies: PathBuf,
}

impl Op for Store {
    type Answer = ();

    fn run(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        insert(work.db, &self.message, &self.lane, self.owner, &self.bodies)
    }

    fn grows_by(&self) -> Option<u64> {
        match &self.message.body {
            Body::Inline(bytes) => Some(bytes.len() as u64),
            Body::File { .. } | Body::Spliced { .. } => Some(0),
        }
    }

    fn failed(&self, db: &Connection) {
        let stored = || db.prepare_cached("SELECT 1 FROM messages WHERE id = ?1")?.exists([self.message.id.as_bytes()]);
        // The message has to be sent again, under another id. Its file would only take up space.
        if let Body::File { path, .. } = &self.message.body
            && path.parent() == Some(&self.bodies)
            && matches!(stored(), Ok(false))
        {
            remove_body(path);
        }
    }
}

/// Stores a message in place of a note.
pub(super) struct StoreInstead {
    pub(super) key: String,
    pub(super) store: Store,
    pub(super) record: Option<String>,
}

impl Op for StoreInstead {
    type Answer = ();

    fn run(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        // First, because it is the only thing that can be refused.
        self.store.run(work)?;
        notes::forget(work.db, &self.key)?;
        self.record.iter().try_for_each(|record| notes::append(work.db, record))?;
        Ok(())
    }

    fn grows_by(&self) -> Option<u64> {
        self.store.grows_by()
    }

    fn failed(&self, db: &Connection) {
        self.store.failed(db);
    }
}

/// Writes all rows of a new message.
fn insert(db: &Connection, message: &Message, lane: &Lane, owner: Option<i64>, bodies: &Path) -> Result<(), Fault> {
    let id = message.id;
    let refused = |words: String| Err(Fault::Refused(SpoolError::Unavailable(words)));
    if message.envelope.recipients.is_empty() {
        return refused(format!("message {id} has no recipient; store it with one at least"));
    }
    let (body_file, data) = match &message.body {
        Body::Inline(bytes) => (None, Some(bytes)),
        Body::Spliced { .. } => {
            return refused("a body that was made for one handover is not stored; write it with Spool::body".to_owned());
        }
        Body::File { path, .. } => match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if path.parent() == Some(bodies) && path.exists() => (Some(name), None),
            Some(_) if path.parent() == Some(bodies) => {
                return refused(format!("the body {} is gone: after a store that failed it has to arrive again", path.display()));
            }
            _ => return refused(format!("the body {} is not in {}; write it with Spool::body", path.display(), bodies.display())),
        },
    };
    let received = millis(message.received);
    let inserted = db
        .prepare_cached(
            "INSERT INTO messages (id, received, reverse_path, body_type, smtputf8, size, body_file, due, owner, \
             returned, envelope_id, application, client, message_id, priority, lane) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?2, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            id.as_bytes(),
            received,
            message.envelope.reverse_path.address().map(|address| address.as_str()),
            body_type_text(message.envelope.body_type),
            message.envelope.smtputf8,
            i64::try_from(message.body.len()).unwrap_or(i64::MAX),
            body_file,
            owner,
            message.envelope.returned.map(Returned::as_str),
            message.envelope.envelope_id.as_deref(),
            message.origin.application.as_deref(),
            message.origin.client.map(|client| client.to_string()),
            message.origin.message_id.as_deref(),
            message.origin.priority.map(Priority::as_str),
            lanes::number(db, lane)?,
        ])?;
    if inserted == 0 {
        return refused(format!("message {id} is stored already; every message needs an id of its own"));
    }
    if let Some(data) = data {
        db.prepare_cached("INSERT INTO bodies (id, data) VALUES (?1, ?2)")?.execute(params![id.as_bytes(), &data[..]])?;
    }
    let mut recipient = db.prepare_cached(
        "INSERT INTO recipients (message, position, address, state, notify, original_type, original) \
         VALUES (?1, ?2, ?3, 'pending', ?4, ?5, ?6)",
    )?;
    for (position, one) in (0_i64..).zip(&message.envelope.recipients) {
        let original = one.original.as_ref();
        recipient.execute(params![
            id.as_bytes(),
            position,
            one.address.as_str(),
            one.notify.map(|notify| notify.to_string()),
            original.map(|original| &*original.address_type),
            original.map(|original| &*original.address),
        ])?;
    }
    Ok(())
}

/// Leases what is due, lane by lane. The ids are in a place that both sides share, so that they can be
/// given back when the claimer has gone away meanwhile.
pub(super) struct Claim {
    pub(super) node: i64,
    pub(super) now: SystemTime,
    pub(super) wants: Vec<Want>,
    pub(super) octets: u64,
    pub(super) leased: Arc<Mutex<Vec<MessageId>>>,
}

/// How many of the leased messages, in their order, are of one lane, and when its next one is due.
pub(super) struct Share {
    pub(super) lane: Lane,
    pub(super) messages: usize,
    pub(super) next_due: Option<SystemTime>,
}

impl Op for Claim {
    type Answer = Vec<Share>;

    fn run(&self, work: &mut Work<'_>) -> Result<Vec<Share>, Fault> {
        let mut leased = self.leased.lock();
        leased.clear();
        let (mut in_memory, mut shares) = (0, Vec::with_capacity(self.wants.len()));
        for Want { lane, limit } in &self.wants {
            let before = leased.len();
            let number = lanes::find(work.db, lane)?;
            if let Some(number) = number.filter(|_| in_memory <= self.octets) {
                self.find(work.db, number, *limit, &mut in_memory, &mut leased)?;
            }
            let mut lease = work.db.prepare_cached("UPDATE messages SET owner = ?2 WHERE id = ?1")?;
            for id in &leased[before..] {
                lease.execute(params![id.as_bytes(), self.node])?;
            }
            let next_due = number.map_or(Ok(None), |number| lanes::next_due(work.db, number))?;
            shares.push(Share { lane: lane.clone(), messages: leased.len() - before, next_due });
        }
        Ok(shares)
    }
}

impl Claim {
    /// Adds what is due in one lane. `in_memory` counts the octets of small bodies, up to the one that
    /// was too much.
    fn find(&self, db: &Connection, lane: i64, limit: usize, in_memory: &mut u64, found: &mut Vec<MessageId>) -> rusqlite::Result<()> {
        let mut due = db.prepare_cached(
            "SELECT id, size, body_file IS NULL FROM messages \
             WHERE owner IS NULL AND due IS NOT NULL AND lane = ?1 AND due <= ?2 ORDER BY due, id LIMIT ?3",
        )?;
        let mut rows = due.query(params![lane, millis(self.now), i64::try_from(limit).unwrap_or(i64::MAX)])?;
        while let Some(row) = rows.next()? {
            if row.get(2)? {
                *in_memory = in_memory.saturating_add(u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0));
                if *in_memory > self.octets && !found.is_empty() {
                    break;
                }
            }
            found.push(MessageId::from_bytes(row.get(0)?));
        }
        Ok(())
    }
}

/// Gives leases back whose holder has gone away.
pub(super) struct GiveBack {
    pub(super) node: i64,
    pub(super) leased: Arc<Mutex<Vec<MessageId>>>,
}

impl Op for GiveBack {
    type Answer = ();

    fn run(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        let mut release = work.db.prepare_cached("UPDATE messages SET owner = NULL WHERE id = ?1 AND owner = ?2")?;
        for id in self.leased.lock().iter() {
            release.execute(params![id.as_bytes(), self.node])?;
        }
        Ok(())
    }
}

/// Records that a provider is about to be asked.
pub(super) struct Begin {
    pub(super) node: i64,
    pub(super) id: MessageId,
    pub(super) provider: ProviderName,
    pub(super) recipients: Vec<RecipientIndex>,
}

impl Op for Begin {
    type Answer = ();

    fn run(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        leased(work.db, self.id, self.node)?;
        let mut ask = work.db.prepare_cached(
            "UPDATE recipients SET asked = ?3, handover = ?4 WHERE message = ?1 AND position = ?2 AND state IN ('pending', 'in_doubt')",
        )?;
        let attempts = "SELECT attempts FROM messages WHERE id = ?1";
        let attempts = work.db.prepare_cached(attempts)?.query_row([self.id.as_bytes()], |row| row.get(0))?;
        let number = handover(attempts, &self.recipients).and_then(|number| i64::try_from(number).ok());
        for RecipientIndex(position) in &self.recipients {
            ask.execute(params![self.id.as_bytes(), position, self.provider.as_str(), number])?;
        }
        Ok(())
    }
}

/// Ends a lease with what became of the message.
pub(super) struct Settle {
    pub(super) node: i64,
    pub(super) settlement: Settlement,
    pub(super) bodies: PathBuf,
}

impl Op for Settle {
    type Answer = ();

    fn run(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        let Settlement { id, lane, changes, attempts, due, notifications, warned, journal } = &self.settlement;
        let body_file = leased(work.db, *id, self.node)?;
        let mut states = states(work.db, *id)?;
        for Change { recipient: RecipientIndex(position), state, .. } in changes {
            match states.get_mut(*position as usize) {
                Some(kind) => *kind = state_columns(state).0.into(),
                None => {
                    return Err(Fault::Refused(SpoolError::Unavailable(format!(
                        "a settlement of message {id} names recipient {position}; it has {}, counted from 0",
                        states.len()
                    ))));
                }
            }
        }
        // First, because it is the only thing left that can be refused.
        for (notification, lane) in notifications {
            insert(work.db, notification, lane, None, &self.bodies)?;
        }
        for record in journal {
            notes::append(work.db, record)?;
        }
        // Without rows of recipients, something is wrong with the record, and nothing may disappear.
        if !states.is_empty() && states.iter().all(|state| matches!(state.as_str(), "relayed" | "bounced" | "expired")) {
            remove(work.db, *id, body_file.is_none())?;
            work.unlink.extend(body_file.map(|name| self.bodies.join(name)));
            return Ok(());
        }
        self.update_recipients(work.db)?;
        let open = states.iter().any(|state| matches!(state.as_str(), "pending" | "in_doubt"));
        work.db
            .prepare_cached("UPDATE messages SET owner = NULL, attempts = ?2, due = ?3, warned = ?4, lane = ?5 WHERE id = ?1")?
            .execute(params![id.as_bytes(), attempts, open.then(|| millis_up(*due)), warned, lanes::number(work.db, lane)?])?;
        Ok(())
    }
}

impl Settle {
    fn update_recipients(&self, db: &Connection) -> rusqlite::Result<()> {
        let id = self.settlement.id;
        let mut change = db.prepare_cached(
            "UPDATE recipients SET state = ?3, provider = ?4, diagnostic = ?5, not_before = ?6, \
             last_provider = coalesce(asked, last_provider), asked = NULL WHERE message = ?1 AND position = ?2",
        )?;
        for Change { recipient: RecipientIndex(position), state, words, not_before } in &self.settlement.changes {
            let (state, provider) = state_columns(state);
            change.execute(params![id.as_bytes(), position, state, provider, words, not_before.map(millis_up)])?;
        }
        // Whoever was asked about the others did not get them.
        db.prepare_cached("UPDATE recipients SET last_provider = asked, asked = NULL WHERE message = ?1 AND asked IS NOT NULL")?
            .execute([id.as_bytes()])?;
        Ok(())
    }
}

/// The states of a message's recipients, by position.
fn states(db: &Connection, id: MessageId) -> rusqlite::Result<Vec<String>> {
    let mut states = db.prepare_cached("SELECT state FROM recipients WHERE message = ?1 ORDER BY position")?;
    states.query_map([id.as_bytes()], |row| row.get(0))?.collect()
}

pub(super) fn remove(db: &Connection, id: MessageId, inline: bool) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM messages WHERE id = ?1")?.execute([id.as_bytes()])?;
    db.prepare_cached("DELETE FROM recipients WHERE message = ?1")?.execute([id.as_bytes()])?;
    if inline {
        db.prepare_cached("DELETE FROM bodies WHERE id = ?1")?.execute([id.as_bytes()])?;
    }
    Ok(())
}

/// The body file of a message that `node` leases; refused when it does not.
fn leased(db: &Connection, id: MessageId, node: i64) -> Result<Option<String>, Fault> {
    db.prepare_cached("SELECT body_file FROM messages WHERE id = ?1 AND owner = ?2")?
        .query_row(params![id.as_bytes(), node], |row| row.get(0))
        .optional()?
        .ok_or(Fault::Refused(SpoolError::LeaseLost(id)))
}

/// Ends a handover that was begun, and with it the lease, unsettled: it is in doubt.
pub(super) fn reopen(db: &Connection, id: MessageId) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE recipients SET state = 'in_doubt', provider = asked, asked = NULL WHERE message = ?1 AND asked IS NOT NULL")?
        .execute([id.as_bytes()])?;
    Ok(())
}

/// Gives a lease back unused.
pub(super) struct Release {
    pub(super) node: i64,
    pub(super) id: MessageId,
    pub(super) lane: Lane,
    pub(super) due: SystemTime,
}

impl Op for Release {
    type Answer = ();

    fn run(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        leased(work.db, self.id, self.node)?;
        reopen(work.db, self.id)?;
        work.db.prepare_cached("UPDATE messages SET owner = NULL, due = ?2, lane = ?3 WHERE id = ?1")?.execute(params![
            self.id.as_bytes(),
            millis_up(self.due),
            lanes::number(work.db, &self.lane)?
        ])?;
        Ok(())
    }
}

/// Keeps the leases of a node, and takes back those of nodes that let theirs lapse.
pub(super) struct Renew {
    pub(super) node: i64,
    pub(super) now: SystemTime,
    pub(super) until: SystemTime,
    pub(super) doubted: Option<Doubted>,
}

impl Op for Renew {
    type Answer = Recovered;

    fn run(&self, work: &mut Work<'_>) -> Result<Recovered, Fault> {
        let (db, now) = (work.db, millis(self.now));
        db.prepare_cached(
            "INSERT INTO nodes (id, alive_until) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until",
        )?
        .execute(params![self.node, millis(self.until)])?;
        db.prepare_cached("DELETE FROM nodes WHERE alive_until < ?1 AND id <> ?2")?.execute(params![now, self.node])?;
        // As many rows as there are leases, which the nodes bound; not as there are messages.
        let lapsed: Vec<i64> = db
            .prepare_cached(
                "SELECT DISTINCT owner FROM messages WHERE owner IS NOT NULL AND owner <> ?1 AND owner NOT IN (SELECT id FROM nodes)",
            )?
            .query_map([SET_ASIDE], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut recovered = Recovered::default();
        for owner in lapsed {
            take_back(db, owner, self.doubted.as_ref(), &mut recovered)?;
        }
        Ok(recovered)
    }
}

/// Ends all leases of a node without settlements: what was asked and never answered is in doubt, and the
/// journal is told so.
pub(super) fn take_back(db: &Connection, owner: i64, doubted: Option<&Doubted>, recovered: &mut Recovered) -> rusqlite::Result<()> {
    let mut doubt = db.prepare_cached(
        "UPDATE recipients SET state = 'in_doubt', provider = asked, asked = NULL \
         WHERE message IN (SELECT id FROM messages WHERE owner IS NOT NULL AND owner = ?1) AND asked IS NOT NULL \
         RETURNING message, position, provider",
    )?;
    let mut rows = doubt.query([owner])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((MessageId::from_bytes(row.get(0)?), row.get::<_, u32>(1)?, ProviderName::from(row.get::<_, String>(2)?.as_str())));
    }
    drop(rows);
    // The order of what RETURNING brings is not promised.
    found.sort_unstable();
    let mut doubts = Vec::new();
    for (id, position, provider) in found {
        Doubt::add(&mut doubts, id, provider, RecipientIndex(position));
    }
    let released = db.prepare_cached("UPDATE messages SET owner = NULL WHERE owner IS NOT NULL AND owner = ?1")?.execute([owner])?;
    if let Some(Doubted(record)) = doubted {
        doubts.iter().try_for_each(|doubt| notes::append(db, &record(doubt)))?;
        recovered.is_noted = true;
    }
    recovered.in_doubt(doubts);
    recovered.released += released as u64;
    Ok(())
}

/// A new node, with a number that no node had before.
pub(super) struct Join;

impl Op for Join {
    type Answer = i64;

    fn run(&self, work: &mut Work<'_>) -> Result<i64, Fault> {
        work.db.execute("INSERT INTO nodes (alive_until) VALUES (0)", [])?;
        Ok(work.db.last_insert_rowid())
    }
}

/// Gives all leases of a node back, for good.
pub(super) struct Leave {
    pub(super) node: i64,
    pub(super) doubted: Option<Doubted>,
}

impl Op for Leave {
    type Answer = ();

    fn run(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        take_back(work.db, self.node, self.doubted.as_ref(), &mut Recovered::default())?;
        work.db.execute("DELETE FROM nodes WHERE id = ?1", [self.node])?;
        Ok(())
    }
}

/// Takes a record out of the queue that cannot be read. Its rows stay, for whoever looks into it.
pub(super) struct SetAside {
    pub(super) node: i64,
    pub(super) id: MessageId,
    pub(super) at: SystemTime,
    pub(super) reason: String,
}

impl Op for SetAside {
    type Answer = ();

    fn run(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        leased(work.db, self.id, self.node)?;
        work.db.execute("UPDATE messages SET owner = ?2 WHERE id = ?1", params![self.id.as_bytes(), SET_ASIDE])?;
        work.db.execute(
            "INSERT INTO set_aside (id, at, reason) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET at = ?2, reason = ?3",
            params![self.id.as_bytes(), millis(self.at), self.reason],
        )?;
        Ok(())
    }
}

/// Writes and removes a small record. The pages are written and synced although nothing remains.
pub(super) struct Probe {
    pub(super) at: SystemTime,
}

impl Op for Probe {
    type Answer = ();

    fn run(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        work.db.execute("INSERT INTO probe (at) VALUES (?1)", [millis(self.at)])?;
        work.db.execute("DELETE FROM probe", [])?;
        Ok(())
    }

    fn grows_by(&self) -> Option<u64> {
        // It asks on behalf of a message.
        Some(0)
    }
}
