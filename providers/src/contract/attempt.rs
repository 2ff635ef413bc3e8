//! One try at handing one message to one provider.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Message, Recipient, RecipientIndex};

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
}
