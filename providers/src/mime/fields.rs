//! The one mapping from MIME to the fields that JSON APIs take.
//!
//! Envelope first: who is told to an API are the attempt's recipients and nobody else. What the header
//! says decides only where each of them is shown.

use mail_parser::MessageParser;

use crate::contract::{Attempt, Diagnostic, Failure, RecipientIndex};

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
    /// The other header fields, decoded, in order; nothing that is said by a field of its own, and
    /// nothing that belongs to the transport (Received, Return-Path, DKIM-Signature, MIME-Version, …).
    pub headers: Vec<(String, String)>,
    /// What has no place in fields, in words.
    pub lost: Vec<String>,
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

impl Fields {
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
        let Some(message) = MessageParser::default().parse(&bytes[..]) else {
            return Err(Failure::Unsuitable(Diagnostic::local("the message has no header that could be mapped to fields")));
        };
        let mailboxes = |address: Option<&mail_parser::Address<'_>>| -> Vec<Mailbox> {
            let each = address.into_iter().flat_map(|list| list.iter());
            each.filter_map(|one| Some(Mailbox { name: one.name().map(str::to_owned), address: one.address()?.to_owned() })).collect()
        };
        Ok(Self {
            from: mailboxes(message.from()).into_iter().next().unwrap_or_default(),
            reply_to: mailboxes(message.reply_to()),
            to: mailboxes(message.to()),
            cc: mailboxes(message.cc()),
            subject: message.subject().unwrap_or_default().to_owned(),
            text: message.body_text(0).map(Into::into),
            ..Self::default()
        })
    }

    /// The calls that tell the attempt's recipients, and nobody else, to an API that wants at least one
    /// `to`: one call for all of whom any is shown in To or Cc. If none is, each gets a call of its own,
    /// so that nobody is shown to the others.
    #[must_use]
    pub fn addressed(&self, attempt: &Attempt) -> Vec<(Vec<RecipientIndex>, Addressed)> {
        let shown = |list: &[Mailbox], address: &str| list.iter().find(|one| one.address.eq_ignore_ascii_case(address)).cloned();
        let (mut all, mut every) = (Addressed::default(), Vec::new());
        for (index, recipient) in attempt.recipients() {
            every.push(index);
            let address = recipient.address.as_str();
            // The envelope's spelling counts: it is what was accepted.
            let named = |one: Mailbox| Mailbox { address: address.to_owned(), ..one };
            match (shown(&self.to, address), shown(&self.cc, address)) {
                (Some(to), _) => all.to.push(named(to)),
                (None, Some(cc)) => all.cc.push(named(cc)),
                (None, None) => all.bcc.push(named(Mailbox::default())),
            }
        }
        if all.to.is_empty() {
            all.to = std::mem::take(&mut all.cc);
        }
        if all.to.is_empty() {
            let alone = |(index, one)| (vec![index], Addressed { to: vec![one], ..Addressed::default() });
            return every.into_iter().zip(all.bcc).map(alone).collect();
        }
        vec![(every, all)]
    }
}
