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
