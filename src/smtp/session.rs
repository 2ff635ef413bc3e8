//! The state machine of one session: which command is allowed when, and what ends it.

use std::sync::Arc;

use postrider_providers::contract::Envelope;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::command::{Command, CommandError};
use super::reply::{self, Reply};
use super::stream::{Line, Stream, StreamError};
use super::{Door, FrontEnd};
use crate::access::{Client, Standing};
use crate::spool::Spool;

/// One client's session.
pub struct Session<T, S: Spool> {
    pub(super) stream: Stream<T>,
    pub(super) front_end: Arc<FrontEnd<S>>,
    pub(super) door: Arc<Door>,
    pub(super) client: Client,
    /// Who the client was recognised as, by what is known of it so far.
    pub(super) standing: Standing,
    pub(super) state: State,
    /// Refusals since the last message was taken.
    pub(super) errors: u32,
    shutdown: CancellationToken,
}

/// How far the dialogue is.
#[derive(Debug)]
pub enum State {
    /// Greeted by us, not yet by the client.
    Connected,
    /// HELO or EHLO was given.
    Identified(Greeting),
    /// MAIL was accepted; recipients are being named.
    Transaction(Transaction),
}

/// A mail transaction (RFC 5321 section 3.3).
#[derive(Debug)]
pub struct Transaction {
    /// How the client had introduced itself.
    pub greeting: Greeting,
    /// What MAIL and RCPT have said.
    pub envelope: Envelope,
    /// `SIZE=` of MAIL (RFC 1870), in octets.
    pub size: Option<u64>,
}

/// How the client introduced itself.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// The name it gave.
    pub name: Arc<str>,
    /// Whether it said EHLO.
    pub extended: bool,
}

/// What follows a command.
pub enum Next {
    /// Send this and go on.
    Reply(Reply),
    /// Send this and end the session.
    Close(Reply),
}

/// Runs one session over any stream, to its end.
pub async fn converse<T: AsyncRead + AsyncWrite + Unpin, S: Spool>(
    io: T,
    client: Client,
    door: Arc<Door>,
    front_end: Arc<FrontEnd<S>>,
    shutdown: CancellationToken,
) {
    Session::new(io, client, door, front_end, shutdown).run().await;
}

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    fn new(io: T, client: Client, door: Arc<Door>, front_end: Arc<FrontEnd<S>>, shutdown: CancellationToken) -> Self {
        Self {
            stream: Stream::new(io, front_end.settings.timeout),
            standing: front_end.access.recognise(&door.listener, &client),
            door,
            client,
            front_end,
            state: State::Connected,
            errors: 0,
            shutdown,
        }
    }

    /// Runs the session to its end.
    async fn run(mut self) {
        let greeting = Reply::plain(220, format!("{} ESMTP Postrider", self.front_end.settings.hostname));
        self.stream.reply(&greeting);
        match self.dialogue().await {
            Ok(last) => self.stream.reply(&last),
            Err(StreamError::TimedOut) => self.stream.reply(&reply::TIMED_OUT),
            Err(StreamError::Closed) => debug!(client = %self.client.address, "the client closed the connection"),
            Err(StreamError::Broken(error)) => debug!(client = %self.client.address, %error, "the connection broke"),
        }
        self.stream.close().await;
    }

    /// Answers commands until something ends the session; returns the last reply.
    async fn dialogue(&mut self) -> Result<Reply, StreamError> {
        loop {
            let line = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(reply::SHUTTING_DOWN),
                line = self.stream.line() => line?,
            };
            let next = match line {
                Line::Complete(line) => match Command::parse(&line) {
                    Ok(command) => self.command(command).await?,
                    Err(CommandError(reply)) => Next::Reply(reply),
                },
                Line::BareNewline => Next::Reply(reply::LINE_ENDING),
                Line::TooLong => Next::Reply(reply::LINE_TOO_LONG),
            };
            let reply = match next {
                Next::Reply(reply) => reply,
                Next::Close(reply) => return Ok(reply),
            };
            // Too many recipients is no mistake of a client: it sends the rest in another transaction
            // (RFC 5321 section 4.5.3.1.10), for which the session has to live.
            if reply.is_error() && reply != reply::TOO_MANY_RECIPIENTS {
                debug!(client = %self.client.address, %reply, "command refused");
                self.errors += 1;
                if self.errors >= self.front_end.settings.max_errors {
                    self.stream.reply(&reply);
                    return Ok(reply::TOO_MANY_ERRORS);
                }
            }
            self.stream.reply(&reply);
        }
    }

    async fn command(&mut self, command: Command) -> Result<Next, StreamError> {
        let reply = match command {
            Command::Helo(name) => self.helo(name),
            Command::Ehlo(name) => self.ehlo(name),
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(path) => self.rcpt(path),
            Command::Data => return self.data().await,
            Command::Rset => {
                self.reset();
                reply::OK
            }
            Command::Noop => reply::OK,
            Command::Vrfy => reply::CANNOT_VERIFY,
            Command::Help => reply::HELP,
            Command::Quit => return Ok(Next::Close(reply::CLOSING)),
        };
        Ok(Next::Reply(reply))
    }

    /// Drops the open transaction, if there is one (RFC 5321 section 4.1.1.5).
    pub(super) fn reset(&mut self) {
        if let State::Transaction(transaction) = &self.state {
            self.state = State::Identified(transaction.greeting.clone());
        }
    }
}

#[cfg(test)]
mod tests;
