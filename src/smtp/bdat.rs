//! BDAT: the content in chunks whose length is said before (RFC 3030). Nothing marks its end, so
//! nothing in it can look like the end.
//!
//! A chunk is read to its end whatever becomes of it, so that what follows is read as a command. The
//! first chunk that is refused ends the transaction: further ones are answered 503 until MAIL.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep_until;
use tracing::info;

use super::command::CommandError;
use super::data::Incoming;
use super::newline::Newlines;
use super::reply::{self, Reply};
use super::session::{Greeting, Next, Session, State};
use super::stream::StreamError;
use crate::spool::Spool;

/// The arguments of BDAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// How many octets follow the command.
    pub octets: u64,
    /// Whether they are the last of the message.
    pub last: bool,
}

/// A message of which chunks have come.
pub struct Chunked<B> {
    incoming: Incoming<B>,
    newlines: Newlines,
}

impl<B> Chunked<B> {
    /// How the client had introduced itself.
    pub(super) fn greeting(&self) -> &Greeting {
        &self.incoming.greeting
    }
}

impl Chunk {
    /// Parses `octets [LAST]`.
    ///
    /// # Errors
    /// [`reply::BAD_CHUNK`], which ends the session: where the chunk ends is not known then, and its
    /// content must not be read as commands.
    pub fn parse(argument: &str) -> Result<Self, CommandError> {
        let (octets, rest) = argument.split_once(' ').unwrap_or((argument, ""));
        let rest = rest.trim_matches(' ');
        let last = rest.eq_ignore_ascii_case("LAST");
        let is_number = !octets.is_empty() && octets.bytes().all(|byte| byte.is_ascii_digit());
        match octets.parse() {
            Ok(octets) if is_number && (last || rest.is_empty()) => Ok(Self { octets, last }),
            _ => Err(CommandError(reply::BAD_CHUNK)),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    pub(super) async fn bdat(&mut self, chunk: Chunk) -> Result<Next, StreamError> {
        let mut chunked = match self.continue_content().await {
            Ok(chunked) => chunked,
            Err(refusal) => {
                self.reset();
                let end = self.skip(chunk.octets).await?;
                return Ok(end.map_or(Next::Reply(refusal), Next::Close));
            }
        };
        let Chunked { incoming, newlines } = &mut *chunked;
        incoming.content.expect(chunk.octets);
        let mut left = chunk.octets;
        while left > 0 {
            let input = self.stream.data().await?;
            let taken = up_to(input.len(), left);
            let mut text = BytesMut::with_capacity(taken);
            newlines.pass(&input[..taken], &mut text);
            self.stream.consume(taken);
            left -= taken as u64;
            incoming.content.take(text, newlines.bare()).await;
        }
        if chunk.last {
            let mut text = BytesMut::new();
            newlines.finish(&mut text);
            incoming.content.take(text, newlines.bare()).await;
            self.state = State::Identified(chunked.incoming.greeting.clone());
            return Ok(Next::Reply(self.accept(chunked.incoming).await));
        }
        if let Some(refusal) = incoming.content.refusal() {
            info!(client = %self.client.address, reply = %refusal, "chunk refused, and the message with it");
            self.state = State::Identified(incoming.greeting.clone());
            return Ok(Next::Reply(refusal));
        }
        self.state = State::Receiving(chunked);
        //= https://www.rfc-editor.org/rfc/rfc3030#section-2
        //# A 250 response MUST be sent to each successful BDAT data block within
        //# a mail transaction.
        Ok(Next::Reply(Reply::with_text(250, (2, 0, 0), format!("{} octets received", chunk.octets))))
    }

    /// The message that this chunk belongs to; the first chunk opens it.
    async fn continue_content(&mut self) -> Result<Box<Chunked<S::Sink>>, Reply> {
        if matches!(self.state, State::Receiving(_))
            && let State::Receiving(chunked) = std::mem::replace(&mut self.state, State::Connected)
        {
            return Ok(chunked);
        }
        let transaction = self.begin_content()?;
        Ok(Box::new(Chunked { incoming: self.open(transaction).await, newlines: Newlines::default() }))
    }

    //= https://www.rfc-editor.org/rfc/rfc3030#section-2
    //# If a failure occurs after a BDAT command is
    //# received, the receiver-SMTP MUST accept and discard the associated
    //# message data before sending the appropriate 5XX or 4XX code.
    /// Reads a chunk that was refused. It may have any length, so what ends a session between two
    /// commands ends it here as well: then this is the last reply.
    async fn skip(&mut self, octets: u64) -> Result<Option<Reply>, StreamError> {
        let mut left = octets;
        while left > 0 {
            let there = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(Some(reply::SHUTTING_DOWN)),
                () = sleep_until(self.stranger_until), if self.standing.recognised.is_none() => return Ok(Some(self.dismiss_stranger())),
                data = self.stream.data() => data?.len(),
            };
            let taken = up_to(there, left);
            self.stream.consume(taken);
            left -= taken as u64;
        }
        Ok(None)
    }
}

/// How many of the octets that are there belong to what is left.
fn up_to(there: usize, left: u64) -> usize {
    usize::try_from(left).map_or(there, |left| left.min(there))
}
