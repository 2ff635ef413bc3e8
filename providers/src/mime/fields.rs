//! The one mapping from MIME to the fields that JSON APIs take.
//!
//! Envelope first: who is told to an API are the attempt's recipients and nobody else. What the header
//! says decides only where each of them is shown.
//!
//! - `head`: the header as a list of fields. `mail-parser` reads what is in them (RFC 5322, 2047, 2231).
//! - `walk`: the parts: which are the texts, and that all others become attachments. It is a walk of our
//!   own because it must be bounded whatever comes in, and must keep the octets of attachments.
//! - `mailbox`: mailboxes as text, for APIs that take them so.
//! - `octets`: transfer encodings and character sets. Texts are UTF-8 with `\n` at the end of lines, as
//!   JSON APIs expect; attachments keep every octet.
//! - `names`: names of files.
//!
//! What has no place in fields is said in [`Fields::lost`], for people. Not said are Received, Return-Path
//! and what checks on the way have noted (Authentication-Results, ARC): they are about the way until here.

mod head;
mod mailbox;
mod names;
mod octets;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::contract::{Address, Attempt, Delivery, Diagnostic, Failure, RecipientIndex};
use crate::http::api::Part;
use crate::http::parts::{Turns, with_lost};
use head::{Head, split};
pub(super) use mailbox::encoded_words;

/// A message as fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// From: the first address of it, or the reverse-path where there is none.
    pub from: Mailbox,
    /// Reply-To.
    pub reply_to: Vec<Mailbox>,
    /// To, as the header shows it, with people who are no recipients.
    pub to: Vec<Mailbox>,
    /// Cc, likewise.
    pub cc: Vec<Mailbox>,
    /// Subject, decoded.
    pub subject: String,
    /// The plain text, in UTF-8.
    pub text: Option<String>,
    /// The HTML, in UTF-8.
    pub html: Option<String>,
    /// Attachments and inline parts, in order.
    pub attachments: Vec<Attachment>,
    /// The other header fields, in order, each in one line and otherwise as written: encoded words
    /// (RFC 2047) stay, so the values are ASCII unless the message itself has other characters there.
    /// Nothing that is said by a field of its own, and nothing that belongs to the transport (Received,
    /// Return-Path, DKIM-Signature, MIME-Version, …). A name may be there more than once; where it must
    /// not be, see [`Self::unique_headers`].
    pub headers: Vec<(String, String)>,
    /// What has no place in fields, in words.
    pub lost: Vec<String>,
    /// Message-ID with its angle brackets, lost unless [`Self::take_message_id`] takes it.
    pub message_id: Option<String>,
    /// Date as written, lost unless [`Self::take_date`] takes it.
    pub date: Option<String>,
    /// Sender, where it is not From; lost unless [`Self::take_sender`] takes it.
    pub sender: Option<Mailbox>,
    /// An invitation that stands beside the texts, and is an attachment unless [`Self::take_calendar`]
    /// takes it.
    pub calendar: Option<Calendar>,
}

/// An invitation (RFC 5545) that is another form of the text, as calendars send it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calendar {
    /// The text of it, in UTF-8.
    pub text: String,
    /// The method that its media type says, as in `REQUEST`.
    pub method: Option<String>,
    /// Where it is in [`Fields::attachments`].
    attachment: usize,
}

/// A mailbox: an address, and perhaps a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mailbox {
    /// The display name, decoded.
    pub name: Option<String>,
    /// The address.
    pub address: String,
}

/// An attachment or an inline part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Its file name; made up from the media type where the message has none.
    pub name: String,
    /// Its media type, as in `image/png`.
    pub media_type: String,
    /// Content-ID without angle brackets, where the part is shown inside the HTML.
    pub content_id: Option<String>,
    /// Its octets, decoded.
    pub content: Vec<u8>,
}

/// What one call says about recipients: all of them are the attempt's, and each is there once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addressed {
    /// At least one.
    pub to: Vec<Mailbox>,
    /// Shown as copies.
    pub cc: Vec<Mailbox>,
    /// Not shown.
    pub bcc: Vec<Mailbox>,
}

/// Fields with a place of their own in [`Fields`].
const OWN: &[&str] = &["from", "to", "cc", "subject", "reply-to", "sender", "date", "message-id"];

/// Fields of the transport, and those that say who is hidden. `content-` and `arc-` begin more of them.
const TRANSPORT: &[&str] = &[
    "authentication-results",
    "bcc",
    "dkim-signature",
    "dkim2-signature",
    "domainkey-signature",
    "mime-version",
    "received",
    "received-spf",
    "resent-bcc",
    "return-path",
];

impl Addressed {
    /// The lists, by the names that most APIs have for them.
    #[must_use]
    pub fn lists(&self) -> [(&'static str, &[Mailbox]); 3] {
        [("to", &self.to), ("cc", &self.cc), ("bcc", &self.bcc)]
    }

    /// Who stands at a place of a list, for errors that say `to.1.email`.
    #[must_use]
    pub fn at(&self, list: &str, place: usize) -> Option<&Mailbox> {
        let (_, list) = self.lists().into_iter().find(|(name, _)| *name == list)?;
        list.get(place)
    }
}

impl Fields {
    const LOST_MESSAGE_ID: &str = "Message-ID: the service gives its own";
    const LOST_DATE: &str = "Date: the service sets its own";
    const LOST_SENDER: &str = "Sender";
    const LOST_CALENDAR: &str = "text/calendar: the invitation is handed over as an attachment";

    /// Reads the attempt's message.
    ///
    /// # Errors
    /// `Unsuitable` for what fields cannot say at all; `Unavailable` when the spool's file cannot be read.
    pub async fn of(attempt: &Attempt) -> Result<Self, Failure> {
        let bytes = match attempt.message.body.bytes().await {
            Ok(bytes) => bytes,
            Err(error) => {
                return Err(Failure::Unavailable(Diagnostic::local(format!("the message cannot be read from the spool: {error}"))));
            }
        };
        let mut fields = Self::read(&bytes, attempt.message.envelope.reverse_path.address())?;
        fields.compare(attempt);
        fields.lost = shortened(&fields.lost);
        Ok(fields)
    }

    /// Reads a message. From is `reverse_path` where the header has none that is an address.
    fn read(message: &[u8], reverse_path: Option<&Address>) -> Result<Self, Failure> {
        let (head, body) = split(message);
        let head = Head::read(head);
        if head.fields.is_empty() {
            return Err(Failure::Unsuitable(Diagnostic::local("the message has no header that could be mapped to fields")));
        }
        let mut fields = Self::default();
        fields.read_people(&head, reverse_path)?;
        fields.read_header(&head);
        walk::walk(&mut fields, &head, body)?;
        Ok(fields)
    }

    fn read_people(&mut self, head: &Head, reverse_path: Option<&Address>) -> Result<(), Failure> {
        let mut listed = |name: &str| -> Vec<Mailbox> {
            let (valid, odd): (Vec<_>, Vec<_>) = head.all(name).flat_map(|field| field.mailboxes()).partition(Mailbox::is_valid);
            let text = |one: &Mailbox| if one.address.is_empty() { one.name.clone().unwrap_or_default() } else { one.address.clone() };
            self.lost.extend(odd.iter().map(|one| format!("{name}: {:?} is no address", text(one))));
            valid
        };
        let mut from = listed("From").into_iter();
        let (to, cc, reply_to, sender) = (listed("To"), listed("Cc"), listed("Reply-To"), listed("Sender"));
        self.from = match (from.next(), reverse_path) {
            (Some(first), _) => first,
            (None, Some(address)) => {
                self.lost.extend(head.first("from").map(|_| "From: it has no address, and the envelope's is used".to_owned()));
                Mailbox { name: None, address: address.to_string() }
            }
            (None, None) => return Err(Failure::Unsuitable(Diagnostic::local("the message says nowhere who it is from"))),
        };
        self.lost.extend(from.map(|further| format!("From: {} beside the first", further.address)));
        (self.to, self.cc, self.reply_to) = (to, cc, reply_to);
        self.sender = sender.into_iter().next().filter(|sender| !sender.address.eq_ignore_ascii_case(&self.from.address));
        self.lost.extend(self.sender.as_ref().map(|_| Self::LOST_SENDER.to_owned()));
        Ok(())
    }

    fn read_header(&mut self, head: &Head) {
        self.subject = head.first("subject").map(|field| field.decoded()).unwrap_or_default();
        let damaged = self.subject.contains(char::REPLACEMENT_CHARACTER);
        self.lost.extend(damaged.then(|| "Subject: octets that mean nothing in its charset, which were replaced".to_owned()));
        let said = |name: &str| head.first(name).map(|field| field.text()).filter(|text| !text.is_empty());
        self.message_id = said("message-id");
        self.date = said("date");
        self.lost.extend(self.message_id.as_ref().map(|_| Self::LOST_MESSAGE_ID.to_owned()));
        self.lost.extend(self.date.as_ref().map(|_| Self::LOST_DATE.to_owned()));
        for name in ["Subject", "Sender", "Date", "Message-ID"] {
            if head.all(name).count() > 1 {
                self.lost.push(format!("{name}: it is there more than once, and the first counts"));
            }
        }
        if head.all("dkim-signature").next().is_some() {
            self.lost.push("DKIM-Signature: the message that was signed does not go on".to_owned());
        }
        for field in &head.fields {
            let name = field.name.to_ascii_lowercase();
            if OWN.contains(&name.as_str())
                || TRANSPORT.contains(&name.as_str())
                || name.starts_with("content-")
                || name.starts_with("arc-")
            {
                continue;
            }
            if field.is_damaged() {
                self.lost.push(format!("{}: octets that are no UTF-8, which were replaced", field.name));
            }
            self.headers.push((field.name.clone(), field.text()));
        }
        if head.odd_lines > 0 {
            self.lost.push(format!("lines of the header that are no fields: {}", head.odd_lines));
        }
    }

    /// Says where the people shown are others than those who are told.
    fn compare(&mut self, attempt: &Attempt) {
        let told: HashSet<String> = attempt.recipients().map(|(_, told)| told.address.as_str().to_ascii_lowercase()).collect();
        let is_told = |shown: &Mailbox| told.contains(&shown.address.to_ascii_lowercase());
        let mut absent = self.to.iter().chain(&self.cc).filter(|shown| !is_told(shown));
        let absent = absent.next().map(|first| (first.address.clone(), absent.count()));
        let (to, cc) = (self.to.iter().any(is_told), self.cc.iter().any(is_told));
        if let Some((first, more)) = absent {
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            self.lost.push(format!("To and Cc: {first}{more}, who are shown and get no copy by this call"));
        }
        if !to {
            self.lost.push(match cc {
                true => "Cc: it is shown as To, since nobody else is there".to_owned(),
                false => "To: each recipient is shown alone, since the header shows none of them".to_owned(),
            });
        }
    }

    /// The calls that tell the attempt's recipients, and nobody else, to an API that wants at least one
    /// `to`: one call for all of whom any is shown in To or Cc. If none is, each gets a call of its own,
    /// so that nobody is shown to the others. An address that differs from another only in case has one
    /// of its own, too: it may be another mailbox, and APIs refuse what looks the same.
    #[must_use]
    pub fn addressed(&self, attempt: &Attempt) -> Vec<(Vec<RecipientIndex>, Addressed)> {
        let (to, cc) = (by_address(&self.to), by_address(&self.cc));
        let (mut all, mut every, mut calls) = (Addressed::default(), Vec::new(), Vec::new());
        let mut placed = HashSet::new();
        let alone = |index, one| (vec![index], Addressed { to: vec![one], ..Addressed::default() });
        for (index, recipient) in attempt.recipients() {
            let address = recipient.address.as_str();
            // The envelope's spelling counts: it is what was accepted.
            let named = |one: Mailbox| Mailbox { address: address.to_owned(), ..one };
            if !placed.insert(address.to_lowercase()) {
                calls.push(alone(index, named(Mailbox::default())));
                continue;
            }
            every.push(index);
            let lower = address.to_ascii_lowercase();
            match (to.get(&lower), cc.get(&lower)) {
                (Some(&to), _) => all.to.push(named(to.clone())),
                (None, Some(&cc)) => all.cc.push(named(cc.clone())),
                (None, None) => all.bcc.push(named(Mailbox::default())),
            }
        }
        if all.to.is_empty() {
            all.to = std::mem::take(&mut all.cc);
        }
        let mut first: Vec<_> = match all.to.is_empty() {
            true => every.into_iter().zip(all.bcc).map(|(index, one)| alone(index, one)).collect(),
            false => vec![(every, all)],
        };
        first.append(&mut calls);
        first
    }

    /// Notes what became of one of the calls of [`Self::addressed`]. Where it was refused for somebody whom
    /// the answer does not name, nobody got it, and its recipients are asked for again in two halves, until
    /// those that are meant are alone: they must not keep the others from getting theirs.
    pub fn done(&self, turns: &mut Turns<Addressed>, attempt: &Attempt, recipients: Vec<RecipientIndex>, part: Part) {
        if !matches!(part, Part::Unnamed(_)) {
            return turns.done(recipients, part);
        }
        let (first, second) = recipients.split_at(recipients.len() / 2);
        let half = |half: &[RecipientIndex]| self.addressed(&Attempt { recipients: half.into(), ..attempt.clone() });
        turns.instead([half(first), half(second)].concat());
    }

    /// Whether there is no text at all. APIs that refuse that get a space.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [&self.text, &self.html].into_iter().flatten().all(|text| text.trim().is_empty())
    }

    /// For APIs that want a subject.
    pub fn require_subject(&mut self) {
        if self.subject.is_empty() {
            self.subject = "(no subject)".to_owned();
            self.lost.push("Subject: the message has none, and the service wants one".to_owned());
        }
    }

    /// For APIs that can speak only of addresses in ASCII.
    ///
    /// # Errors
    /// `Unsuitable`, naming the address that is not.
    pub fn only_ascii(&self, attempt: &Attempt) -> Result<(), Failure> {
        let told = attempt.recipients().map(|(_, recipient)| recipient.address.as_str());
        let shown = std::iter::once(&self.from).chain(&self.reply_to).map(|one| one.address.as_str());
        match shown.chain(told).find(|address| !address.is_ascii()) {
            Some(address) => Err(Failure::Unsuitable(Diagnostic::local(format!("this API takes no address outside ASCII: {address}")))),
            None => Ok(()),
        }
    }

    /// Keeps the header fields for which `takes` says so, by their name in lower case; the others are
    /// lost, because of `why`.
    pub fn keep_headers(&mut self, takes: impl Fn(&str) -> bool, why: &str) {
        let (kept, refused): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.headers).into_iter().partition(|(name, _)| takes(&name.to_ascii_lowercase()));
        self.headers = kept;
        self.lost.extend(refused.into_iter().map(|(name, _)| format!("{name}: {why}")));
    }

    /// The header fields for an API that takes each name once, and what that loses: of two fields with
    /// the same name the first is kept, since it is nowhere said that their values can be joined.
    #[must_use]
    pub fn unique_headers(&self) -> (Map<String, Value>, Vec<String>) {
        let (mut unique, mut lost, mut seen) = (Map::new(), Vec::new(), HashSet::new());
        let mut told = HashSet::new();
        for (name, value) in &self.headers {
            let lower = name.to_ascii_lowercase();
            if seen.insert(lower.clone()) {
                unique.insert(name.clone(), value.as_str().into());
            } else if told.insert(lower) {
                lost.push(format!("{name}: it is there more than once, and the first is kept"));
            }
        }
        (unique, lost)
    }

    /// Message-ID, for an API that keeps it.
    pub fn take_message_id(&mut self) -> Option<String> {
        self.found(Self::LOST_MESSAGE_ID);
        self.message_id.clone()
    }

    /// Date, for an API that keeps it.
    pub fn take_date(&mut self) -> Option<String> {
        self.found(Self::LOST_DATE);
        self.date.clone()
    }

    /// Sender, for an API that has a member for it.
    pub fn take_sender(&mut self) -> Option<Mailbox> {
        self.found(Self::LOST_SENDER);
        self.sender.clone()
    }

    /// The invitation, for an API that takes it beside the texts; it is no attachment any more then.
    pub fn take_calendar(&mut self) -> Option<Calendar> {
        self.found(Self::LOST_CALENDAR);
        let calendar = self.calendar.take()?;
        if calendar.attachment < self.attachments.len() {
            self.attachments.remove(calendar.attachment);
        }
        Some(calendar)
    }

    fn found(&mut self, note: &str) {
        self.lost.retain(|lost| lost != note);
    }

    /// The same delivery, with what was lost in the receipt of everyone to whom it was relayed.
    pub fn told(&self, delivery: Delivery) -> Delivery {
        with_lost(delivery, &shortened(&self.lost))
    }
}

/// The first mailbox for each address, in lower case.
fn by_address(list: &[Mailbox]) -> HashMap<String, &Mailbox> {
    // Reversed, so that the first comes last and stays.
    list.iter().rev().map(|one| (one.address.to_ascii_lowercase(), one)).collect()
}

/// Nobody reads a thousand notes, and each receipt has all of them.
fn shortened(notes: &[String]) -> Vec<String> {
    const MOST: usize = 50;
    const LONGEST: usize = 300;
    let short = |note: &String| match note.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}\u{2026}", &note[..end]),
        None => note.clone(),
    };
    let more = (notes.len() > MOST).then(|| "and more".to_owned());
    notes.iter().take(MOST).map(short).chain(more).collect()
}
