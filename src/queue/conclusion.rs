//! From what an attempt brought to what is written down: states, the next time, the notification.

mod notify;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use postrider_providers::contract::{Diagnostic, Message, RecipientIndex};
use tracing::{error, info, warn};

use super::digests::Digests;
use super::{Disposition, Plan, Settings};
use crate::bounce::{Event, Notice};
use crate::history;
use crate::spool::view::Lane;
use crate::spool::{Change, RecipientState, Settlement, Spool, Stored};
pub(super) use notify::warns_at;

/// What a conclusion is drawn with.
pub(super) struct Desk<'a, S> {
    pub(super) spool: &'a S,
    pub(super) settings: &'a Settings,
    pub(super) digests: &'a Digests,
    pub(super) now: SystemTime,
}

/// What an attempt comes to, recipient by recipient.
struct Conclusion<'a> {
    message: &'a Message,
    now: SystemTime,
    attempts: u32,
    changes: Vec<Change>,
    /// What somebody may have to hear, and of whom.
    notices: Vec<Notice<'a>>,
    about: Vec<RecipientIndex>,
    due: Option<SystemTime>,
    /// Whether a provider was asked.
    asked: bool,
    /// Whether the sender is to hear that it waits.
    warns: bool,
    /// Whether that was said before.
    warned: bool,
}

/// Applies the retry schedules, composes the notification, and logs each recipient's fate in a line.
/// Says who was notified, too, for the history.
pub(super) async fn conclude<S: Spool>(
    desk: &Desk<'_, S>,
    stored: &Stored,
    plans: &BTreeMap<RecipientIndex, Plan>,
    dispositions: Vec<(RecipientIndex, Disposition)>,
    asked: bool,
) -> (Settlement, Vec<history::Event>) {
    let Desk { settings, now, .. } = *desk;
    let message = &*stored.message;
    let attempts = stored.attempts + u32::from(asked);
    let usual = Plan::default();
    let planned = |index| plans.get(&index).unwrap_or(&usual);
    let scheduled = |index| planned(index).next(settings, stored, attempts, now).map(Next::Scheduled);
    let mut conclusion = Conclusion {
        message,
        now,
        attempts,
        changes: Vec::new(),
        notices: Vec::new(),
        about: Vec::new(),
        due: None,
        asked,
        warns: warns_at(settings, stored).is_some_and(|at| at <= now),
        warned: stored.handling.warned,
    };
    for (index, disposition) in dispositions {
        let Some(state) = stored.recipients.get(index.0 as usize).cloned() else { continue };
        let until = planned(index).expires(&settings.retry, stored);
        match disposition {
            Disposition::Waiting(next, why) => {
                let next = (now < until).then_some(Next::Free(next));
                conclusion.keep(index, state, why, next, until);
            }
            Disposition::Deferred(why) => conclusion.keep(index, state, why, scheduled(index), until),
            Disposition::InDoubt { provider, diagnostic, hold: false, recognised } => {
                let (to, advice) = (conclusion.address(index), diagnostic.advice);
                if recognised {
                    warn!(
                        message_id = %message.id, to, %provider, reason = %diagnostic, advice,
                        "in doubt: the same provider is asked again, and recognises what it has"
                    );
                } else {
                    warn!(
                        message_id = %message.id, to, %provider, reason = %diagnostic, advice,
                        "in doubt: the same provider is asked again, which may send a second copy"
                    );
                }
                conclusion.keep(index, RecipientState::InDoubt(provider), diagnostic, scheduled(index), until);
            }
            ended => conclusion.end(index, ended),
        }
    }
    conclusion.pass_over(stored, planned, settings);
    conclusion.settlement(desk).await
}

/// When a recipient's turn comes again.
enum Next {
    /// By a schedule or a provider's wish: not before then.
    Scheduled(SystemTime),
    /// Nobody was asked: then at the latest.
    Free(SystemTime),
}

impl<'a> Conclusion<'a> {
    fn change(&mut self, recipient: RecipientIndex, state: RecipientState, words: String) {
        self.changes.push(Change { recipient, state, words, not_before: None });
    }

    /// Somebody's turn comes then.
    fn due(&mut self, at: SystemTime) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Those who are open, and of whom this attempt says nothing, because their own time has not come.
    fn pass_over<'p>(&mut self, stored: &Stored, planned: impl Fn(RecipientIndex) -> &'p Plan, settings: &Settings) {
        let told: HashSet<RecipientIndex> = self.changes.iter().map(|change| change.recipient).collect();
        for (index, (state, at)) in (0..).map(RecipientIndex).zip(stored.recipients.iter().zip(&stored.not_before)) {
            if !state.is_open() || told.contains(&index) {
                continue;
            }
            self.due(at.unwrap_or(self.now));
            if self.warns {
                let diagnostic = Diagnostic::local("it could not be handed over so far, and is tried again");
                let until = planned(index).expires(&settings.retry, stored);
                self.note(index, Event::Delayed { diagnostic, until, asked: stored.attempts > 0 });
            }
        }
    }

    fn address(&self, index: RecipientIndex) -> &'a str {
        self.message.envelope.recipients[index.0 as usize].address.as_str()
    }

    /// The recipient stays open until `next`; without a next time it is given up. Otherwise that is at `until`.
    fn keep(&mut self, index: RecipientIndex, state: RecipientState, why: Diagnostic, next: Option<Next>, until: SystemTime) {
        let Some(next) = next else {
            error!(message_id = %self.message.id, to = self.address(index), reason = %why, "expired: it waited as long as queue.expire_after allows");
            return self.fail(index, RecipientState::Expired, why);
        };
        let not_before = match next {
            Next::Scheduled(at) => Some(at),
            Next::Free(_) => None,
        };
        let (Next::Scheduled(next) | Next::Free(next)) = next;
        self.due(next);
        let next_try_in_seconds = next.duration_since(self.now).unwrap_or_default().as_secs();
        info!(message_id = %self.message.id, to = self.address(index), reason = %why, advice = why.advice, attempt = self.attempts, next_try_in_seconds, "deferred");
        self.changes.push(Change { recipient: index, state, words: why.to_string(), not_before });
        if self.warns {
            self.note(index, Event::Delayed { diagnostic: why, until, asked: self.asked });
        }
    }

    /// Nothing is left to do for the recipient, or only for a person.
    fn end(&mut self, index: RecipientIndex, disposition: Disposition) {
        let (id, to) = (self.message.id, self.address(index));
        match disposition {
            Disposition::Relayed(provider, receipt) => {
                let remote_id = receipt.remote_id.as_deref().unwrap_or("-");
                info!(message_id = %id, to, %provider, remote_id, reply = %receipt.reply, attempt = self.attempts, "relayed");
                self.change(index, RecipientState::Relayed, receipt.reply.clone());
                self.note(index, Event::Relayed(receipt));
            }
            Disposition::InDoubt { provider, diagnostic, .. } => {
                warn!(message_id = %id, to, %provider, reason = %diagnostic, advice = diagnostic.advice, "held: in doubt, and the route holds");
                self.change(index, RecipientState::Held(provider), diagnostic.to_string());
            }
            Disposition::Bounced(why) | Disposition::Deferred(why) | Disposition::Waiting(_, why) => {
                warn!(message_id = %id, to, reason = %why, advice = why.advice, attempt = self.attempts, "bounced");
                self.fail(index, RecipientState::Bounced, why);
            }
        }
    }

    fn fail(&mut self, index: RecipientIndex, state: RecipientState, diagnostic: Diagnostic) {
        let expired = state == RecipientState::Expired;
        self.change(index, state, diagnostic.to_string());
        self.note(index, Event::Failed { diagnostic, expired });
    }

    /// Keeps what somebody may have to hear.
    fn note(&mut self, index: RecipientIndex, event: Event) {
        self.notices.push(Notice { recipient: &self.message.envelope.recipients[index.0 as usize], event });
        self.about.push(index);
    }

    async fn settlement<S: Spool>(self, desk: &Desk<'_, S>) -> (Settlement, Vec<history::Event>) {
        let Self { message, attempts, mut changes, notices, about, due, warns, warned, .. } = self;
        let told = notify::tell(desk, message, &notices).await;
        for position in told.dead {
            if let Some(change) = changes.iter_mut().find(|change| change.recipient == about[position]) {
                change.state = RecipientState::Dead;
            }
        }
        let settlement = Settlement {
            id: message.id,
            // Whoever settles knows the routes, and puts the lanes in.
            lane: Lane::default(),
            changes,
            attempts,
            due: due.unwrap_or(desk.now),
            notifications: told.notifications.into_iter().map(|notification| (Arc::new(notification), Lane::default())).collect(),
            warned: warned || warns,
            journal: Vec::new(),
        };
        (settlement, told.events)
    }
}

#[cfg(test)]
mod tests;
