//! Group commit: one thread takes everything that waits into one transaction, and answers after it.
//!
//! An fsync costs the same for one message as for a hundred, and while it runs the next hundred
//! gather. Nobody is answered before the commit that carries their work has returned.

use std::fs;
use std::path::PathBuf;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Committed;
use super::error::{self, Fault};
use super::notes::Forgotten;
use super::quotas::Limits;
use super::reserve::Reserve;
use super::schema;
use super::worker::{Read, Worker};
use crate::spool::SpoolError;

/// The most jobs that one transaction takes.
const BATCH: usize = 256;

/// Jobs that bring more than this go into transactions of their own, which bounds the log, and with
/// it the space that it takes to copy it.
const OCTETS: u64 = 8 * 1024 * 1024;

/// One write, as the operations in `ops` describe it.
pub(super) trait Op: Send + 'static {
    /// What its caller gets.
    type Answer: Send;

    /// Does it in the open transaction. It may be run again after a rollback.
    fn run(&self, work: &mut Work<'_>) -> Result<Self::Answer, Fault>;

    /// How much it adds to the store, for what is refused while the disk is full.
    fn grows_by(&self) -> Option<u64> {
        None
    }

    /// Cleans up outside the database when it could not be committed.
    fn failed(&self, _db: &Connection) {}
}

/// The transaction that an operation works in.
pub(super) struct Work<'a> {
    pub(super) db: &'a Connection,
    /// Files that nothing names any longer once this is committed.
    pub(super) unlink: Vec<PathBuf>,
}

/// An operation whose caller waits, without its type.
pub(super) trait Job: Send {
    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()>;
    fn grows_by(&self) -> Option<u64>;
    fn answer(self: Box<Self>, committed: Result<(), SpoolError>, db: &Connection);
}

struct Waiting<O: Op> {
    op: O,
    result: Option<Result<O::Answer, SpoolError>>,
    answer: oneshot::Sender<Result<O::Answer, SpoolError>>,
}

impl<O: Op> Job for Waiting<O> {
    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        self.result = Some(match self.op.run(work) {
            Ok(answer) => Ok(answer),
            Err(Fault::Refused(refusal)) => Err(refusal),
            Err(Fault::Sql(error)) => return Err(error),
        });
        Ok(())
    }

    fn grows_by(&self) -> Option<u64> {
        self.op.grows_by()
    }

    fn answer(self: Box<Self>, committed: Result<(), SpoolError>, db: &Connection) {
        let result = match committed {
            Ok(()) => self.result.unwrap_or(Err(SpoolError::Closed)),
            Err(error) => {
                self.op.failed(db);
                Err(error)
            }
        };
        // A caller that has gone away has left word of what is to be done about it (see `Leases`).
        drop(self.answer.send(result));
    }
}

impl Worker<Box<dyn Job>> {
    /// Does `op` in the next transaction, and returns when that is committed.
    pub(super) async fn write<O: Op>(&self, op: O) -> Result<O::Answer, SpoolError> {
        let (answer, waiting) = oneshot::channel();
        self.send(Box::new(Waiting { op, result: None, answer }))?;
        waiting.await.map_err(|_| SpoolError::Closed)?
    }

    /// Does `op` in the next transaction, for nobody in particular.
    pub(super) fn post<O: Op>(&self, op: O) {
        let (answer, _) = oneshot::channel();
        // When the store is closed there is nothing left to do.
        drop(self.send(Box::new(Waiting { op, result: None, answer })));
    }
}

/// What the writer's thread owns.
pub(super) struct Writer {
    pub(super) db: Connection,
    pub(super) path: PathBuf,
    pub(super) limits: Limits,
    /// What the history has taken over.
    pub(super) forgotten: Forgotten,
    /// Removes files, which may take its time, in the thread of the read connection.
    pub(super) reader: Option<mpsc::WeakUnboundedSender<Read>>,
    pub(super) reserve: Reserve,
    /// The storage failed; nothing is taken until it has been proved again.
    pub(super) broken: bool,
    /// Told of each commit.
    pub(super) committed: Option<Committed>,
}

impl Writer {
    /// Commits what comes until the channel is closed and empty.
    pub(super) fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Box<dyn Job>>) {
        let mut batch = Vec::with_capacity(BATCH);
        while jobs.blocking_recv_many(&mut batch, BATCH) > 0 {
            while !batch.is_empty() {
                let rest = batch.split_off(group(&batch));
                self.commit(std::mem::replace(&mut batch, rest));
            }
        }
        if !self.limits.is_empty()
            && let Err(error) = self.transact(&mut [])
        {
            tracing::warn!(error = %error::sql(&error), "the last state of the quotas was not saved");
        }
        // Only to start faster the next time.
        if let Err(error) = schema::checkpoint(&self.db) {
            tracing::debug!(%error, "the log of the spool was left as it is");
        }
    }

    fn commit(&mut self, mut batch: Vec<Box<dyn Job>>) {
        if let Err(error) = self.mend() {
            return self.answer(batch, &Err(error));
        }
        if let Err(error) = self.reserve_for(&batch) {
            let (growing, others) = batch.into_iter().partition(|job| job.grows_by().is_some());
            self.answer(growing, &Err(error));
            batch = others;
        }
        if batch.is_empty() {
            return;
        }
        let Err(error) = self.transact(&mut batch) else {
            return self.answer(batch, &Ok(()));
        };
        self.broken |= error::is_broken(&error);
        if self.broken || error::is_busy(&error) {
            let error = error::sql(&error);
            tracing::error!(%error, "a commit failed; nothing in it was acknowledged");
            return self.answer(batch, &Err(error));
        }
        let full = error::is_full(&error).then(|| error::sql(&error));
        if full.is_some() {
            self.reserve.release();
            // A log that has been copied is written again from its start, so that removals need no
            // more space. Whether it worked shows in what follows.
            if let Err(error) = schema::checkpoint(&self.db) {
                tracing::debug!(%error, "the log of the spool could not be emptied");
            }
        }
        // One of them is to blame, or there is space for what empties the queue.
        for mut job in batch {
            let outcome = match &full {
                Some(full) if job.grows_by().is_some() => Err(full.clone()),
                _ => self.transact_alone(&mut job),
            };
            job.answer(outcome, &self.db);
        }
    }

    fn transact_alone(&mut self, job: &mut Box<dyn Job>) -> Result<(), SpoolError> {
        self.mend()?;
        self.transact(std::slice::from_mut(job)).map_err(|error| {
            self.broken |= error::is_broken(&error);
            let error = error::sql(&error);
            tracing::warn!(%error, "a write to the spool failed");
            error
        })
    }

    fn answer(&self, batch: Vec<Box<dyn Job>>, committed: &Result<(), SpoolError>) {
        for job in batch {
            job.answer(committed.clone(), &self.db);
        }
    }

    /// Makes sure of the reserve before the store grows.
    fn reserve_for(&mut self, batch: &[Box<dyn Job>]) -> Result<(), SpoolError> {
        if self.reserve.is_whole() || batch.iter().all(|job| job.grows_by().is_none()) {
            return Ok(());
        }
        self.reserve.restore(|| {
            // What the queue has left free inside the database is space for nobody else.
            if let Err(error) = schema::shrink(&self.db) {
                tracing::debug!(%error, "the database could not be made smaller");
            }
        })
    }

    /// Runs the jobs and commits them, all or none.
    fn transact(&mut self, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        let (start, count) = (Instant::now(), jobs.len());
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut work = Work { db: &tx, unlink: Vec::new() };
        for job in jobs {
            job.run(&mut work)?;
        }
        let unlink = work.unlink;
        let limits = self.limits.save(&tx)?;
        let forgotten = self.forgotten.apply(&tx)?;
        tx.commit()?;
        self.forgotten.done(forgotten);
        if let Some(Committed(told)) = &self.committed {
            told(count, start.elapsed());
        }
        self.limits.saved(&limits);
        self.unlink(unlink);
        Ok(())
    }

    fn unlink(&self, files: Vec<PathBuf>) {
        if files.is_empty() {
            return;
        }
        let remove = move || files.iter().for_each(remove_body);
        match self.reader.as_ref().and_then(mpsc::WeakUnboundedSender::upgrade) {
            Some(reader) => drop(reader.send(Box::new(move |_| remove()))),
            None => remove(),
        }
    }

    /// After the storage failed: proves that it writes and syncs again, with a new connection if the
    /// old one is beyond help.
    fn mend(&mut self) -> Result<(), SpoolError> {
        if !self.broken {
            return Ok(());
        }
        let mut proof = schema::prove(&mut self.db);
        if matches!(proof, Err(SpoolError::Full(_))) && self.reserve.release() {
            proof = schema::prove(&mut self.db);
        }
        if proof.is_err() {
            let mut db = schema::connect(&self.path)?;
            schema::prove(&mut db)?;
            self.db = db;
        }
        self.broken = false;
        tracing::info!("the spool can be written again");
        Ok(())
    }
}

/// How many of the jobs go into one transaction.
fn group(jobs: &[Box<dyn Job>]) -> usize {
    let mut octets = 0;
    let fitting = jobs.iter().take_while(|job| {
        octets += job.grows_by().unwrap_or(0);
        octets <= OCTETS
    });
    fitting.count().max(1)
}

/// Removes a body file that nothing names. One that stays behind is found at the next start.
pub(super) fn remove_body(path: &PathBuf) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "a body that is no longer needed could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::OpenFlags;

    use super::super::worker::Fallen;
    use super::*;

    /// Adds a quota, with a connection that is given.
    struct Note;

    impl Op for Note {
        type Answer = ();

        fn run(&self, work: &mut Work<'_>) -> Result<(), Fault> {
            work.db.execute("INSERT INTO quota_use (quota, share, slot, used) VALUES ('x', '', 1, 1)", [])?;
            Ok(())
        }
    }

    #[tokio::test]
    async fn after_a_failure_of_the_storage_the_connection_is_replaced_and_proved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool.db");
        std::fs::write(&path, "").unwrap();
        schema::migrate(&mut schema::connect(&path).unwrap(), &path).unwrap();
        let reserve = Reserve::find(dir.path().join("reserve"), 0);
        // A connection that cannot write stands for a disk that cannot.
        let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let writer = Writer {
            db,
            path: path.clone(),
            limits: Limits::default(),
            forgotten: Forgotten::default(),
            reader: None,
            reserve,
            committed: None,
            broken: false,
        };
        let worker = Worker::start("test", &Fallen::default(), move |jobs| writer.run(jobs)).unwrap();
        let failed = worker.write(Note).await;
        assert!(matches!(failed, Err(SpoolError::Unavailable(_))), "{failed:?}");
        worker.write(Note).await.unwrap();
        worker.end();
        let noted: i64 = Connection::open(&path).unwrap().query_row("SELECT count(*) FROM quota_use", [], |row| row.get(0)).unwrap();
        assert_eq!(noted, 1);
    }

    #[test]
    fn a_transaction_takes_many_small_jobs_and_few_large_ones() {
        struct Sized(u64);
        impl Op for Sized {
            type Answer = ();
            fn run(&self, _work: &mut Work<'_>) -> Result<(), Fault> {
                Ok(())
            }
            fn grows_by(&self) -> Option<u64> {
                Some(self.0)
            }
        }
        let jobs = |sizes: &[u64]| -> Vec<Box<dyn Job>> {
            let job = |size: &u64| -> Box<dyn Job> { Box::new(Waiting { op: Sized(*size), result: None, answer: oneshot::channel().0 }) };
            sizes.iter().map(job).collect()
        };
        assert_eq!(group(&jobs(&[4096; 200])), 200);
        assert_eq!(group(&jobs(&[OCTETS / 2, OCTETS / 2, 1])), 2);
        assert_eq!(group(&jobs(&[OCTETS * 2, 1])), 1, "one is always taken");
    }
}
