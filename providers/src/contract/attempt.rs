//! One try at handing one message to one provider.

use std::sync::Arc;

use tokio::time::Instant;

use aws_lc_rs::digest;

use super::{Message, ProviderName, Recipient, RecipientIndex};

/// One try at handing a message to a provider, for the recipients that are still open.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The message. Its envelope may hold recipients that are no part of this attempt.
    pub message: Arc<Message>,
    /// The recipients to hand over now, and no others: indexes into the envelope's list.
    pub recipients: Arc<[RecipientIndex]>,
    /// 1 for the first attempt at this message, counting every lease that asked a provider.
    pub number: u32,
    /// By then the provider must have answered, and only it can say whether a cut there is
    /// "unavailable" or "in doubt".
    pub deadline: Instant,
}

impl Attempt {
    /// The recipients of this attempt, each with its index in the envelope.
    pub fn recipients(&self) -> impl Iterator<Item = (RecipientIndex, &Recipient)> {
        self.recipients.iter().filter_map(|&index| Some((index, self.message.envelope.recipients.get(index.0 as usize)?)))
    }

    /// A key for a provider that recognises what it has taken already: the same whenever this message is
    /// handed to `provider` for these `recipients`, and never the same for anything else.
    #[must_use]
    pub fn idempotency_key(&self, provider: &ProviderName, recipients: &[RecipientIndex]) -> [u8; 32] {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(self.message.id.as_bytes());
        hash.update(provider.as_str().as_bytes());
        for recipient in recipients {
            hash.update(&recipient.0.to_be_bytes());
        }
        let mut key = [0; 32];
        key.copy_from_slice(hash.finish().as_ref());
        key
    }
}
