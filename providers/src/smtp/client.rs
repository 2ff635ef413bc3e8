//! A connection to a smart host: opened, greeted, encrypted, authenticated; lines out, replies in.
//!
//! While it writes it also reads, so a peer that answers early is heard and one that stops reading
//! until its replies are taken cannot block both sides (RFC 2920 section 3.1).

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::io::poll_read_buf;

use super::Timeouts;
use super::auth::Credentials;
use super::reply::{Garbage, Reply};
use super::rules::Rule;
use super::tls::Tls;
use super::verdict::{Stage, judge};
use crate::contract::{Diagnostic, Failure};
use crate::settings::Span;

/// Everything that is needed to open a connection.
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Tls,
    pub(super) tls_config: Arc<ClientConfig>,
    pub(super) server_name: ServerName<'static>,
    /// Our name, for EHLO.
    pub(super) hostname: Arc<str>,
    pub(super) timeouts: Timeouts,
    /// What this service says in words of its own.
    pub(super) rules: &'static [&'static [Rule]],
}

/// What the host offers in its answer to EHLO.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) pipelining: bool,
    /// The largest message (RFC 1870); 0 is "no fixed limit". `None`: SIZE is not offered.
    pub(super) size: Option<u64>,
    pub(super) eight_bit_mime: bool,
    pub(super) smtputf8: bool,
    pub(super) dsn: bool,
    pub(super) starttls: bool,
    pub(super) auth: Vec<String>,
}

/// What the next transaction finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Ready for MAIL.
    Ready,
    /// In step, but the last transaction did not end: RSET first.
    NeedsReset,
    /// In the middle of something, or out of step: good for nothing more.
    Broken,
}

/// A connection that stands.
pub(super) struct Connection {
    wire: Box<dyn Wire>,
    incoming: BytesMut,
    encrypted: bool,
    pub(super) extensions: Extensions,
    pub(super) state: State,
    /// Messages handed over so far.
    pub(super) messages: u32,
}

trait Wire: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Wire for T {}

/// How long the peer may be silent, and when it is over in any case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub(super) silence: Duration,
    pub(super) deadline: Instant,
}

/// The connection is of no more use.
#[derive(Debug)]
pub(super) enum Broken {
    Closed,
    Silent(Duration),
    Io(io::Error),
    Garbage(Garbage),
}

/// One step of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// So many octets were taken; with none left to write: all is flushed.
    Took(usize),
    /// Something arrived, and nothing was written.
    Arrived,
    /// The peer closed its side.
    Closed,
}

impl Target {
    /// Opens a connection up to the point where MAIL may be said, logged in with `credentials`.
    pub(super) async fn open(&self, credentials: Option<&Credentials>, deadline: Instant) -> Result<Connection, Failure> {
        let wait = Wait { silence: self.timeouts.command.0, deadline };
        let socket = self.dial(deadline).await?;
        let mut connection = Connection::new(Box::new(socket));
        if self.tls == Tls::Implicit {
            connection = self.encrypt(connection, wait).await?;
        }
        let greeting = connection.reply(wait).await.map_err(|broken| broken.unavailable("greeting"))?;
        if greeting.code != 220 {
            return Err(self.refused(Stage::Greeting, "greeting", &greeting));
        }
        self.hello(&mut connection, wait).await?;
        if matches!(self.tls, Tls::Starttls | Tls::Opportunistic) {
            connection = self.starttls(connection, wait).await?;
        }
        if let Some(credentials) = credentials {
            self.authenticate(&mut connection, credentials, wait).await?;
        }
        tracing::debug!(host = %self.host, port = self.port, encrypted = connection.encrypted, "connected");
        Ok(connection)
    }

    /// Tries each address of the host in turn, each for its share of the time.
    async fn dial(&self, deadline: Instant) -> Result<TcpStream, Failure> {
        let unavailable =
            |text: String| Failure::Unavailable(Diagnostic::during("connect", format!("{}:{}: {text}", self.host, self.port)));
        let allowed = self.timeouts.connect.0;
        let until = deadline.min(Instant::now() + allowed);
        let addresses: Vec<_> = match timeout_at(until, tokio::net::lookup_host((self.host.as_str(), self.port))).await {
            Err(_) => return Err(unavailable(format!("the name was not resolved within {}", Span(allowed)))),
            Ok(Err(error)) => return Err(unavailable(error.to_string())),
            Ok(Ok(addresses)) => addresses.collect(),
        };
        // Which address it was is news only where the host is a name.
        let is_name = self.host.parse::<IpAddr>().is_err();
        let at = |address: &SocketAddr| if is_name { format!("{address}: ") } else { String::new() };
        let mut last = "the name has no address".to_owned();
        for (nth, address) in addresses.iter().enumerate() {
            let now = Instant::now();
            // So that an address which swallows everything leaves time for the others.
            let share = until.saturating_duration_since(now) / u32::try_from(addresses.len() - nth).unwrap_or(u32::MAX);
            match timeout_at(now + share, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => {
                    // Commands are small and wait for their answers: never hold one back. A failure
                    // costs only speed.
                    let _ = socket.set_nodelay(true);
                    return Ok(socket);
                }
                Ok(Err(error)) => last = format!("{}{error}", at(address)),
                Err(_) => last = format!("{}no connection within {}", at(address), Span(share)),
            }
        }
        Err(unavailable(last))
    }

    async fn encrypt(&self, connection: Connection, wait: Wait) -> Result<Connection, Failure> {
        let connector = TlsConnector::from(self.tls_config.clone());
        let handshake = connector.connect(self.server_name.clone(), connection.wire);
        match timeout_at(wait.until(), handshake).await {
            Err(_) => Err(Broken::Silent(wait.silence).unavailable("TLS")),
            Ok(Err(error)) => {
                let hint = match self.tls {
                    Tls::Opportunistic => "; if this host cannot do TLS 1.2 or later, set tls = \"off\"",
                    _ => "; the certificate must be valid for the configured host name (a private authority goes into ca_file)",
                };
                Err(Failure::Unavailable(Diagnostic::during("TLS", format!("{}: {error}{hint}", self.host))))
            }
            // A new connection, so that nothing which came in clear text is taken for something
            // that was said under TLS (RFC 3207 section 4.2).
            Ok(Ok(stream)) => Ok(Connection { encrypted: true, ..Connection::new(Box::new(stream)) }),
        }
    }

    async fn hello(&self, connection: &mut Connection, wait: Wait) -> Result<(), Failure> {
        let lost = |broken: Broken| broken.unavailable("EHLO");
        let reply = connection.command(&format!("EHLO {}", self.hostname), wait).await.map_err(lost)?;
        if reply.is_positive() {
            connection.extensions = Extensions::parse(&reply);
            return Ok(());
        }
        // RFC 5321 section 3.2: a server that does not know EHLO may know HELO.
        if !matches!(reply.code, 500 | 502 | 504) {
            return Err(self.refused(Stage::Greeting, "EHLO", &reply));
        }
        let reply = connection.command(&format!("HELO {}", self.hostname), wait).await.map_err(lost)?;
        connection.extensions = Extensions::default();
        if reply.is_positive() { Ok(()) } else { Err(self.refused(Stage::Greeting, "HELO", &reply)) }
    }

    async fn starttls(&self, mut connection: Connection, wait: Wait) -> Result<Connection, Failure> {
        let optional = self.tls == Tls::Opportunistic;
        if !connection.extensions.starttls {
            if optional {
                return Ok(connection);
            }
            let text = format!(
                "{} does not offer STARTTLS; use a port that does, or choose tls = \"implicit\" (or \"off\" on a trusted network)",
                self.host
            );
            return Err(Failure::Unavailable(Diagnostic::during("STARTTLS", text)));
        }
        let reply = connection.command("STARTTLS", wait).await.map_err(|broken| broken.unavailable("STARTTLS"))?;
        if reply.code != 220 {
            if optional && reply.code != 421 {
                return Ok(connection);
            }
            return Err(self.refused(Stage::Greeting, "STARTTLS", &reply));
        }
        let mut connection = self.encrypt(connection, wait).await?;
        // RFC 3207 section 4.2: what was known before is forgotten, and EHLO said again.
        self.hello(&mut connection, wait).await?;
        Ok(connection)
    }

    async fn authenticate(&self, connection: &mut Connection, credentials: &Credentials, wait: Wait) -> Result<(), Failure> {
        let unauthorized = |text: String| Failure::Unauthorized(Diagnostic::during("AUTH", text));
        if !connection.encrypted && self.tls != Tls::Off {
            return Err(unauthorized(format!(
                "{} offers no TLS, and the password is not sent in clear text; on a trusted network, set tls = \"off\" to allow it",
                self.host
            )));
        }
        let offered = &connection.extensions.auth;
        let Some(mechanism) = credentials.choose(offered) else {
            let seen = if offered.is_empty() { "no AUTH".to_owned() } else { format!("AUTH {}", offered.join(" ")) };
            return Err(unauthorized(format!("{} offers {seen}; {}", self.host, credentials.need())));
        };
        let mut line = mechanism.command(credentials);
        let mut explained = None;
        for challenge in 0.. {
            let mut reply = match connection.command(&line, wait).await {
                Ok(reply) => reply,
                Err(Broken::Garbage(_)) => return Err(Broken::Garbage(Garbage("what is no SMTP reply".to_owned())).unavailable("AUTH")),
                Err(broken) => return Err(broken.unavailable("AUTH")),
            };
            if reply.is_positive() {
                break;
            }
            for line in &mut reply.lines {
                *line = credentials.mask(line);
            }
            if reply.code != 334 {
                let mut failure = self.refused(Stage::Auth, "AUTH", &reply);
                if let Some(explained) = explained {
                    let text = &mut failure.diagnostic_mut().text;
                    *text = format!("{text} (the host explains: {explained})");
                }
                return Err(failure);
            }
            explained = mechanism.explanation(challenge, &reply.text()).map(|said| credentials.mask(&said)).or(explained);
            line = mechanism
                .answer(challenge, credentials)
                .ok_or_else(|| unauthorized(format!("{} asks for more than a login has", self.host)))?;
        }
        Ok(())
    }

    /// The failure that a refusal before MAIL is.
    fn refused(&self, stage: Stage, during: &'static str, reply: &Reply) -> Failure {
        let (verdict, diagnostic) = judge(self.rules, stage, during, reply);
        verdict.failure(diagnostic.clone()).unwrap_or(Failure::Unavailable(diagnostic))
    }
}

impl Extensions {
    fn parse(reply: &Reply) -> Self {
        let mut extensions = Self::default();
        for line in reply.lines.iter().skip(1) {
            // "AUTH=LOGIN" is how some old servers write it.
            let mut words = line.split(|c: char| c.is_ascii_whitespace() || c == '=').filter(|word| !word.is_empty());
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "PIPELINING" => extensions.pipelining = true,
                "SIZE" => extensions.size = Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0)),
                "8BITMIME" => extensions.eight_bit_mime = true,
                "SMTPUTF8" => extensions.smtputf8 = true,
                "DSN" => extensions.dsn = true,
                "STARTTLS" => extensions.starttls = true,
                "AUTH" => extensions.auth.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        extensions
    }
}

impl Connection {
    fn new(wire: Box<dyn Wire>) -> Self {
        Self {
            wire,
            incoming: BytesMut::with_capacity(4096),
            encrypted: false,
            extensions: Extensions::default(),
            state: State::Ready,
            messages: 0,
        }
    }

    /// Whether what is said is under TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Whether the peer has neither closed nor said anything since its last answer. An answer to
    /// nothing is a farewell: 421 for idling too long.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.incoming.is_empty() && poll_read_buf(Pin::new(&mut *self.wire), &mut context, &mut self.incoming).is_pending()
    }

    /// Writes some of `bytes`, or flushes when there are none, unless something arrives first.
    pub(super) async fn step(&mut self, bytes: &[u8], wait: Wait) -> Result<Step, Broken> {
        let step = poll_fn(|context| {
            match poll_read_buf(Pin::new(&mut *self.wire), context, &mut self.incoming) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Step::Closed)),
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(Step::Arrived)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
            let wire = Pin::new(&mut *self.wire);
            if bytes.is_empty() {
                wire.poll_flush(context).map_ok(|()| Step::Took(0))
            } else {
                wire.poll_write(context, bytes).map_ok(Step::Took)
            }
        });
        match timeout_at(wait.until(), step).await {
            Err(_) => Err(Broken::Silent(wait.silence)),
            Ok(Err(error)) => Err(Broken::Io(error)),
            Ok(Ok(step)) => Ok(step),
        }
    }

    /// Writes all of `bytes` and takes in what arrives meanwhile.
    pub(super) async fn send(&mut self, bytes: &[u8], wait: Wait) -> Result<(), Broken> {
        let mut taken = 0;
        loop {
            match self.step(&bytes[taken..], wait).await? {
                Step::Took(_) if taken == bytes.len() => return Ok(()),
                Step::Took(0) => return Err(Broken::Closed),
                Step::Took(more) => taken += more,
                Step::Arrived => {}
                Step::Closed => return Err(Broken::Closed),
            }
        }
    }

    /// Whether something has arrived that nobody has read yet.
    pub(super) fn has_spoken(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// The next reply. Patience is for all of it: a host that sends an octet now and then has said
    /// nothing until the reply is complete.
    pub(super) async fn reply(&mut self, wait: Wait) -> Result<Reply, Broken> {
        let until = wait.until();
        loop {
            if let Some((reply, length)) = Reply::parse(&self.incoming).map_err(Broken::Garbage)? {
                self.incoming.advance(length);
                return Ok(reply);
            }
            let read = poll_fn(|context| poll_read_buf(Pin::new(&mut *self.wire), context, &mut self.incoming));
            match timeout_at(until, read).await {
                Err(_) => return Err(Broken::Silent(wait.silence)),
                Ok(Err(error)) => return Err(Broken::Io(error)),
                Ok(Ok(0)) => return Err(Broken::Closed),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// One command and its reply.
    pub(super) async fn command(&mut self, line: &str, wait: Wait) -> Result<Reply, Broken> {
        let sent = self.send(format!("{line}\r\n").as_bytes(), wait).await;
        self.reply_after(sent, wait).await
    }

    /// The reply to what was `sent`. A peer that says why and hangs up makes the writing fail; what
    /// it said is worth more than that.
    pub(super) async fn reply_after(&mut self, sent: Result<(), Broken>, wait: Wait) -> Result<Reply, Broken> {
        match sent {
            Err(Broken::Silent(silence)) => Err(Broken::Silent(silence)),
            Err(broken) => self.reply(wait).await.map_err(|_| broken),
            Ok(()) => self.reply(wait).await,
        }
    }

    /// Takes leave. Nothing depends on the answer, so little is waited for.
    pub(super) async fn quit(mut self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let wait = Wait { silence: PATIENCE, deadline: Instant::now() + PATIENCE };
        // Whatever the peer makes of it, the connection ends here.
        let _ = timeout(PATIENCE, self.command("QUIT", wait)).await;
    }
}

impl Wait {
    /// When patience ends.
    pub(super) fn until(self) -> Instant {
        self.deadline.min(Instant::now() + self.silence)
    }
}

impl Broken {
    /// The verdict while nothing has been handed over.
    pub(super) fn unavailable(self, during: &'static str) -> Failure {
        Failure::Unavailable(self.diagnostic(during))
    }

    /// In the words of a log line.
    pub(super) fn diagnostic(&self, during: &'static str) -> Diagnostic {
        Diagnostic::during(during, self.to_string())
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the host closed the connection"),
            Self::Silent(silence) => write!(f, "the host was silent for {}", Span(*silence)),
            Self::Io(error) => write!(f, "the connection failed: {error}"),
            Self::Garbage(garbage) => write!(f, "the host answered {garbage}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_drips_in_is_waited_for_no_longer_than_one_that_does_not_come() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        tokio::spawn(async move {
            for octet in *b"250 some words\r\n" {
                tokio::time::sleep(Duration::from_secs(15)).await;
                if theirs.write_all(&[octet]).await.is_err() {
                    return;
                }
            }
        });
        let start = Instant::now();
        let wait = Wait { silence: Duration::from_secs(20), deadline: start + Duration::from_secs(3600) };
        let reply = Connection::new(Box::new(ours)).reply(wait).await;
        assert!(matches!(reply, Err(Broken::Silent(_))), "{reply:?}");
        assert_eq!(start.elapsed(), Duration::from_secs(20));
    }

    #[test]
    fn extensions_are_read_however_they_are_written() {
        let wire =
            b"250-mx.example greets\r\n250-pipelining\r\n250-SIZE 1000\r\n250-AUTH PLAIN LOGIN\r\n250-AUTH=XOAUTH2\r\n250 8BitMime\r\n";
        let extensions = Extensions::parse(&Reply::parse(wire).unwrap().unwrap().0);
        let expected = Extensions {
            pipelining: true,
            size: Some(1000),
            eight_bit_mime: true,
            auth: ["PLAIN", "LOGIN", "XOAUTH2"].map(str::to_owned).to_vec(),
            ..Extensions::default()
        };
        assert_eq!(extensions, expected);
    }
}
