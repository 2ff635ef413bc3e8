//! The text of a notification: its header, and the part for programs.

use std::fmt::{Arguments, Write as _};
use std::time::SystemTime;

use postrider_providers::contract::{BodyType, Diagnostic, EnhancedStatus, Message, MessageId, OriginalRecipient};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::returned::Returned;
use super::{Event, Notice, Reader, Relay, Who};

/// What a host said is cut there, so that no line grows past what a header may hold (RFC 5322
/// section 2.1.1).
const MAX_WORDS: usize = 800;

/// Everything that a notification tells.
pub(super) struct Report<'a> {
    pub(super) message: &'a Message,
    pub(super) reader: Reader<'a>,
    pub(super) notices: &'a [Notice<'a>],
    pub(super) relay: Relay<'a>,
    pub(super) id: MessageId,
    pub(super) now: SystemTime,
    /// Whether the way there carries SMTPUTF8, as it must for such an address.
    pub(super) utf8: bool,
}

/// Lines that end with CRLF.
#[derive(Default)]
pub(super) struct Lines(pub(super) String);

impl Lines {
    pub(super) fn add(&mut self, line: Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.0.write_fmt(line);
        self.0.push_str("\r\n");
    }
}

impl Report<'_> {
    pub(super) fn boundary(&self) -> String {
        format!("=_postrider_{}", self.id)
    }

    /// The header of the notification.
    pub(super) fn header(&self, body_type: BodyType) -> String {
        let mut lines = Lines::default();
        lines.add(format_args!("From: Mail Delivery System <{}>", self.relay.from()));
        lines.add(format_args!("To: <{}>", self.reader.address));
        lines.add(format_args!("Subject: {}", self.subject()));
        lines.add(format_args!("Date: {}", date(self.now)));
        lines.add(format_args!("Message-ID: <{}@{}>", self.id, self.relay.hostname));
        let submitted = if self.reader.who == Who::Sender { "auto-replied" } else { "auto-generated" };
        lines.add(format_args!("Auto-Submitted: {submitted}"));
        lines.add(format_args!("MIME-Version: 1.0"));
        lines.add(format_args!("Content-Type: multipart/report; report-type=delivery-status;"));
        lines.add(format_args!("\tboundary=\"{}\"", self.boundary()));
        if body_type == BodyType::EightBitMime {
            lines.add(format_args!("Content-Transfer-Encoding: 8bit"));
        }
        lines.0
    }

    /// The first two parts, and the head of the third.
    pub(super) fn render(&self, returned: &Returned) -> String {
        let mut lines = Lines::default();
        self.for_people(&mut lines, returned);
        self.for_programs(&mut lines);
        lines.add(format_args!("\r\n--{}\r\nContent-Type: {}", self.boundary(), returned.content_type));
        if let Some(encoding) = returned.encoding.name() {
            lines.add(format_args!("Content-Transfer-Encoding: {encoding}"));
        }
        lines.add(format_args!(""));
        lines.0
    }

    /// What follows the third part.
    pub(super) fn foot(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary())
    }

    fn for_programs(&self, lines: &mut Lines) {
        //= https://www.rfc-editor.org/rfc/rfc6533#section-4.1
        //# Second, systems generating a
        //# message/global-delivery-status body part SHOULD use the utf-8-address
        //# form of the UTF-8 address type for all addresses containing
        //# characters outside the ASCII repertoire.
        let (kind, encoding) = if self.utf8 {
            ("message/global-delivery-status", "\r\nContent-Transfer-Encoding: 8bit")
        } else {
            ("message/delivery-status", "")
        };
        lines.add(format_args!("\r\n--{}\r\nContent-Type: {kind}{encoding}\r\n", self.boundary()));
        //= https://www.rfc-editor.org/rfc/rfc3461#section-6.3
        //# if an ENVID parameter was present on the MAIL command, an
        //# Original-Envelope-ID field MUST be supplied, and the value
        //# associated with the ENVID parameter must appear in that field.
        if let Some(id) = &self.message.envelope.envelope_id {
            lines.add(format_args!("Original-Envelope-Id: {id}"));
        }
        lines.add(format_args!("Reporting-MTA: dns; {}", self.relay.hostname));
        lines.add(format_args!("Arrival-Date: {}", date(self.message.received)));
        for notice in self.notices {
            self.recipient(lines, notice);
        }
    }

    fn recipient(&self, lines: &mut Lines, Notice { recipient, event }: &Notice<'_>) {
        lines.add(format_args!(""));
        //= https://www.rfc-editor.org/rfc/rfc3461#section-6.3
        //# If no ORCPT parameter was provided
        //# for this recipient, the Original-Recipient field MUST NOT
        //# appear.
        if let Some(original) = &recipient.original {
            lines.add(format_args!("Original-Recipient: {}", original.to_field(self.utf8)));
        }
        //= https://www.rfc-editor.org/rfc/rfc3464#section-2.3.2
        //# The generic-address sub-field of the Final-Recipient field MUST
        //# contain the mailbox address of the recipient (from the transport
        //# envelope), as it was when the Reporting MTA accepted the message for
        //# delivery.
        lines.add(format_args!("Final-Recipient: {}", OriginalRecipient::from(&recipient.address).to_field(self.utf8)));
        let (action, status, remote) = match event {
            Event::Failed { diagnostic, expired } => ("failed", failed_status(diagnostic, *expired), diagnostic.remote.as_deref()),
            Event::Delayed { diagnostic, .. } => ("delayed", delayed_status(diagnostic), diagnostic.remote.as_deref()),
            Event::Relayed(receipt) => ("relayed", relayed_status(&receipt.reply), receipt.remote.as_deref()),
        };
        lines.add(format_args!("Action: {action}\r\nStatus: {status}"));
        //= https://www.rfc-editor.org/rfc/rfc3461#section-6.3
        //# For DSNs resulting from attempts to relay a message to one or
        //# more recipients via SMTP, the Remote-MTA field MUST be supplied
        //# for each of those recipients.
        if let Some(remote) = remote {
            lines.add(format_args!("Remote-MTA: dns; {remote}"));
        }
        match event {
            Event::Failed { diagnostic, .. } | Event::Delayed { diagnostic, .. } => self.diagnostic(lines, diagnostic),
            Event::Relayed(receipt) if remote.is_some() => {
                lines.add(format_args!("Diagnostic-Code: smtp; {}", self.words(&receipt.reply)));
            }
            Event::Relayed(_) => {}
        }
        // Of mail that only waits, nobody was asked just now.
        if !matches!(event, Event::Delayed { asked: false, .. }) {
            lines.add(format_args!("Last-Attempt-Date: {}", date(self.now)));
        }
        match event {
            Event::Relayed(receipt) => {
                if let Some(id) = &receipt.remote_id {
                    lines.add(format_args!("Final-Log-ID: {}", self.words(id)));
                }
            }
            Event::Failed { .. } => lines.add(format_args!("Final-Log-ID: {}", self.message.id)),
            Event::Delayed { until, .. } => {
                lines.add(format_args!("Final-Log-ID: {}", self.message.id));
                // RFC 3464 section 2.3.9: for delayed recipients, and for no others.
                lines.add(format_args!("Will-Retry-Until: {}", date(*until)));
            }
        }
    }

    /// What was said last: by an SMTP host, by a service over HTTP, or by this relay.
    fn diagnostic(&self, lines: &mut Lines, diagnostic: &Diagnostic) {
        match diagnostic {
            Diagnostic { code: Some(code), text, remote: Some(_), .. } => {
                lines.add(format_args!("Diagnostic-Code: smtp; {code} {}", self.words(text)));
            }
            Diagnostic { code: Some(code), text, .. } => lines.add(format_args!("Diagnostic-Code: x-http; {code} {}", self.words(text))),
            _ => lines.add(format_args!("Diagnostic-Code: x-postrider; {}", self.words(&diagnostic.to_string()))),
        }
    }

    /// What somebody said, fit for a field. Only the global form holds more than ASCII (RFC 3464
    /// section 2.1).
    fn words(&self, text: &str) -> String {
        let text = one_line(text);
        if self.utf8 { text } else { text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect() }
    }
}

/// RFC 3464 section 2.3.4: a failed recipient has a status of class 5, or 4.4.7 when time ran out.
fn failed_status(diagnostic: &Diagnostic, expired: bool) -> EnhancedStatus {
    if expired {
        return EnhancedStatus(4, 4, 7);
    }
    diagnostic.status.filter(|status| status.0 == 5).unwrap_or(EnhancedStatus(5, 0, 0))
}

/// RFC 3464 section 2.3.4: that of a delayed recipient is of class 4.
fn delayed_status(diagnostic: &Diagnostic) -> EnhancedStatus {
    diagnostic.status.filter(|status| status.0 == 4).unwrap_or(EnhancedStatus(4, 0, 0))
}

/// The status in a reply as in `250 2.1.5 Ok`.
fn relayed_status(reply: &str) -> EnhancedStatus {
    let text = reply.split_once(' ').map_or("", |(_, text)| text);
    EnhancedStatus::parse_prefix(text).filter(|status| status.0 == 2).unwrap_or(EnhancedStatus(2, 0, 0))
}

pub(super) fn date(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc2822).unwrap_or_default()
}

pub(super) fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(MAX_WORDS));
    line
}
