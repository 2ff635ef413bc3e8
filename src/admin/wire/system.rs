//! The gateway itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Moment;

/// What runs here, and how it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The version.
    pub version: String,
    /// How the gateway calls itself.
    pub hostname: String,
    /// When it was started.
    pub started: Moment,
    /// Where mail is taken.
    pub listeners: Vec<String>,
    /// Messages in the queue, by state.
    pub states: BTreeMap<String, u64>,
    /// How old the oldest message is that waits for no person, in seconds.
    pub oldest_seconds: Option<u64>,
    /// Records that cannot be read, and were set aside.
    pub set_aside: u64,
    /// Providers whose circuit is not closed, or about which a person has decided something.
    pub troubled_providers: Vec<String>,
    /// Whether it drains, and ends then.
    pub draining: bool,
    /// What became of its config.
    pub config: ConfigState,
}

/// The config that is in use, and whether it is the one that was wanted last.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConfigState {
    /// How many configs were taken into use, the one at the start included.
    pub generation: u64,
    /// When the one in use was.
    pub taken: Moment,
    /// What was wrong with the last reload, if none has succeeded since.
    pub failure: Option<ReloadFailure>,
}

/// A reload that changed nothing.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReloadFailure {
    /// When.
    pub at: Moment,
    /// What was wrong, as it stands in the log.
    pub why: String,
}

/// What a reload has brought.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReloadDone {
    /// What is different now, in words; empty if nothing is.
    pub changes: Vec<String>,
}

/// That it drains.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Draining {
    /// True.
    pub draining: bool,
}
