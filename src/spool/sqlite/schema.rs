//! Connections to the database, and bringing its schema up to date.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error;
use crate::spool::SpoolError;

/// The steps from an empty database to the newest schema. Only ever add to them.
const MIGRATIONS: &[&str] =
    &[include_str!("schema/0001.sql"), include_str!("schema/0002.sql"), include_str!("schema/0003.sql"), include_str!("schema/0004.sql")];

/// Marks the database as ours (`PRAGMA application_id`): "Post".
const APPLICATION_ID: i64 = 0x506f_7374;

/// Opens a connection that may write.
pub(super) fn connect(path: &Path) -> Result<Connection, SpoolError> {
    // Without CREATE: a database that vanished under a running relay must not come back empty.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<(Connection, String)> {
        let db = Connection::open_with_flags(path, flags)?;
        db.set_prepared_statement_cache_capacity(64);
        // A plan does not depend on what is bound: otherwise statements are compiled again each time that
        // something else is, which here is always.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        db.pragma_update(None, "busy_timeout", 5000)?;
        // Only has an effect on a file without tables: pages that are free can be given back later.
        db.pragma_update(None, "auto_vacuum", "incremental")?;
        let mode = db.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        // One fsync of the log with every commit, before it is reported.
        db.pragma_update(None, "synchronous", "full")?;
        // On macOS, fsync alone stops at the drive's cache. It does nothing elsewhere.
        db.pragma_update(None, "fullfsync", true)?;
        db.pragma_update(None, "checkpoint_fullfsync", true)?;
        db.pragma_update(None, "wal_autocheckpoint", 4000)?;
        db.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
        db.pragma_update(None, "cache_size", -16 * 1024)?;
        // A full /tmp is no reason to stop.
        db.pragma_update(None, "temp_store", "memory")?;
        db.pragma_update(None, "trusted_schema", false)?;
        Ok((db, mode))
    };
    let (db, mode) = open().map_err(|error| at(path, error::sql(&error)))?;
    if mode == "wal" {
        Ok(db)
    } else {
        Err(SpoolError::Unavailable(format!(
            "{}: write-ahead logging is not possible here (journal_mode is {mode}); put server.data_dir on a local file system",
            path.display()
        )))
    }
}

/// Opens a connection that only reads.
pub(super) fn connect_reader(path: &Path) -> Result<Connection, SpoolError> {
    let db = connect(path)?;
    db.pragma_update(None, "query_only", true).map_err(|error| at(path, error::sql(&error)))?;
    Ok(db)
}

/// Brings the schema up to date, each step in a transaction of its own.
pub(super) fn migrate(db: &mut Connection, path: &Path) -> Result<(), SpoolError> {
    let newest = MIGRATIONS.len();
    let application: i64 = pragma(db, "application_id").map_err(|error| at(path, error))?;
    let version: i64 = pragma(db, "user_version").map_err(|error| at(path, error))?;
    if (application, version) != (0, 0) && application != APPLICATION_ID {
        return Err(SpoolError::Unavailable(format!(
            "{} is a database of another program (application_id {application:#x}, expected {APPLICATION_ID:#x}); move it away",
            path.display()
        )));
    }
    let Some(pending) = usize::try_from(version).ok().and_then(|done| MIGRATIONS.get(done..)) else {
        return Err(SpoolError::Unavailable(format!(
            "{} has schema version {version}, and this program knows versions up to {newest}: \
             it was written by a newer one; run that, or let it drain the queue first",
            path.display()
        )));
    };
    for (step, sql) in (version + 1..).zip(pending) {
        let mut apply = || -> rusqlite::Result<()> {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute_batch(sql)?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", step)?;
            tx.commit()
        };
        apply().map_err(|error| at(path, error::sql(&error)))?;
    }
    Ok(())
}

/// Copies all that the log holds into the database and syncs it; an error unless nothing is left.
///
/// After it, nothing depends on pages of the log that the kernel may have dropped in a failed fsync:
/// they were written again, and synced again, in the database.
pub(super) fn checkpoint(db: &Connection) -> Result<(), SpoolError> {
    let (logged, copied): (i64, i64) =
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok((row.get(1)?, row.get(2)?))).map_err(|error| error::sql(&error))?;
    if logged == copied {
        Ok(())
    } else {
        Err(SpoolError::Unavailable(format!(
            "only {copied} of {logged} pages of the log could be copied; another program reads spool.db, end its transaction"
        )))
    }
}

/// Gives the space of free pages back to the file system, in steps that need little space themselves.
pub(super) fn shrink(db: &Connection) -> Result<(), SpoolError> {
    loop {
        let free: i64 = pragma(db, "freelist_count")?;
        if free == 0 {
            return Ok(());
        }
        db.execute_batch("PRAGMA incremental_vacuum(1000)").map_err(|error| error::sql(&error))?;
        checkpoint(db)?;
        if pragma(db, "freelist_count")? >= free {
            return Ok(());
        }
    }
}

/// Finds out whether the database can be written and synced, the pages of the log included.
pub(super) fn prove(db: &mut Connection) -> Result<(), SpoolError> {
    checkpoint(db)?;
    let mut write = || -> rusqlite::Result<()> {
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // A log that is empty is copied without being written, so there must be something in it.
        tx.execute("INSERT INTO probe (at) VALUES (0)", [])?;
        tx.execute("DELETE FROM probe", [])?;
        tx.commit()
    };
    write().map_err(|error| error::sql(&error))?;
    checkpoint(db)
}

fn pragma(db: &Connection, name: &str) -> Result<i64, SpoolError> {
    db.pragma_query_value(None, name, |row| row.get(0)).map_err(|error| error::sql(&error))
}

fn at(path: &Path, error: SpoolError) -> SpoolError {
    match error {
        SpoolError::Full(words) => SpoolError::Full(format!("{}: {words}", path.display())),
        SpoolError::Unavailable(words) => SpoolError::Unavailable(format!("{}: {words}", path.display())),
        other => other,
    }
}
