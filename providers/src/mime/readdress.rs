//! The message as a service must get it that takes the recipients from the header.
//!
//! Who receives is what the envelope says, for this attempt. So To and Cc keep the recipients that they
//! show and lose everybody else, all others are in one Bcc field, which such a service takes out, and what the
//! message brought as Bcc is gone. Everything else stays as it was, octet for octet: To and Cc, too, where
//! there is nothing to take out.
//!
//! Addresses are read strictly. What could be read in two ways (no comma, a route, a comment within an
//! address) is taken out, and whoever was meant by it, if a recipient, gets the message by Bcc.

mod list;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use crate::contract::{Attempt, Diagnostic, Failure};
use list::{Entry, Mailbox, entries};

/// The attempt's message for a service that takes the recipients from the header. A message without From
/// gets `from`.
///
/// # Errors
/// `Unavailable` when the spool's file cannot be read.
pub async fn of(attempt: &Attempt, from: Option<&str>) -> Result<Vec<u8>, Failure> {
    let bytes = match attempt.message.body.bytes().await {
        Ok(bytes) => bytes,
        Err(error) => {
            return Err(Failure::Unavailable(Diagnostic::local(format!("the message cannot be read from the spool: {error}"))));
        }
    };
    let recipients: Vec<&str> = attempt.recipients().map(|(_, one)| one.address.as_str()).collect();
    Ok(readdressed(&bytes, &recipients, from))
}

/// `message` with a header that tells exactly `recipients`, and with `from` if it says nothing about that.
#[must_use]
pub fn readdressed(message: &[u8], recipients: &[&str], from: Option<&str>) -> Vec<u8> {
    let (fields, body) = split(message);
    let wanted = Wanted::new(recipients);
    let mut shown: HashMap<Vec<u8>, Option<Vec<&str>>> = HashMap::new();
    let mut kept = Vec::with_capacity(body + 256);
    let (mut has_from, mut is_sound) = (false, true);
    for field in fields {
        // A folded line with nothing on it is for some the end of the header.
        is_sound &= !field.split(|byte| *byte == b'\n').skip(1).any(|line| !line.is_empty() && line.trim_ascii().is_empty());
        match Name::of(field) {
            Name::From => has_from = true,
            Name::HiddenCopy => continue,
            Name::Recipients { is_resent } => {
                let before = kept.len();
                let addresses = narrow(field, &wanted, &mut kept);
                // Nobody reads the recipients from Resent-To, and not from behind a line that is none. Of
                // two fields with one name (RFC 5322 section 3.6 allows one) a service may read either.
                if is_sound && !is_resent && kept.len() > before {
                    shown.entry(name(field)).and_modify(|known| *known = None).or_insert(Some(addresses));
                }
                continue;
            }
            Name::Other => {}
            Name::None => is_sound = false,
        }
        kept.extend_from_slice(field);
    }
    let mut new = Vec::with_capacity(message.len() + 256);
    if let (false, Some(from)) = (has_from, from) {
        new.extend_from_slice(format!("From: <{from}>\r\n").as_bytes());
    }
    let mut shown: HashSet<&str> = shown.into_values().flatten().flatten().collect();
    let hidden: Vec<String> = recipients.iter().filter(|address| shown.insert(**address)).map(|address| format!("<{address}>")).collect();
    if !hidden.is_empty() {
        // At the top, where every reader of headers has to come by.
        new.extend_from_slice(format!("Bcc: {}\r\n", hidden.join(",\r\n ")).as_bytes());
    }
    new.extend_from_slice(&kept);
    new.extend_from_slice(&message[body..]);
    new
}

/// The recipients, to be found by what a header shows.
struct Wanted<'a>(HashMap<String, Vec<&'a str>>);

impl<'a> Wanted<'a> {
    fn new(recipients: &[&'a str]) -> Self {
        let mut wanted: HashMap<String, Vec<&str>> = HashMap::new();
        for &address in recipients {
            let alike = wanted.entry(address.to_ascii_lowercase()).or_default();
            if !alike.contains(&address) {
                alike.push(address);
            }
        }
        Self(wanted)
    }

    /// The recipient that a header shows. Case is no difference, unless there are recipients that differ in
    /// nothing else: they may be several mailboxes, which only the receiving host knows. Beyond ASCII it is one:
    /// there, other letters have these as their lower case (U+212A is no `k`), and other mailboxes.
    fn find(&self, shown: &str) -> Option<&'a str> {
        match self.0.get(&shown.to_ascii_lowercase())?.as_slice() {
            [one] => Some(one),
            alike => alike.iter().find(|one| **one == shown).copied(),
        }
    }
}

/// What a field is about, as far as it matters here.
enum Name {
    From,
    HiddenCopy,
    Recipients {
        is_resent: bool,
    },
    Other,
    /// It is no field at all.
    None,
}

impl Name {
    fn of(field: &[u8]) -> Self {
        match &name(field)[..] {
            b"from" => Self::From,
            b"bcc" | b"resent-bcc" => Self::HiddenCopy,
            b"to" | b"cc" => Self::Recipients { is_resent: false },
            b"resent-to" | b"resent-cc" => Self::Recipients { is_resent: true },
            name if !name.is_empty() && name.iter().all(u8::is_ascii_graphic) => Self::Other,
            _ => Self::None,
        }
    }
}

/// A field's name in lower case; nothing where there is no colon.
fn name(field: &[u8]) -> Vec<u8> {
    let name = memchr::memchr(b':', field).map_or(&[][..], |colon| &field[..colon]);
    // White space before the colon is obsolete, and not unheard of (RFC 5322 section 4.5).
    name.trim_ascii_end().to_ascii_lowercase()
}

/// The fields of the header, each with its line ends, and where what follows them begins: the empty line.
fn split(message: &[u8]) -> (Vec<&[u8]>, usize) {
    let (mut fields, mut start, mut at) = (Vec::new(), 0, 0);
    while at < message.len() {
        let rest = &message[at..];
        let is_empty = rest.starts_with(b"\r\n") || rest.starts_with(b"\n");
        let goes_on = rest.starts_with(b" ") || rest.starts_with(b"\t");
        if start < at && !goes_on {
            fields.push(&message[start..at]);
            start = at;
        }
        if is_empty {
            break;
        }
        at += memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
    }
    if start < at {
        fields.push(&message[start..at]);
    }
    (fields, at)
}

/// Writes a field with those that are `wanted`: as it is if that is everybody, and not at all if it is
/// nobody. Returns who that is.
fn narrow<'a>(field: &[u8], wanted: &Wanted<'a>, to: &mut Vec<u8>) -> Vec<&'a str> {
    let colon = memchr::memchr(b':', field).map_or(0, |at| at + 1);
    // A list whose end cannot be told has nobody in it.
    let entries = entries(&field[colon..]).unwrap_or_else(|| vec![Entry::Mailbox(Mailbox { text: &[], address: None })]);
    let mut shown = Vec::new();
    let mut is_all = true;
    let mut texts: Vec<Vec<u8>> = Vec::new();
    let mut wants = |mailbox: &Mailbox<'_>| {
        let recipient = mailbox.address.as_ref().and_then(|address| wanted.find(address.as_str()));
        is_all &= recipient.is_some();
        shown.extend(recipient);
        recipient.is_some()
    };
    for entry in &entries {
        match entry {
            Entry::Mailbox(mailbox) if wants(mailbox) => texts.push(mailbox.text.to_vec()),
            Entry::Mailbox(_) => {}
            Entry::Group { name, members } => {
                let texts_of: Vec<&[u8]> = members.iter().filter(|member| wants(member)).map(|member| member.text).collect();
                if members.is_empty() || !texts_of.is_empty() {
                    texts.push([name, &b": "[..], &texts_of.join(&b",\r\n "[..]), &b";"[..]].concat());
                }
            }
        }
    }
    if is_all {
        to.extend_from_slice(field);
    } else if !texts.is_empty() {
        to.extend_from_slice(&field[..colon]);
        to.push(b' ');
        to.extend_from_slice(&texts.join(&b",\r\n "[..]));
        to.extend_from_slice(b"\r\n");
    }
    shown
}
