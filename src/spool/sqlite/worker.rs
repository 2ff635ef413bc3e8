//! A thread that takes jobs from a channel until the sending side is gone.
//!
//! SQLite blocks, and a connection belongs to one thread at a time, so each connection gets one.
//! The channels have no bound of their own: whoever sends a job waits for its answer.

use std::io;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::spool::SpoolError;

/// The sending side of a thread.
pub(super) struct Worker<J> {
    jobs: Mutex<Option<mpsc::UnboundedSender<J>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Something to do with the read connection.
pub(super) type Read = Box<dyn FnOnce(&Connection) + Send>;

impl<J: Send + 'static> Worker<J> {
    /// Starts a thread that runs `work` with the receiving side.
    pub(super) fn start(name: &str, work: impl FnOnce(mpsc::UnboundedReceiver<J>) + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || work(receiver))?;
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
    /// Starts the thread of a connection that only reads.
    pub(super) fn reader(name: &str, db: Connection) -> io::Result<Self> {
        Self::start(name, move |mut reads| {
            while let Some(read) = reads.blocking_recv() {
                read(&db);
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
        waiting.await.map_err(|_| SpoolError::Closed)?
    }
}
