//! What a person does to messages, a piece at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use postrider_providers::contract::{Address, MessageId, OriginalRecipient};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::Fault;
use super::lanes;
use super::notes;
use super::ops::{remove, reopen};
use super::record::millis;
use super::writer::{Op, Work};
use crate::spool::action::{Action, Done, Readdressing, Target, words};
use crate::spool::view::Lane;

/// Does one action to messages, and writes down for each that it was done.
pub(super) struct Act {
    pub(super) node: i64,
    pub(super) targets: Vec<Target>,
    pub(super) action: Action,
    pub(super) now: SystemTime,
    /// The directory of body files.
    pub(super) bodies: PathBuf,
}

/// A message as far as actions are concerned.
struct Standing {
    owner: Option<i64>,
    lane: i64,
    held_at: Option<i64>,
    received: i64,
    idle: i64,
    body_file: Option<String>,
    smtputf8: bool,
    doubts: i64,
    holds: i64,
    deaths: i64,
}

impl Op for Act {
    type Answer = Vec<Done>;

    fn run(&self, work: &mut Work<'_>) -> Result<Vec<Done>, Fault> {
        self.targets.iter().map(|target| self.one(work, target)).collect()
    }
}

impl Act {
    fn one(&self, work: &mut Work<'_>, target: &Target) -> Result<Done, Fault> {
        let (db, id) = (work.db, target.id);
        let Some(standing) = Standing::find(db, id)? else { return Ok(Done::Gone) };
        match standing.owner {
            Some(0) => return Ok(Done::Refused(words::SET_ASIDE.to_owned())),
            Some(owner) if !(owner == self.node && target.handed_over) => return Ok(Done::Busy),
            _ => {}
        }
        if let Some(why) = self.refusal(db, id, &standing)? {
            return Ok(Done::Refused(why));
        }
        if standing.owner.is_some() {
            reopen(db, id)?;
            db.prepare_cached("UPDATE messages SET owner = NULL WHERE id = ?1")?.execute([id.as_bytes()])?;
        }
        self.apply(work, id, &standing)?;
        notes::append(work.db, &target.record)?;
        Ok(Done::Done)
    }

    /// Why the action does not apply.
    fn refusal(&self, db: &Connection, id: MessageId, standing: &Standing) -> rusqlite::Result<Option<String>> {
        let is_open = || {
            let mut open = db.prepare_cached("SELECT 1 FROM recipients WHERE message = ?1 AND state IN ('pending', 'in_doubt')")?;
            open.exists([id.as_bytes()])
        };
        let is_alive = || {
            let mut alive =
                db.prepare_cached("SELECT 1 FROM recipients WHERE message = ?1 AND state IN ('pending', 'in_doubt', 'held')")?;
            alive.exists([id.as_bytes()])
        };
        let held = standing.held_at.is_some();
        Ok(match &self.action {
            Action::Retry if held => Some(words::HELD.to_owned()),
            Action::Hold if held => Some(words::HELD_ALREADY.to_owned()),
            Action::Retry | Action::Hold if !is_open()? => Some(words::WAITS_FOR_A_PERSON.to_owned()),
            Action::Release if !held && standing.holds == 0 && standing.deaths == 0 => Some(words::NOT_HELD.to_owned()),
            Action::Discard if held || standing.deaths == 0 || is_alive()? => Some(words::NOT_ONLY_DEAD.to_owned()),
            Action::Readdress { from, to } => self.readdressing(db, id, standing, from, to)?.err(),
            Action::Bounce(_) => Some(words::NOT_HERE.to_owned()),
            _ => None,
        })
    }

    /// The positions of the recipients that get another address; `Err` says why none does.
    fn readdressing(
        &self,
        db: &Connection,
        id: MessageId,
        standing: &Standing,
        from: &Address,
        to: &Address,
    ) -> rusqlite::Result<Result<Vec<i64>, String>> {
        let mut statement = db.prepare_cached("SELECT position, address, state FROM recipients WHERE message = ?1 ORDER BY position")?;
        let mut rows = statement.query([id.as_bytes()])?;
        let mut readdressing = Readdressing::new(from, to, standing.smtputf8);
        while let Some(row) = rows.next()? {
            readdressing.look_at(row.get(0)?, row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
        }
        Ok(readdressing.positions())
    }

    fn apply(&self, work: &mut Work<'_>, id: MessageId, standing: &Standing) -> Result<(), Fault> {
        let (db, now) = (work.db, millis(self.now));
        let due_at_once = || {
            all_at_once(db, id)?;
            db.prepare_cached("UPDATE messages SET due = ?2 WHERE id = ?1 AND due IS NOT NULL AND held_at IS NULL")?
                .execute(params![id.as_bytes(), now])
        };
        match &self.action {
            Action::Retry => {
                due_at_once()?;
            }
            Action::Hold => {
                db.prepare_cached("UPDATE messages SET held_at = ?2, due = NULL WHERE id = ?1")?.execute(params![id.as_bytes(), now])?;
            }
            Action::Release => release(db, id, standing, now)?,
            Action::Remove | Action::Discard => {
                remove(db, id, standing.body_file.is_none())?;
                work.unlink.extend(standing.body_file.as_ref().map(|name| self.bodies.join(name)));
            }
            Action::Reroute(route) => {
                let lane = Lane { route: Arc::clone(route), ..lanes::get(db, standing.lane)? };
                db.prepare_cached("UPDATE messages SET rerouted = ?2, lane = ?3 WHERE id = ?1")?.execute(params![
                    id.as_bytes(),
                    &**route,
                    lanes::number(db, &lane)?
                ])?;
                due_at_once()?;
            }
            Action::Readdress { from, to } => {
                // Who it was for stays known to whoever is told what became of it.
                let (utf8, text) = (if from.is_ascii() { "rfc822" } else { "utf-8" }, from.as_str());
                let original = OriginalRecipient::new(utf8, text).ok();
                let mut change = db.prepare_cached(
                    "UPDATE recipients SET address = ?3, handover = NULL, original_type = coalesce(original_type, ?4), \
                     original = coalesce(original, ?5) WHERE message = ?1 AND position = ?2",
                )?;
                for position in self.readdressing(db, id, standing, from, to)?.unwrap_or_default() {
                    let (kind, address) = original.as_ref().map(|original| (&*original.address_type, &*original.address)).unzip();
                    change.execute(params![id.as_bytes(), position, to.as_str(), kind, address])?;
                }
                due_at_once()?;
            }
            Action::Bounce(_) => {}
        }
        Ok(())
    }
}

impl Standing {
    fn find(db: &Connection, id: MessageId) -> rusqlite::Result<Option<Self>> {
        let mut statement = db.prepare_cached(
            "SELECT owner, held_at, received, idle, body_file, smtputf8, doubts, holds, deaths, lane FROM messages WHERE id = ?1",
        )?;
        let read = |row: &Row<'_>| {
            Ok(Self {
                owner: row.get(0)?,
                held_at: row.get(1)?,
                received: row.get(2)?,
                idle: row.get(3)?,
                body_file: row.get(4)?,
                smtputf8: row.get(5)?,
                doubts: row.get(6)?,
                holds: row.get(7)?,
                deaths: row.get(8)?,
                lane: row.get(9)?,
            })
        };
        statement.query_row([id.as_bytes()], read).optional()
    }
}

/// Nobody has to wait until its own time any more.
fn all_at_once(db: &Connection, id: MessageId) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE recipients SET not_before = NULL WHERE message = ?1 AND not_before IS NOT NULL")?.execute([id.as_bytes()])?;
    Ok(())
}

/// Ends every hold. The time under it does not age the message; a dead letter begins its life anew.
fn release(db: &Connection, id: MessageId, standing: &Standing, now: i64) -> rusqlite::Result<()> {
    let mut states = db.prepare_cached("UPDATE recipients SET state = ?3 WHERE message = ?1 AND state = ?2")?;
    states.execute(params![id.as_bytes(), "held", "in_doubt"])?;
    states.execute(params![id.as_bytes(), "dead", "pending"])?;
    all_at_once(db, id)?;
    let idle = match standing.held_at {
        _ if standing.deaths > 0 => now.saturating_sub(standing.received),
        Some(since) => standing.idle.saturating_add(now.saturating_sub(since).max(0)),
        None => standing.idle,
    };
    db.prepare_cached("UPDATE messages SET held_at = NULL, due = ?2, idle = ?3 WHERE id = ?1")?.execute(params![
        id.as_bytes(),
        now,
        idle.max(0)
    ])?;
    if standing.deaths > 0 {
        db.prepare_cached("UPDATE messages SET warned = 0 WHERE id = ?1")?.execute([id.as_bytes()])?;
    }
    // The numbers of handovers follow from the attempts; those in doubt must not be taken for new ones.
    if standing.deaths > 0 && standing.doubts == 0 && standing.holds == 0 {
        db.prepare_cached("UPDATE messages SET attempts = 0 WHERE id = ?1")?.execute([id.as_bytes()])?;
    }
    Ok(())
}

/// Leases one message, due or not.
pub(super) struct Take {
    pub(super) node: i64,
    pub(super) id: MessageId,
    /// Where the id goes when it is leased.
    pub(super) leased: Arc<Mutex<Vec<MessageId>>>,
}

impl Op for Take {
    type Answer = Result<(), Done>;

    fn run(&self, work: &mut Work<'_>) -> Result<Result<(), Done>, Fault> {
        let mut leased = self.leased.lock();
        leased.clear();
        Ok(match Standing::find(work.db, self.id)?.map(|standing| standing.owner) {
            None => Err(Done::Gone),
            Some(Some(0)) => Err(Done::Refused(words::SET_ASIDE.to_owned())),
            Some(Some(_)) => Err(Done::Busy),
            Some(None) => {
                work.db.prepare_cached("UPDATE messages SET owner = ?2 WHERE id = ?1")?.execute(params![self.id.as_bytes(), self.node])?;
                leased.push(self.id);
                Ok(())
            }
        })
    }
}
