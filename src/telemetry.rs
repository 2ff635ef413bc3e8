//! Logging: one line for each event of a message, as text for people or as JSON.
//!
//! Levels go by consequence. ERROR: somebody must act, or a message will not arrive. WARN: nothing is
//! lost, and the gateway deals with it. INFO: what happened to each message. DEBUG: why.

pub mod metrics;
mod seldom;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

pub use seldom::{Seldom, SeldomEach};

/// Starts logging to standard error. `POSTRIDER_LOG` overrides the level, in the syntax of
/// `tracing`'s `EnvFilter`; what is set up already stays.
pub fn init(log: Log) {
    let level = log.level.as_str();
    // The libraries below say at INFO what concerns their authors only.
    let default = || EnvFilter::new(format!("warn,postrider={level},postrider_providers={level}"));
    let filter = EnvFilter::try_from_env("POSTRIDER_LOG").unwrap_or_else(|_| default());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // It fails when a subscriber is set already, which then is the one that somebody wants.
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
}
