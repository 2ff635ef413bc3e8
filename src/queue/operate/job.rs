//! An action on many messages, in the background, a few hundred at a time.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postrider_providers::contract::MessageId;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::queue::Queue;
use crate::spool::action::{Action, Done};
use crate::spool::filter::Filter;
use crate::spool::{Spool, SpoolError};

/// How many messages are acted on in one transaction; between two of them the writer is free for others.
const PIECE: usize = 250;

/// How many jobs are known: those that have ended make room for new ones, the oldest first.
const KNOWN: usize = 50;

/// Messages that were being attempted are tried again so many times,
const AGAIN: u32 = 5;
/// at these intervals,
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// as far as there are no more of them than this.
const MOST_BUSY: usize = 20_000;

/// The number of a job, since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It works.
    Running,
    /// It has gone through all that the filter means.
    Finished,
    /// A person ended it.
    Cancelled,
    /// The spool failed, in words; what was done stays done.
    Failed(String),
}

impl JobState {
    /// The name, as in JSON.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
            Self::Failed(_) => "failed",
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Its number.
    pub id: JobId,
    /// Where it stands.
    pub state: JobState,
    /// What it does, by the name of the action.
    pub action: &'static str,
    /// The filter, as text.
    pub filter: Arc<str>,
    /// Who started it.
    pub by: Arc<str>,
    /// When it was started.
    pub started: SystemTime,
    /// When it ended.
    pub ended: Option<SystemTime>,
    /// Messages that the filter meant when the job began; `None` until they are counted.
    pub expected: Option<u64>,
    /// Messages that it has come to so far.
    pub matched: u64,
    /// Those of them to which it was done,
    pub done: u64,
    /// which were being attempted each time,
    pub busy: u64,
    /// to which it did not apply,
    pub refused: u64,
    /// and which had left the queue.
    pub gone: u64,
    /// Why it did not apply to the first that refused.
    pub first_refusal: Option<String>,
}

/// The jobs of a queue.
#[derive(Debug, Default)]
pub(in crate::queue) struct Jobs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    last: u64,
    /// Oldest first.
    jobs: VecDeque<Job>,
}

#[derive(Debug)]
struct Job {
    progress: Progress,
    cancelled: CancellationToken,
}

impl Jobs {
    fn add(&self, progress: impl FnOnce(JobId) -> Progress) -> (JobId, CancellationToken) {
        let mut known = self.0.lock();
        known.last += 1;
        let (id, cancelled) = (JobId(known.last), CancellationToken::new());
        known.jobs.push_back(Job { progress: progress(id), cancelled: cancelled.clone() });
        while known.jobs.len() > KNOWN
            && let Some(oldest) = known.jobs.iter().position(|job| job.progress.state != JobState::Running)
        {
            known.jobs.remove(oldest);
        }
        (id, cancelled)
    }

    fn update(&self, id: JobId, change: impl FnOnce(&mut Progress)) {
        if let Some(job) = self.0.lock().jobs.iter_mut().find(|job| job.progress.id == id) {
            change(&mut job.progress);
        }
    }
}

impl<S: Spool> Queue<S> {
    /// Begins to do `action` to all messages that `filter` means now, in the background, for `by`. It has
    /// to be called within a runtime.
    #[must_use]
    pub fn start_job(&self, filter: Filter, action: Action, by: &str) -> JobId {
        let (started, by): (_, Arc<str>) = (self.0.clock.now(), by.into());
        let (id, cancelled) = self.0.jobs.add(|id| Progress {
            id,
            state: JobState::Running,
            action: action.name(),
            filter: filter.to_string().into(),
            by: Arc::clone(&by),
            started,
            ended: None,
            expected: None,
            matched: 0,
            done: 0,
            busy: 0,
            refused: 0,
            gone: 0,
            first_refusal: None,
        });
        info!(job = id.0, action = action.name(), %filter, %by, "a job on the queue begins");
        let queue = self.clone();
        tokio::spawn(async move {
            let state = match queue.work(id, &filter, &action, &by, started, &cancelled).await {
                Ok(()) if cancelled.is_cancelled() => JobState::Cancelled,
                Ok(()) => JobState::Finished,
                Err(error) => {
                    warn!(job = id.0, %error, "a job on the queue failed");
                    JobState::Failed(error.to_string())
                }
            };
            let ended = queue.0.clock.now();
            queue.0.jobs.update(id, |progress| {
                info!(job = id.0, state = state.as_str(), done = progress.done, "a job on the queue has ended");
                (progress.state, progress.ended) = (state, Some(ended));
            });
        });
        id
    }

    /// How far a job is; `None` if there was none, or it was too long ago.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<Progress> {
        self.0.jobs.0.lock().jobs.iter().find(|job| job.progress.id == id).map(|job| job.progress.clone())
    }

    /// The jobs that are under way and the last ones that ended, newest first.
    #[must_use]
    pub fn jobs(&self) -> Vec<Progress> {
        self.0.jobs.0.lock().jobs.iter().rev().map(|job| job.progress.clone()).collect()
    }

    /// Ends a job before its time: what is done stays done. Says whether it was under way.
    #[must_use]
    pub fn cancel_job(&self, id: JobId) -> bool {
        let known = self.0.jobs.0.lock();
        let running = known.jobs.iter().find(|job| job.progress.id == id && job.progress.state == JobState::Running);
        running.inspect(|job| job.cancelled.cancel()).is_some()
    }

    /// Goes through all that `filter` meant when the job began.
    async fn work(
        &self,
        id: JobId,
        filter: &Filter,
        action: &Action,
        by: &str,
        started: SystemTime,
        cancelled: &CancellationToken,
    ) -> Result<(), SpoolError> {
        let (spool, jobs) = (&self.0.spool, &self.0.jobs);
        // Ids sort by time: what arrives from here on is not meant.
        let last = MessageId::generate();
        let expected = spool.count(filter, started).await?;
        jobs.update(id, |progress| progress.expected = Some(expected));
        let (mut after, mut busy) = (None, Vec::new());
        while !cancelled.is_cancelled() {
            let mut ids = spool.ids(filter, started, after, PIECE).await?;
            let Some(&furthest) = ids.last() else { break };
            after = Some(furthest);
            ids.retain(|id| *id <= last);
            let done = self.act_on(&ids, action, by).await?;
            let came_busy = ids.iter().zip(&done).filter(|(_, done)| **done == Done::Busy).map(|(id, _)| *id);
            busy.extend(came_busy.take(MOST_BUSY.saturating_sub(busy.len())));
            jobs.update(id, |progress| {
                progress.matched += ids.len() as u64;
                done.into_iter().for_each(|done| progress.count(done));
            });
            if furthest > last {
                break;
            }
        }
        for _ in 0..AGAIN {
            if busy.is_empty() {
                break;
            }
            tokio::select! {
                () = cancelled.cancelled() => break,
                () = tokio::time::sleep(AGAIN_AFTER) => {}
            }
            let mut still_busy = Vec::new();
            for ids in busy.chunks(PIECE) {
                let done = self.act_on(ids, action, by).await?;
                still_busy.extend(ids.iter().zip(&done).filter(|(_, done)| **done == Done::Busy).map(|(id, _)| *id));
                jobs.update(id, |progress| {
                    progress.busy = progress.busy.saturating_sub(ids.len() as u64);
                    done.into_iter().for_each(|done| progress.count(done));
                });
            }
            busy = still_busy;
        }
        Ok(())
    }
}

impl Progress {
    fn count(&mut self, done: Done) {
        match done {
            Done::Done => self.done += 1,
            Done::Busy => self.busy += 1,
            Done::Gone => self.gone += 1,
            Done::Refused(why) => {
                self.refused += 1;
                self.first_refusal.get_or_insert(why);
            }
        }
    }
}
