//! From what an attempt brought to what is written down: states, the next time, the notification.

use std::sync::Arc;
use std::time::SystemTime;

use postrider_providers::contract::{Diagnostic, Message, RecipientIndex};
use tracing::{error, info, warn};

use super::{Disposition, Settings};
use crate::bounce::{self, Failed};
use crate::spool::{RecipientState, Settlement, Stored};

/// What an attempt comes to, recipient by recipient.
struct Conclusion<'a> {
    message: &'a Message,
    now: SystemTime,
    attempts: u32,
    changes: Vec<(RecipientIndex, RecipientState, String)>,
    failed: Vec<Failed<'a>>,
    due: Option<SystemTime>,
}

/// Applies the retry schedule, composes the notification, and logs each recipient's fate in a line.
pub(super) async fn conclude(
    stored: &Stored,
    settings: &Settings,
    now: SystemTime,
    dispositions: Vec<(RecipientIndex, Disposition)>,
    asked: bool,
    retry_at: Option<SystemTime>,
) -> Settlement {
    let message = &*stored.message;
    let attempts = stored.attempts + u32::from(asked);
    let scheduled = settings.retry.next(message.received, attempts, now).map(|next| next.max(retry_at.unwrap_or(next)));
    let mut conclusion = Conclusion { message, now, attempts, changes: Vec::new(), failed: Vec::new(), due: None };
    for (index, disposition) in dispositions {
        let Some(state) = stored.recipients.get(index.0 as usize).cloned() else { continue };
        match disposition {
            Disposition::Waiting(until, why) => {
                let next = (!settings.retry.is_expired(message.received, now)).then_some(until);
                conclusion.keep(index, state, why, next);
            }
            Disposition::Deferred(why) => conclusion.keep(index, state, why, scheduled),
            Disposition::InDoubt { provider, diagnostic, hold: false } => {
                warn!(
                    message_id = %message.id, to = conclusion.address(index), %provider, reason = %diagnostic,
                    "in doubt: the same provider is asked again, which may send a second copy"
                );
                conclusion.keep(index, RecipientState::InDoubt(provider), diagnostic, scheduled);
            }
            ended => conclusion.end(index, ended),
        }
    }
    conclusion.settlement(settings).await
}

impl<'a> Conclusion<'a> {
    fn address(&self, index: RecipientIndex) -> &'a str {
        self.message.envelope.recipients[index.0 as usize].address.as_str()
    }

    /// The recipient stays open until `next`; without a next time it is given up.
    fn keep(&mut self, index: RecipientIndex, state: RecipientState, why: Diagnostic, next: Option<SystemTime>) {
        let Some(next) = next else {
            error!(message_id = %self.message.id, to = self.address(index), reason = %why, "expired: it waited as long as queue.expire_after allows");
            return self.fail(index, RecipientState::Expired, why);
        };
        self.due = Some(self.due.map_or(next, |due| due.min(next)));
        let next_try_in_seconds = next.duration_since(self.now).unwrap_or_default().as_secs();
        info!(message_id = %self.message.id, to = self.address(index), reason = %why, attempt = self.attempts, next_try_in_seconds, "deferred");
        self.changes.push((index, state, why.to_string()));
    }

    /// Nothing is left to do for the recipient, or only for a person.
    fn end(&mut self, index: RecipientIndex, disposition: Disposition) {
        let (id, to) = (self.message.id, self.address(index));
        match disposition {
            Disposition::Relayed(provider, receipt) => {
                let remote_id = receipt.remote_id.as_deref().unwrap_or("-");
                info!(message_id = %id, to, %provider, remote_id, reply = %receipt.reply, attempt = self.attempts, "relayed");
                self.changes.push((index, RecipientState::Relayed, receipt.reply));
            }
            Disposition::InDoubt { provider, diagnostic, .. } => {
                warn!(message_id = %id, to, %provider, reason = %diagnostic, "held: in doubt, and the route holds");
                self.changes.push((index, RecipientState::Held(provider), diagnostic.to_string()));
            }
            Disposition::Bounced(why) | Disposition::Deferred(why) | Disposition::Waiting(_, why) => {
                warn!(message_id = %id, to, reason = %why, attempt = self.attempts, "bounced");
                self.fail(index, RecipientState::Bounced, why);
            }
        }
    }

    fn fail(&mut self, index: RecipientIndex, state: RecipientState, diagnostic: Diagnostic) {
        let expired = state == RecipientState::Expired;
        self.changes.push((index, state, diagnostic.to_string()));
        self.failed.push(Failed { recipient: &self.message.envelope.recipients[index.0 as usize], diagnostic, expired });
    }

    async fn settlement(self, settings: &Settings) -> Settlement {
        let Self { message, now, attempts, changes, failed, due } = self;
        let notification = if failed.is_empty() { None } else { bounce::compose(message, &failed, &settings.hostname, now).await };
        match &notification {
            Some(notification) => {
                info!(message_id = %message.id, notification = %notification.id, to = %message.envelope.reverse_path, "the sender is notified");
            }
            None if failed.is_empty() => {}
            None => {
                error!(message_id = %message.id, recipients = failed.len(), "undeliverable, and nobody to notify: the reverse-path is null");
            }
        }
        Settlement { id: message.id, changes, attempts, due: due.unwrap_or(now), notification: notification.map(Arc::new) }
    }
}
