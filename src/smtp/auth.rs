//! AUTH: a client shows the credential of an application (RFC 4954), by PLAIN (RFC 4616) or LOGIN.
//!
//! LOGIN was never standardised: the server asks `Username:` and `Password:`. Some clients send the
//! name with the command, as if LOGIN were a mechanism in which the client begins, which RFC 4954 section
//! 4 answers with 501; they are too many to be refused, and are understood.
//! What a client answers appears in no log and in no reply.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::info;

use super::command::InitialResponse;
use super::reply::{self, Reply};
use super::session::{Next, Session, State};
use super::stream::{Line, StreamError};
use crate::access::LoginError;
use crate::config::OddCommands;
use crate::spool::Spool;

/// The longest line of an exchange, with its CRLF.
//= https://www.rfc-editor.org/rfc/rfc4954#section-4
//# (At the time of writing of this document, 12288 octets is considered to be a sufficient line
//# length limit for handling of deployed authentication mechanisms.)
const MAX_RESPONSE: usize = 12_288;

/// Refused logins after which a session is ended.
//= https://www.rfc-editor.org/rfc/rfc4954#section-9
//# If they do so, they SHOULD NOT drop the connection until at least 3 attempts to authenticate have
//# failed.
const MAX_REFUSED: u32 = 3;

/// What the client has shown.
struct Credential {
    name: String,
    password: Vec<u8>,
}

/// What ends an exchange before there is a credential.
enum Broken {
    /// This is the reply; the session goes on.
    Refused(Reply),
    /// The gateway stops.
    ShuttingDown,
    /// There is no client any more.
    Stream(StreamError),
}

impl From<StreamError> for Broken {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    pub(super) async fn auth(&mut self, mechanism: &str, initial: Option<InitialResponse>) -> Result<Next, StreamError> {
        if let Some(refusal) = self.auth_out_of_order() {
            return Ok(Next::Reply(refusal));
        }
        let exchange = match mechanism {
            "PLAIN" => self.plain(initial).await,
            "LOGIN" => self.login(initial).await,
            //= https://www.rfc-editor.org/rfc/rfc4954#section-4
            //# If the requested authentication mechanism is invalid (e.g., is not supported or requires
            //# an encryption layer), the server rejects the AUTH command with a 504 reply.
            _ => Err(Broken::Refused(reply::AUTH_MECHANISM)),
        };
        match exchange {
            Ok(credential) => self.log_in(mechanism, credential).await,
            Err(Broken::Refused(refusal)) => Ok(Next::Reply(refusal)),
            Err(Broken::ShuttingDown) => Ok(Next::Close(reply::SHUTTING_DOWN)),
            Err(Broken::Stream(error)) => Err(error),
        }
    }

    /// What is wrong with AUTH now, whatever its mechanism.
    fn auth_out_of_order(&self) -> Option<Reply> {
        let (access, listener) = (&self.front_end.access, &self.door.listener);
        match &self.state {
            State::Connected => return Some(reply::SAY_HELLO_FIRST),
            //= https://www.rfc-editor.org/rfc/rfc4954#section-4
            //# An AUTH command issued during a mail transaction MUST be rejected with a 503 reply.
            State::Transaction(_) | State::Receiving(_) => return Some(reply::AUTH_IN_TRANSACTION),
            State::Identified(greeting) if !greeting.extended && self.standing.tolerance.commands == OddCommands::Reject => {
                return Some(reply::SAY_EHLO_FIRST);
            }
            State::Identified(_) => {}
        }
        //= https://www.rfc-editor.org/rfc/rfc4954#section-4
        //# After a successful AUTH command completes, a server MUST reject any further AUTH commands
        //# with a 503 reply.
        if self.client.login.is_some() {
            return Some(reply::AUTH_AGAIN);
        }
        if access.offers_auth(listener, &self.client) {
            return None;
        }
        // Where nobody can log in at all, AUTH does not exist.
        Some(if access.can_log_in() { reply::AUTH_NEEDS_ENCRYPTION } else { reply::NOT_IMPLEMENTED })
    }

    async fn plain(&mut self, initial: Option<InitialResponse>) -> Result<Credential, Broken> {
        let message = match initial {
            Some(initial) => decode_initial(&initial)?,
            // Nothing is asked; the line still has its space.
            //= https://www.rfc-editor.org/rfc/rfc4954#section-4
            //# In SMTP, a server challenge that contains no data is defined as a 334 reply with no text part.
            None => self.ask("").await?,
        };
        plain_message(&message).map_err(Broken::Refused)
    }

    async fn login(&mut self, initial: Option<InitialResponse>) -> Result<Credential, Broken> {
        let name = match initial {
            // `=` is an empty name, which nobody has; so it is asked for.
            Some(initial) if initial.0 != "=" => decode_initial(&initial)?,
            _ => self.ask("Username:").await?,
        };
        let password = self.ask("Password:").await?;
        let name = String::from_utf8(name).map_err(|_| Broken::Refused(reply::AUTH_MESSAGE))?;
        if name.contains('\0') || password.contains(&0) {
            return Err(Broken::Refused(reply::AUTH_MESSAGE));
        }
        Ok(Credential { name, password })
    }

    /// Sends a challenge and gives the client's response.
    async fn ask(&mut self, challenge: &str) -> Result<Vec<u8>, Broken> {
        self.stream.reply(&Reply::plain(334, BASE64.encode(challenge)));
        let line = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Err(Broken::ShuttingDown),
            line = self.stream.line_within(MAX_RESPONSE) => line?,
        };
        match line {
            //= https://www.rfc-editor.org/rfc/rfc4954#section-4
            //# If the server receives such a response, it MUST reject the AUTH command by sending a 501
            //# reply.
            Line::Complete(line) if &line[..] == b"*" => Err(Broken::Refused(reply::AUTH_CANCELLED)),
            Line::Complete(line) => decode(&line),
            Line::BareNewline(_) => Err(Broken::Refused(reply::LINE_ENDING)),
            //= https://www.rfc-editor.org/rfc/rfc4954#section-4
            //# If, during an authentication exchange, the server receives a line that is longer than the
            //# server's authentication buffer, the server fails the AUTH command with the 500 reply.
            Line::TooLong => Err(Broken::Refused(reply::AUTH_LINE_TOO_LONG)),
        }
    }

    async fn log_in(&mut self, mechanism: &str, credential: Credential) -> Result<Next, StreamError> {
        let front_end = Arc::clone(&self.front_end);
        // A failure is answered late; a drain does not wait for it.
        let outcome = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Ok(Next::Close(reply::SHUTTING_DOWN)),
            outcome = front_end.access.log_in(&credential.name, &credential.password, self.client.address) => outcome,
        };
        match outcome {
            Ok(name) => {
                info!(client = %self.client.address, application = %name, mechanism, "logged in");
                self.client.login = Some(name);
                Ok(match self.recognise() {
                    Ok(()) => Next::Reply(reply::AUTHENTICATED),
                    Err(refusal) => Next::Close(refusal),
                })
            }
            Err(LoginError::Overloaded) => Ok(Next::Reply(reply::AUTH_OVERLOADED)),
            Err(LoginError::Blocked(_)) => Ok(Next::Reply(reply::AUTH_BLOCKED)),
            Err(LoginError::Refused) => {
                self.refused_logins += 1;
                if self.refused_logins < MAX_REFUSED {
                    return Ok(Next::Reply(reply::CREDENTIALS_INVALID));
                }
                self.stream.reply(&reply::CREDENTIALS_INVALID);
                Ok(Next::Close(reply::AUTH_FAILED_TOO_OFTEN))
            }
        }
    }
}

/// `=` stands for a response that is there, and empty.
fn decode_initial(initial: &InitialResponse) -> Result<Vec<u8>, Broken> {
    if initial.0 == "=" { Ok(Vec::new()) } else { decode(initial.0.as_bytes()) }
}

//= https://www.rfc-editor.org/rfc/rfc4954#section-4
//# If the server cannot [BASE64] decode any client response, it MUST reject the AUTH command with a
//# 501 reply (and an enhanced status code of 5.5.2).
fn decode(line: &[u8]) -> Result<Vec<u8>, Broken> {
    BASE64.decode(line).map_err(|_| Broken::Refused(reply::AUTH_ENCODING))
}

/// Reads `authzid NUL authcid NUL passwd` (RFC 4616 section 2). An application can act as nobody but
/// itself, so `authzid` is empty or the same name. Names are compared as they are, without SASLprep.
fn plain_message(message: &[u8]) -> Result<Credential, Reply> {
    let text = std::str::from_utf8(message).map_err(|_| reply::AUTH_MESSAGE)?;
    let mut parts = text.split('\0');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(authzid), Some(name), Some(_), None) if !authzid.is_empty() && authzid != name => Err(reply::CREDENTIALS_INVALID),
        (Some(_), Some(name), Some(password), None) if !name.is_empty() => {
            Ok(Credential { name: name.to_owned(), password: password.as_bytes().to_vec() })
        }
        _ => Err(reply::AUTH_MESSAGE),
    }
}
