//! What a provider can carry, as far as it is known before the call.

use std::time::Duration;

/// What a provider can carry, as far as it is known before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// In which form it takes the content.
    pub content: ContentForm,
    /// From where it takes the recipients.
    pub envelope: EnvelopeForm,
    /// Whether it takes the reverse-path as it is; otherwise it makes one of its own.
    pub reverse_path: bool,
    /// The largest message; `None` when the provider says itself, or has no limit.
    pub max_size: Option<SizeLimit>,
    /// The most recipients in one call; the gateway splits beyond it.
    pub max_recipients: Option<usize>,
    /// Whether octets outside ASCII are carried in the content (RFC 6152).
    pub eight_bit: bool,
    /// Whether addresses outside ASCII can be handed over (RFC 6531).
    pub smtputf8: bool,
    /// Whether it takes messages with the null reverse-path.
    pub null_sender: bool,
    /// For how long it recognises a handover that it had already taken, by a key that goes along.
    pub idempotency: Option<Duration>,
    /// Whether the sender must be known to it: verified, a mailbox of its own, or allowed to send as.
    pub sender_identity: bool,
}

/// In which form a provider takes the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentForm {
    /// The message itself: what came in goes out.
    Raw,
    /// The message itself, in which the provider replaces some header fields.
    RawMostly,
    /// Subject, texts, attachments and some header fields, each by itself: signatures do not survive.
    Fields,
}

/// From where a provider takes the recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeForm {
    /// From a list of its own: the envelope is handed over, and headers are only shown.
    Own,
    /// From the header: To, Cc and Bcc are the recipients, and are written anew for it.
    Header,
}

/// The largest message that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimit {
    /// The number the provider documents, in octets.
    pub octets: u64,
    /// What is counted.
    pub counted: CountedSize,
}

/// What a provider's size limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedSize {
    /// The message as it is; attachments count in their base64 form, as they stand in it.
    Message,
    /// The message after base64: 4/3 of it.
    Base64,
}

impl SizeLimit {
    /// A limit on the message as it is.
    #[must_use]
    pub const fn message(octets: u64) -> Self {
        Self { octets, counted: CountedSize::Message }
    }

    /// A limit on the message after base64.
    #[must_use]
    pub const fn base64(octets: u64) -> Self {
        Self { octets, counted: CountedSize::Base64 }
    }

    /// The largest message in octets, before any encoding.
    #[must_use]
    pub const fn message_octets(&self) -> u64 {
        match self.counted {
            CountedSize::Message => self.octets,
            CountedSize::Base64 => self.octets / 4 * 3,
        }
    }
}

impl Capabilities {
    /// A provider that carries everything as it is.
    pub const EVERYTHING: Self = Self {
        content: ContentForm::Raw,
        envelope: EnvelopeForm::Own,
        reverse_path: true,
        max_size: None,
        max_recipients: None,
        eight_bit: true,
        smtputf8: true,
        null_sender: true,
        idempotency: None,
        sender_identity: false,
    };

    /// An API that takes subject, texts and attachments as fields of JSON, as most do: one verified
    /// sender, bounces go to the provider. Start from it, and say what differs.
    pub const FIELDS: Self = Self {
        content: ContentForm::Fields,
        envelope: EnvelopeForm::Header,
        reverse_path: false,
        max_size: None,
        max_recipients: None,
        eight_bit: true,
        smtputf8: false,
        null_sender: false,
        idempotency: None,
        sender_identity: true,
    };

    /// The largest message in octets, before any encoding; `None` for no limit that is known.
    #[must_use]
    pub fn max_message_size(&self) -> Option<u64> {
        self.max_size.map(|limit| limit.message_octets())
    }
}
