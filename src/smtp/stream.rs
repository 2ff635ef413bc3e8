//! One client's connection: lines in, replies out, with limits on time and length.
//!
//! Replies are gathered and written when the server is about to wait for the client, so that a
//! pipelined group of commands (RFC 2920) is answered in one write.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::server::TlsStream;

use super::io::Io;
use super::reply::Reply;
use crate::tls::Encryption;

/// The longest command line, with its CRLF. RFC 5321 section 4.5.3.1.4 asks for 512 octets at least;
/// paths and parameters of SMTPUTF8 and SIZE need more.
pub const MAX_LINE: usize = 2048;

/// How much is read from the socket at once, of content and of commands. A session that waits for a
/// command holds no more than the smaller buffer, and most sessions do nothing else.
const READ_CONTENT: usize = 16 * 1024;
const READ_COMMAND: usize = MAX_LINE;

/// Replies are written when there are so many octets of them, though the client has sent more: one
/// that does not read cannot fill the memory with them.
const MAX_OUTPUT: usize = 16 * 1024;

/// How long the end of a connection may take: the last reply, and what the client has still sent.
const LAST_WORD: Duration = Duration::from_secs(5);
const LINGER: Duration = Duration::from_secs(2);

/// How much of it is read.
const LINGER_OCTETS: usize = 1 << 20;

/// A buffered connection.
#[derive(Debug)]
pub struct Stream<T> {
    io: Io<T>,
    input: BytesMut,
    output: BytesMut,
    /// The first octet that the client sent in clear text.
    first: Option<u8>,
    limits: Limits,
    pace: Pace,
}

/// How long a client may keep the session waiting.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For each silence, each command line, and each reply that it has to read.
    pub timeout: Duration,
    /// The fewest octets a second of content, beyond a grace of `timeout`.
    pub min_rate: u32,
}

/// How one content arrives. Only waiting counts: a slow disk is not the client's fault.
#[derive(Debug, Default)]
struct Pace {
    octets: u64,
    waited: Duration,
}

/// One line of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line that ended with CRLF, without it.
    Complete(BytesMut),
    /// A line that ended with a bare LF, with it.
    BareNewline(BytesMut),
    /// A line longer than it may be; it has been skipped.
    TooLong,
}

/// Why there is nothing more to read.
#[derive(Debug)]
pub enum StreamError {
    /// The client closed the connection.
    Closed,
    /// The client was silent for too long.
    TimedOut,
    /// It sends, but so little that no end comes in sight.
    TooSlow,
    /// It does not read what it is told.
    NotReading,
    /// A handshake came to nothing, which has been logged; nobody can be told more.
    NotEncrypted,
    /// The connection broke.
    Broken(io::Error),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Pace {
    /// How much longer the client may be waited for now.
    fn patience(&self, limits: &Limits) -> Duration {
        let earned = Duration::from_secs(self.octets / u64::from(limits.min_rate.max(1)));
        (limits.timeout + earned).saturating_sub(self.waited).min(limits.timeout)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream<T> {
    pub fn new(io: T, limits: Limits) -> Self {
        Self { io: Io::Plain(io), input: BytesMut::new(), output: BytesMut::new(), first: None, limits, pace: Pace::default() }
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
            timeout(self.limits.timeout, write).await.map_err(|_| StreamError::NotReading)??;
            self.output = BytesMut::new();
        }
        Ok(())
    }

    /// The next command line. Cancel safe: what was read stays in the buffer.
    pub async fn line(&mut self) -> Result<Line, StreamError> {
        self.line_within(MAX_LINE).await
    }

    /// The next line of at most `longest` octets with its CRLF. Cancel safe as [`Stream::line`] is.
    pub async fn line_within(&mut self, longest: usize) -> Result<Line, StreamError> {
        self.pace = Pace::default();
        if self.output.len() > MAX_OUTPUT {
            self.flush().await?;
        }
        let mut skipping = false;
        let mut deadline = None;
        let mut has_begun = !self.input.is_empty();
        loop {
            if let Some(end) = memchr(b'\n', &self.input) {
                let mut line = self.input.split_to(end + 1);
                if skipping || line.len() > longest {
                    return Ok(Line::TooLong);
                }
                if !line.ends_with(b"\r\n") {
                    return Ok(Line::BareNewline(line));
                }
                line.truncate(line.len() - 2);
                return Ok(Line::Complete(line));
            }
            if self.input.len() > longest {
                self.input.clear();
                skipping = true;
            }
            if self.input.is_empty() {
                // The buffer of the content before.
                self.input = BytesMut::new();
            }
            self.flush().await?;
            //= https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.2.7
            //# An SMTP server SHOULD have a timeout of at least 5 minutes while it
            //# is awaiting the next command from the sender.
            let until = *deadline.get_or_insert_with(|| Instant::now() + self.limits.timeout);
            match timeout_at(until, self.fill(READ_COMMAND)).await {
                Err(_) if has_begun => return Err(StreamError::TooSlow),
                Err(_) => return Err(StreamError::TimedOut),
                Ok(filled) => filled?,
            }
            if !has_begun {
                // Once begun, it gets its time once: an octet now and then does not keep a session.
                has_begun = true;
                deadline = None;
            }
        }
    }

    /// What has arrived and was not consumed; waits for more when that is nothing.
    pub async fn data(&mut self) -> Result<&[u8], StreamError> {
        if self.input.is_empty() {
            self.flush().await?;
            let (patience, asked) = (self.pace.patience(&self.limits), Instant::now());
            match timeout(patience, self.fill(READ_CONTENT)).await {
                Err(_) if patience < self.limits.timeout => return Err(StreamError::TooSlow),
                Err(_) => return Err(StreamError::TimedOut),
                Ok(filled) => filled?,
            }
            self.pace.waited += asked.elapsed();
            self.pace.octets += self.input.len() as u64;
        }
        Ok(&self.input)
    }

    /// Marks `count` octets of [`Stream::data`] as taken.
    pub fn consume(&mut self, count: usize) {
        self.input.advance(count);
    }

    /// Forgets what has arrived and was not consumed; says how many octets that was.
    pub fn discard(&mut self) -> usize {
        let count = self.input.len();
        self.input.clear();
        count
    }

    /// Takes the connection out for a handshake, if it is in clear text. Without one it counts as closed.
    pub fn take_plain(&mut self) -> Option<T> {
        self.io.take_plain()
    }

    /// Goes on over an encrypted connection.
    pub fn encrypted(&mut self, io: TlsStream<T>) {
        self.io = Io::Tls(Box::new(io));
    }

    /// Goes on in clear text.
    pub fn in_clear_text(&mut self, io: T) {
        self.io = Io::Plain(io);
    }

    /// What the connection is encrypted with.
    pub fn encryption(&self) -> Option<Encryption> {
        self.io.encryption()
    }

    /// Whether the client has begun in clear text with a TLS handshake: 22 is the type of its record (RFC
    /// 8446 section 5.1), and begins no command.
    pub fn began_with_handshake(&self) -> bool {
        self.first == Some(22)
    }

    async fn fill(&mut self, size: usize) -> Result<(), StreamError> {
        self.input.reserve(size);
        let read = self.io.read_buf(&mut self.input).await?;
        if matches!(self.io, Io::Plain(_)) {
            self.first = self.first.or(self.input.first().copied());
        }
        if read == 0 { Err(StreamError::Closed) } else { Ok(()) }
    }

    /// Ends the connection in order.
    pub async fn close(mut self) {
        // The client may be gone already; then there is nobody to tell.
        let _ = timeout(LAST_WORD, self.flush()).await;
        hang_up(&mut self.io).await;
    }
}

/// Ends our half, and reads what the client has still sent, for a bounded time: a socket that is
/// closed with something unread in it is reset, and the reset overtakes the reply.
pub async fn hang_up<T: AsyncRead + AsyncWrite + Unpin>(io: &mut T) {
    let listen = async {
        io.shutdown().await?;
        let mut unread = BytesMut::with_capacity(READ_COMMAND);
        let mut octets = 0;
        while octets < LINGER_OCTETS && io.read_buf(&mut unread).await? > 0 {
            octets += unread.len();
            unread.clear();
        }
        io::Result::Ok(())
    };
    // However it ends, it is the end.
    let _ = timeout(LINGER, listen).await;
}
