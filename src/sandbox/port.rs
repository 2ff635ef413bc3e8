//! A loopback port that stays ours while nobody listens on it.
//!
//! A provider that is down must refuse connections and come back at the same address. So a second
//! socket is bound to it all the time, never listening: connections are refused, and the system
//! gives the port to nobody else.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// As many connections as a burst of clients opens at once.
const BACKLOG: u32 = 1024;

/// Small, so that "before the end of the content" means that for a client as well: what it writes
/// cannot all be swallowed by the sockets in between.
const RECEIVE_BUFFER: u32 = 64 << 10;

#[derive(Debug)]
pub(super) struct Port {
    address: SocketAddr,
    _reservation: TcpSocket,
}

impl Port {
    /// Reserves `address`; port 0 takes any free one.
    pub(super) fn reserve(address: SocketAddr) -> io::Result<Self> {
        let reservation = socket(address)?;
        Ok(Self { address: reservation.local_addr()?, _reservation: reservation })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to listen; connections are refused again when the listener is dropped.
    pub(super) fn listen(&self) -> io::Result<TcpListener> {
        let socket = socket(self.address)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.listen(BACKLOG)
    }
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Both sockets need it to share the port, which the system allows while one listens at most.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn a_port_refuses_listens_and_refuses_again() {
        let port = Port::reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        for _ in 0..3 {
            let refused = TcpStream::connect(port.address()).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let listener = port.listen().unwrap();
            let (client, server) = tokio::join!(TcpStream::connect(port.address()), listener.accept());
            client.unwrap();
            server.unwrap();
        }
    }
}
