//! The records of the journal, as they are written down (JSON).

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// One record: what one settlement, or one action of a person, brought about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// The message's id, 32 hexadecimal digits; empty if it is about the gateway itself.
    pub message: String,
    /// What is to be known of the message; in its first record and in its last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Whether the message has left the queue with this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// A message as it was accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// When it was accepted, in milliseconds since 1970.
    pub received: u64,
    /// The reverse-path; empty for the null one.
    pub sender: String,
    /// All recipients, in the order of RCPT.
    pub recipients: Vec<String>,
    /// Its Message-ID without angle brackets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Arc<str>>,
    /// Octets.
    pub size: u64,
    /// The application that handed it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<Arc<str>>,
    /// The client that handed it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// One thing that happened. Recipients are positions in the order of RCPT; those to whom the same happened are in one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A provider was asked.
    Attempt {
        /// The number of the attempt, from 1.
        number: u32,
        /// The provider.
        provider: String,
        /// The route.
        route: String,
        /// For whom.
        recipients: Vec<u32>,
        /// The verdict, by the name that the log uses.
        verdict: String,
        /// The provider's words.
        words: String,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
    },
    /// Handed over.
    Relayed {
        /// The recipients.
        recipients: Vec<u32>,
        /// To whom.
        provider: String,
        /// Its id for the message.
        remote_id: Option<String>,
        /// Its words.
        words: String,
    },
    /// Waits for another attempt.
    Deferred {
        /// The recipients.
        recipients: Vec<u32>,
        /// Why.
        words: String,
        /// When it is due, in milliseconds since 1970.
        due: u64,
    },
    /// A handover without an answer.
    InDoubt {
        /// The recipients.
        recipients: Vec<u32>,
        /// Who may have it.
        provider: String,
        /// What was seen.
        words: String,
        /// Whether it waits for a person.
        held: bool,
    },
    /// Refused for good.
    Bounced {
        /// The recipients.
        recipients: Vec<u32>,
        /// The words.
        words: String,
    },
    /// Given up for its age.
    Expired {
        /// The recipients.
        recipients: Vec<u32>,
        /// The last reason why it waited.
        words: String,
    },
    /// Undeliverable, and nobody could be told.
    Dead {
        /// The recipients.
        recipients: Vec<u32>,
        /// The words.
        words: String,
    },
    /// Somebody was told.
    Notified {
        /// Who: `sender`, `owner`, `operator`.
        who: String,
        /// The address.
        to: String,
        /// The id of the notification.
        notification: String,
        /// What it was: `failure`, `success`, `delay`, `digest`.
        what: String,
    },
    /// A person did something.
    Action {
        /// What, by the name of the command.
        action: String,
        /// With what, in words; empty if there is nothing to say.
        words: String,
        /// Who.
        by: String,
    },
}

/// The most octets of somebody's words that a record keeps.
const WORDS_MAX: usize = 1000;

/// Milliseconds since 1970, as records have them.
#[must_use]
pub fn millis(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Record {
    /// The record as the journal has it.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Texts and numbers under texts: nothing here can fail to be JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Words as a record keeps them: the beginning, where they are very long.
#[must_use]
pub fn words(text: impl Into<String>) -> String {
    let mut text = text.into();
    if text.len() > WORDS_MAX {
        text.truncate(text.floor_char_boundary(WORDS_MAX));
        text.push('…');
    }
    text
}
