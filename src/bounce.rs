//! Composes notifications about what became of a message (RFC 3464), with the null reverse-path, so
//! that none can ever cause another one.
//!
//! One settlement makes at most one notification for each reader, with a block for each recipient that it
//! is about. Whoever gets too many of them gets a digest instead.

pub mod digest;
pub mod guard;
mod people;
mod report;
mod returned;

use std::io;
use std::time::SystemTime;

use bytes::Bytes;
use postrider_providers::contract::{
    Address, Body, BodyReader, BodyType, Diagnostic, Envelope, Message, MessageId, Origin, Receipt, Recipient, ReversePath,
};

use self::report::Report;
use self::returned::{Base64Lines, Encoding, Returned};

/// What became of one recipient.
#[derive(Debug, Clone)]
pub struct Notice<'a> {
    /// Who.
    pub recipient: &'a Recipient,
    /// What.
    pub event: Event,
}

/// What may be worth a notification.
#[derive(Debug, Clone)]
pub enum Event {
    /// They will not get the message.
    Failed {
        /// What was said last.
        diagnostic: Diagnostic,
        /// Whether time ran out, rather than somebody refusing for good.
        expired: bool,
    },
    /// They have not got it yet; it is tried further.
    Delayed {
        /// Why it waits.
        diagnostic: Diagnostic,
        /// When it will be given up.
        until: SystemTime,
        /// Whether a provider was asked just now.
        asked: bool,
    },
    /// It was handed over.
    Relayed(Receipt),
}

/// As what somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// The envelope sender, as RFC 3461 says.
    Sender,
    /// The owner of the application that handed the message in.
    Owner,
    /// The operator of this gateway.
    Operator,
}

impl Who {
    /// The name, as in the config and in the history.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Owner => "owner",
            Self::Operator => "operator",
        }
    }
}

/// This relay, as it signs.
#[derive(Debug, Clone, Copy)]
pub struct Relay<'a> {
    /// The name of this host.
    pub hostname: &'a str,
    /// The address that notifications come from, if that is not its postmaster. Services that want to know
    /// their senders look at From.
    pub sender: Option<&'a Address>,
}

impl Relay<'_> {
    fn from(&self) -> String {
        self.sender.map_or_else(|| format!("postmaster@{}", self.hostname), ToString::to_string)
    }
}

/// One who reads a notification.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// As what.
    pub who: Who,
    /// Where.
    pub address: &'a Address,
    /// Whether the sender is told of it, too.
    pub sender_is_told: bool,
}

impl Notice<'_> {
    /// Whether the sender asked to hear of it, and nobody else will say so.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        match &self.event {
            //= https://www.rfc-editor.org/rfc/rfc3461#section-5.2.6
            //# If a NOTIFY parameter was supplied for the recipient which did
            //# not contain the value FAILURE, a DSN MUST NOT be issued for that
            //# recipient.
            Event::Failed { .. } => self.recipient.notify.is_none_or(|notify| notify.failure),
            //= https://www.rfc-editor.org/rfc/rfc3461#section-5.2.5
            //# (c) If the NOTIFY parameter was supplied which did not contain the
            //# DELAY keyword, a "delayed" DSN MUST NOT be issued.
            Event::Delayed { .. } => self.recipient.notify.is_none_or(|notify| notify.delay),
            //= https://www.rfc-editor.org/rfc/rfc3461#section-5.2.2
            //# If the NOTIFY parameter was supplied for a recipient, with an
            //# esmtp-value containing the keyword SUCCESS, and the SMTP server
            //# returns a success (2xx) reply-code in response to the RCPT
            //# command, the client MUST issue a "relayed" DSN for that
            //# recipient.
            Event::Relayed(receipt) => !receipt.dsn && self.recipient.notify.is_some_and(|notify| notify.success),
        }
    }
}

/// How much of the message to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// As the sender asked with RET.
    AsAsked,
    /// Its header, because there is no room for more.
    HeaderOnly,
    /// Its header: who is told beside the sender need not read what was written.
    Header,
}

/// A notification whose body is still in pieces, so that a message which is returned need not be in
/// memory.
#[derive(Debug)]
pub struct Draft {
    id: MessageId,
    at: SystemTime,
    origin: Origin,
    envelope: Envelope,
    head: Bytes,
    /// What stands between head and foot.
    whole: Option<(Body, Encoding)>,
    foot: Bytes,
}

/// The pieces of a body, in order.
#[derive(Debug)]
pub struct Pieces {
    head: Option<Bytes>,
    whole: Option<(BodyReader, Option<Base64Lines>)>,
    foot: Option<Bytes>,
}

/// The notification of the sender about these recipients; `None` when there is nobody to notify.
pub async fn compose(message: &Message, notices: &[Notice<'_>], relay: Relay<'_>, now: SystemTime, extent: Extent) -> Option<Draft> {
    //= https://www.rfc-editor.org/rfc/rfc3461#section-5.2
    //# A DSN MUST NOT be returned to the sender for any message for
    //# which the return address from the SMTP MAIL command was NULL ("<>"),
    //# even if the sender's address is available from other sources (e.g.,
    //# the message header).
    let ReversePath::Mailbox(sender) = &message.envelope.reverse_path else {
        return None;
    };
    if notices.is_empty() {
        return None;
    }
    let reader = Reader { who: Who::Sender, address: sender, sender_is_told: true };
    Some(draft(reader, message, notices, relay, now, extent).await)
}

/// The notification of somebody else about these recipients. What the sender asked with NOTIFY, and that
/// the reverse-path is null, says who hears of it there, and nothing about those who answer for the mail.
pub async fn compose_for(reader: Reader<'_>, message: &Message, notices: &[Notice<'_>], relay: Relay<'_>, now: SystemTime) -> Message {
    let draft = draft(reader, message, notices, relay, now, Extent::Header).await;
    let body = draft.all();
    draft.with_body(body)
}

async fn draft(reader: Reader<'_>, message: &Message, notices: &[Notice<'_>], relay: Relay<'_>, now: SystemTime, extent: Extent) -> Draft {
    let id = MessageId::generate();
    let failure = notices.iter().any(|notice| matches!(notice.event, Event::Failed { .. }));
    let utf8 = !reader.address.is_ascii();
    let returned = Returned::choose(message, failure, utf8, extent).await;
    let report = Report { message, reader, notices, relay, id, now, utf8 };
    let (text, foot) = (report.render(&returned), report.foot());
    let body_type = if text.is_ascii() { returned.body_type } else { BodyType::EightBitMime };
    let mut head = report.header(body_type).into_bytes();
    head.extend_from_slice(text.as_bytes());
    head.extend_from_slice(&returned.header);
    let envelope = envelope(reader.address, body_type);
    Draft { id, at: now, origin: origin(id, relay.hostname), envelope, head: head.into(), whole: returned.whole, foot: foot.into() }
}

/// The envelope of a notification.
fn envelope(to: &Address, body_type: BodyType) -> Envelope {
    //= https://www.rfc-editor.org/rfc/rfc3461#section-6.1
    //# The DSN sender address (in the SMTP MAIL command) MUST be a null
    //# reverse-path ("<>"), as required by section 5.3.3 of [11].
    Envelope { body_type, smtputf8: !to.is_ascii(), ..Envelope::new(ReversePath::Null, vec![Recipient::from(to.clone())]) }
}

/// Notifications come from nobody's application, by which they are known.
fn origin(id: MessageId, hostname: &str) -> Origin {
    Origin { message_id: Some(format!("{id}@{hostname}").into()), ..Origin::default() }
}

impl Draft {
    /// The id of the notification.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// The body, if it is all in memory.
    #[must_use]
    pub fn small_body(&self) -> Option<Body> {
        self.whole.is_none().then(|| self.all())
    }

    /// Head and foot, which are all of it unless the message is returned whole.
    fn all(&self) -> Body {
        Body::Inline([&self.head[..], &self.foot].concat().into())
    }

    /// The body, piece by piece.
    ///
    /// # Errors
    /// When the message that is returned cannot be read.
    pub async fn pieces(&self) -> io::Result<Pieces> {
        let whole = match &self.whole {
            None => None,
            Some((body, encoding)) => Some((body.open().await?, (*encoding == Encoding::Base64).then(Base64Lines::default))),
        };
        Ok(Pieces { head: Some(self.head.clone()), whole, foot: Some(self.foot.clone()) })
    }

    /// The notification with its body.
    #[must_use]
    pub fn with_body(self, body: Body) -> Message {
        Message { id: self.id, received: self.at, origin: self.origin, envelope: self.envelope, body }
    }
}

impl Pieces {
    /// The next piece, or `None` at the end.
    ///
    /// # Errors
    /// When the message that is returned cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        if let Some((reader, base64)) = &mut self.whole {
            match (reader.chunk().await?, base64) {
                (Some(chunk), None) => return Ok(Some(chunk)),
                (Some(chunk), Some(base64)) => return Ok(Some(base64.encode(&chunk))),
                (None, base64) => {
                    let rest = base64.take().map(Base64Lines::finish);
                    self.whole = None;
                    if rest.is_some() {
                        return Ok(rest);
                    }
                }
            }
        }
        Ok(self.foot.take())
    }
}

#[cfg(test)]
mod tests;
