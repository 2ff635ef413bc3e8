//! What SQLite and the file system say, in the words of the spool.

use std::io;
use std::path::Path;

use rusqlite::{ErrorCode, ffi};

use crate::spool::SpoolError;

/// Why an operation did not go through, while its transaction is open.
#[derive(Debug)]
pub(super) enum Fault {
    /// It may not be done. Nothing was written, so the others in the transaction are not concerned.
    Refused(SpoolError),
    /// The database failed; the transaction has to be rolled back.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Whether the database has no space left.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    // The wal-index cannot grow either when the disk is full, and that is reported as an I/O error.
    error.sqlite_error_code() == Some(ErrorCode::DiskFull) || error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE)
}

/// Whether the storage itself failed, so that nothing may be believed before it has been proved again.
pub(super) fn is_broken(error: &rusqlite::Error) -> bool {
    !is_full(error)
        && matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::SystemIoFailure
                    | ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
                    | ErrorCode::NotADatabase
                    | ErrorCode::PermissionDenied
            )
        )
}

/// Whether somebody else has locked the database for longer than anybody can wait.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether the trouble is in what was read, not in the reading.
pub(super) fn is_about_the_record(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    matches!(
        error,
        Error::InvalidColumnType(..)
            | Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::QueryReturnedNoRows
    ) || error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

/// Translates an error of the database.
pub(super) fn sql(error: &rusqlite::Error) -> SpoolError {
    if is_full(error) {
        return SpoolError::Full(format!("{error}; free space on the file system of server.data_dir"));
    }
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "; server.data_dir must be writable by the user that the relay runs as"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "; another program keeps spool.db locked, end its transaction",
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "; spool.db is damaged, see `PRAGMA integrity_check`",
        Some(ErrorCode::SystemIoFailure) => "; look for disk errors in the system's log",
        _ => "",
    };
    SpoolError::Unavailable(format!("{error}{advice}"))
}

/// Translates an error of the file system about `path`.
pub(super) fn file(error: &io::Error, doing: &str, path: &Path) -> SpoolError {
    let words = format!("{doing} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => SpoolError::Full(words),
        _ => SpoolError::Unavailable(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn an_error_says_whether_space_or_storage_is_missing() {
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_SHMSIZE] {
            assert!(matches!(sql(&failure(code)), SpoolError::Full(_)), "{code}");
            assert!(!is_broken(&failure(code)), "{code}");
        }
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_READONLY, ffi::SQLITE_CANTOPEN] {
            assert!(matches!(sql(&failure(code)), SpoolError::Unavailable(_)), "{code}");
            assert!(is_broken(&failure(code)), "{code}");
        }
        // A damaged page concerns the messages on it, and nobody else.
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_CONSTRAINT, ffi::SQLITE_CORRUPT] {
            assert!(matches!(sql(&failure(code)), SpoolError::Unavailable(_)), "{code}");
            assert!(!is_broken(&failure(code)), "{code}");
        }
    }

    #[test]
    fn a_file_system_error_names_the_path() {
        let full = file(&io::ErrorKind::StorageFull.into(), "writing", Path::new("/x/y"));
        assert!(matches!(&full, SpoolError::Full(words) if words.contains("writing /x/y")), "{full}");
        let denied = file(&io::ErrorKind::PermissionDenied.into(), "writing", Path::new("/x/y"));
        assert!(matches!(denied, SpoolError::Unavailable(_)));
    }
}
