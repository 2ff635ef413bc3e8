//! The state machine of one session: which command is allowed when, and what ends it.

use std::net::IpAddr;
use std::sync::Arc;

use postrider_providers::contract::Envelope;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::FrontEnd;
use super::command::{Command, CommandError};
use super::reply::{self, Reply};
use super::stream::{Line, Stream, StreamError};
use crate::spool::Spool;

/// One client's session.
pub struct Session<T, S: Spool> {
    pub(super) stream: Stream<T>,
    pub(super) front_end: Arc<FrontEnd<S>>,
    pub(super) client: IpAddr,
    /// Whether this client may relay; decided once, when it connects.
    pub(super) may_relay: bool,
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
    Transaction(Greeting, Envelope),
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

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    pub fn new(io: T, client: IpAddr, front_end: Arc<FrontEnd<S>>, shutdown: CancellationToken) -> Self {
        Self {
            stream: Stream::new(io, front_end.settings.timeout),
            may_relay: front_end.policy.may_relay(client),
            client,
            front_end,
            state: State::Connected,
            errors: 0,
            shutdown,
        }
    }

    /// Runs the session to its end.
    pub async fn run(mut self) {
        let greeting = Reply::plain(220, format!("{} ESMTP Postrider", self.front_end.settings.hostname));
        self.stream.reply(&greeting);
        match self.dialogue().await {
            Ok(last) => self.stream.reply(&last),
            Err(StreamError::TimedOut) => self.stream.reply(&reply::TIMED_OUT),
            Err(StreamError::Closed) => debug!(client = %self.client, "the client closed the connection"),
            Err(StreamError::Broken(error)) => debug!(client = %self.client, %error, "the connection broke"),
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
                debug!(client = %self.client, %reply, "command refused");
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
        if let State::Transaction(greeting, _) = &self.state {
            self.state = State::Identified(greeting.clone());
        }
    }
}

#[cfg(test)]
mod tests;
