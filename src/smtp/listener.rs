//! Accepts connections, and ends them in order on shutdown.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::connection::{self, Refusals};
use super::places::Sessions;
use super::{Door, FrontEnd, reply};
use crate::spool::Spool;
use crate::telemetry::Seldom;

/// How many connections wait to be accepted; the system may keep it lower (`net.core.somaxconn`). The
/// usual 128 overflows when a thousand clients come back at once, after a restart. Some of them then
/// take their connection for open, and wait in vain for a greeting.
const BACKLOG: u32 = 4096;

/// A file descriptor to give up when there are no others, so that who cannot be served hears it
/// instead of waiting in the system's backlog.
struct Spare(Option<File>);

/// Listens on `address`.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait until the connections of the process before are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What a listener serves with: each connection keeps what was here when it was accepted.
#[derive(Debug)]
pub struct Serving<S: Spool> {
    /// The listener's own settings.
    pub door: Arc<ArcSwap<Door>>,
    /// What it shares with the others.
    pub front_end: Arc<ArcSwap<FrontEnd<S>>>,
    /// The sessions of all of them.
    pub sessions: Arc<Sessions>,
    /// Is cancelled when nobody listens any more.
    pub gone: CancellationToken,
}

/// Serves one listener until `closed` or `shutdown`; then waits for the open sessions, which on
/// `shutdown` finish the message they are in. When it is dropped, so are they.
///
/// What waits here is bounded: the sessions by their places, and how many are refused at a time.
pub async fn serve<S: Spool>(listener: TcpListener, serving: Serving<S>, closed: CancellationToken, shutdown: CancellationToken) {
    let Serving { door, front_end, sessions, gone } = serving;
    // Also if this is dropped before its end.
    let gone = gone.drop_guard();
    let mut tasks = JoinSet::new();
    let refusals = Arc::new(Refusals::default());
    let (mut spare, failures) = (Spare::new(), Seldom::every(Duration::from_secs(10)));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            () = closed.cancelled() => break,
            Some(ended) = tasks.join_next() => {
                note(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match sessions.enter(front_end.load().settings.max_connections) {
                Ok(place) => {
                    let (door, front_end, refusals) = (door.load_full(), front_end.load_full(), Arc::clone(&refusals));
                    tasks.spawn(connection::run(stream, peer, place, door, front_end, refusals, shutdown.clone()));
                }
                Err(refusal) => {
                    if let Some(rest) = refusals.refuse(stream, peer.ip(), &refusal) {
                        tasks.spawn(rest);
                    }
                }
            },
            Err(error) => {
                if let Some(others) = failures.tell() {
                    warn!(%error, others, "a connection could not be accepted");
                }
                if !(is_exhaustion(&error) && spare.refuse_one(&listener, &refusals)) {
                    // The sessions that end will free some.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    drop(gone);
    while let Some(ended) = tasks.join_next().await {
        note(ended);
    }
}

impl Spare {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Accepts one connection in place of the spare descriptor, tells it why it is closed, and takes
    /// the descriptor back. Whether all of that went well.
    fn refuse_one(&mut self, listener: &TcpListener, refusals: &Refusals) -> bool {
        let had_one = self.0.take().is_some();
        let accepted = listener.accept().now_or_never();
        if let Some(Ok((stream, peer))) = accepted {
            // It cannot be heard out: the descriptor is needed for the next.
            drop(refusals.refuse(stream, peer.ip(), &reply::TOO_MANY_CONNECTIONS));
        }
        *self = Self::new();
        had_one && self.0.is_some()
    }
}

/// Whether the process (EMFILE) or the system (ENFILE) is out of file descriptors.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.raw_os_error().is_some_and(|code| [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).contains(&code))
}

/// A session that panicked has cost its client the connection, and nobody else anything.
fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a session ended badly");
    }
}
