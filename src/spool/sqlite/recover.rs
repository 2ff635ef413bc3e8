//! After a restart: leases of processes that are gone, and body files that no message names.

use std::fs;

use postrider_providers::contract::MessageId;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::layout::{Layout, sync_dir};
use super::{Doubted, error, lanes, ops};
use crate::spool::{Recovered, SpoolError};

/// Makes this process the only node, and takes over what others left. Returns the node's number.
///
/// The directory is locked, so no other node can be alive. The cost grows with what was leased and
/// with the body files, not with the messages that wait.
pub(super) fn take_over(db: &mut Connection, layout: &Layout, doubted: Option<&Doubted>) -> Result<(i64, Recovered), SpoolError> {
    let mut recovered = Recovered::default();
    let mut become_the_only_node = || -> rusqlite::Result<i64> {
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for owner in owners(&tx)? {
            ops::take_back(&tx, owner, doubted, &mut recovered)?;
        }
        lanes::drop_empty(&tx)?;
        tx.execute("DELETE FROM nodes", [])?;
        tx.execute("INSERT INTO nodes (alive_until) VALUES (0)", [])?;
        let node = tx.last_insert_rowid();
        tx.commit()?;
        Ok(node)
    };
    let node = become_the_only_node().map_err(|error| error::sql(&error))?;
    set_orphans_aside(db, layout, &mut recovered)?;
    Ok((node, recovered))
}

fn owners(tx: &Transaction<'_>) -> rusqlite::Result<Vec<i64>> {
    let mut owners = tx.prepare("SELECT DISTINCT owner FROM messages WHERE owner IS NOT NULL AND owner > 0")?;
    owners.query_map([], |row| row.get(0))?.collect()
}

/// Moves away the body files that no message names.
///
/// Such a file is left by a crash between its renaming and the commit (then nobody was told that it
/// is safe), or between the commit that removed the message and the file's removal.
fn set_orphans_aside(db: &Connection, layout: &Layout, recovered: &mut Recovered) -> Result<(), SpoolError> {
    let (bodies, away) = (layout.bodies(), layout.set_aside());
    let listing = |error: std::io::Error| error::file(&error, "listing", &bodies);
    let mut moved = false;
    for entry in fs::read_dir(&bodies).map_err(listing)? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path())).map_err(listing)?;
        let text = name.to_string_lossy();
        let id = text.strip_suffix(".eml").and_then(|id| id.parse().ok());
        if id.is_some_and(|id| Layout::body_name(id) == text)
            && let Some(id) = id
            && is_named(db, id, &text).map_err(|error| error::sql(&error))?
        {
            continue;
        }
        let to = away.join(&name);
        fs::rename(&path, &to).map_err(|error| error::file(&error, "setting aside", &path))?;
        recovered.set_aside.push(format!("the body file {text}: no message names it; it is in {} now", away.display()));
        moved = true;
    }
    if moved { sync_dir(&away).map_err(|error| error::file(&error, "syncing", &away)) } else { Ok(()) }
}

fn is_named(db: &Connection, id: MessageId, name: &str) -> rusqlite::Result<bool> {
    let mut named = db.prepare_cached("SELECT 1 FROM messages WHERE id = ?1 AND body_file = ?2")?;
    Ok(named.query_row((id.as_bytes(), name), |_| Ok(())).optional()?.is_some())
}
