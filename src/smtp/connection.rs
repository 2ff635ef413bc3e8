//! One connection before and around its session: the limits on connections, and what is settled
//! before the first line is read.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::reply::{self, Reply};
use super::session::converse;
use super::{Door, FrontEnd};
use crate::access::Client;
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

/// Takes one connection from its first octet to its last.
pub(super) async fn run<S: Spool>(
    mut stream: TcpStream,
    peer: SocketAddr,
    door: Arc<Door>,
    front_end: Arc<FrontEnd<S>>,
    sessions: Arc<Sessions>,
    shutdown: CancellationToken,
) {
    let client = peer.ip().to_canonical();
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
    converse(stream, Client::at(client), door, front_end, shutdown).await;
}
