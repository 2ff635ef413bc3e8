//! In whose name a message is handed over: From and the envelope sender become an address that the
//! provider takes mail from. All else stays as it is, octet for octet.
//!
//! The change is made for one handover. What is stored stays, and so a notification goes to whoever sent
//! the message. A DKIM signature over the old From no longer holds, which is no obstacle: the setting says
//! that the name changes, a signature that fails counts as none (RFC 6376 section 6.1), and the provider
//! signs for its own. The log says so. What a person has signed (S/MIME, PGP/MIME) is in the body.

mod mailbox;

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use postrider_providers::contract::{Address, Body, Diagnostic, EnhancedStatus, Failure, Message, ProviderName, ReversePath};
use postrider_providers::mime::block::{Field, Fields};
use tracing::{debug, info};

use crate::config::Rewrite;
use mailbox::{Mailbox, mailboxes};

/// The largest header that is rewritten: more than the door lets in, with the field that it adds.
const MAX_HEADER: usize = 512 * 1024;

/// A line is folded that would be longer (RFC 5322 section 2.1.1).
const FOLD_AT: usize = 78;

/// A header with another From.
#[derive(Debug, PartialEq, Eq)]
struct Changed {
    header: Vec<u8>,
    /// Whose mail it was, by their domains.
    domains: Vec<String>,
    breaks_dkim: bool,
}

/// A message as it is handed over, and what was changed for that.
pub(super) struct InName {
    pub(super) message: Arc<Message>,
    /// Whose it was by From, and whose it is.
    from: Option<(Vec<String>, Address)>,
    /// Whose it was by the envelope, and whose it is.
    envelope: Option<(Address, Address)>,
    breaks_dkim: bool,
}

impl InName {
    /// A line in the log, if anything was changed.
    pub(super) fn tell(&self, provider: &ProviderName) {
        let Self { message, from, envelope, breaks_dkim } = self;
        if from.is_none() && envelope.is_none() {
            return;
        }
        info!(
            message_id = %message.id, %provider,
            from = from.as_ref().map(|(old, _)| old.join(", ")),
            from_becomes = from.as_ref().map(|(_, new)| new.domain()),
            envelope = envelope.as_ref().map(|(old, _)| old.domain()),
            envelope_becomes = envelope.as_ref().map(|(_, new)| new.domain()),
            breaks_dkim,
            "rewritten"
        );
        debug!(message_id = %message.id, %provider, ?from, ?envelope, "rewritten");
    }
}

/// The message as it is handed over; the same one if nothing is to be changed.
///
/// # Errors
/// When the message cannot be read, or has no end of its header.
pub(super) async fn apply(message: &Arc<Message>, rewrite: Option<&Rewrite>) -> Result<InName, Failure> {
    let mut in_name = InName { message: Arc::clone(message), from: None, envelope: None, breaks_dkim: false };
    let Some(rewrite) = rewrite else { return Ok(in_name) };
    let mut new = Message::clone(message);
    if let Some(target) = &rewrite.from {
        let (old, has_empty_line) = header_of(&message.body).await?;
        if let Some(mut changed) = changed(&old, message.envelope.reverse_path.address(), target, rewrite) {
            // A text without a header gets one, and must not become part of it.
            if old.is_empty() && !has_empty_line {
                changed.header.extend_from_slice(b"\r\n");
            }
            new.body = Body::Spliced { head: changed.header.into(), rest: Arc::new(message.body.clone()), skip: old.len() as u64 };
            in_name.from = Some((changed.domains, target.clone()));
            in_name.breaks_dkim = changed.breaks_dkim;
        }
    }
    if let (Some(target), ReversePath::Mailbox(old)) = (&rewrite.envelope, &message.envelope.reverse_path)
        && !rewrite.keeps(old, target)
    {
        new.envelope.reverse_path = ReversePath::Mailbox(target.clone());
        in_name.envelope = Some((old.clone(), target.clone()));
    }
    if in_name.from.is_some() || in_name.envelope.is_some() {
        in_name.message = Arc::new(new);
    }
    Ok(in_name)
}

/// The fields at the start of a body, and whether an empty line follows.
async fn header_of(body: &Body) -> Result<(Bytes, bool), Failure> {
    let unreadable =
        |error: io::Error| Failure::Unavailable(Diagnostic::local(format!("the message cannot be read from the spool: {error}")));
    let (mut start, mut reader) = (BytesMut::new(), body.open().await.map_err(unreadable)?);
    loop {
        let chunk = reader.chunk().await.map_err(unreadable)?;
        let is_all = chunk.is_none();
        start.extend_from_slice(&chunk.unwrap_or_default());
        let mut fields = Fields::of(&start);
        fields.by_ref().for_each(drop);
        // What is cut may still become a field, and what ends with a line may go on with the next one.
        let octets = fields.octets();
        let has_ended = is_all || start[octets..].contains(&b'\n');
        if octets > MAX_HEADER || (!has_ended && start.len() > MAX_HEADER) {
            return Err(Failure::Unsuitable(Diagnostic {
                status: Some(EnhancedStatus(5, 6, 2)),
                ..Diagnostic::local(format!("the header has more than {MAX_HEADER} octets, too many for From to be rewritten"))
            }));
        }
        if has_ended {
            let has_empty_line = matches!(start[octets..], [b'\n', ..] | [b'\r', b'\n', ..]);
            return Ok((start.freeze().slice(..octets), has_empty_line));
        }
    }
}

/// The header with `target` in From; `None` if it stays as it is.
///
/// The name that people see stays. Who would have got replies still gets them: the old From becomes
/// Reply-To, unless there is one. Sender goes: it would name somebody whom the provider does not know.
fn changed(header: &[u8], sender: Option<&Address>, target: &Address, rewrite: &Rewrite) -> Option<Changed> {
    let all: Vec<Field<'_>> = Fields::of(header).collect();
    let authors: Vec<&Field<'_>> = all.iter().filter(|field| field.is("From")).collect();
    let list: Vec<Mailbox<'_>> = authors.iter().flat_map(|field| mailboxes(field.value)).collect();
    let stays = |address: &Address| rewrite.keeps(address, target);
    let keeps = match authors.as_slice() {
        // Providers would take the envelope sender for it.
        [] => sender.is_some_and(stays),
        // Two of them are a fault that providers refuse.
        [_] => !list.is_empty() && list.iter().all(|mailbox| mailbox.parsed().is_some_and(|address| stays(&address))),
        _ => false,
    };
    if keeps {
        return None;
    }
    let has_reply_to = all.iter().any(|field| field.is("Reply-To") && !mailboxes(field.value).is_empty());
    let mut new = Vec::with_capacity(header.len() + 256);
    let mut is_written = false;
    for field in &all {
        if field.is("From") {
            if !is_written {
                author(&mut new, list.iter().find(|one| one.parsed().is_some()).or(list.first()), target);
                if !has_reply_to && !list.is_empty() {
                    replies(&mut new, &authors);
                }
            }
            is_written = true;
        } else if !field.is("Sender") && (has_reply_to || !field.is("Reply-To")) {
            new.extend_from_slice(field.raw);
            if !field.raw.ends_with(b"\n") {
                new.extend_from_slice(b"\r\n");
            }
        }
    }
    if !is_written {
        author(&mut new, None, target);
    }
    let mut domains: Vec<String> = list.iter().filter_map(|mailbox| Some(mailbox.parsed()?.domain().to_owned())).collect();
    domains.dedup();
    Some(Changed { header: new, domains, breaks_dkim: all.iter().any(|field| field.is("DKIM-Signature")) })
}

/// Writes From, with the name or the comment of whoever it was.
fn author(out: &mut Vec<u8>, old: Option<&Mailbox<'_>>, target: &Address) {
    let line = out.len();
    out.extend_from_slice(b"From: ");
    if let Some(name) = old.map(|old| old.name).filter(|name| !name.is_empty()) {
        // As it stands, folded lines, quotes and encoded words included.
        out.extend_from_slice(name);
        let begins = out.iter().rposition(|&octet| octet == b'\n').map_or(line, |at| (at + 1).max(line));
        let fits = out.len() - begins + target.as_str().len() + 3 <= FOLD_AT;
        out.extend_from_slice(if fits { b" " } else { b"\r\n " });
    }
    out.extend_from_slice(format!("<{target}>").as_bytes());
    if let Some(comment) = old.filter(|old| old.name.is_empty()).and_then(|old| old.comment) {
        out.push(b' ');
        out.extend_from_slice(comment);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes Reply-To with what stood in From.
fn replies(out: &mut Vec<u8>, authors: &[&Field<'_>]) {
    out.extend_from_slice(b"Reply-To:");
    let stated = authors.iter().filter(|field| !mailboxes(field.value).is_empty());
    for (position, field) in stated.enumerate() {
        if position > 0 {
            out.extend_from_slice(b",\r\n ");
        }
        if !field.value.starts_with(b" ") {
            out.push(b' ');
        }
        out.extend_from_slice(field.value);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
