//! From what an attempt brought to what is written down: states, the next time, the notification.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use postrider_providers::contract::{Body, Diagnostic, Message, RecipientIndex};
use tracing::{error, info, warn};

use super::{Disposition, Plan, Settings};
use crate::bounce::{self, Draft, Event, Extent, Notice};
use crate::spool::view::Lane;
use crate::spool::{BodySink, RecipientState, Settlement, Spool, SpoolError, Stored};

/// What an attempt comes to, recipient by recipient.
struct Conclusion<'a> {
    message: &'a Message,
    now: SystemTime,
    attempts: u32,
    changes: Vec<(RecipientIndex, RecipientState, String)>,
    failed: usize,
    /// What the sender wants to hear.
    notices: Vec<Notice<'a>>,
    due: Option<SystemTime>,
}

/// Applies the retry schedules, composes the notification, and logs each recipient's fate in a line.
#[expect(clippy::too_many_arguments, reason = "what an attempt comes to is made of all of these")]
pub(super) async fn conclude<S: Spool>(
    spool: &S,
    stored: &Stored,
    settings: &Settings,
    plans: &BTreeMap<RecipientIndex, Plan>,
    now: SystemTime,
    dispositions: Vec<(RecipientIndex, Disposition)>,
    asked: bool,
    retry_at: Option<SystemTime>,
) -> Settlement {
    let message = &*stored.message;
    let attempts = stored.attempts + u32::from(asked);
    let usual = Plan::default();
    let planned = |index| plans.get(&index).unwrap_or(&usual);
    // What a provider asked for is never cut short.
    let scheduled = |index| planned(index).next(settings, stored, attempts, now).map(|next: SystemTime| next.max(retry_at.unwrap_or(next)));
    let mut conclusion = Conclusion { message, now, attempts, changes: Vec::new(), failed: 0, notices: Vec::new(), due: None };
    for (index, disposition) in dispositions {
        let Some(state) = stored.recipients.get(index.0 as usize).cloned() else { continue };
        match disposition {
            Disposition::Waiting(until, why) => {
                let next = (now < planned(index).expires(&settings.retry, stored)).then_some(until);
                conclusion.keep(index, state, why, next);
            }
            Disposition::Deferred(why) => conclusion.keep(index, state, why, scheduled(index)),
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
                conclusion.keep(index, RecipientState::InDoubt(provider), diagnostic, scheduled(index));
            }
            ended => conclusion.end(index, ended),
        }
    }
    conclusion.settlement(spool, settings).await
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
        info!(message_id = %self.message.id, to = self.address(index), reason = %why, advice = why.advice, attempt = self.attempts, next_try_in_seconds, "deferred");
        self.changes.push((index, state, why.to_string()));
    }

    /// Nothing is left to do for the recipient, or only for a person.
    fn end(&mut self, index: RecipientIndex, disposition: Disposition) {
        let (id, to) = (self.message.id, self.address(index));
        match disposition {
            Disposition::Relayed(provider, receipt) => {
                let remote_id = receipt.remote_id.as_deref().unwrap_or("-");
                info!(message_id = %id, to, %provider, remote_id, reply = %receipt.reply, attempt = self.attempts, "relayed");
                self.changes.push((index, RecipientState::Relayed, receipt.reply.clone()));
                self.note(index, Event::Relayed(receipt));
            }
            Disposition::InDoubt { provider, diagnostic, .. } => {
                warn!(message_id = %id, to, %provider, reason = %diagnostic, advice = diagnostic.advice, "held: in doubt, and the route holds");
                self.changes.push((index, RecipientState::Held(provider), diagnostic.to_string()));
            }
            Disposition::Bounced(why) | Disposition::Deferred(why) | Disposition::Waiting(_, why) => {
                warn!(message_id = %id, to, reason = %why, advice = why.advice, attempt = self.attempts, "bounced");
                self.fail(index, RecipientState::Bounced, why);
            }
        }
    }

    fn fail(&mut self, index: RecipientIndex, state: RecipientState, diagnostic: Diagnostic) {
        let expired = state == RecipientState::Expired;
        self.changes.push((index, state, diagnostic.to_string()));
        self.failed += 1;
        self.note(index, Event::Failed { diagnostic, expired });
    }

    /// Keeps what the sender wants to hear.
    fn note(&mut self, index: RecipientIndex, event: Event) {
        let notice = Notice { recipient: &self.message.envelope.recipients[index.0 as usize], event };
        if notice.is_wanted() {
            self.notices.push(notice);
        } else if matches!(notice.event, Event::Failed { .. }) {
            warn!(message_id = %self.message.id, to = %notice.recipient.address, "undeliverable, and the sender asked not to be told (NOTIFY)");
        }
    }

    async fn settlement<S: Spool>(self, spool: &S, settings: &Settings) -> Settlement {
        let Self { message, now, attempts, changes, failed, notices, due } = self;
        let notification = notification(spool, message, &notices, &settings.hostname, now).await;
        if let Some(notification) = &notification {
            info!(message_id = %message.id, notification = %notification.id, to = %message.envelope.reverse_path, "the sender is notified");
        } else if failed > 0 && message.envelope.reverse_path.address().is_none() {
            error!(message_id = %message.id, recipients = failed, "undeliverable, and nobody to notify: the reverse-path is null");
        }
        Settlement {
            id: message.id,
            // Whoever settles knows the routes, and puts the lanes in.
            lane: Lane::default(),
            changes,
            attempts,
            due: due.unwrap_or(now),
            notifications: notification.map(|notification| (Arc::new(notification), Lane::default())).into_iter().collect(),
            warned: false,
            journal: Vec::new(),
        }
    }
}

/// The notification, with its body in the spool. What can be told without the message is told, even
/// if there is no room for the message.
async fn notification<S: Spool>(spool: &S, message: &Message, notices: &[Notice<'_>], hostname: &str, now: SystemTime) -> Option<Message> {
    let draft = bounce::compose(message, notices, hostname, now, Extent::AsAsked).await?;
    let why = match body(spool, &draft).await {
        Ok(body) => return Some(draft.with_body(body)),
        Err(why) => why,
    };
    warn!(message_id = %message.id, %why, "the notification returns the header only");
    let draft = bounce::compose(message, notices, hostname, now, Extent::HeaderOnly).await?;
    draft.small_body().map(|body| draft.with_body(body))
}

/// Lets the draft stream into the spool, unless it is small.
async fn body<S: Spool>(spool: &S, draft: &Draft) -> Result<Body, SpoolError> {
    if let Some(body) = draft.small_body() {
        return Ok(body);
    }
    let unreadable = |error: std::io::Error| SpoolError::Unavailable(error.to_string());
    let mut sink = spool.body(draft.id());
    let mut pieces = draft.pieces().await.map_err(unreadable)?;
    while let Some(piece) = pieces.next().await.map_err(unreadable)? {
        sink.write(piece).await?;
    }
    sink.finish().await
}

#[cfg(test)]
mod tests {
    use postrider_providers::contract::{Notify, ProviderName, Receipt, Returned};

    use super::*;
    use crate::spool::memory::MemorySpool;
    use crate::spool::suite::{at, message_for};

    /// Three recipients who asked `notify`, and RET=FULL.
    fn stored(notify: Option<&str>) -> Stored {
        let body = Body::Inline("Subject: x\r\n\r\nall of it\r\n".into());
        let mut message = Arc::unwrap_or_clone(message_for(0, &["a@example.org", "b@example.org", "c@example.org"], body));
        message.envelope.returned = Some(Returned::Full);
        for recipient in &mut message.envelope.recipients {
            recipient.notify = notify.map(|text| Notify::parse(text).unwrap());
        }
        Stored::fresh(Arc::new(message))
    }

    fn relayed(dsn: bool) -> Disposition {
        Disposition::Relayed(ProviderName::from("smarthost.x"), Receipt { reply: "250 Ok".into(), dsn, ..Receipt::default() })
    }

    fn bounced() -> Disposition {
        Disposition::Bounced(Diagnostic::reply("RCPT", 550, "5.1.1 no"))
    }

    /// The settlement, and the text of its notification.
    async fn concluded(spool: &MemorySpool, stored: &Stored, dispositions: [Disposition; 3]) -> (Settlement, String) {
        let dispositions = (0..).map(RecipientIndex).zip(dispositions).collect();
        let settlement = conclude(spool, stored, &Settings::default(), &BTreeMap::new(), at(1), dispositions, true, None).await;
        let text = match settlement.notifications.first() {
            Some((notification, _)) => String::from_utf8(notification.body.bytes().await.unwrap().to_vec()).unwrap(),
            None => String::new(),
        };
        (settlement, text)
    }

    fn actions(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("Action: ")).collect()
    }

    #[tokio::test]
    async fn one_settlement_makes_one_notification_about_those_whose_fate_was_asked_for() {
        let spool = MemorySpool::new();
        for (notify, expected) in [
            (None, vec!["failed"]),
            (Some("NEVER"), vec![]),
            (Some("SUCCESS"), vec!["relayed"]),
            (Some("FAILURE"), vec!["failed"]),
            (Some("DELAY"), vec![]),
            (Some("SUCCESS,FAILURE"), vec!["relayed", "failed"]),
        ] {
            let (settlement, text) = concluded(&spool, &stored(notify), [relayed(false), relayed(true), bounced()]).await;
            assert_eq!(actions(&text), expected, "{notify:?}");
            assert_eq!(!settlement.notifications.is_empty(), !expected.is_empty());
            let states: Vec<_> = settlement.changes.iter().map(|(_, state, _)| state.clone()).collect();
            assert_eq!(states, [RecipientState::Relayed, RecipientState::Relayed, RecipientState::Bounced], "whoever is told");
        }
    }

    #[tokio::test]
    async fn mail_that_waits_longer_is_not_reported_before_its_end() {
        let spool = MemorySpool::new();
        let busy = || Disposition::Deferred(Diagnostic::reply("RCPT", 450, "4.2.1 busy"));
        let (settlement, _) = concluded(&spool, &stored(Some("SUCCESS,FAILURE,DELAY")), [busy(), busy(), busy()]).await;
        assert!(settlement.notifications.is_empty());
        assert!(settlement.changes.iter().all(|(_, state, _)| *state == RecipientState::Pending));
    }

    #[tokio::test]
    async fn a_notification_that_finds_no_room_for_the_message_returns_its_header() {
        let spool = MemorySpool::new();
        let (_, text) = concluded(&spool, &stored(None), [bounced(), bounced(), bounced()]).await;
        assert!(text.contains("all of it") && text.contains("message/rfc822\r\n"), "{text}");
        spool.set_fault(Some(SpoolError::Full("as asked".into())));
        let (_, text) = concluded(&spool, &stored(None), [bounced(), bounced(), bounced()]).await;
        assert!(!text.contains("all of it") && text.contains("because there was no room for more"), "{text}");
        assert_eq!(actions(&text).len(), 3);
    }
}
