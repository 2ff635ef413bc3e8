//! What a person sees of the queue, and does to it.

mod job;

use std::collections::HashMap;
use std::time::SystemTime;

use futures_util::future::join_all;
use postrider_providers::contract::{Body, Diagnostic, EnhancedStatus, MessageId, RecipientIndex};
use tracing::info;

pub(super) use job::Jobs;
pub use job::{JobId, JobState, Progress};

use super::window::{Entry, Window};
use super::{Disposition, Lease, Queue, WaitReason};
use crate::history::Record;
use crate::history::event::{About, Event, millis};
use crate::spool::action::{Action, Done, Target};
use crate::spool::filter::Filter;
use crate::spool::view::{Listed, Summary};
use crate::spool::{Spool, SpoolError, Stored};

/// How many messages are bounced at the same time: their settlements share a commit.
const AT_ONCE: usize = 32;

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
        let (queue, by) = (self.clone(), by.to_owned());
        // In a task of its own: what was taken out of the window must not be lost with whoever asked.
        let acting = tokio::spawn(async move { queue.act_on(&[id], &action, &by).await });
        match acting.await {
            Ok(done) => Ok(done?.pop().unwrap_or(Done::Gone)),
            Err(error) => Err(SpoolError::Unavailable(format!("acting on message {id}: {error}"))),
        }
    }

    /// Does `action` to a piece of messages; what came of each, in their order. It has to be driven to its
    /// end.
    async fn act_on(&self, ids: &[MessageId], action: &Action, by: &str) -> Result<Vec<Done>, SpoolError> {
        if let Action::Bounce(words) = action {
            return self.bounce(ids, action, words, by).await;
        }
        let shared = &self.0;
        let now = shared.clock.now();
        let ended = matches!(action, Action::Remove | Action::Discard);
        let mut about = match action {
            Action::Remove | Action::Discard | Action::Readdress { .. } => self.about(ids, now).await?,
            _ => HashMap::new(),
        };
        let mut expelled = Expelled::take(&shared.window, ids);
        let target = |&id: &MessageId| Target {
            id,
            record: record(id, action, by, now, about.remove(&id), ended).to_json(),
            handed_over: expelled.entries.contains_key(&id),
        };
        let targets = ids.iter().map(target).collect();
        let done = shared.spool.act(targets, action.clone(), now).await?;
        for (id, _) in ids.iter().zip(&done).filter(|(_, done)| **done == Done::Done) {
            // Its lease has ended. What is left goes back to where it was.
            if let Some(entry) = expelled.entries.remove(id) {
                shared.window.finish(entry);
            }
        }
        if done.contains(&Done::Done) {
            info!(
                action = action.name(),
                by,
                messages = done.iter().filter(|done| **done == Done::Done).count(),
                "a person acted on the queue"
            );
            shared.poke.notify_one();
        }
        Ok(done)
    }

    /// Gives messages up with settlements of their own, a few at a time.
    async fn bounce(&self, ids: &[MessageId], action: &Action, words: &str, by: &str) -> Result<Vec<Done>, SpoolError> {
        let mut done = Vec::with_capacity(ids.len());
        for some in ids.chunks(AT_ONCE) {
            for one in join_all(some.iter().map(|id| self.bounce_one(*id, action, words, by))).await {
                done.push(one?);
            }
        }
        info!(
            action = action.name(),
            by,
            messages = done.iter().filter(|done| **done == Done::Done).count(),
            "a person acted on the queue"
        );
        Ok(done)
    }

    async fn bounce_one(&self, id: MessageId, action: &Action, words: &str, by: &str) -> Result<Done, SpoolError> {
        let shared = &self.0;
        let entry = match shared.window.take(id) {
            Some(entry) => entry,
            None => match shared.spool.take(id).await? {
                Ok(stored) => {
                    let lane = shared.lanes.of(&stored);
                    shared.window.lend(stored, lane)
                }
                Err(instead) => return Ok(instead),
            },
        };
        let lease = Lease::new(self.clone(), entry);
        let why = Diagnostic { status: Some(EnhancedStatus(5, 0, 0)), ..Diagnostic::local(words) };
        let left = (0..).map(RecipientIndex).zip(&lease.stored().recipients).filter(|(_, state)| !state.is_final());
        let dispositions = left.map(|(index, _)| (index, Disposition::Bounced(why.clone()))).collect();
        let record = record(id, action, by, shared.clock.now(), None, false).to_json();
        lease.settle_and_note(dispositions, false, vec![record]).await;
        Ok(Done::Done)
    }

    /// What the history is to know of messages that leave the queue, or change.
    async fn about(&self, ids: &[MessageId], now: SystemTime) -> Result<HashMap<MessageId, About>, SpoolError> {
        let listed = self.0.spool.list(&Filter::of_ids(ids.to_vec()), now, None, ids.len()).await?;
        Ok(listed.into_iter().map(|listed| (listed.id, about(&listed))).collect())
    }
}

/// Messages that were taken out of the window; those that are still here when it is dropped go back.
struct Expelled<'w> {
    window: &'w Window,
    entries: HashMap<MessageId, Entry>,
}

impl<'w> Expelled<'w> {
    fn take(window: &'w Window, ids: &[MessageId]) -> Self {
        Self { window, entries: ids.iter().filter_map(|id| Some((*id, window.take(*id)?))).collect() }
    }
}

impl Drop for Expelled<'_> {
    fn drop(&mut self) {
        for (_, entry) in self.entries.drain() {
            self.window.put_back(entry);
        }
    }
}

/// What the history is told of an action.
fn record(id: MessageId, action: &Action, by: &str, now: SystemTime, mut about: Option<About>, ended: bool) -> Record {
    let words = match action {
        Action::Bounce(words) => words.clone(),
        Action::Reroute(route) => route.to_string(),
        Action::Readdress { from, to } => {
            let recipients = about.iter_mut().flat_map(|about| &mut about.recipients);
            recipients.filter(|address| address.eq_ignore_ascii_case(from.as_str())).for_each(|address| to.as_str().clone_into(address));
            format!("{from} -> {to}")
        }
        Action::Retry | Action::Hold | Action::Release | Action::Remove | Action::Discard => String::new(),
    };
    let event = Event::Action { action: action.name().to_owned(), words, by: by.to_owned() };
    Record { at: millis(now), message: id.to_string(), about, events: vec![event], ended }
}

fn about(listed: &Listed) -> About {
    About {
        received: millis(listed.received),
        sender: listed.sender.clone().unwrap_or_default(),
        recipients: listed.recipients.iter().map(|recipient| recipient.address.clone()).collect(),
        message_id: listed.message_id.clone(),
        size: listed.size,
        application: listed.application.clone(),
        client: listed.client.map(|client| client.to_string()),
    }
}

#[cfg(test)]
mod tests;
