//! A thread that takes jobs from a channel until the sending side is gone.
//!
//! SQLite blocks, and a connection belongs to one thread at a time, so each connection gets one.
//! The channels have no bound of their own: whoever sends a job waits for its answer.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{SetOnce, mpsc, oneshot};

use crate::spool::SpoolError;

/// The sending side of a thread.
pub(super) struct Worker<J> {
    jobs: Mutex<Option<mpsc::UnboundedSender<J>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Something to do with the read connection.
pub(super) type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Why a thread ended that nobody had told to. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Fallen(Arc<SetOnce<String>>);

impl Fallen {
    /// Waits for that.
    pub(super) async fn why(&self) -> String {
        self.0.wait().await.clone()
    }
}

impl<J: Send + 'static> Worker<J> {
    /// Starts a thread that runs `work` with the receiving side. If it panics, `fallen` is told.
    pub(super) fn start(
        name: &'static str,
        fallen: &Fallen,
        work: impl FnOnce(mpsc::UnboundedReceiver<J>) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let fallen = fallen.clone();
        let watched = move || {
            // Nothing of what it worked with is used again.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(receiver))) {
                // Only the first one counts.
                let _ = fallen.0.set(format!("the thread {name} of the spool panicked"));
                std::panic::resume_unwind(panic);
            }
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(watched)?;
        Ok(Self { jobs: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Hands a job over.
    pub(super) fn send(&self, job: J) -> Result<(), SpoolError> {
        self.jobs.lock().as_ref().ok_or(SpoolError::Closed)?.send(job).map_err(|_| SpoolError::Closed)
    }

    /// A sender that does not keep the thread alive.
    pub(super) fn weak(&self) -> Option<mpsc::WeakUnboundedSender<J>> {
        self.jobs.lock().as_ref().map(mpsc::UnboundedSender::downgrade)
    }

    /// Takes no more jobs, and waits until those that were taken are done.
    pub(super) fn end(&self) {
        drop(self.jobs.lock().take());
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread of the spool panicked; what it had not committed was not acknowledged");
        }
    }
}

impl Worker<Read> {
    /// Starts the thread of a connection that only reads. A read that panics costs its own answer.
    pub(super) fn reader(name: &'static str, fallen: &Fallen, db: Connection) -> io::Result<Self> {
        Self::start(name, fallen, move |mut reads| {
            while let Some(read) = reads.blocking_recv() {
                if catch_unwind(AssertUnwindSafe(|| read(&db))).is_err() {
                    tracing::error!(thread = name, "a read of the spool panicked");
                }
            }
        })
    }

    /// Runs `read` there.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let (answer, waiting) = oneshot::channel();
        // Whoever does not wait any longer does not miss the answer.
        self.send(Box::new(move |db| drop(answer.send(read(db)))))?;
        // What was taken is done before the thread ends, so nothing else takes the answer away.
        waiting.await.map_err(|_| SpoolError::Unavailable("a read of it panicked".to_owned()))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_read_that_panics_costs_its_own_answer_and_the_next_one_is_answered() {
        let fallen = Fallen::default();
        let reader = Worker::reader("test", &fallen, Connection::open_in_memory().unwrap()).unwrap();
        let lost: Result<(), _> = reader.read(|_| panic!("as asked")).await;
        assert!(matches!(lost, Err(SpoolError::Unavailable(_))), "{lost:?}");
        assert_eq!(reader.read(|_| Ok(7)).await.unwrap(), 7);
        assert!(fallen.0.get().is_none());
        reader.end();
    }
}
