//! Moves what happened from the spool's journal into the history, in the background.
//!
//! The journal is the truth until a batch is on stable storage here; then it may forget the batch. Where that
//! is lost in a crash, the batch comes again and is recognised by its numbers.

use std::sync::Arc;
use std::time::Duration;

use postrider_providers::contract::MessageId;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::event::millis;
use super::records::{last, signed, take_over};
use super::store::{Database, Fault};
use super::{History, Location, prune};
use crate::spool::{Spool, SpoolError};

/// So many records are moved at once.
const BATCH: usize = 500;

/// A batch of so many octets may be a part of what there is, too.
const LARGE: usize = 1 << 20;

/// How long what has just happened is left to gather, so that a batch costs one fsync and not each message.
const GATHER: Duration = Duration::from_millis(250);

/// The longest sleep.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The same where nothing is on disk, and where tests turn days into moments.
const LOOK_AGAIN_IN_MEMORY: Duration = Duration::from_secs(60);

/// How long what is left may take at the end.
const LAST_BATCHES: Duration = Duration::from_secs(2);

/// How many records may wait when they cannot be moved.
pub(super) const JOURNAL_MAX: u64 = 200_000;

/// So many of the oldest are dropped at once beyond that.
const DROPPED: u64 = 2_000;

/// Under which key the spool keeps its name.
const SPOOL_NAME: &str = "history/spool";

/// How often it is said again that the history cannot be written.
const SAY_AGAIN: Duration = Duration::from_secs(300);

/// The indexer's own state.
struct Indexer<'a, S> {
    history: &'a History,
    spool: S,
    /// The spool by a name of its own, and how far it has been taken over; known once the history is open.
    position: Option<(String, u64)>,
    /// When trouble was reported.
    reported: Option<Instant>,
    /// How far the journal was dropped without having been taken over.
    dropped: u64,
}

pub(super) async fn run<S: Spool>(history: &History, spool: S, hint: Arc<Notify>, stop: CancellationToken) {
    let mut indexer = Indexer { history, spool, position: None, reported: None, dropped: 0 };
    let look_again = match history.0.place {
        Location::File(_) => LOOK_AGAIN,
        Location::Memory => LOOK_AGAIN_IN_MEMORY,
    };
    loop {
        match indexer.step().await {
            Ok(true) if !stop.is_cancelled() => {
                tokio::task::yield_now().await;
                continue;
            }
            Ok(_) => {}
            Err(SpoolError::Closed) => break,
            Err(error) => indexer.trouble(&error.to_string()),
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(look_again) => {}
            () = hint.notified() => {
                tokio::select! { () = stop.cancelled() => break, () = sleep(GATHER) => {} }
            }
        }
    }
    let rest = async { while matches!(indexer.step().await, Ok(true)) {} };
    if timeout(LAST_BATCHES, rest).await.is_err() {
        info!("not all that happened is in the history yet; the rest follows at the next start");
    }
    history.close().await;
}

/// Whether there may be more than that.
fn is_full(records: &[(u64, String)]) -> bool {
    records.len() == BATCH || records.iter().map(|(_, record)| record.len()).sum::<usize>() > LARGE
}

/// What stands in the way.
enum Trouble {
    Spool(SpoolError),
    History(Fault),
}

impl From<SpoolError> for Trouble {
    fn from(error: SpoolError) -> Self {
        Self::Spool(error)
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::History(fault)
    }
}

impl<S: Spool> Indexer<'_, S> {
    /// Moves one batch and prunes a little. Says whether there is more to do.
    async fn step(&mut self) -> Result<bool, SpoolError> {
        let settings = *self.history.settings();
        let Some(keep) = settings.keep else { return self.discard().await };
        match self.work(keep, settings.max_size).await {
            Ok(more) => {
                if self.reported.take().is_some() {
                    info!("the history is written again");
                }
                Ok(more)
            }
            Err(Trouble::Spool(error)) => Err(error),
            Err(Trouble::History(fault)) => {
                self.position = None;
                self.trouble(&fault.to_string());
                if let Fault::Useless(why) = fault {
                    self.history.begin_anew(why).await;
                }
                self.bound().await?;
                Ok(false)
            }
        }
    }

    async fn work(&mut self, keep: Duration, max_size: u64) -> Result<bool, Trouble> {
        let database = self.history.open().await?;
        let (name, last) = self.position(&database).await?;
        let records = self.spool.journal(last, BATCH).await?;
        let more = is_full(&records);
        if !records.is_empty() {
            let spool = name.clone();
            let last = database.write(move |db| take_over(db, &spool, &records)).await?;
            self.position = Some((name, last));
            self.spool.forget_journal(last).await?;
        }
        let now = self.history.0.clock.now();
        let before = now.checked_sub(keep).map_or(0, millis);
        Ok(database.write(move |db| prune::prune(db, signed(before), max_size)).await? || more)
    }

    /// The spool's name, and how far it has been taken over.
    async fn position(&mut self, database: &Arc<Database>) -> Result<(String, u64), Trouble> {
        if let Some(position) = &self.position {
            return Ok(position.clone());
        }
        let noted = self.spool.recall(SPOOL_NAME).await?.into_iter().find(|(key, _)| key == SPOOL_NAME);
        let name = match noted {
            Some((_, name)) => name,
            // Numbers begin again in a spool that is new, and must not be taken for those of the one before.
            None => {
                let name = format!("\"{}\"", MessageId::generate());
                self.spool.remember(SPOOL_NAME, Some(name.clone())).await?;
                name
            }
        };
        let of_spool = name.clone();
        let last = database.write(move |db| last(db, &of_spool)).await?;
        // What was taken over, and not forgotten before the process ended.
        if last > 0 {
            self.spool.forget_journal(last).await?;
        }
        self.position = Some((name.clone(), last));
        Ok((name, last))
    }

    /// Forgets what is in the journal all the same, where no history is kept.
    async fn discard(&mut self) -> Result<bool, SpoolError> {
        if self.position.take().is_some() {
            self.history.close().await;
        }
        let records = self.spool.journal(self.dropped, BATCH).await?;
        if let Some((last, _)) = records.last() {
            self.dropped = *last;
            self.spool.forget_journal(*last).await?;
        }
        Ok(is_full(&records))
    }

    /// Drops the oldest records when too many wait: the spool's disk is for mail.
    async fn bound(&mut self) -> Result<(), SpoolError> {
        while let Some((first, _)) = self.spool.journal(self.dropped, 1).await?.first() {
            if self.spool.journal(first + self.history.0.journal_max - 1, 1).await?.is_empty() {
                break;
            }
            self.dropped = first + DROPPED.min(self.history.0.journal_max) - 1;
            self.spool.forget_journal(self.dropped).await?;
            error!(records = self.dropped + 1 - first, "the history cannot be written, and the oldest of what waits for it is dropped");
        }
        Ok(())
    }

    /// Says what stands in the way, now and then.
    fn trouble(&mut self, why: &str) {
        if self.reported.is_none_or(|when| when.elapsed() >= SAY_AGAIN) {
            self.reported = Some(Instant::now());
            warn!(why, "the history cannot be written; mail goes on, and what happens waits in the spool");
        }
    }
}
