//! A client's connection, in clear text or encrypted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::tls::Encryption;

/// A connection that may become encrypted while it is in use.
#[derive(Debug)]
pub enum Io<T> {
    /// In clear text.
    Plain(T),
    /// Encrypted.
    Tls(Box<TlsStream<T>>),
    /// Lost in a handshake: it reads as closed, and takes nothing.
    Gone,
}

impl<T> Io<T> {
    /// Takes a connection in clear text out, for the handshake.
    pub fn take_plain(&mut self) -> Option<T> {
        match std::mem::replace(self, Self::Gone) {
            Self::Plain(io) => Some(io),
            other => {
                *self = other;
                None
            }
        }
    }

    /// What it is encrypted with.
    pub fn encryption(&self) -> Option<Encryption> {
        match self {
            Self::Tls(stream) => Encryption::of(stream.get_ref().1),
            Self::Plain(_) | Self::Gone => None,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Io<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buffer),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Io<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, octets),
            Self::Tls(io) => Pin::new(io).poll_write(cx, octets),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}
