//! The SMTP front end: takes messages from applications and says 250 once they are durable.
//!
//! The way of the data: `listener` accepts, `places` counts, `connection` prepares, `session` drives the
//! dialogue, `command` parses a line, `ehlo`/`starttls`/`auth`/`mail`/`rcpt`/`data`/`bdat`/`xclient`
//! carry out one verb each, `content` is what all messages pass, `reply` holds every answer. Who may do
//! what is `access`'s to say. Nothing here knows how mail leaves; the queue is the border.

mod auth;
mod bdat;
pub mod carriage;
pub mod census;
pub mod command;
mod connection;
mod content;
mod data;
pub mod decoder;
mod ehlo;
pub mod fold;
mod header;
mod io;
mod listener;
mod mail;
pub mod newline;
mod places;
mod proxy;
mod rcpt;
pub mod reply;
mod session;
mod starttls;
mod stream;
mod trace;
mod xclient;

use std::sync::Arc;
use std::time::Duration;

use crate::access::Access;
use crate::clock::Clock;
use crate::config::Listener;
use crate::queue::Queue;
use crate::route::Router;
use crate::spool::Spool;
use crate::tls::ServerTls;
use census::Census;

pub use bdat::Chunk;
pub use listener::{Serving, bind, serve};
pub use places::Sessions;
pub use session::converse;
pub use xclient::{Told, XClient};

/// What a front end needs to know; the same for all of its listeners.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name in the greeting, in EHLO and in Received.
    pub hostname: String,
    /// The most sessions at the same time.
    pub max_connections: usize,
    /// The most sessions of one client address at the same time.
    pub max_connections_per_client: usize,
    /// Errors after which a session is ended.
    pub max_errors: u32,
    /// How long a client may be silent, and how long it may take for one command line or for reading
    /// a reply; RFC 5321 section 4.5.3.2.7 asks for 5 minutes.
    pub timeout: Duration,
    /// The fewest octets a second of content, on average, once a client has kept the session waiting
    /// for as long as `timeout`.
    pub min_rate: u32,
    /// How long a client that may not relay has for logging in.
    pub stranger_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            max_connections: 1000,
            max_connections_per_client: 100,
            max_errors: 20,
            timeout: Duration::from_secs(300),
            min_rate: 512,
            stranger_timeout: Duration::from_secs(600),
        }
    }
}

/// One listener, as its sessions see it.
#[derive(Debug, Clone)]
pub struct Door {
    /// Its settings.
    pub listener: Listener,
    /// What it encrypts with; `None` if it never does.
    pub tls: Option<ServerTls>,
}

/// Everything a session shares with the others.
#[derive(Debug)]
pub struct FrontEnd<S: Spool> {
    /// Limits and names.
    pub settings: Settings,
    /// Who may do what.
    pub access: Access,
    /// Whether any route takes a recipient.
    pub router: Arc<Router>,
    /// Where messages go.
    pub queue: Queue<S>,
    /// The time of day, for Received.
    pub clock: Clock,
    /// Who does what oddly.
    pub census: Arc<Census>,
}
