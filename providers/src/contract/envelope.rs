//! Who a message is from and for, as MAIL and RCPT said. Headers have no say in it.

use std::fmt;
use std::sync::Arc;

use super::{Address, Notify, OriginalRecipient, Returned};

/// The reverse-path of MAIL FROM (RFC 5321 section 4.1.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: a notification, which must never cause another one (RFC 5321 section 4.5.5).
    Null,
    /// Where notifications go.
    Mailbox(Address),
}

impl ReversePath {
    /// The address, unless this is the null reverse-path.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Mailbox(address) => Some(address),
        }
    }

    /// The sending domain in lower case, unless this is the null reverse-path.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.address().map(Address::domain)
    }

    /// The text between `<` and `>`; empty for the null reverse-path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.address().map_or("", Address::as_str)
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

/// One recipient of the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The forward-path as received, without a source route.
    pub address: Address,
    /// `NOTIFY=`; `None` if the client did not say.
    pub notify: Option<Notify>,
    /// `ORCPT=`.
    pub original: Option<OriginalRecipient>,
}

impl From<Address> for Recipient {
    /// A recipient without parameters.
    fn from(address: Address) -> Self {
        Self { address, notify: None, original: None }
    }
}

/// A recipient's position in [`Envelope::recipients`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecipientIndex(pub u32);

/// What the client said about the content's octets (RFC 6152).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyType {
    /// No BODY parameter, or `BODY=7BIT`.
    #[default]
    SevenBit,
    /// `BODY=8BITMIME`: the next hop must offer 8BITMIME, too.
    EightBitMime,
}

/// The SMTP envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Where notifications go.
    pub reverse_path: ReversePath,
    /// Everyone who is to get the message, in the order of RCPT.
    pub recipients: Vec<Recipient>,
    /// `BODY=` of MAIL.
    pub body_type: BodyType,
    /// Whether MAIL said SMTPUTF8 (RFC 6531), so that every hop must offer it.
    pub smtputf8: bool,
    /// `RET=` (RFC 3461 section 4.3); `None` if the client did not say.
    pub returned: Option<Returned>,
    /// `ENVID=` (RFC 3461 section 4.4), decoded from its xtext.
    pub envelope_id: Option<Arc<str>>,
}

impl Envelope {
    /// An envelope without parameters.
    #[must_use]
    pub fn new(reverse_path: ReversePath, recipients: Vec<Recipient>) -> Self {
        let body_type = BodyType::SevenBit;
        Self { reverse_path, recipients, body_type, smtputf8: false, returned: None, envelope_id: None }
    }
}
