//! Accepts connections, and ends them in order on shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::connection::{self, Sessions};
use super::{Door, FrontEnd};
use crate::spool::Spool;

/// Serves one listener until `shutdown`; then waits for the open sessions, which finish the message
/// they are in. When it is dropped, so are they.
pub async fn serve<S: Spool>(
    listener: TcpListener,
    door: Arc<Door>,
    front_end: Arc<FrontEnd<S>>,
    sessions: Arc<Sessions>,
    shutdown: CancellationToken,
) {
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
                let (door, front_end, sessions) = (Arc::clone(&door), Arc::clone(&front_end), Arc::clone(&sessions));
                tasks.spawn(connection::run(stream, peer, door, front_end, sessions, shutdown.clone()));
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
