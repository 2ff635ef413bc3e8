//! The SMTP front end: takes messages from applications and says 250 once they are durable.
//!
//! The way of the data: `listener` accepts and counts, `session` drives the dialogue, `command`
//! parses a line, `ehlo`/`mail`/`rcpt`/`data` carry out one verb each, `policy` decides who may
//! relay, `reply` holds every answer. Nothing here knows how mail leaves; the queue is the border.

pub mod command;
mod data;
pub mod decoder;
mod ehlo;
mod header;
mod listener;
mod mail;
pub mod policy;
mod rcpt;
pub mod reply;
mod session;
mod stream;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::BareNewline;
use crate::queue::Queue;
use crate::route::Router;
use crate::spool::Spool;

pub use listener::{Sessions, serve};
pub use policy::Policy;

/// What a front end needs to know; the same for all of its listeners.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name in the greeting, in EHLO and in Received.
    pub hostname: String,
    /// The largest message in octets, announced as SIZE (RFC 1870).
    pub max_message_size: u64,
    /// The most recipients of one message.
    pub max_recipients: usize,
    /// The most sessions at the same time.
    pub max_connections: usize,
    /// The most sessions of one client address at the same time.
    pub max_connections_per_client: usize,
    /// Errors after which a session is ended.
    pub max_errors: u32,
    /// What happens to a bare CR or LF in message data.
    pub bare_newline: BareNewline,
    /// How long a client may be silent; RFC 5321 section 4.5.3.2.7 asks for 5 minutes.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            max_message_size: 35 << 20,
            max_recipients: 1000,
            max_connections: 1000,
            max_connections_per_client: 100,
            max_errors: 20,
            bare_newline: BareNewline::Normalize,
            timeout: Duration::from_secs(300),
        }
    }
}

/// Everything a session shares with the others.
#[derive(Debug)]
pub struct FrontEnd<S: Spool> {
    /// Limits and names.
    pub settings: Settings,
    /// Who may relay.
    pub policy: Policy,
    /// Whether any route takes a recipient.
    pub router: Arc<Router>,
    /// Where messages go.
    pub queue: Queue<S>,
    /// The time of day, for Received.
    pub clock: Clock,
}
