//! What a person sees of the queue, and does to it.

mod job;

use postrider_providers::contract::{Body, MessageId};

pub use job::{JobId, JobState, Progress};

use super::{Queue, WaitReason};
use crate::spool::action::{Action, Done};
use crate::spool::filter::Filter;
use crate::spool::view::{Listed, Summary};
use crate::spool::{Spool, SpoolError, Stored};

/// One message in full.
#[derive(Debug, Clone)]
pub struct Found {
    /// As it stands in the store.
    pub listed: Listed,
    /// The message with its recipients' states; its body is opened when it is asked for.
    pub stored: Stored,
    /// What it waits for in memory, if it does: a limit, an open circuit.
    pub waits_for: Option<WaitReason>,
}

impl<S: Spool> Queue<S> {
    /// How much waits, and where.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub async fn summary(&self) -> Result<Summary, SpoolError> {
        self.0.spool.summary().await
    }

    /// The messages that `filter` means, ordered by id: up to `limit` of those behind `after`.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub async fn list(&self, filter: &Filter, after: Option<MessageId>, limit: usize) -> Result<Vec<Listed>, SpoolError> {
        self.0.spool.list(filter, self.0.clock.now(), after, limit).await
    }

    /// How many messages `filter` means.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub async fn count(&self, filter: &Filter) -> Result<u64, SpoolError> {
        self.0.spool.count(filter, self.0.clock.now()).await
    }

    /// One message, whoever has it at the moment; `None` if it is not in the queue.
    ///
    /// # Errors
    /// When the spool cannot be read, or not this message.
    pub async fn find(&self, id: MessageId) -> Result<Option<Found>, SpoolError> {
        let Some((stored, listed)) = self.0.spool.read(id).await? else { return Ok(None) };
        Ok(Some(Found { listed, stored, waits_for: self.0.window.waits_for(id) }))
    }

    /// The bytes of a message as they are stored, to be read piece by piece ([`Body::open`]); `None` if it
    /// is not in the queue.
    ///
    /// # Errors
    /// When the spool cannot be read, or not this message.
    pub async fn export(&self, id: MessageId) -> Result<Option<Body>, SpoolError> {
        Ok(self.0.spool.read(id).await?.map(|(stored, _)| stored.message.body.clone()))
    }

    /// Does `action` to one message, for `by`, and writes that to the history. It is finished even if the
    /// future is dropped.
    ///
    /// # Errors
    /// When the spool could not do it.
    pub async fn act(&self, id: MessageId, action: Action, by: &str) -> Result<Done, SpoolError> {
        let _ = (id, action, by);
        Err(SpoolError::Closed)
    }

    /// Begins to do `action` to all messages that `filter` means now, in the background, for `by`.
    #[must_use]
    pub fn start_job(&self, filter: Filter, action: Action, by: &str) -> JobId {
        let _ = (filter, action, by);
        JobId(0)
    }

    /// How far a job is; `None` if there was none, or it was too long ago.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<Progress> {
        let _ = id;
        None
    }

    /// The jobs that are under way and the last ones that ended, newest first.
    #[must_use]
    pub fn jobs(&self) -> Vec<Progress> {
        Vec::new()
    }

    /// Ends a job before its time: what is done stays done. Says whether it was under way.
    #[must_use]
    pub fn cancel_job(&self, id: JobId) -> bool {
        let _ = id;
        false
    }
}
