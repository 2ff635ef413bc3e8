//! What guards learn and a restart should not forget. They only say so; a task writes it down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use crate::spool::{Spool, SpoolError};

/// How long to wait after the spool failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Values by key, the latest of each, on their way into the spool. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Notebook(Arc<Pages>);

#[derive(Debug, Default)]
struct Pages {
    unwritten: Mutex<BTreeMap<String, Option<String>>>,
    poke: Notify,
    /// One writes at a time, so that an older value never follows a newer one.
    writing: tokio::sync::Mutex<()>,
}

impl Notebook {
    /// Keeps `value`, which is JSON, under `key`; `None` forgets it.
    pub(super) fn keep(&self, key: String, value: Option<String>) {
        self.0.unwritten.lock().insert(key, value);
        self.0.poke.notify_one();
    }

    /// Makes durable what was kept so far.
    ///
    /// # Errors
    /// When the spool could not; then all of it is still to be written.
    pub(super) async fn flush<S: Spool>(&self, spool: &S) -> Result<(), SpoolError> {
        let _alone = self.0.writing.lock().await;
        loop {
            let next = self.0.unwritten.lock().first_key_value().map(|(key, value)| (key.clone(), value.clone()));
            let Some((key, value)) = next else { return Ok(()) };
            spool.remember(&key, value.clone()).await?;
            let mut unwritten = self.0.unwritten.lock();
            // Unless it has changed meanwhile.
            if unwritten.get(&key) == Some(&value) {
                unwritten.remove(&key);
            }
        }
    }

    /// Writes down whatever is kept, for ever.
    pub(super) async fn run<S: Spool>(&self, spool: &S) {
        loop {
            let poke = self.0.poke.notified();
            match self.flush(spool).await {
                Ok(()) => poke.await,
                Err(SpoolError::Closed) => return,
                Err(error) => {
                    warn!(%error, "what was learned about providers could not be recorded; trying again");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::memory::MemorySpool;

    #[tokio::test(start_paused = true)]
    async fn the_latest_value_is_written_also_after_the_spool_has_failed() {
        let (notebook, spool) = (Notebook::default(), MemorySpool::new());
        notebook.keep("a".to_owned(), Some("1".to_owned()));
        notebook.keep("b".to_owned(), Some("2".to_owned()));
        notebook.keep("a".to_owned(), Some("3".to_owned()));
        spool.set_fault(Some(SpoolError::Full("no space left".to_owned())));
        assert!(notebook.flush(&spool).await.is_err());
        spool.set_fault(None);
        notebook.flush(&spool).await.unwrap();
        assert_eq!(spool.recall("").await.unwrap(), [("a".to_owned(), "3".to_owned()), ("b".to_owned(), "2".to_owned())]);
        notebook.keep("a".to_owned(), None);
        notebook.flush(&spool).await.unwrap();
        assert_eq!(spool.recall("").await.unwrap().len(), 1);
    }
}
