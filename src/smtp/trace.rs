//! The trace field that this host adds, and the hop limit.

use std::net::IpAddr;
use std::time::SystemTime;

use postrider_providers::contract::{Envelope, MessageId};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::tls::Encryption;

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
    /// What the connection is encrypted with.
    pub encryption: Option<Encryption>,
    /// Whether the client has logged in.
    pub authenticated: bool,
    /// The message's id here.
    pub id: MessageId,
    /// The time of acceptance.
    pub at: SystemTime,
}

impl Received<'_> {
    /// The field (RFC 5321 section 4.4), with CRLF. A single recipient is named in FOR; several are
    /// not, because that would tell each about the others (section 7.6).
    pub fn field(&self, envelope: &Envelope) -> String {
        let with = self.protocol(envelope.smtputf8);
        // RFC 6531 section 3.7.3: a name outside ASCII may stand in the trace of such a message only.
        let may_stand =
            |c: char| (c.is_ascii_graphic() && !"()<>\\\";".contains(c)) || (envelope.smtputf8 && !c.is_ascii() && c.is_alphanumeric());
        let helo: String = self.helo.chars().map(|c| if may_stand(c) { c } else { '?' }).collect();
        let client = match self.client {
            IpAddr::V4(address) => format!("[{address}]"),
            IpAddr::V6(address) => format!("[IPv6:{address}]"),
        };
        let recipient = match envelope.recipients.as_slice() {
            [one] => format!("\r\n\tfor <{}>", one.address),
            _ => String::new(),
        };
        // The registered clause of RFC 8314 section 4.3, with the version as a comment.
        let tls = self.encryption.map_or_else(String::new, |used| format!("\r\n\ttls {} ({})", used.cipher, used.version));
        let date = date(self.at);
        format!(
            "Received: from {helo} ({client})\r\n\tby {} (Postrider) with {with} id {}{recipient}{tls};\r\n\t{date}\r\n",
            self.hostname, self.id
        )
    }

    /// The keyword of WITH: RFC 3848, and RFC 6531 section 4.3. Only those of EHLO tell about TLS and AUTH.
    fn protocol(&self, smtputf8: bool) -> &'static str {
        match (smtputf8, self.extended, self.encryption.is_some(), self.authenticated) {
            (true, _, false, false) => "UTF8SMTP",
            (true, _, true, false) => "UTF8SMTPS",
            (true, _, false, true) => "UTF8SMTPA",
            (true, _, true, true) => "UTF8SMTPSA",
            (false, true, false, false) => "ESMTP",
            (false, true, true, false) => "ESMTPS",
            (false, true, false, true) => "ESMTPA",
            (false, true, true, true) => "ESMTPSA",
            (false, false, _, _) => "SMTP",
        }
    }
}

/// A time as header fields have it (RFC 5322 section 3.3).
pub fn date(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc2822).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use postrider_providers::contract::{BodyType, ReversePath};

    use super::*;

    #[test]
    fn the_protocol_tells_about_extensions_encryption_and_login() {
        let encryption = Some(Encryption { version: "TLSv1.2", cipher: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" });
        for (smtputf8, extended, encryption, authenticated, expected) in [
            (false, false, None, false, "SMTP"),
            (false, false, encryption, false, "SMTP"),
            (false, true, None, false, "ESMTP"),
            (false, true, encryption, false, "ESMTPS"),
            (false, true, None, true, "ESMTPA"),
            (false, true, encryption, true, "ESMTPSA"),
            (true, true, None, false, "UTF8SMTP"),
            (true, true, encryption, false, "UTF8SMTPS"),
            (true, true, None, true, "UTF8SMTPA"),
            (true, true, encryption, true, "UTF8SMTPSA"),
        ] {
            let received = Received {
                helo: "client.example",
                client: "2001:db8::1".parse().unwrap(),
                hostname: "relay.example",
                extended,
                encryption,
                authenticated,
                id: MessageId::generate(),
                at: SystemTime::UNIX_EPOCH,
            };
            let envelope = Envelope {
                reverse_path: ReversePath::Null,
                recipients: Vec::new(),
                body_type: BodyType::SevenBit,
                smtputf8,
                returned: None,
                envelope_id: None,
            };
            let field = received.field(&envelope);
            assert!(field.contains(&format!(" with {expected} id ")), "{field}");
            let tls = ";\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n";
            let tls = if encryption.is_some() {
                format!("\r\n\ttls TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 (TLSv1.2){tls}")
            } else {
                tls.to_owned()
            };
            assert!(field.ends_with(&tls), "{field}");
        }
    }
}
