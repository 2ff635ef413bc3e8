//! An action on many messages, in the background, a few hundred at a time.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

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
