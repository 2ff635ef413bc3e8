//! What a client offers, read from its ClientHello for the log: an old client is refused by the TLS
//! library, which then does not say what it wanted. Pure; whatever the octets, there is an answer.

use std::fmt;

/// What a client offers. Displayed as in `TLS 1.0, TLS 1.1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Versions as on the wire, 0x0303 for TLS 1.2; the least first. Empty if there was no ClientHello.
    pub versions: Vec<u16>,
    /// The host that it wants to speak to (SNI, RFC 6066 section 3).
    pub server_name: Option<String>,
}

impl Offer {
    /// Reads what has arrived.
    #[must_use]
    pub fn read(octets: &[u8]) -> Self {
        if let [high, _, 1, major, minor, ..] = *octets
            && high & 0x80 != 0
        {
            // The form of SSL 2.0, in which very old clients also offer later versions.
            return Self { versions: vec![u16::from_be_bytes([major, minor])], server_name: None };
        }
        hello(&mut Reader(&handshake(octets))).unwrap_or_default()
    }

    /// Whether one of the versions is taken here.
    #[must_use]
    pub fn is_recent(&self) -> bool {
        self.versions.iter().any(|version| (TLS_1_2..=TLS_1_3).contains(version))
    }
}

const TLS_1_2: u16 = 0x0303;
const TLS_1_3: u16 = 0x0304;

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.versions.is_empty() {
            return f.write_str("nothing");
        }
        for (index, version) in self.versions.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            match version {
                0x0002 | 0x0200 => f.write_str("SSL 2.0")?,
                0x0300 => f.write_str("SSL 3.0")?,
                0x0301..=0x0304 => write!(f, "TLS 1.{}", version - 0x0301)?,
                other => write!(f, "version 0x{other:04x}")?,
            }
        }
        Ok(())
    }
}

/// The handshake messages in the records at the start of `octets`.
fn handshake(octets: &[u8]) -> Vec<u8> {
    let mut messages = Vec::new();
    let mut records = Reader(octets);
    while let Some(22) = records.number(1) {
        let _version = records.number(2);
        let Some(length) = records.number(2) else { break };
        let part = length.min(records.0.len());
        messages.extend(records.take(part).unwrap_or_default());
    }
    messages
}

/// RFC 8446 section 4.1.2, and RFC 5246 section 7.4.1.2.
fn hello(message: &mut Reader<'_>) -> Option<Offer> {
    if message.number(1)? != 1 {
        return None;
    }
    message.number(3)?;
    let version = u16::try_from(message.number(2)?).ok()?;
    let mut offer = Offer { versions: vec![version], server_name: None };
    extensions(message, &mut offer);
    Some(offer)
}

fn extensions(message: &mut Reader<'_>, offer: &mut Offer) -> Option<()> {
    message.take(32)?;
    // The session, the cipher suites, the compression methods.
    message.block(1)?;
    message.block(2)?;
    message.block(1)?;
    let mut extensions = message.block(2)?;
    while let Some(kind) = extensions.number(2) {
        let mut content = extensions.block(2)?;
        match kind {
            // supported_versions, which overrules the version at the start. Values such as 0x?a?a are
            // there to keep servers tolerant (RFC 8701), and mean nothing.
            43 => {
                let mut list = content.block(1)?;
                let mut versions: Vec<u16> = std::iter::from_fn(|| list.number(2).and_then(|version| u16::try_from(version).ok()))
                    .filter(|version| version & 0x0f0f != 0x0a0a)
                    .collect();
                versions.sort_unstable();
                offer.versions = versions;
            }
            // server_name: a list of which the first is a host name.
            0 => {
                let mut list = content.block(2)?;
                if list.number(1)? == 0 {
                    let name = list.block(2)?.0;
                    let clean = |octet: &u8| if octet.is_ascii_graphic() { char::from(*octet) } else { '?' };
                    offer.server_name = Some(name.iter().take(255).map(clean).collect());
                }
            }
            _ => {}
        }
    }
    Some(())
}

/// Reads numbers and blocks from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, octets: usize) -> Option<usize> {
        Some(self.take(octets)?.iter().fold(0, |number, &octet| number << 8 | usize::from(octet)))
    }

    /// What follows its own length, which is a number of so many octets.
    fn block(&mut self, octets: usize) -> Option<Self> {
        let length = self.number(octets)?;
        self.take(length).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::version::{TLS12, TLS13};

    use super::*;

    /// The first octets of a client of the TLS library.
    fn client(versions: &[&'static rustls::SupportedProtocolVersion], host: &str) -> Vec<u8> {
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), host.to_owned().try_into().unwrap()).unwrap();
        let mut octets = Vec::new();
        connection.write_tls(&mut octets).unwrap();
        octets
    }

    #[test]
    fn versions_and_host_are_read() {
        let offer = Offer::read(&client(&[&TLS12, &TLS13], "relay.example"));
        assert_eq!((offer.to_string().as_str(), offer.server_name.as_deref()), ("TLS 1.2, TLS 1.3", Some("relay.example")));
        assert!(offer.is_recent());
        assert_eq!(Offer::read(&client(&[&TLS12], "192.0.2.1")), Offer { versions: vec![0x0303], server_name: None });
    }

    #[test]
    fn a_client_of_twenty_years_ago_is_understood() {
        // SSL 3.0 without extensions, TLS 1.0 without any, and the form of SSL 2.0.
        let old = |minor: u8| [&[22, 3, 0, 0, 43, 1, 0, 0, 39, 3, minor][..], &[7; 32], &[0, 0, 2, 0, 5, 1, 0]].concat();
        assert_eq!(Offer::read(&old(0)).to_string(), "SSL 3.0");
        assert_eq!(Offer::read(&old(1)).to_string(), "TLS 1.0");
        assert_eq!(Offer::read(&[0x80, 0x2e, 1, 0, 2, 0, 3]).to_string(), "SSL 2.0");
        assert!(!Offer::read(&old(2)).is_recent());
    }

    #[test]
    fn what_is_cut_off_or_no_hello_is_no_reason_to_panic() {
        let whole = client(&[&TLS13], "relay.example");
        for end in 0..whole.len() {
            let _ = Offer::read(&whole[..end]);
        }
        assert_eq!(Offer::read(b"EHLO client.example\r\n").to_string(), "nothing");
    }

    proptest::proptest! {
        #[test]
        fn no_octets_cause_a_panic(octets: Vec<u8>, at in 0usize..200, octet: u8) {
            let _ = Offer::read(&octets);
            let mut damaged = client(&[&TLS12, &TLS13], "relay.example");
            damaged[at] = octet;
            let _ = Offer::read(&damaged).to_string();
        }
    }
}
