//! The queue: how much waits, one message, what is done to it, and to many.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Moment;

/// How much waits, and where.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueueSummary {
    /// Messages in the queue.
    pub messages: u64,
    /// Messages by state: `dead`, `held`, `active`, `in_doubt`, `deferred`, `queued`.
    pub states: BTreeMap<String, u64>,
    /// How old the oldest is that waits for no person, in seconds.
    pub oldest_seconds: Option<u64>,
    /// When the next message is due.
    pub next_due: Option<Moment>,
    /// Records that cannot be read, and were set aside.
    pub set_aside: u64,
    /// Where they wait, the fullest first, up to 500.
    pub lanes: Vec<Lane>,
    /// How many further lanes there are.
    pub lanes_left_out: u64,
}

/// How much of one lane is in one state.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Lane {
    /// `high`, `normal` or `bulk`.
    pub priority: String,
    /// The route of the first recipient; empty if there was none.
    pub route: String,
    /// The sending domain; empty for the null reverse-path.
    pub domain: String,
    /// The state.
    pub state: String,
    /// Messages.
    pub messages: u64,
    /// Octets of their bodies.
    pub octets: u64,
    /// When the oldest was accepted.
    pub oldest: Moment,
    /// When the next is due.
    pub next_due: Option<Moment>,
}

/// A message in the queue, without its content.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueuedMessage {
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// Where it stands: `dead`, `held`, `active`, `in_doubt`, `deferred` or `queued`.
    pub state: String,
    /// `high`, `normal` or `bulk`.
    pub priority: String,
    /// The route of the first recipient.
    pub route: String,
    /// The reverse-path; empty for the null one.
    pub sender: String,
    /// The recipients, also those that are finished. A list shows no more than 20 of each message.
    pub recipients: Vec<QueuedRecipient>,
    /// How many recipients there are.
    pub recipient_count: usize,
    /// When it was accepted.
    pub received: Moment,
    /// When it is due again.
    pub due: Option<Moment>,
    /// Since when a person holds it.
    pub held_at: Option<Moment>,
    /// How many attempts asked a provider.
    pub attempts: u32,
    /// Octets.
    pub size: u64,
    /// The application that handed it in.
    pub application: Option<String>,
    /// The client that handed it in.
    pub client: Option<String>,
    /// Its Message-ID without angle brackets.
    pub message_id: Option<String>,
    /// The route that a person has chosen for it.
    pub rerouted: Option<String>,
}

/// One recipient of a queued message.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueuedRecipient {
    /// The address.
    pub address: String,
    /// `pending`, `in_doubt`, `held`, `relayed`, `bounced`, `expired` or `dead`.
    pub state: String,
    /// Who was asked for it last.
    pub provider: Option<String>,
    /// What was said about it last.
    pub diagnostic: Option<String>,
}

/// Part of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueuePage {
    /// The messages, ordered by id, which is the order in which they were accepted.
    pub messages: Vec<QueuedMessage>,
    /// What to give as `after` for the next part; absent at the end.
    pub next: Option<String>,
}

/// A message in full.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MessageDetail {
    /// What is known of it.
    pub message: QueuedMessage,
    /// What it waits for in memory: a limit, an open circuit.
    pub waits_for: Option<String>,
    /// Its header section, up to 64 KiB.
    pub header: String,
    /// What follows the header, if it was asked for: up to 1 MiB, what is no UTF-8 replaced.
    pub body: Option<String>,
    /// Whether header or body are longer than what is shown.
    pub cut: bool,
}

/// Which part of the queue.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Which messages, such as `state=deferred to=*@example.com older=1h`. Absent: all.
    #[serde(default)]
    pub filter: String,
    /// Only those behind this id.
    pub after: Option<String>,
    /// At most so many, 1 to 500; 50 if absent.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<usize>,
}

/// Which messages.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CountQuery {
    /// Which messages; absent: all.
    #[serde(default)]
    pub filter: String,
}

/// How much of a message.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ShowQuery {
    /// Whether to show what follows the header, too.
    #[serde(default)]
    pub body: bool,
}

/// How many messages a filter means.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueueCount {
    /// Messages.
    pub count: u64,
}

/// What to do to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionName {
    /// Due at once. Does not touch a hold.
    Retry,
    /// Waits until it is released.
    Hold,
    /// Ends every hold.
    Release,
    /// Removed; nobody is told.
    Remove,
    /// Given up; the sender is told.
    Bounce,
    /// Goes by another route.
    Reroute,
    /// Goes to another address.
    Readdress,
}

/// An action with what it needs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionRequest {
    /// Which.
    pub action: ActionName,
    /// For `bounce`: why, as the sender is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For `reroute`: the route by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// For `readdress`: the recipient as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// For `readdress`: who gets it instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// That it was done.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ActionDone {
    /// The message.
    pub id: String,
    /// What was done to it.
    pub action: ActionName,
}

/// An action on all messages that a filter means.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// Which messages; empty: all.
    pub filter: String,
    /// What to do.
    pub action: ActionRequest,
    /// Only say how many it would be.
    #[serde(default)]
    pub dry_run: bool,
    /// How many the preview has said; needed unless it is a dry run. Where the queue has changed by more
    /// than ten messages and a tenth since, nothing is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_count: Option<u64>,
}

/// What a job would do, or the job that was started.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobAnswer {
    /// How many messages the filter means.
    pub count: u64,
    /// Some of them, for a dry run.
    pub examples: Vec<QueuedMessage>,
    /// The job, unless it was a dry run.
    pub job: Option<Job>,
}

/// How far a job is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its number, since the start of the gateway.
    pub id: u64,
    /// `running`, `finished`, `cancelled` or `failed`.
    pub state: String,
    /// Why it failed.
    pub failure: Option<String>,
    /// What it does.
    pub action: String,
    /// To which messages.
    pub filter: String,
    /// Who started it.
    pub by: String,
    /// When.
    pub started: Moment,
    /// When it ended.
    pub ended: Option<Moment>,
    /// Messages that the filter meant at its start.
    pub expected: Option<u64>,
    /// Messages that it has come to.
    pub matched: u64,
    /// Of these: it was done,
    pub done: u64,
    /// a provider was being asked,
    pub busy: u64,
    /// it does not apply,
    pub refused: u64,
    /// or they had left the queue.
    pub gone: u64,
    /// Why it did not apply to the first that refused.
    pub first_refusal: Option<String>,
}

/// The jobs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// Those under way and the last ones that ended, newest first.
    pub jobs: Vec<Job>,
}
