//! Removes dead letters that nobody wanted for as long as they are kept.

use std::time::Duration;

use postrider_providers::contract::MessageId;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::Queue;
use crate::spool::action::{Action, Done};
use crate::spool::filter::{Filter, Term};
use crate::spool::view::{Listed, QueueState};
use crate::spool::{RecipientState, Spool, SpoolError};

/// How often to look. They are kept for days.
const EVERY: Duration = Duration::from_secs(3600);

/// How many are looked at together.
const PIECE: usize = 100;

/// Whose doing it is, in the history.
const BY: &str = "bounce.keep_dead_letters";

/// Looks now and then, for ever.
pub(super) async fn run<S: Spool>(queue: &Queue<S>) {
    loop {
        sleep_until(Instant::now() + EVERY).await;
        if let Err(error) = remove_old(queue).await {
            warn!(%error, "dead letters could not be looked through; trying again in an hour");
        }
    }
}

/// Removes all that are too old, a few at a time.
pub(super) async fn remove_old<S: Spool>(queue: &Queue<S>) -> Result<(), SpoolError> {
    let filter = Filter { terms: vec![Term::State(vec![QueueState::Dead]), Term::Older(queue.0.settings.load().bounce.keep_dead_letters)] };
    let mut after: Option<MessageId> = None;
    loop {
        let found = queue.list(&filter, after, PIECE).await?;
        let Some(last) = found.last() else { return Ok(()) };
        after = Some(last.id);
        for dead in found.iter().filter(|listed| is_only_dead(listed)) {
            // Somebody may have released it since it was listed; the store looks again.
            if queue.act(dead.id, Action::Discard, BY).await? == Done::Done {
                let sender = dead.sender.as_deref().unwrap_or("<>");
                warn!(message_id = %dead.id, sender, "a dead letter was removed: nobody wanted it for bounce.keep_dead_letters");
            }
        }
    }
}

/// Whether nothing else is left of it. What waits for somebody, or was held by a person, stays.
fn is_only_dead(listed: &Listed) -> bool {
    let is_done = |state: &RecipientState| state.is_final() || *state == RecipientState::Dead;
    listed.held_at.is_none() && listed.recipients.iter().all(|recipient| is_done(&recipient.state))
}
