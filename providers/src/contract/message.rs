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

/// Who handed a message in, and what it was called there. Notifications that Postrider makes itself have
/// neither application nor client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The application, by its name in the config.
    pub application: Option<Arc<str>>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Its Message-ID without the angle brackets, by which the sender knows it.
    pub message_id: Option<Arc<str>>,
    /// How urgent it is, if its application said so and may; otherwise its route decides.
    pub priority: Option<Priority>,
}

/// Whose turn it is among messages that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Somebody waits for it: a password reset, an alarm.
    High,
    /// Most mail.
    #[default]
    Normal,
    /// Newsletters and reports, which can wait.
    Bulk,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Bulk];

    /// The name, as in the config.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }

    /// The priority of that name, in any case of letters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
