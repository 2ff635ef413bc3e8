//! Accepts connections, holds the limits on them, and ends them in order on shutdown.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::FrontEnd;
use super::reply::{self, Reply};
use super::session::Session;
use crate::spool::Spool;

/// The sessions of all listeners, counted in total and by client.
#[derive(Debug, Default)]
pub struct Sessions {
    by_client: Mutex<HashMap<IpAddr, usize>>,
}

/// One session's place in the count; gives it back when dropped.
#[derive(Debug)]
struct Place {
    sessions: Arc<Sessions>,
    client: IpAddr,
}

impl Sessions {
    fn enter(self: &Arc<Self>, client: IpAddr, max_total: usize, max_per_client: usize) -> Result<Place, Reply> {
        let mut by_client = self.by_client.lock();
        if by_client.values().sum::<usize>() >= max_total {
            return Err(reply::TOO_MANY_CONNECTIONS);
        }
        let count = by_client.entry(client).or_default();
        if *count >= max_per_client {
            return Err(reply::TOO_MANY_CONNECTIONS_FROM_CLIENT);
        }
        *count += 1;
        Ok(Place { sessions: Arc::clone(self), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_client = self.sessions.by_client.lock();
        if let Some(count) = by_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                by_client.remove(&self.client);
            }
        }
    }
}

/// Serves one listener until `shutdown`; then waits for the open sessions, which finish the message
/// they are in. When it is dropped, so are they.
pub async fn serve<S: Spool>(listener: TcpListener, front_end: Arc<FrontEnd<S>>, sessions: Arc<Sessions>, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = tasks.join_next() => {
                note(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (front_end, sessions, shutdown) = (Arc::clone(&front_end), Arc::clone(&sessions), shutdown.clone());
                tasks.spawn(connection(stream, peer.ip().to_canonical(), front_end, sessions, shutdown));
            }
            Err(error) => {
                // Out of file descriptors, mostly: the sessions that end will free some.
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    while let Some(ended) = tasks.join_next().await {
        note(ended);
    }
}

/// A session that panicked has cost its client the connection, and nobody else anything.
fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a session ended badly");
    }
}

async fn connection<S: Spool>(
    mut stream: TcpStream,
    client: IpAddr,
    front_end: Arc<FrontEnd<S>>,
    sessions: Arc<Sessions>,
    shutdown: CancellationToken,
) {
    let settings = &front_end.settings;
    let _place = match sessions.enter(client, settings.max_connections, settings.max_connections_per_client) {
        Ok(place) => place,
        Err(refusal) => {
            info!(%client, reply = %refusal, "connection refused");
            let mut line = bytes::BytesMut::new();
            refusal.write_to(&mut line);
            // The client learns why if it listens; the connection ends either way.
            let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&line)).await;
            return;
        }
    };
    // Replies are gathered by the session; waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%client, %error, "TCP_NODELAY could not be set");
    }
    Session::new(stream, client, front_end, shutdown).run().await;
}
