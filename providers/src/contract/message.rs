//! A message: identity, envelope, body.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

use super::{Body, Envelope};

/// The identity of a message in Postrider: in the 250 reply, in every log line, in the spool.
///
/// A version 7 UUID, so ids sort by time of acceptance; written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Uuid);

impl MessageId {
    /// A new id, later than every id this process made before.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The 16 octets, as stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id of these 16 octets.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_simple(), f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message id has 32 hexadecimal digits")]
pub struct ParseMessageIdError;

impl FromStr for MessageId {
    type Err = ParseMessageIdError;

    fn from_str(text: &str) -> Result<Self, ParseMessageIdError> {
        Uuid::try_parse(text).map(Self).map_err(|_| ParseMessageIdError)
    }
}

/// A message as accepted.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its identity.
    pub id: MessageId,
    /// When it was accepted.
    pub received: SystemTime,
    /// Who handed it in.
    pub origin: Origin,
    /// Who it is from and for.
    pub envelope: Envelope,
    /// Its bytes, trace field included.
    pub body: Body,
}

/// Who handed a message in. Notifications that Postrider makes itself have neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The application, by its name in the config.
    pub application: Option<Arc<str>>,
    /// The client's address.
    pub client: Option<IpAddr>,
}
