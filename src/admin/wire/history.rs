//! What happened: messages that are found, and all that became of one.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Moment;
use super::queue::QueuedMessage;

/// Which messages: all that is given must hold. What is about recipients must hold for one and the same.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// The id.
    pub id: Option<String>,
    /// The Message-ID, with or without angle brackets.
    pub message_id: Option<String>,
    /// A provider's id.
    pub remote_id: Option<String>,
    /// The reverse-path; `*` at either end stands for anything.
    pub sender: Option<String>,
    /// A recipient; `*` at either end stands for anything.
    pub recipient: Option<String>,
    /// The provider that was asked last for a recipient.
    pub provider: Option<String>,
    /// The route by which that was.
    pub route: Option<String>,
    /// The application that handed it in.
    pub application: Option<String>,
    /// The client's IP address.
    pub client: Option<String>,
    /// `dead`, `in_doubt`, `queued`, `bounced`, `expired`, `removed` or `relayed`.
    pub state: Option<String>,
    /// Accepted then or later.
    #[param(value_type = Option<String>, format = DateTime)]
    pub since: Option<Moment>,
    /// Accepted before then.
    #[param(value_type = Option<String>, format = DateTime)]
    pub until: Option<Moment>,
    /// At most so many, 1 to 500; 50 if absent.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<usize>,
    /// Only those behind the part before: what its `next` says.
    pub before: Option<String>,
}

/// Part of what was found, the newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HistoryPage {
    /// The messages.
    pub messages: Vec<PastMessage>,
    /// What to give as `before` for the next part; absent at the end.
    pub next: Option<String>,
}

/// A message as the history knows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PastMessage {
    /// Its id.
    pub id: String,
    /// `dead`, `in_doubt`, `queued`, `bounced`, `expired`, `removed` or `relayed`: the most urgent of what is
    /// true of its recipients.
    pub state: String,
    /// When it was accepted.
    pub received: Moment,
    /// When anything happened to it last.
    pub last: Moment,
    /// When it left the queue.
    pub ended: Option<Moment>,
    /// The reverse-path; empty for the null one.
    pub sender: String,
    /// The recipients. A search shows no more than 20 of each message.
    pub recipients: Vec<PastRecipient>,
    /// How many recipients there are.
    pub recipient_count: usize,
    /// Its Message-ID without angle brackets.
    pub message_id: Option<String>,
    /// Octets.
    pub size: u64,
    /// The application that handed it in.
    pub application: Option<String>,
    /// The client that handed it in.
    pub client: Option<String>,
}

/// One recipient of it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PastRecipient {
    /// The address.
    pub address: String,
    /// Where it stands, by the same words.
    pub state: String,
    /// The provider that was asked last.
    pub provider: Option<String>,
    /// By which route.
    pub route: Option<String>,
    /// The provider's id for the message.
    pub remote_id: Option<String>,
    /// What was said last.
    pub words: String,
}

/// All that is known of one message.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MessageTrace {
    /// Where it stands in the queue, if it is there.
    pub queued: Option<QueuedMessage>,
    /// What it waits for in memory.
    pub waits_for: Option<String>,
    /// What the history knows of it. It follows the queue by a second or two.
    pub past: Option<PastMessage>,
    /// What happened, in order.
    pub events: Vec<PastEvent>,
}

/// What people did to the gateway itself.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ActionLog {
    /// The newest first, up to 200.
    pub events: Vec<PastEvent>,
}

/// One thing that happened. What does not belong to its kind is absent.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct PastEvent {
    /// When.
    pub at: Option<Moment>,
    /// `attempt`, `relayed`, `deferred`, `in_doubt`, `held`, `bounced`, `expired`, `dead`, `notified` or `action`.
    pub what: String,
    /// To whom it happened, by address.
    pub recipients: Vec<String>,
    /// What was said: by the provider, or by a person.
    pub words: String,
    /// The provider.
    pub provider: Option<String>,
    /// The route.
    pub route: Option<String>,
    /// The number of an attempt.
    pub attempt: Option<u32>,
    /// The verdict of an attempt.
    pub verdict: Option<String>,
    /// How long an attempt took, in milliseconds.
    pub elapsed_ms: Option<u64>,
    /// The provider's id for the message.
    pub remote_id: Option<String>,
    /// When it was to be tried again.
    pub due: Option<Moment>,
    /// Who was told: `sender`, `owner` or `operator`; and at which address.
    pub told: Option<String>,
    /// The id of the notification.
    pub notification: Option<String>,
    /// What a person did.
    pub action: Option<String>,
    /// Who did it.
    pub by: Option<String>,
}
