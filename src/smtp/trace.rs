//! The trace field that this host adds, and the hop limit.

use std::net::IpAddr;
use std::time::SystemTime;

use postrider_providers::contract::{Envelope, MessageId};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Received fields from which on a message is taken to run in a loop. RFC 5321 section 6.3 asks for a
/// large threshold, normally at least 100.
pub const MAX_HOPS: usize = 100;

/// What the Received field tells.
#[derive(Debug)]
pub struct Received<'a> {
    /// The name the client gave in HELO or EHLO.
    pub helo: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// This host.
    pub hostname: &'a str,
    /// Whether the client said EHLO.
    pub extended: bool,
    /// The message's id here.
    pub id: MessageId,
    /// The time of acceptance.
    pub at: SystemTime,
}

impl Received<'_> {
    /// The field (RFC 5321 section 4.4), with CRLF. A single recipient is named in FOR; several are
    /// not, because that would tell each about the others (section 7.6).
    pub fn field(&self, envelope: &Envelope) -> String {
        // RFC 3848 and RFC 6531 section 4.3.
        let with = match (envelope.smtputf8, self.extended) {
            (true, _) => "UTF8SMTP",
            (false, true) => "ESMTP",
            (false, false) => "SMTP",
        };
        let helo: String = self.helo.chars().map(|c| if c.is_ascii_graphic() && !"()<>\\\";".contains(c) { c } else { '?' }).collect();
        let client = match self.client {
            IpAddr::V4(address) => format!("[{address}]"),
            IpAddr::V6(address) => format!("[IPv6:{address}]"),
        };
        let recipient = match envelope.recipients.as_slice() {
            [one] => format!("\r\n\tfor <{}>", one.address),
            _ => String::new(),
        };
        let date = OffsetDateTime::from(self.at).format(&Rfc2822).unwrap_or_default();
        format!(
            "Received: from {helo} ({client})\r\n\tby {} (Postrider) with {with} id {}{recipient};\r\n\t{date}\r\n",
            self.hostname, self.id
        )
    }
}
