//! One connection before and around its session: what is settled before the first line is read.
//!
//! The order matters: the place was taken when the connection was accepted; then comes the PROXY
//! header, which says who the client is; then its share of the places; then the session.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::places::Place;
use super::proxy::{self, ProxyError};
use super::reply::Reply;
use super::session::converse_at;
use super::stream::hang_up;
use super::{Door, FrontEnd};
use crate::access::Client;
use crate::spool::Spool;
use crate::telemetry::Seldom;

/// How long a proxy may take for its header: it sends it at once.
const PROXY_HEADER: Duration = Duration::from_secs(10);

/// How many refused connections of a listener are told so, and heard out, at the same time. Any more
/// are told and closed.
const REFUSALS: usize = 64;

/// What a listener does with those that it does not let in, without letting them cost it much.
#[derive(Debug)]
pub(super) struct Refusals {
    slots: Arc<Semaphore>,
    refused: Seldom,
    unproxied: Seldom,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(REFUSALS)),
            refused: Seldom::every(Duration::from_secs(1)),
            unproxied: Seldom::every(Duration::from_secs(10)),
        }
    }
}

impl Refusals {
    /// Tells why, at once; `None`, or what is left to do for an orderly end.
    pub(super) fn refuse(&self, mut stream: TcpStream, client: IpAddr, refusal: &Reply) -> Option<impl Future<Output = ()> + use<>> {
        self.log(client, refusal);
        // Nothing was sent on this connection yet, so there is room for one line.
        let _ = stream.try_write(&line(refusal));
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        Some(async move {
            hang_up(&mut stream).await;
            drop(slot);
        })
    }

    fn log(&self, client: IpAddr, refusal: &Reply) {
        if let Some(others) = self.refused.tell() {
            info!(client = %client.to_canonical(), others, reply = %refusal, "connection refused");
        }
    }

    fn log_unproxied(&self, peer: IpAddr, error: &str) {
        if let Some(others) = self.unproxied.tell() {
            warn!(%peer, others, error, "connection closed: it did not come through a trusted proxy");
        }
    }
}

/// Takes one connection from its first octet to its last.
pub(super) async fn run<S: Spool>(
    mut stream: TcpStream,
    peer: SocketAddr,
    mut place: Place,
    door: Arc<Door>,
    front_end: Arc<FrontEnd<S>>,
    refusals: Arc<Refusals>,
    shutdown: CancellationToken,
) {
    let peer = peer.ip().to_canonical();
    // Replies are gathered by the session; waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "TCP_NODELAY could not be set");
    }
    let client = if door.listener.proxy_protocol {
        let trusted = front_end.access.trusts_proxy(peer);
        let client = tokio::select! {
            () = shutdown.cancelled() => return,
            client = through_proxy(&mut stream, peer, trusted, &refusals) => client,
        };
        let Some(client) = client else { return };
        client
    } else {
        Client::at(peer)
    };
    if let Err(refusal) = place.is_of_client(client.address, front_end.settings.max_connections_per_client) {
        // It is told and heard out without a place: by connecting again and again, one client would
        // take those of all others.
        drop(place);
        if let Some(rest) = refusals.refuse(stream, client.address, &refusal) {
            rest.await;
        }
        return;
    }
    converse_at(place, stream, client, door, front_end, shutdown).await;
}

/// Who the client is by the PROXY header; `None` if there is none that can be believed.
async fn through_proxy<T>(io: &mut T, peer: IpAddr, trusted: bool, refusals: &Refusals) -> Option<Client>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    if !trusted {
        refusals.log_unproxied(peer, "the address is in none of access.trusted_proxies");
        return None;
    }
    match timeout(PROXY_HEADER, proxy::read(io)).await {
        Ok(Ok(Some(address))) => Some(Client::behind(peer, address)),
        Ok(Ok(None)) => Some(Client::at(peer)),
        Ok(Err(ProxyError::Nothing)) => {
            debug!(%peer, "the proxy connected and closed");
            None
        }
        Ok(Err(error)) => {
            refusals.log_unproxied(peer, &error.to_string());
            None
        }
        Err(_) => {
            refusals.log_unproxied(peer, "no PROXY header came within 10 seconds; is the sender set to send one?");
            None
        }
    }
}

fn line(reply: &Reply) -> bytes::BytesMut {
    let mut line = bytes::BytesMut::new();
    reply.write_to(&mut line);
    line
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));

    async fn judge(io: &mut DuplexStream, trusted: bool) -> Option<Client> {
        through_proxy(io, PROXY, trusted, &Refusals::default()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_says_nothing_or_half_a_header_is_given_up_after_ten_seconds() {
        for said in [&b""[..], b"PROXY TCP4 192.0.2.7 "] {
            let (mut proxy, mut server) = duplex(1000);
            proxy.write_all(said).await.unwrap();
            let begun = Instant::now();
            assert!(judge(&mut server, true).await.is_none());
            assert_eq!(begun.elapsed(), PROXY_HEADER);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_names_the_client_only_if_its_sender_is_trusted() {
        let (mut proxy, mut server) = duplex(1000);
        proxy.write_all(b"PROXY TCP4 198.51.100.7 192.0.2.10 40000 25\r\nEHLO x\r\n").await.unwrap();
        let begun = Instant::now();
        assert!(judge(&mut server, false).await.is_none());
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let client = judge(&mut server, true).await.unwrap();
        assert_eq!((client.address.to_string().as_str(), client.peer), ("198.51.100.7", PROXY));
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_speaks_for_itself_is_its_own_client() {
        let (mut proxy, mut server) = duplex(1000);
        proxy.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
        let client = judge(&mut server, true).await.unwrap();
        assert_eq!((client.address, client.peer), (PROXY, PROXY));
    }
}
