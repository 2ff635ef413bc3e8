//! The state machine of one session: which command is allowed when, and what ends it.

use std::net::IpAddr;
use std::sync::Arc;

use postrider_providers::contract::Envelope;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::bdat::Chunked;
use super::census::{Oddity, Who};
use super::command::{Command, CommandError, announces_chunk};
use super::places::Place;
use super::reply::{self, Reply};
use super::stream::{Limits, Line, Stream, StreamError};
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
    pub(super) state: State<S::Sink>,
    /// Who connected, before any XCLIENT.
    pub(super) peer: IpAddr,
    /// The application that a proxy named in XCLIENT.
    pub(super) told_login: Option<Arc<str>>,
    /// Who speaks on the connection.
    pub(super) speaker: Speaker,
    /// Refusals since the last message was taken.
    pub(super) errors: u32,
    place: Place,
    pub(super) shutdown: CancellationToken,
    /// Until when it may go on, if the client may not relay.
    pub(super) stranger_until: Instant,
    /// Logins that were refused in this session.
    pub(super) refused_logins: u32,
}

/// How far the dialogue is.
pub enum State<B> {
    /// Greeted by us, not yet by the client.
    Connected,
    /// HELO or EHLO was given.
    Identified(Greeting),
    /// MAIL was accepted; recipients are being named.
    Transaction(Transaction),
    /// BDAT has brought a part of the content.
    Receiving(Box<Chunked<B>>),
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

/// Who speaks, where a proxy may stand in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    /// Whoever connected.
    Peer,
    /// A proxy that has told who its client is.
    Proxy,
    /// The client that it has told about: it has introduced itself since, and many a proxy passes on
    /// from there whatever it says.
    Client,
}

/// What follows a command.
pub enum Next {
    /// Send this and go on.
    Reply(Reply),
    /// Go on: what there was to say has been said.
    Proceed,
    /// Send this and end the session.
    Close(Reply),
}

/// Runs one session over any stream, to its end. No limit counts it.
pub async fn converse<T: AsyncRead + AsyncWrite + Unpin, S: Spool>(
    io: T,
    client: Client,
    door: Arc<Door>,
    front_end: Arc<FrontEnd<S>>,
    shutdown: CancellationToken,
) {
    converse_at(Place::uncounted(), io, client, door, front_end, shutdown).await;
}

/// Runs one session that has a place among the others.
pub(super) async fn converse_at<T: AsyncRead + AsyncWrite + Unpin, S: Spool>(
    place: Place,
    io: T,
    client: Client,
    door: Arc<Door>,
    front_end: Arc<FrontEnd<S>>,
    shutdown: CancellationToken,
) {
    let mut session = Session::new(io, client, door, front_end, shutdown);
    session.place = place;
    session.run().await;
}

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    fn new(io: T, client: Client, door: Arc<Door>, front_end: Arc<FrontEnd<S>>, shutdown: CancellationToken) -> Self {
        let limits = Limits { timeout: front_end.settings.timeout, min_rate: front_end.settings.min_rate };
        Self {
            stream: Stream::new(io, limits),
            stranger_until: Instant::now() + front_end.settings.stranger_timeout,
            standing: front_end.access.recognise(&door.listener, &client),
            peer: client.address,
            told_login: None,
            speaker: Speaker::Peer,
            door,
            client,
            front_end,
            state: State::Connected,
            errors: 0,
            place: Place::uncounted(),
            shutdown,
            refused_logins: 0,
        }
    }

    /// Runs the session to its end.
    async fn run(mut self) {
        let ended = match self.begin_encrypted().await {
            Ok(()) => match self.take_place() {
                Ok(()) => {
                    self.stream.reply(&self.greeting());
                    self.dialogue().await
                }
                Err(refusal) => Ok(refusal),
            },
            Err(error) => Err(error),
        };
        match ended {
            Ok(last) => self.stream.reply(&last),
            Err(StreamError::TimedOut) => self.dismiss(&reply::TIMED_OUT),
            Err(StreamError::TooSlow) => self.dismiss(&reply::TOO_SLOW),
            Err(StreamError::NotReading) => info!(client = %self.client.address, "session ended: the client does not read its replies"),
            Err(StreamError::Closed) => debug!(client = %self.client.address, "the client closed the connection"),
            Err(StreamError::NotEncrypted) => {}
            Err(StreamError::Broken(error)) => debug!(client = %self.client.address, %error, "the connection broke"),
        }
        self.tell_if_handshake_was_too_early();
        self.stream.close().await;
    }

    /// Recognises the client by what is known of it now.
    ///
    /// # Errors
    /// Its application has as many sessions as it may: the session ends.
    pub(super) fn recognise(&mut self) -> Result<(), Reply> {
        self.standing = self.front_end.access.recognise(&self.door.listener, &self.client);
        self.take_place()
    }

    /// Counts the session as one of the client that a proxy has told about.
    ///
    /// # Errors
    /// That client has as many sessions as it may: the session ends.
    pub(super) fn is_of_client(&mut self) -> Result<(), Reply> {
        let max = self.front_end.settings.max_connections_per_client;
        self.place.is_of_client(self.client.address, max).inspect_err(|refusal| {
            info!(proxy = %self.peer, client = %self.client.address, reply = %refusal, "connection refused");
        })
    }

    /// Counts the session as one of the application that the client was recognised as.
    fn take_place(&mut self) -> Result<(), Reply> {
        self.place.is_of_application(self.standing.application.as_deref()).inspect_err(|refusal| {
            let application = self.standing.application.as_ref().map(|application| tracing::field::display(&application.name));
            info!(client = %self.client.address, application, reply = %refusal, "connection refused");
        })
    }

    /// The last that a stranger hears who has not logged in.
    pub(super) fn dismiss_stranger(&self) -> Reply {
        info!(client = %self.client.address, "session ended: a stranger stayed too long");
        reply::STRANGER
    }

    /// Ends the session of a client that takes too long.
    fn dismiss(&mut self, reply: &Reply) {
        info!(client = %self.client.address, %reply, "session ended: the client takes too long");
        self.stream.reply(reply);
    }

    //= https://www.rfc-editor.org/rfc/rfc2920#section-3.2
    //# MUST respond to commands in the order they are received from
    //# the client.
    /// Answers commands until something ends the session; returns the last reply.
    async fn dialogue(&mut self) -> Result<Reply, StreamError> {
        loop {
            let line = tokio::select! {
                biased;
                // A message of which chunks have come is finished, as one that comes by DATA is.
                () = self.shutdown.cancelled(), if !matches!(self.state, State::Receiving(_)) => return Ok(reply::SHUTTING_DOWN),
                () = sleep_until(self.stranger_until), if self.standing.recognised.is_none() => return Ok(self.dismiss_stranger()),
                line = self.stream.line() => line?,
            };
            let next = match line {
                Line::Complete(line) => match Command::parse(&line, self.standing.tolerance.commands) {
                    Ok(parsed) => {
                        self.put_up_with(&parsed.oddities);
                        self.command(parsed.command).await?
                    }
                    Err(CommandError(reply)) if reply == reply::BAD_CHUNK => Next::Close(reply),
                    Err(CommandError(reply)) => Next::Reply(reply),
                },
                Line::BareNewline(line) if announces_chunk(&line) => Next::Close(reply::BAD_CHUNK),
                Line::BareNewline(_) => Next::Reply(reply::LINE_ENDING),
                Line::TooLong => Next::Reply(reply::LINE_TOO_LONG),
            };
            let reply = match next {
                Next::Reply(reply) => reply,
                Next::Proceed => continue,
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
        if self.wants_tls_before(&command) {
            return Ok(Next::Reply(reply::MUST_STARTTLS));
        }
        let reply = match command {
            Command::Helo(name) => self.helo(name),
            Command::Ehlo(name) => self.ehlo(name),
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(rcpt) => self.rcpt(rcpt),
            Command::Data => return self.data().await,
            Command::Bdat(chunk) => return self.bdat(chunk).await,
            Command::StartTls => return self.starttls().await,
            Command::Auth { mechanism, initial } => return self.auth(&mechanism, initial).await,
            Command::XClient(told) => return Ok(self.xclient(told)),
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

    /// What a client hears first.
    pub(super) fn greeting(&self) -> Reply {
        Reply::plain(220, format!("{} ESMTP Postrider", self.front_end.settings.hostname))
    }

    /// Counts what was odd, and is put up with.
    pub(super) fn put_up_with(&self, oddities: &[Oddity]) {
        for &oddity in oddities {
            let who = match &self.standing.application {
                Some(application) => Who::Application(Arc::clone(&application.name)),
                None => Who::Address(self.client.address),
            };
            self.front_end.census.note(&who, self.client.address, oddity);
        }
    }

    /// Drops the open transaction, if there is one (RFC 5321 section 4.1.1.5).
    pub(super) fn reset(&mut self) {
        let greeting = match &self.state {
            State::Transaction(transaction) => &transaction.greeting,
            State::Receiving(chunked) => chunked.greeting(),
            State::Connected | State::Identified(_) => return,
        };
        self.state = State::Identified(greeting.clone());
    }
}

#[cfg(test)]
mod tests;
