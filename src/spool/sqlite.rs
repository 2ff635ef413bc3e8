//! The durable spool of a single machine: SQLite for records and small bodies, files for large ones.
//!
//! One thread writes, and commits everything that waits in one transaction (`writer`); one reads.
//! One process at a time has the directory open, so whatever is leased when it is opened was left
//! behind, and is taken over at once.

mod actions;
mod body;
mod error;
mod lanes;
mod layout;
mod listing;
mod notes;
mod ops;
mod quotas;
mod record;
mod recover;
mod reserve;
mod schema;
#[cfg(test)]
mod tests;
mod worker;
mod writer;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postrider_providers::contract::{Message, MessageId, ProviderName, RecipientIndex};

use self::body::Arriving;
pub use self::body::SqliteSink;
use self::layout::Layout;
use self::quotas::Limits;
use self::record::Unread;
use self::reserve::Reserve;
use self::worker::{Fallen, Read, Worker};
use self::writer::{Job, Op, Writer};
use super::action::{Action, Done, Target};
use super::filter::Filter;
use super::view::{Lane, Listed, Summary};
use super::{Claimed, Doubt, QuotaUse, Recovered, Settlement, Spool, SpoolCounts, SpoolError, Stored, WaitingLane, Want};

/// Where the spool is, and how it divides the bodies.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of everything; made if it is missing. It has to be on a local file system.
    pub data_dir: PathBuf,
    /// Up to this many octets a body is kept in the database, beyond it in a file of its own.
    pub inline_max: u64,
    /// How much disk space is set apart, so that a queue that has filled the disk can be worked off;
    /// 0 for none. It takes what the log may grow to, about 24 MiB.
    pub reserve: u64,
    /// How much memory the bodies that have arrived and not left it yet may take together, in octets,
    /// beyond 16 KiB for each; a body that finds none left goes to its file early.
    pub memory_max: usize,
    /// Told of each commit: how many writes it carried, and how long it took.
    pub committed: Option<Committed>,
    /// What the journal is told of a handover that was cut off, in the transaction that finds it in doubt; `None`:
    /// nothing.
    pub doubted: Option<Doubted>,
}

/// Hears of commits, in the writer's thread.
#[derive(Clone)]
pub struct Committed(pub Arc<dyn Fn(usize, Duration) + Send + Sync>);

impl std::fmt::Debug for Committed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Committed")
    }
}

/// Makes a record for the journal.
#[derive(Clone)]
pub struct Doubted(pub Arc<dyn Fn(&Doubt) -> String + Send + Sync>);

impl std::fmt::Debug for Doubted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Doubted")
    }
}

impl Settings {
    /// The usual settings for a directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            inline_max: 256 * 1024,
            reserve: 32 * 1024 * 1024,
            memory_max: 48 * 1024 * 1024,
            committed: None,
            doubted: None,
        }
    }
}

/// A node's handle on the spool. Clones share it.
#[derive(Clone)]
pub struct SqliteSpool {
    shared: Arc<Shared>,
    node: i64,
}

struct Shared {
    writer: Worker<Box<dyn Job>>,
    reader: Worker<Read>,
    /// Answers people, who may ask for much.
    clerk: Worker<Read>,
    layout: Layout,
    inline_max: u64,
    arriving: Arc<Arriving>,
    limits: Limits,
    forgotten: notes::Forgotten,
    /// What was set aside since somebody was told.
    set_aside: Mutex<Vec<String>>,
    lock: Mutex<Option<File>>,
    fallen: Fallen,
    doubted: Option<Doubted>,
}

impl SqliteSpool {
    /// Opens the spool, brings its schema up to date, and takes over what an earlier process left.
    ///
    /// # Errors
    /// When another process has it open, when a newer version wrote it, or when the directory cannot
    /// be used.
    pub async fn open(settings: Settings) -> Result<(Self, Recovered), SpoolError> {
        match tokio::task::spawn_blocking(move || Self::open_blocking(settings)).await {
            Ok(opened) => opened,
            Err(error) => Err(SpoolError::Unavailable(format!("opening the spool: {error}"))),
        }
    }

    fn open_blocking(settings: Settings) -> Result<(Self, Recovered), SpoolError> {
        // Bodies are recognised by their path, so it may not depend on the working directory.
        let root = std::path::absolute(&settings.data_dir).map_err(|error| error::file(&error, "finding", &settings.data_dir))?;
        let layout = Layout::new(root);
        layout.create()?;
        let lock = layout.lock()?;
        layout.clear_incoming()?;
        let path = layout.database();
        let mut db = schema::connect(&path)?;
        schema::migrate(&mut db, &path)?;
        let mut reserve = Reserve::find(layout.reserve(), settings.reserve);
        let mut take_over = || {
            // The log may end in a commit that was written, never synced, and read back from memory.
            schema::checkpoint(&db)?;
            recover::take_over(&mut db, &layout, settings.doubted.as_ref())
        };
        let (node, recovered) = match take_over() {
            Err(SpoolError::Full(_)) if reserve.release() => take_over()?,
            result => result?,
        };
        if let Err(error) = reserve.restore(|| drop(schema::shrink(&db))) {
            tracing::warn!(%error, "no mail is accepted before there is space");
        }

        let start = |error| error::file(&error, "starting a thread for", &path);
        let limits = Limits::default();
        let forgotten = notes::Forgotten::default();
        let fallen = Fallen::default();
        let reader = Worker::reader("spool-read", &fallen, schema::connect_reader(&path)?).map_err(start)?;
        let clerk = Worker::reader("spool-list", &fallen, schema::connect_reader(&path)?).map_err(start)?;
        let writer = Writer {
            db,
            path: path.clone(),
            limits: limits.clone(),
            forgotten: forgotten.clone(),
            reader: reader.weak(),
            reserve,
            broken: false,
            committed: settings.committed,
        };
        let writer = Worker::start("spool-write", &fallen, move |jobs| writer.run(jobs)).map_err(start)?;
        let shared = Shared {
            writer,
            reader,
            clerk,
            layout,
            inline_max: settings.inline_max,
            arriving: Arriving::new(settings.memory_max),
            limits,
            forgotten,
            set_aside: Mutex::default(),
            lock: Mutex::new(Some(lock)),
            fallen,
            doubted: settings.doubted,
        };
        Ok((Self { shared: Arc::new(shared), node }, recovered))
    }

    /// Another node that shares this spool, as gateways share a database server. In one process it
    /// serves to try out how nodes get along.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn another_node(&self) -> Result<Self, SpoolError> {
        let node = self.shared.writer.write(ops::Join).await?;
        Ok(Self { shared: Arc::clone(&self.shared), node })
    }

    /// Reads what was leased, beside the writer, which has commits to make. What cannot be read is set
    /// aside, and `None` stands in its place.
    async fn load(&self, ids: Vec<MessageId>, now: SystemTime) -> Result<Vec<Option<Stored>>, SpoolError> {
        let bodies = self.shared.layout.bodies();
        let (read, unreadable) = self
            .shared
            .reader
            .read(move |db| {
                let (mut read, mut unreadable) = (Vec::with_capacity(ids.len()), Vec::new());
                for id in ids {
                    match record::load(db, &bodies, id) {
                        Ok(stored) => read.push(Some(stored)),
                        Err(Unread::Record(reason)) => {
                            read.push(None);
                            unreadable.push((id, reason));
                        }
                        Err(Unread::Database(error)) => return Err(error),
                    }
                }
                Ok((read, unreadable))
            })
            .await?;
        for (id, reason) in unreadable {
            tracing::error!(message_id = %id, reason, "a message cannot be read and is set aside");
            let told = format!("message {id}: {reason}");
            match self.shared.writer.write(ops::SetAside { node: self.node, id, at: now, reason }).await {
                Ok(()) => self.shared.set_aside.lock().push(told),
                // Whoever leases it now finds out, too.
                Err(SpoolError::LeaseLost(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    /// Stores a message with the write that `op` makes of that.
    async fn store_by<O: Op<Answer = ()>>(
        &self,
        message: Arc<Message>,
        lane: &Lane,
        lease: bool,
        op: impl FnOnce(ops::Store) -> O,
    ) -> Result<(), SpoolError> {
        let mut leases = self.leases(if lease { vec![message.id] } else { Vec::new() });
        let owner = lease.then_some(self.node);
        let store = ops::Store { message, lane: lane.clone(), owner, bodies: self.shared.layout.bodies() };
        let stored = self.shared.writer.write(op(store)).await;
        leases.kept = true;
        stored
    }

    fn leases(&self, ids: Vec<MessageId>) -> Leases<'_> {
        Leases { spool: self, ids: Arc::new(Mutex::new(ids)), kept: false }
    }
}

/// Leases on their way to the caller: given back if it does not wait for them.
///
/// The word to give them back is sent behind the write that takes them, through the same channel, so
/// it comes second whenever the caller goes away.
struct Leases<'a> {
    spool: &'a SqliteSpool,
    ids: Arc<Mutex<Vec<MessageId>>>,
    kept: bool,
}

impl Drop for Leases<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.spool.shared.writer.post(ops::GiveBack { node: self.spool.node, leased: Arc::clone(&self.ids) });
        }
    }
}

impl Shared {
    /// Ends the threads, the writer first: it hands files to the reader to remove.
    fn end(&self) {
        self.writer.end();
        self.reader.end();
        self.clerk.end();
        drop(self.lock.lock().take());
    }
}

impl Drop for Shared {
    /// Waits for the commit under way. Leases stay as they are; the next start takes them over.
    fn drop(&mut self) {
        self.end();
    }
}

impl Spool for SqliteSpool {
    type Sink = SqliteSink;

    fn body(&self, id: MessageId) -> SqliteSink {
        let arriving = Arc::clone(&self.shared.arriving);
        SqliteSink::new(id, self.shared.layout.clone(), self.shared.inline_max, arriving)
    }

    async fn store(&self, message: Arc<Message>, lane: &Lane, lease: bool) -> Result<(), SpoolError> {
        self.store_by(message, lane, lease, |store| store).await
    }

    async fn store_instead(
        &self,
        key: &str,
        message: Arc<Message>,
        lane: &Lane,
        lease: bool,
        record: Option<String>,
    ) -> Result<(), SpoolError> {
        self.store_by(message, lane, lease, |store| ops::StoreInstead { key: key.to_owned(), store, record }).await
    }

    async fn claim(&self, now: SystemTime, wants: &[Want], octets: u64) -> Result<Vec<Claimed>, SpoolError> {
        let mut leases = self.leases(Vec::new());
        let leased = Arc::clone(&leases.ids);
        let shares = self.shared.writer.write(ops::Claim { node: self.node, now, wants: wants.to_vec(), octets, leased }).await?;
        let ids = leases.ids.lock().clone();
        let mut claimed = Vec::with_capacity(shares.len());
        let mut read = self.load(ids, now).await?.into_iter();
        for ops::Share { lane, messages, next_due } in shares {
            claimed.push(Claimed { lane, messages: read.by_ref().take(messages).flatten().collect(), next_due });
        }
        leases.kept = true;
        Ok(claimed)
    }

    async fn lanes(&self, limit: usize) -> Result<Vec<WaitingLane>, SpoolError> {
        self.shared.reader.read(move |db| lanes::waiting(db, limit).map_err(|error| error::sql(&error))).await
    }

    async fn begin(&self, id: MessageId, provider: &ProviderName, recipients: &[RecipientIndex]) -> Result<(), SpoolError> {
        let (provider, recipients) = (provider.clone(), recipients.to_vec());
        self.shared.writer.write(ops::Begin { node: self.node, id, provider, recipients }).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<(), SpoolError> {
        let bodies = self.shared.layout.bodies();
        self.shared.writer.write(ops::Settle { node: self.node, settlement, bodies }).await
    }

    async fn release(&self, id: MessageId, lane: &Lane, due: SystemTime) -> Result<(), SpoolError> {
        self.shared.writer.write(ops::Release { node: self.node, id, lane: lane.clone(), due }).await
    }

    async fn renew(&self, now: SystemTime, until: SystemTime) -> Result<Recovered, SpoolError> {
        let mut recovered =
            self.shared.writer.write(ops::Renew { node: self.node, now, until, doubted: self.shared.doubted.clone() }).await?;
        recovered.set_aside = std::mem::take(&mut *self.shared.set_aside.lock());
        Ok(recovered)
    }

    async fn quota_use(&self, quota: &str) -> Result<Vec<QuotaUse>, SpoolError> {
        let (name, waiting) = (quota.to_owned(), self.shared.limits.waiting(quota));
        let stored = self.shared.reader.read(move |db| quotas::stored(db, &name).map_err(|error| error::sql(&error))).await?;
        Ok(quotas::latest(stored, waiting))
    }

    fn use_quota(&self, quota: &str, of: QuotaUse, since: u64) {
        self.shared.limits.add(quota, of, since);
    }

    async fn remember(&self, key: &str, value: Option<String>) -> Result<(), SpoolError> {
        self.shared.writer.write(notes::Remember { key: key.to_owned(), value }).await
    }

    async fn recall(&self, prefix: &str) -> Result<Vec<(String, String)>, SpoolError> {
        let prefix = prefix.to_owned();
        self.shared.reader.read(move |db| notes::recall(db, &prefix).map_err(|error| error::sql(&error))).await
    }

    async fn journal(&self, after: u64, limit: usize) -> Result<Vec<(u64, String)>, SpoolError> {
        self.shared.reader.read(move |db| notes::journal(db, after, limit).map_err(|error| error::sql(&error))).await
    }

    async fn journal_length(&self) -> Result<u64, SpoolError> {
        let forgotten = self.shared.forgotten.last();
        self.shared.reader.read(move |db| notes::journal_length(db, forgotten).map_err(|error| error::sql(&error))).await
    }

    async fn forget_journal(&self, last: u64) -> Result<(), SpoolError> {
        self.shared.forgotten.up_to(last);
        Ok(())
    }

    async fn note(&self, record: String) -> Result<(), SpoolError> {
        self.shared.writer.write(notes::Note { record }).await
    }

    async fn summary(&self) -> Result<Summary, SpoolError> {
        self.shared.clerk.read(|db| listing::asked(listing::summary(db))).await
    }

    async fn list(&self, filter: &Filter, now: SystemTime, after: Option<MessageId>, limit: usize) -> Result<Vec<Listed>, SpoolError> {
        let filter = filter.clone();
        self.shared.clerk.read(move |db| listing::asked(listing::list(db, &filter, now, after, limit))).await
    }

    async fn ids(&self, filter: &Filter, now: SystemTime, after: Option<MessageId>, limit: usize) -> Result<Vec<MessageId>, SpoolError> {
        let filter = filter.clone();
        self.shared.clerk.read(move |db| listing::asked(listing::ids(db, &filter, now, after, limit))).await
    }

    async fn count(&self, filter: &Filter, now: SystemTime) -> Result<u64, SpoolError> {
        let filter = filter.clone();
        self.shared.clerk.read(move |db| listing::asked(listing::count(db, &filter, now))).await
    }

    async fn read(&self, id: MessageId) -> Result<Option<(Stored, Listed)>, SpoolError> {
        let bodies = self.shared.layout.bodies();
        self.shared.clerk.read(move |db| listing::read(db, &bodies, id)).await
    }

    async fn act(&self, targets: Vec<Target>, action: Action, now: SystemTime) -> Result<Vec<Done>, SpoolError> {
        let bodies = self.shared.layout.bodies();
        self.shared.writer.write(actions::Act { node: self.node, targets, action, now, bodies }).await
    }

    async fn take(&self, id: MessageId) -> Result<Result<Stored, Done>, SpoolError> {
        let mut leases = self.leases(Vec::new());
        let leased = Arc::clone(&leases.ids);
        if let Err(instead) = self.shared.writer.write(actions::Take { node: self.node, id, leased }).await? {
            leases.kept = true;
            return Ok(Err(instead));
        }
        let stored = self.read(id).await?;
        leases.kept = true;
        Ok(stored.map(|(stored, _)| stored).ok_or(Done::Gone))
    }

    async fn counts(&self) -> Result<SpoolCounts, SpoolError> {
        let count = |db: &rusqlite::Connection| -> rusqlite::Result<SpoolCounts> {
            // In one statement, so that they are of one moment.
            db.query_row(
                "SELECT (SELECT count(*) FROM messages WHERE owner IS NULL AND due IS NOT NULL), \
                        (SELECT count(*) FROM messages WHERE owner IS NULL AND due IS NULL), \
                        (SELECT count(*) FROM messages WHERE owner IS NULL AND due IS NULL \
                          AND EXISTS (SELECT 1 FROM recipients WHERE message = messages.id AND state = 'dead')), \
                        (SELECT count(*) FROM messages WHERE owner IS NOT NULL AND owner > 0)",
                [],
                |row| {
                    let count = |column| row.get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or(0));
                    let (waiting, held, dead, leased) = (count(0)?, count(1)?, count(2)?, count(3)?);
                    Ok(SpoolCounts { messages: waiting + held + leased, waiting, held, dead })
                },
            )
        };
        self.shared.reader.read(move |db| count(db).map_err(|error| error::sql(&error))).await
    }

    async fn check(&self) -> Result<(), SpoolError> {
        self.shared.writer.write(ops::Probe { at: SystemTime::now() }).await
    }

    async fn failure(&self) -> String {
        self.shared.fallen.why().await
    }

    async fn close(&self, timeout: Duration) -> Result<(), SpoolError> {
        let close = async {
            self.shared.writer.write(ops::Leave { node: self.node, doubted: self.shared.doubted.clone() }).await?;
            let shared = Arc::clone(&self.shared);
            tokio::task::spawn_blocking(move || shared.end())
                .await
                .map_err(|error| SpoolError::Unavailable(format!("closing the spool: {error}")))
        };
        tokio::time::timeout(timeout, close).await.unwrap_or_else(|_| {
            let words = format!("the spool was not closed within {timeout:?}; what it acknowledged is safe all the same");
            Err(SpoolError::Unavailable(words))
        })
    }
}
