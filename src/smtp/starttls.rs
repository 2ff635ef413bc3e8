//! STARTTLS, and TLS from the first octet: from clear text to an encrypted connection.

use std::mem::discriminant;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{debug, info, warn};

use super::census::Trouble;
use super::command::Command;
use super::reply;
use super::session::{Next, Session, State};
use super::stream::StreamError;
use crate::config::ListenerTls;
use crate::spool::Spool;
use crate::tls::{Failed, Failure};

/// How long a handshake may take. A client that speaks plain SMTP to a port with implicit TLS waits for
/// a greeting that never comes, so this is also how long it takes until the log names it.
const HANDSHAKE: Duration = Duration::from_secs(30);

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    //= https://www.rfc-editor.org/rfc/rfc3207#section-4.2
    //# A server MUST NOT return the STARTTLS extension in response to an
    //# EHLO command received after a TLS handshake has completed.
    /// Whether EHLO offers STARTTLS.
    pub(super) fn offers_starttls(&self) -> bool {
        let wanted = matches!(self.door.listener.tls, ListenerTls::StartTls | ListenerTls::Required);
        wanted && self.door.tls.is_some() && !self.client.encrypted
    }

    //= https://www.rfc-editor.org/rfc/rfc3207#section-4
    //# A SMTP server that is not publicly referenced may choose to require
    //# that the client perform a TLS negotiation before accepting any
    //# commands.  In this case, the server SHOULD return the reply code:
    //# 530 Must issue a STARTTLS command first
    //# to every command other than NOOP, EHLO, STARTTLS, or QUIT.
    /// Whether the listener wants encryption before it takes this command.
    pub(super) fn wants_tls_before(&self, command: &Command) -> bool {
        // BDAT is refused as well, but by itself: its chunk has to be read, or would count as commands.
        let free = matches!(command, Command::Noop | Command::Ehlo(_) | Command::StartTls | Command::Quit | Command::Bdat(_));
        self.door.listener.tls == ListenerTls::Required && !self.client.encrypted && !free
    }

    /// Carries out STARTTLS.
    pub(super) async fn starttls(&mut self) -> Result<Next, StreamError> {
        if self.client.encrypted {
            return Ok(Next::Reply(reply::TLS_ACTIVE));
        }
        if !self.offers_starttls() {
            return Ok(Next::Reply(reply::NOT_IMPLEMENTED));
        }
        // What stands behind STARTTLS came before the encryption, perhaps from somebody in between who
        // wants it to count as said by the client, once that is encrypted and logged in.
        let injected = self.stream.discard();
        if injected > 0
            && let Some(others) = self.tells(Trouble::Injection)
        {
            warn!(
                client = %self.client.address,
                listener = %self.door.listener.bind,
                octets = injected,
                others,
                "dropped what came in clear text behind STARTTLS: an attempt to inject commands, or a client that does not wait"
            );
        }
        self.stream.reply(&reply::START_TLS);
        self.stream.flush().await?;
        self.encrypt().await?;
        //= https://www.rfc-editor.org/rfc/rfc3207#section-4.2
        //# Upon completion of the TLS handshake, the SMTP protocol is reset to
        //# the initial state (the state in SMTP after a server issues a 220
        //# service ready greeting).  The server MUST discard any knowledge
        //# obtained from the client, such as the argument to the EHLO command,
        //# which was not obtained from the TLS negotiation itself.
        self.state = State::Connected;
        self.client.login = None;
        // What a proxy has said about the address stays: without it the client would pass as the proxy.
        self.told_login = None;
        Ok(match self.recognise() {
            Ok(()) => Next::Proceed,
            Err(refusal) => Next::Close(refusal),
        })
    }

    /// TLS before the greeting, where the listener is for that.
    pub(super) async fn begin_encrypted(&mut self) -> Result<(), StreamError> {
        //= https://www.rfc-editor.org/rfc/rfc8314#section-3.3
        //# When a TCP connection is established for the "submissions" service
        //# (default port 465), a TLS handshake begins immediately.
        if self.door.listener.tls == ListenerTls::Implicit {
            self.encrypt().await?;
            self.standing = self.front_end.access.recognise(&self.door.listener, &self.client);
        }
        Ok(())
    }

    /// Does the handshake. An error has been logged, and the connection is of no use any more.
    async fn encrypt(&mut self) -> Result<(), StreamError> {
        let (Some(tls), Some(io)) = (self.door.tls.clone(), self.stream.take_plain()) else {
            return Err(StreamError::NotEncrypted);
        };
        let accepted = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Err(StreamError::NotEncrypted),
            accepted = tls.accept(io, HANDSHAKE) => accepted,
        };
        match accepted {
            Ok(stream) => {
                self.stream.encrypted(stream);
                self.client.encrypted = true;
                if let Some(encryption) = self.stream.encryption() {
                    debug!(client = %self.client.address, tls = encryption.version, cipher = encryption.cipher, "encrypted");
                }
                Ok(())
            }
            Err(failed) => {
                self.tell(&failed);
                if let Some(io) = failed.io {
                    self.stream.in_clear_text(io);
                    if self.door.listener.tls == ListenerTls::Implicit {
                        self.stream.reply(&reply::SPEAK_TLS);
                    }
                }
                Err(StreamError::NotEncrypted)
            }
        }
    }

    /// Whether the log tells of what this client has met with. It may do so as often as it likes.
    fn tells(&self, trouble: Trouble) -> Option<u64> {
        self.front_end.census.tells(self.client.address, self.door.listener.bind, trouble)
    }

    /// One line that says which client failed, what it offered, and what to do about it.
    fn tell(&self, failed: &Failed<T>) {
        let Failed { failure, offer, .. } = failed;
        let implicit = self.door.listener.tls == ListenerTls::Implicit;
        let advice = failure.advice().or(match failure {
            Failure::Silent if implicit => Some(
                "this listener speaks TLS from the first octet, and a client that waits for a greeting does not; \
                 switch on SSL/TLS in the client, or point it at a listener with tls = \"starttls\"",
            ),
            Failure::PlainText(_) if implicit => {
                Some("switch on SSL/TLS (not STARTTLS) in the client, or point it at a listener with tls = \"starttls\"")
            }
            _ => None,
        });
        let reason = match advice {
            Some(advice) => format!("{failure}: {advice}"),
            None => failure.to_string(),
        };
        let (client, listener) = (self.client.address, self.door.listener.bind);
        let server_name = offer.server_name.as_deref();
        // Monitors and load balancers look whether the port is open.
        let is_told = if matches!(failure, Failure::Left) { None } else { self.tells(Trouble::Handshake(discriminant(failure))) };
        match is_told {
            None => debug!(%client, %listener, offered = %offer, server_name, reason, "no TLS with this client"),
            // Somebody has to do something, or this client never gets its mail out.
            Some(others) if advice.is_some() => {
                warn!(%client, %listener, offered = %offer, server_name, others, reason, "no TLS with this client");
            }
            Some(others) => info!(%client, %listener, offered = %offer, server_name, others, reason, "no TLS with this client"),
        }
    }

    /// The other way round: the client began with a handshake, and this listener with a greeting.
    pub(super) fn tell_if_handshake_was_too_early(&self) {
        if self.stream.began_with_handshake()
            && let Some(others) = self.tells(Trouble::TooEarly)
        {
            warn!(
                client = %self.client.address,
                listener = %self.door.listener.bind,
                others,
                reason = "the client speaks TLS from the first octet, and this listener does not: switch on STARTTLS (not SSL/TLS) in \
                          the client, or point it at a listener with tls = \"implicit\"",
                "no TLS with this client"
            );
        }
    }
}
