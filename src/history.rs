//! What happened to every message and recipient, kept for a time and found again.
//!
//! What happens is written to the spool's journal in the very transaction that makes it so. From there it
//! moves to a database of its own, which has the indexes for searching and is pruned beside the queue:
//! the writer of the queue never waits for it.

pub mod event;
pub mod query;

use std::path::PathBuf;
use std::sync::Arc;

use postrider_providers::contract::MessageId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use event::{Event, Record};
pub use query::{Moment, Past, PastRecipient, PastState, Place, Query, Trace};

use crate::clock::Clock;
use crate::config;
use crate::spool::Spool;

/// The history. Clones share it.
#[derive(Debug, Clone)]
pub struct History(#[allow(dead_code)] Arc<()>);

/// Why the history does not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HistoryError {
    /// None is kept.
    #[error("no history is kept: history.keep is \"0s\"")]
    Off,
    /// Its database cannot be used now.
    #[error("the history cannot be read: {0}")]
    Unavailable(String),
    /// It took too long.
    #[error("the search took longer than {0} seconds; narrow it by time, or by a whole address")]
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

impl History {
    /// The history in `history.db` of this directory. Nothing is opened before [`History::run`].
    #[must_use]
    pub fn at(_data_dir: impl Into<PathBuf>, _settings: config::History, _clock: Clock) -> Self {
        Self(Arc::new(()))
    }

    /// A history that ends with the process: for spools in memory.
    #[must_use]
    pub fn in_memory(_settings: config::History, _clock: Clock) -> Self {
        Self(Arc::new(()))
    }

    /// From now on it is kept by these settings.
    pub fn configure(&self, _settings: config::History) {}

    /// The messages that match, the newest first.
    ///
    /// # Errors
    /// When no history is kept, or it cannot be read now.
    pub async fn search(&self, _query: &Query) -> Result<Vec<Past>, HistoryError> {
        Err(HistoryError::Off)
    }

    /// All that happened to one message; `None` when nothing is known of it.
    ///
    /// # Errors
    /// As [`History::search`].
    pub async fn trace(&self, _id: MessageId) -> Result<Option<Trace>, HistoryError> {
        Err(HistoryError::Off)
    }

    /// What persons did to the gateway itself and not to a message, the newest first: at most `limit`.
    ///
    /// # Errors
    /// As [`History::search`].
    pub async fn actions(&self, _limit: usize) -> Result<Vec<Moment>, HistoryError> {
        Err(HistoryError::Off)
    }

    /// How much there is.
    ///
    /// # Errors
    /// As [`History::search`].
    pub async fn size(&self) -> Result<Size, HistoryError> {
        Err(HistoryError::Off)
    }

    /// Moves records from the journal of `spool` into the history, whenever `hint` says that there are some
    /// and every second, and prunes it; until `stop`.
    pub async fn run<S: Spool>(&self, _spool: S, _hint: Arc<Notify>, stop: CancellationToken) {
        stop.cancelled().await;
    }
}
