//! Who is told what became of a message: its sender, as RFC 3461 says, and those who answer for the mail.
//! What can be told to nobody is a dead letter, unless silence was asked for.
//!
//! No notification causes another one. The guards are in `bounce::guard`; here they decide who is asked.

use std::time::SystemTime;

use postrider_providers::contract::{Address, Body, Message, ReversePath};
use tracing::{error, info, warn};

use super::Desk;
use crate::bounce::{self, Draft, Event, Extent, Notice, Reader, Who, guard};
use crate::config::Notified;
use crate::history;
use crate::queue::Settings;
use crate::spool::{BodySink, Spool, SpoolError, Stored};

/// What comes of telling.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The notifications, to be stored with the settlement.
    pub(super) notifications: Vec<Message>,
    /// Who got them, for the history.
    pub(super) events: Vec<history::Event>,
    /// The failed recipients about whom nobody could be told, by their place among the notices.
    pub(super) dead: Vec<usize>,
}

/// Tells whoever is to be told about these recipients of `message`.
pub(super) async fn tell<S: Spool>(desk: &Desk<'_, S>, message: &Message, notices: &[Notice<'_>]) -> Told {
    let mut told = Told::default();
    if notices.is_empty() {
        return told;
    }
    let settings = desk.settings;
    let for_sender: Vec<bool> = notices.iter().map(|notice| sender_is_told(settings, message, notice)).collect();
    if let Some(sender) = told_sender(settings, message)
        && let Some(notification) = notification(desk, message, &chosen(notices, &for_sender)).await
    {
        told.add(message, notification, Reader { who: Who::Sender, address: sender, sender_is_told: true }, what(notices, &for_sender));
    }
    let mut known = for_sender.clone();
    for (who, address) in others(settings, message, notices).await {
        let concerned: Vec<bool> =
            notices.iter().zip(&for_sender).map(|(notice, told)| concerns(settings, message, notice, address, *told)).collect();
        if !concerned.contains(&true) {
            continue;
        }
        for (known, concerned) in known.iter_mut().zip(&concerned) {
            *known |= concerned;
        }
        let sender_is_told = concerned.iter().zip(&for_sender).any(|(concerned, told)| *concerned && *told);
        let (reader, about) = (Reader { who, address, sender_is_told }, chosen(notices, &concerned));
        if desk.digests.admit(desk, reader, message, &about).await {
            let notification = bounce::compose_for(reader, message, &about, settings.relay(), desk.now).await;
            told.add(message, notification, reader, "failure");
        }
    }
    for (position, notice) in notices.iter().enumerate().filter(|(position, _)| !known[*position]) {
        if is_dead(settings, message, notice) {
            told.dead.push(position);
        }
    }
    told
}

impl Told {
    fn add(&mut self, message: &Message, notification: Message, reader: Reader<'_>, what: &str) {
        let (who, to) = (reader.who.as_str(), reader.address.as_str());
        info!(message_id = %message.id, notification = %notification.id, who, to, what, "notified");
        self.events.push(history::Event::Notified {
            who: who.to_owned(),
            to: to.to_owned(),
            notification: notification.id.to_string(),
            what: what.to_owned(),
        });
        self.notifications.push(notification);
    }
}

fn chosen<'a>(notices: &[Notice<'a>], of: &[bool]) -> Vec<Notice<'a>> {
    notices.iter().zip(of).filter(|(_, chosen)| **chosen).map(|(notice, _)| notice.clone()).collect()
}

/// What a notification of the sender is, by the most urgent that it tells.
fn what(notices: &[Notice<'_>], of: &[bool]) -> &'static str {
    let tells = |kind: fn(&Event) -> bool| notices.iter().zip(of).any(|(notice, chosen)| *chosen && kind(&notice.event));
    if tells(|event| matches!(event, Event::Failed { .. })) {
        "failure"
    } else if tells(|event| matches!(event, Event::Delayed { .. })) {
        "delay"
    } else {
        "success"
    }
}

/// The sender, if it is one who can be told of anything.
fn told_sender<'a>(settings: &Settings, message: &'a Message) -> Option<&'a Address> {
    let reverse_path = &message.envelope.reverse_path;
    reverse_path.address().filter(|_| !guard::is_daemon(reverse_path, settings.bounce.sender.as_ref(), &settings.hostname))
}

/// Whether the sender is told of this. A success is told to whoever asks for that; who is told of failures
/// is a setting.
fn sender_is_told(settings: &Settings, message: &Message, notice: &Notice<'_>) -> bool {
    let is_told = matches!(notice.event, Event::Relayed(_)) || settings.bounce.notify.contains(&Notified::Sender);
    is_told && told_sender(settings, message).is_some() && notice.is_wanted() && !is_stand_in(settings, &notice.recipient.address)
}

/// Whether notifications may go out under this address. Whatever comes of mail to it is told to nobody.
fn is_stand_in(settings: &Settings, address: &Address) -> bool {
    settings.bounce.sender.as_ref().is_some_and(|stand_in| guard::is_same(stand_in, address))
}

/// Who else is told of failures, each address once.
async fn others<'a>(settings: &'a Settings, message: &Message, notices: &[Notice<'_>]) -> Vec<(Who, &'a Address)> {
    let owner = message.origin.application.as_ref().and_then(|name| settings.owners.get(name));
    let mut others: Vec<(Who, &Address)> = Vec::new();
    for (notified, who, address) in
        [(Notified::Owner, Who::Owner, owner), (Notified::Operator, Who::Operator, settings.bounce.operator.as_ref())]
    {
        let Some(address) = address.filter(|_| settings.bounce.notify.contains(&notified)) else { continue };
        if !others.iter().any(|(_, known)| guard::is_same(known, address)) {
            others.push((who, address));
        }
    }
    let failed = notices.iter().any(|notice| matches!(notice.event, Event::Failed { .. }));
    if others.is_empty() || !failed || is_notification(settings, message).await {
        others.clear();
    }
    others
}

/// Whether the message is a notification, or an answer that a program gave to one.
async fn is_notification(settings: &Settings, message: &Message) -> bool {
    let is_from_client_without_sender = message.envelope.reverse_path == ReversePath::Null && !guard::is_own(message);
    let is_daemon = !is_from_client_without_sender && told_sender(settings, message).is_none();
    is_daemon || guard::is_automatic_answer(message).await
}

/// Whether one beside the sender is told of this at `address`. Nobody is told at an address that it does
/// not reach, nor twice; and who sends under that very address has said with NOTIFY what to hear.
fn concerns(settings: &Settings, message: &Message, notice: &Notice<'_>, address: &Address, sender_is_told: bool) -> bool {
    let Notice { recipient, event } = notice;
    let is_sender = message.envelope.reverse_path.address().is_some_and(|sender| guard::is_same(sender, address));
    matches!(event, Event::Failed { .. })
        && !is_stand_in(settings, &recipient.address)
        && !guard::is_same(&recipient.address, address)
        && !(is_sender && (sender_is_told || !notice.is_wanted()))
}

/// Whether a recipient of whom nobody is told is a dead letter, with a line about it.
fn is_dead(settings: &Settings, message: &Message, notice: &Notice<'_>) -> bool {
    let Event::Failed { diagnostic, .. } = &notice.event else { return false };
    let (id, to, reason) = (message.id, notice.recipient.address.as_str(), diagnostic);
    if settings.bounce.notify.is_empty() {
        warn!(message_id = %id, to, %reason, "undeliverable, and nobody is told: bounce.notify is empty");
        return false;
    }
    if told_sender(settings, message).is_some() && !notice.is_wanted() {
        warn!(message_id = %id, to, %reason, "undeliverable, and the sender asked not to be told (NOTIFY)");
        return false;
    }
    let why = if guard::is_own(message) {
        "it is a notification"
    } else if message.envelope.reverse_path == ReversePath::Null {
        "the reverse-path is null"
    } else if told_sender(settings, message).is_none() || is_stand_in(settings, &notice.recipient.address) {
        "it comes from where notifications come from, or goes there"
    } else {
        "none of those in bounce.notify is known for it"
    };
    error!(message_id = %id, to, %reason, why, "dead letter: undeliverable, and nobody can be told; it is kept for a person");
    true
}

/// When the sender is to be told that the message waits; `None` if that is not so, or was done.
pub(in crate::queue) fn warns_at(settings: &Settings, stored: &Stored) -> Option<SystemTime> {
    let Stored { message, handling, recipients, .. } = stored;
    let after = settings.delay_warning_after.filter(|_| !handling.warned && settings.bounce.notify.contains(&Notified::Sender))?;
    told_sender(settings, message)?;
    let mut open = message.envelope.recipients.iter().zip(recipients).filter(|(_, state)| state.is_open());
    let is_wanted = open.any(|(recipient, _)| recipient.notify.is_none_or(|notify| notify.delay));
    is_wanted.then(|| message.received + handling.idle + after)
}

/// The notification of the sender, with its body in the spool. What can be told without the message is
/// told, even if there is no room for the message.
async fn notification<S: Spool>(desk: &Desk<'_, S>, message: &Message, notices: &[Notice<'_>]) -> Option<Message> {
    let (relay, now) = (desk.settings.relay(), desk.now);
    let draft = bounce::compose(message, notices, relay, now, Extent::AsAsked).await?;
    let why = match body(desk.spool, &draft).await {
        Ok(body) => return Some(draft.with_body(body)),
        Err(why) => why,
    };
    warn!(message_id = %message.id, %why, "the notification returns the header only");
    let draft = bounce::compose(message, notices, relay, now, Extent::HeaderOnly).await?;
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
