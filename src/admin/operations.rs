//! What the API does its work with, over whichever store: the queue, the dispatcher, the history, and a
//! word with whoever owns the gateway.
//!
//! The handlers are not generic, so that each is one entry of the OpenAPI document; this is where the store's
//! type ends.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use postrider_providers::contract::{Body, MessageId};
use tokio::sync::{mpsc, oneshot};

use crate::dispatch::control::{Pause, Pin};
use crate::dispatch::explain::{Explanation, Imagined};
use crate::dispatch::{Command, ControlError, Dispatcher, ProviderStatus};
use crate::history::{History, HistoryError, Moment, Past, Query, Trace};
use crate::queue::{Found, JobId, Progress, Queue};
use crate::spool::action::{Action, Done};
use crate::spool::filter::Filter;
use crate::spool::view::{Listed, Summary};
use crate::spool::{Spool, SpoolError};

/// The queue, the dispatcher and the history, without the type of their store. What each does is said there.
pub(crate) trait Operations: Send + Sync + 'static {
    fn summary(&self) -> BoxFuture<'_, Result<Summary, SpoolError>>;
    fn list<'a>(&'a self, filter: &'a Filter, after: Option<MessageId>, limit: usize) -> BoxFuture<'a, Result<Vec<Listed>, SpoolError>>;
    fn count<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<u64, SpoolError>>;
    fn find(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Found>, SpoolError>>;
    fn export(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Body>, SpoolError>>;
    fn act<'a>(&'a self, id: MessageId, action: Action, by: &'a str) -> BoxFuture<'a, Result<Done, SpoolError>>;
    fn explain(&self, id: MessageId) -> BoxFuture<'_, Result<Option<(Found, Explanation)>, SpoolError>>;
    fn explain_imagined(&self, imagined: Imagined) -> BoxFuture<'_, Explanation>;
    fn start_job(&self, filter: Filter, action: Action, by: &str) -> JobId;
    fn job(&self, id: JobId) -> Option<Progress>;
    fn jobs(&self) -> Vec<Progress>;
    fn cancel_job(&self, id: JobId) -> bool;
    fn providers(&self) -> Vec<ProviderStatus>;
    fn pauses(&self) -> Vec<Pause>;
    fn pins(&self) -> Vec<Pin>;
    fn control<'a>(&'a self, command: Command, by: &'a str) -> BoxFuture<'a, Result<String, ControlError>>;
    fn search<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Vec<Past>, HistoryError>>;
    fn trace(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Trace>, HistoryError>>;
    fn actions(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Moment>, HistoryError>>;
}

/// What a person wants of the gateway as a whole. Whoever owns it follows.
#[derive(Debug)]
pub enum Order {
    /// Read the config again, and take it into use.
    Reload {
        /// Who wants it.
        by: String,
        /// Hears what has changed, or why nothing has.
        answer: oneshot::Sender<Result<Vec<String>, String>>,
    },
    /// Finish what is at hand, and end.
    Drain {
        /// Who wants it.
        by: String,
    },
}

/// What came of reloads so far.
#[derive(Debug, Clone)]
pub struct LastReload {
    /// How many configs were taken into use, the one at the start included.
    pub generation: u64,
    /// When the one in use was.
    pub taken: SystemTime,
    /// When the last reload failed and why, if none has succeeded since.
    pub failure: Option<(SystemTime, Arc<str>)>,
}

/// Where orders go in.
pub(crate) type Orders = mpsc::Sender<Order>;

/// The real thing.
pub(crate) struct Parts<S: Spool> {
    pub(crate) queue: Queue<S>,
    pub(crate) dispatcher: Arc<Dispatcher<S>>,
    pub(crate) history: History,
}

impl<S: Spool> Operations for Parts<S> {
    fn summary(&self) -> BoxFuture<'_, Result<Summary, SpoolError>> {
        Box::pin(self.queue.summary())
    }

    fn list<'a>(&'a self, filter: &'a Filter, after: Option<MessageId>, limit: usize) -> BoxFuture<'a, Result<Vec<Listed>, SpoolError>> {
        Box::pin(self.queue.list(filter, after, limit))
    }

    fn count<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<u64, SpoolError>> {
        Box::pin(self.queue.count(filter))
    }

    fn find(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Found>, SpoolError>> {
        Box::pin(self.queue.find(id))
    }

    fn export(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Body>, SpoolError>> {
        Box::pin(self.queue.export(id))
    }

    fn act<'a>(&'a self, id: MessageId, action: Action, by: &'a str) -> BoxFuture<'a, Result<Done, SpoolError>> {
        Box::pin(self.queue.act(id, action, by))
    }

    fn explain(&self, id: MessageId) -> BoxFuture<'_, Result<Option<(Found, Explanation)>, SpoolError>> {
        Box::pin(self.dispatcher.explain(id))
    }

    fn explain_imagined(&self, imagined: Imagined) -> BoxFuture<'_, Explanation> {
        Box::pin(self.dispatcher.explain_imagined(imagined))
    }

    fn start_job(&self, filter: Filter, action: Action, by: &str) -> JobId {
        self.queue.start_job(filter, action, by)
    }

    fn job(&self, id: JobId) -> Option<Progress> {
        self.queue.job(id)
    }

    fn jobs(&self) -> Vec<Progress> {
        self.queue.jobs()
    }

    fn cancel_job(&self, id: JobId) -> bool {
        self.queue.cancel_job(id)
    }

    fn providers(&self) -> Vec<ProviderStatus> {
        self.dispatcher.providers()
    }

    fn pauses(&self) -> Vec<Pause> {
        self.dispatcher.pauses()
    }

    fn pins(&self) -> Vec<Pin> {
        self.dispatcher.pins()
    }

    fn control<'a>(&'a self, command: Command, by: &'a str) -> BoxFuture<'a, Result<String, ControlError>> {
        Box::pin(self.dispatcher.control(command, by))
    }

    fn search<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Vec<Past>, HistoryError>> {
        Box::pin(self.history.search(query))
    }

    fn trace(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Trace>, HistoryError>> {
        Box::pin(self.history.trace(id))
    }

    fn actions(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Moment>, HistoryError>> {
        Box::pin(self.history.actions(limit))
    }
}
