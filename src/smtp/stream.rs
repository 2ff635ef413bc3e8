//! One client's connection: lines in, replies out, with limits on time and length.
//!
//! Replies are gathered and written when the server is about to wait for the client, so that a
//! pipelined group of commands (RFC 2920) is answered in one write.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::reply::Reply;

/// The longest command line, with its CRLF. RFC 5321 section 4.5.3.1.4 asks for 512 octets at least;
/// paths and parameters of SMTPUTF8 and SIZE need more.
pub const MAX_LINE: usize = 2048;

/// How much is read from the socket at once.
const READ_SIZE: usize = 32 * 1024;

/// A buffered connection.
#[derive(Debug)]
pub struct Stream<T> {
    io: T,
    input: BytesMut,
    output: BytesMut,
    timeout: Duration,
}

/// One line of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line that ended with CRLF, without it.
    Complete(BytesMut),
    /// A line that ended with a bare LF.
    BareNewline,
    /// A line longer than [`MAX_LINE`]; it has been skipped.
    TooLong,
}

/// Why there is nothing more to read.
#[derive(Debug)]
pub enum StreamError {
    /// The client closed the connection.
    Closed,
    /// The client was silent for too long.
    TimedOut,
    /// The connection broke.
    Broken(io::Error),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream<T> {
    pub fn new(io: T, timeout: Duration) -> Self {
        Self { io, input: BytesMut::with_capacity(READ_SIZE), output: BytesMut::new(), timeout }
    }

    /// Queues a reply; it is written before the next wait.
    pub fn reply(&mut self, reply: &Reply) {
        reply.write_to(&mut self.output);
    }

    /// Writes what is queued.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        if !self.output.is_empty() {
            let write = async {
                self.io.write_all_buf(&mut self.output).await?;
                self.io.flush().await
            };
            timeout(self.timeout, write).await.map_err(|_| StreamError::TimedOut)??;
        }
        Ok(())
    }

    /// The next command line. Cancel safe: what was read stays in the buffer.
    pub async fn line(&mut self) -> Result<Line, StreamError> {
        let mut skipping = false;
        loop {
            if let Some(end) = memchr(b'\n', &self.input) {
                let mut line = self.input.split_to(end + 1);
                if skipping || line.len() > MAX_LINE {
                    return Ok(Line::TooLong);
                }
                if !line.ends_with(b"\r\n") {
                    return Ok(Line::BareNewline);
                }
                line.truncate(line.len() - 2);
                return Ok(Line::Complete(line));
            }
            if self.input.len() > MAX_LINE {
                self.input.clear();
                skipping = true;
            }
            self.fill().await?;
        }
    }

    /// What has arrived and was not consumed; waits for more when that is nothing.
    pub async fn data(&mut self) -> Result<&[u8], StreamError> {
        if self.input.is_empty() {
            self.fill().await?;
        }
        Ok(&self.input)
    }

    /// Marks `count` octets of [`Stream::data`] as taken.
    pub fn consume(&mut self, count: usize) {
        self.input.advance(count);
    }

    async fn fill(&mut self) -> Result<(), StreamError> {
        self.flush().await?;
        self.input.reserve(READ_SIZE);
        let read = timeout(self.timeout, self.io.read_buf(&mut self.input)).await.map_err(|_| StreamError::TimedOut)??;
        if read == 0 { Err(StreamError::Closed) } else { Ok(()) }
    }

    /// Ends the connection in order.
    pub async fn close(mut self) {
        // The client may be gone already; then there is nobody to tell.
        let _ = self.flush().await;
        let _ = timeout(Duration::from_secs(1), self.io.shutdown()).await;
    }
}
