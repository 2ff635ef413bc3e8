//! The sandbox smart host: its modes, switchable at run time, and the loop that accepts clients.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::Recorder;
use super::port::Port;
use super::session;
use super::switch::{Switch, Switched};

/// How a [`SandboxSmarthost`] behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmarthostMode {
    /// Takes mail.
    Up,
    /// Refuses connections; those that exist have been dropped.
    Down,
    /// Accepts connections and says nothing. A session that hung ends with the mode and takes nothing.
    Hang,
    /// Answers 421 to a new connection and to the next command of an existing one, and closes.
    Busy,
    /// Answers 451 to DATA.
    Defer,
    /// Closes instead of answering DATA: before any client can have sent content.
    DropAtData,
    /// Closes when content begins to arrive. A client whose content fits into one write has by then
    /// sent its final dot too; one of a megabyte or more has not.
    DropBeforeDot,
    /// Takes the message, and closes instead of saying so.
    DropAfterDot,
}

/// How a [`SandboxSmarthost`] is set up.
#[derive(Debug, Clone)]
pub struct SmarthostSettings {
    /// Where it listens; port 0 takes any free one.
    pub address: SocketAddr,
    /// Its name in the greeting.
    pub hostname: String,
    /// The mode it begins in.
    pub mode: SmarthostMode,
    /// What it announces with SIZE, and holds to.
    pub max_message_size: u64,
    /// Whether it offers DSN (RFC 3461). It makes no notifications either way.
    pub dsn: bool,
    /// Whether to keep the content of messages.
    pub keep_bodies: bool,
    /// How long it takes over the answer to a message.
    pub latency: Duration,
}

impl Default for SmarthostSettings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            hostname: "smarthost.sandbox.example".to_owned(),
            mode: SmarthostMode::Up,
            max_message_size: 50 << 20,
            dsn: false,
            keep_bodies: false,
            latency: Duration::ZERO,
        }
    }
}

/// A smart host that takes every message, until told otherwise. Stops when dropped.
#[derive(Debug)]
pub struct SandboxSmarthost {
    address: SocketAddr,
    switch: Switch<SmarthostMode>,
    host: Arc<Host>,
    _task: AbortOnDropHandle<()>,
}

/// What every session of it shares.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) settings: SmarthostSettings,
    pub(super) recorder: Recorder,
    /// Recipients that are not accepted, and the reply that each gets.
    pub(super) refused: Mutex<HashMap<String, String>>,
    connections: AtomicU64,
}

impl SandboxSmarthost {
    /// Starts it.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    pub async fn start(settings: SmarthostSettings) -> io::Result<Self> {
        let port = Port::reserve(settings.address)?;
        let address = port.address();
        let (switch, switched) = Switch::new(settings.mode);
        let recorder = Recorder::new(settings.keep_bodies);
        let host = Arc::new(Host { settings, recorder, refused: Mutex::default(), connections: AtomicU64::new(0) });
        // The first listener is opened here, so that an error is the caller's.
        let listener = if switch.mode() == SmarthostMode::Down { None } else { Some(port.listen()?) };
        let task = tokio::spawn(run(port, listener, switched, Arc::clone(&host)));
        Ok(Self { address, switch, host, _task: AbortOnDropHandle::new(task) })
    }

    /// Where it listens, whatever its mode.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it received.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.host.recorder
    }

    /// Its present mode.
    #[must_use]
    pub fn mode(&self) -> SmarthostMode {
        self.switch.mode()
    }

    /// Changes the mode. When this returns it is in effect: after [`SmarthostMode::Down`], no session
    /// is left, and every message that was taken has been answered.
    pub async fn set_mode(&self, mode: SmarthostMode) {
        self.switch.set(mode).await;
    }

    /// From now on, answers `reply` to RCPT for `recipient`, as in `"550 5.1.1 No such user"`.
    pub fn refuse(&self, recipient: impl Into<String>, reply: impl Into<String>) {
        self.host.refused.lock().insert(recipient.into(), reply.into());
    }

    /// How many connections it accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.host.connections.load(Ordering::Relaxed)
    }
}

async fn run(port: Port, mut listener: Option<TcpListener>, mut switched: Switched<SmarthostMode>, host: Arc<Host>) {
    let mut sessions = JoinSet::new();
    loop {
        let order = switched.order();
        if order.mode == SmarthostMode::Down {
            listener = None;
            // They see the mode themselves, between an answer and the next command.
            while sessions.join_next().await.is_some() {}
        }
        while order.mode != SmarthostMode::Down && listener.is_none() {
            listener = match port.listen() {
                Ok(listener) => Some(listener),
                // The port is reserved, so this is a shortage of file descriptors or the like.
                Err(error) => {
                    tracing::warn!(%error, "the sandbox smart host cannot listen yet");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    None
                }
            };
        }
        switched.applied(order);
        loop {
            tokio::select! {
                biased;
                more = switched.changed() => if more { break } else { return },
                Some(_) = sessions.join_next() => {}
                accepted = accept(listener.as_ref()) => match accepted {
                    Ok(stream) => {
                        host.connections.fetch_add(1, Ordering::Relaxed);
                        sessions.spawn(session::serve(stream, Arc::clone(&host), switched.watch()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the sandbox smart host cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
    }
}

/// The next connection; never, without a listener.
async fn accept(listener: Option<&TcpListener>) -> io::Result<tokio::net::TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
