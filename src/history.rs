//! What happened to every message and recipient, kept for a time and found again.
//!
//! What happens is written to the spool's journal in the very transaction that makes it so. From there it
//! moves to a database of its own, which has the indexes for searching and is pruned beside the queue:
//! the writer of the queue never waits for it.

pub mod event;
mod indexer;
mod prune;
pub mod query;
mod records;
mod search;
mod store;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use postrider_providers::contract::MessageId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use event::{Event, Record};
pub use query::{Moment, Past, PastRecipient, PastState, Place, Query, Trace};

use crate::clock::Clock;
use crate::config;
use crate::spool::Spool;
use store::{Database, Fault};

/// The history. Clones share it.
#[derive(Clone)]
pub struct History(Arc<Shared>);

struct Shared {
    place: Location,
    settings: ArcSwap<config::History>,
    clock: Clock,
    /// How many records may wait in the journal when they cannot be moved.
    journal_max: u64,
    /// Open while [`History::run`] runs and a history is kept.
    database: Mutex<Option<Arc<Database>>>,
}

#[derive(Debug)]
enum Location {
    File(PathBuf),
    Memory,
}

/// Why the history does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// None is kept.
    #[error("no history is kept: history.keep is \"0s\"")]
    Off,
    /// Its database cannot be used now.
    #[error("the history cannot be read: {0}")]
    Unavailable(String),
    /// It took too long.
    #[error("the search was cut off after {0} seconds; narrow it by time, or by a whole address")]
    TooLong(u64),
}

/// How much the history holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Messages.
    pub messages: u64,
    /// Octets on disk.
    pub octets: u64,
    /// When the oldest of them was accepted, in milliseconds since 1970.
    pub oldest: Option<u64>,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("place", &self.0.place).finish_non_exhaustive()
    }
}

impl History {
    /// The history in `history.db` of this directory. Nothing is opened before [`History::run`].
    #[must_use]
    pub fn at(data_dir: impl Into<PathBuf>, settings: config::History, clock: Clock) -> Self {
        Self::new(Location::File(data_dir.into().join("history.db")), settings, clock, indexer::JOURNAL_MAX)
    }

    /// A history that ends with the process: for spools in memory.
    #[must_use]
    pub fn in_memory(settings: config::History, clock: Clock) -> Self {
        Self::new(Location::Memory, settings, clock, indexer::JOURNAL_MAX)
    }

    fn new(place: Location, settings: config::History, clock: Clock, journal_max: u64) -> Self {
        let settings = ArcSwap::from_pointee(settings);
        Self(Arc::new(Shared { place, settings, clock, journal_max, database: Mutex::default() }))
    }

    /// From now on it is kept by these settings.
    pub fn configure(&self, settings: config::History) {
        self.0.settings.store(Arc::new(settings));
    }

    /// The messages that match, the newest first. At most a hundred recipients of each are listed, which
    /// [`History::trace`] lists all; its state is of all of them.
    ///
    /// # Errors
    /// When no history is kept, or it cannot be read now.
    pub async fn search(&self, query: &Query) -> Result<Vec<Past>, HistoryError> {
        let query = query.clone();
        self.ask(move |db| search::search(db, &query)).await
    }

    /// All that happened to one message; `None` when nothing is known of it.
    ///
    /// # Errors
    /// As [`History::search`].
    pub async fn trace(&self, id: MessageId) -> Result<Option<Trace>, HistoryError> {
        self.ask(move |db| search::trace(db, id)).await
    }

    /// What persons did to the gateway itself and not to a message, the newest first: at most `limit`.
    ///
    /// # Errors
    /// As [`History::search`].
    pub async fn actions(&self, limit: usize) -> Result<Vec<Moment>, HistoryError> {
        self.ask(move |db| search::actions(db, limit)).await
    }

    /// How much there is.
    ///
    /// # Errors
    /// As [`History::search`].
    pub async fn size(&self) -> Result<Size, HistoryError> {
        self.ask(search::size).await
    }

    /// Moves records from the journal of `spool` into the history, whenever `hint` says that there are some
    /// and every second, and prunes it; until `stop`.
    pub async fn run<S: Spool>(&self, spool: S, hint: Arc<Notify>, stop: CancellationToken) {
        indexer::run(self, spool, hint, stop).await;
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&rusqlite::Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, HistoryError> {
        if self.settings().keep.is_none() {
            return Err(HistoryError::Off);
        }
        let database = self.0.database.lock().clone();
        let database = database.ok_or_else(|| HistoryError::Unavailable("it is not open".to_owned()))?;
        Ok(database.read(move |db| question(db)).await?)
    }

    fn settings(&self) -> Arc<config::History> {
        self.0.settings.load_full()
    }

    /// The database, opened if it is not.
    async fn open(&self) -> Result<Arc<Database>, Fault> {
        if let Some(database) = &*self.0.database.lock() {
            return Ok(Arc::clone(database));
        }
        let opened = match &self.0.place {
            Location::Memory => Database::in_memory()?,
            Location::File(path) => {
                let path = path.clone();
                let open = tokio::task::spawn_blocking(move || Database::open(&path)).await;
                open.map_err(|error| Fault::Unavailable(error.to_string()))??
            }
        };
        let opened = Arc::new(opened);
        *self.0.database.lock() = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Moves a database out of the way that is no good; the next [`History::open`] begins a new one.
    async fn begin_anew(&self, why: String) {
        self.close().await;
        let Location::File(path) = &self.0.place else { return };
        let path = path.clone();
        let moved = tokio::task::spawn_blocking(move || store::move_aside(&path, &why)).await;
        if let Ok(Err(error)) = moved {
            tracing::error!(%error, "the damaged history cannot be moved away");
        }
    }

    /// Closes the database. What is not in it yet waits in the journal.
    async fn close(&self) {
        let database = self.0.database.lock().take();
        if let (Some(database), Location::File(_)) = (database, &self.0.place) {
            // Its threads end with it.
            let _ = tokio::task::spawn_blocking(move || drop(database)).await;
        }
    }
}
