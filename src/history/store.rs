//! The database of the history: opening it, moving one aside that is no good, and the threads that use it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags, TransactionBehavior};
use tokio::sync::oneshot;
use tracing::error;

use super::HistoryError;

const SCHEMA: &str = include_str!("schema.sql");

/// The version of the schema (`PRAGMA user_version`).
const VERSION: i64 = 1;

/// Marks the database as ours (`PRAGMA application_id`): "Hist".
const APPLICATION_ID: i64 = 0x4869_7374;

/// The longest that a search may take.
const SEARCH_MAX: Duration = Duration::from_secs(10);

/// An open history. It writes with one connection and reads with another, each on a thread of its own.
pub(super) struct Database {
    writer: Runner,
    /// None in memory, where there is one connection only.
    reader: Option<Reader>,
}

struct Reader {
    runner: Runner,
    interrupt: InterruptHandle,
    /// One search at a time, so that the one that is cut off is the one meant.
    turn: tokio::sync::Mutex<()>,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Runs jobs with a connection.
enum Runner {
    Thread {
        jobs: Mutex<Option<mpsc::Sender<Job>>>,
        thread: Mutex<Option<JoinHandle<()>>>,
    },
    /// Where nothing blocks: in memory.
    Here(Mutex<Connection>),
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// It will never be usable.
    #[error("{0}")]
    Useless(String),
    /// Not now: a full disk, missing permissions.
    #[error("{0}")]
    Unavailable(String),
    /// A search was cut off.
    #[error("interrupted")]
    Interrupted,
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Useless(error.to_string()),
            Some(ErrorCode::OperationInterrupted) => Self::Interrupted,
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl Database {
    /// Opens the history in this file; begins a new one where there is none.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let file = |error: io::Error| Fault::Unavailable(format!("{}: {error}", path.display()));
        private(path).map_err(file)?;
        let mut db = connect(path)?;
        migrate(&mut db)?;
        let reader = connect(path)?;
        reader.pragma_update(None, "query_only", true)?;
        let interrupt = reader.get_interrupt_handle();
        let writer = Runner::start("history-write", db).map_err(file)?;
        let runner = Runner::start("history-read", reader).map_err(file)?;
        Ok(Self { writer, reader: Some(Reader { runner, interrupt, turn: tokio::sync::Mutex::default() }) })
    }

    /// A history that is in memory.
    pub(super) fn in_memory() -> Result<Self, Fault> {
        let mut db = Connection::open_in_memory()?;
        migrate(&mut db)?;
        Ok(Self { writer: Runner::Here(Mutex::new(db)), reader: None })
    }

    /// Runs `job` with the connection that writes.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.writer.run(job).await
    }

    /// Runs `job` with the connection that reads. It is cut off when it takes too long, or when nobody
    /// waits for it any more.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let Some(Reader { runner, interrupt, turn }) = &self.reader else { return self.writer.run(job).await };
        let _turn = turn.lock().await;
        let cut_off = CutOff(interrupt);
        let answer = tokio::time::timeout(SEARCH_MAX, runner.run(job)).await;
        if answer.is_ok() {
            std::mem::forget(cut_off);
        }
        answer.unwrap_or(Err(Fault::Interrupted))
    }
}

/// Cuts a search off when it is dropped.
struct CutOff<'a>(&'a InterruptHandle);

impl Drop for CutOff<'_> {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

impl Runner {
    fn start(name: &str, mut db: Connection) -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let run = move || jobs.into_iter().for_each(|job| job(&mut db));
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self::Thread { jobs: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    async fn run<T: Send + 'static>(&self, job: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
        let ended = || Fault::Unavailable("its thread has ended".to_owned());
        match self {
            Self::Here(db) => job(&mut db.lock()),
            Self::Thread { jobs, .. } => {
                let (answer, waiting) = oneshot::channel();
                // Whoever does not wait any longer does not miss the answer.
                let job: Job = Box::new(move |db| drop(answer.send(job(db))));
                jobs.lock().as_ref().ok_or_else(ended)?.send(job).map_err(|_| ended())?;
                waiting.await.map_err(|_| ended())?
            }
        }
    }
}

impl Drop for Runner {
    /// Waits for the job under way.
    fn drop(&mut self) {
        if let Self::Thread { jobs, thread } = self {
            drop(jobs.lock().take());
            if thread.lock().take().is_some_and(|thread| thread.join().is_err()) {
                error!("a thread of the history panicked; what it had not committed is in the journal still");
            }
        }
    }
}

impl From<Fault> for HistoryError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Useless(words) | Fault::Unavailable(words) => Self::Unavailable(words),
            Fault::Interrupted => Self::TooLong(SEARCH_MAX.as_secs()),
        }
    }
}

/// Makes the file for its owner's eyes only, if it is missing. SQLite gives its other files the
/// permissions of this one.
fn private(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn connect(path: &Path) -> Result<Connection, Fault> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.set_prepared_statement_cache_capacity(64);
    // Otherwise statements are compiled again whenever something else is bound.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.pragma_update(None, "busy_timeout", 5000)?;
    // Only has an effect on a file without tables: pages that are free can be given back later.
    db.pragma_update(None, "auto_vacuum", "incremental")?;
    let _: String = db.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    // Each batch is on stable storage before the journal forgets it, at the price of one fsync a batch.
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "fullfsync", true)?;
    db.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    db.pragma_update(None, "cache_size", -16 * 1024)?;
    db.pragma_update(None, "temp_store", "memory")?;
    db.pragma_update(None, "trusted_schema", false)?;
    Ok(db)
}

fn migrate(db: &mut Connection) -> Result<(), Fault> {
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    match (pragma("application_id")?, pragma("user_version")?) {
        (APPLICATION_ID, VERSION) => Ok(()),
        (0, 0) => {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute_batch(SCHEMA)?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", VERSION)?;
            Ok(tx.commit()?)
        }
        (APPLICATION_ID, version) => {
            Err(Fault::Useless(format!("it has schema version {version}, and this program knows version {VERSION}; a newer one wrote it")))
        }
        _ => Err(Fault::Useless("it is a database of another program".to_owned())),
    }
}

/// Where a history is moved that is no good. There is at most one, so that they do not fill the disk.
fn aside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".aside");
    name.push(suffix);
    name.into()
}

/// Moves a database out of the way that nobody has open.
pub(super) fn move_aside(path: &Path, why: &str) -> io::Result<()> {
    for suffix in ["-wal", "-shm", ""] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::rename(PathBuf::from(name), aside(path, suffix)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !suffix.is_empty() => {
                // What is there from the last time belongs to another database.
                let _ = fs::remove_file(aside(path, suffix));
            }
            moved => moved?,
        }
    }
    error!(history = %path.display(), moved_to = %aside(path, "").display(), why, "the history cannot be used; a new one is begun");
    Ok(())
}
