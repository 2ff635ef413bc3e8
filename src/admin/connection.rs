//! Connections to the API: so many at a time, and none that is silent.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tracing::warn;

/// Connections at a time, over all clients.
const MOST: usize = 128;

/// Connections at a time from one address.
const MOST_OF_ONE: usize = 32;

/// A connection on which nothing was answered for so long is cut. Longer than any request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A listener that bounds its connections.
pub(super) struct Bounded {
    listener: TcpListener,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, open: Arc::default() }
    }

    /// A place for a connection from this address.
    fn place(&self, client: IpAddr) -> Option<Place> {
        let mut open = self.open.lock();
        let all: usize = open.values().sum();
        let own = open.get(&client).copied().unwrap_or_default();
        if all >= MOST || own >= MOST_OF_ONE {
            return None;
        }
        open.insert(client, own + 1);
        Some(Place { client, open: Arc::clone(&self.open) })
    }
}

/// The place of one open connection.
struct Place {
    client: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(own) = open.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.client);
            }
        }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Patient;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Patient, SocketAddr) {
        loop {
            match self.listener.accept().await {
                // Whoever finds no place is hung up on.
                Ok((stream, address)) => {
                    if let Some(place) = self.place(address.ip()) {
                        let _ = stream.set_nodelay(true);
                        return (Patient { stream, ends: Box::pin(tokio::time::sleep(PATIENCE)), _place: place }, address);
                    }
                }
                Err(error) => {
                    warn!(%error, "the admin API cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when nothing was written to it for too long: its client sends no request, sends
/// it too slowly, or does not read the answer.
pub(super) struct Patient {
    stream: TcpStream,
    ends: Pin<Box<Sleep>>,
    _place: Place,
}

impl Patient {
    fn poll_patience(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.ends.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    fn written(&mut self, octets: io::Result<usize>) -> io::Result<usize> {
        if octets.is_ok() {
            self.ends.as_mut().reset(Instant::now() + PATIENCE);
        }
        octets
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_patience(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_patience(context)?;
        let octets = ready!(Pin::new(&mut self.stream).poll_write(context, buffer));
        Poll::Ready(self.written(octets))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffers: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_patience(context)?;
        let octets = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, buffers));
        Poll::Ready(self.written(octets))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
