//! A smart host that does as it is told: an SMTP server for tests, with a script.
//!
//! Without a script it takes everything. Each [`Step`] of the dialogue can be given another
//! [`Action`], always, once, or for commands that contain a text.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A point of the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The connection is there, nothing has been said.
    Greeting,
    /// EHLO.
    Ehlo,
    /// HELO.
    Helo,
    /// STARTTLS.
    Starttls,
    /// AUTH, and each answer to a challenge.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// The DATA command.
    Data,
    /// Some of the content has arrived.
    Content,
    /// The final dot has arrived.
    FinalDot,
    /// RSET.
    Rset,
    /// QUIT.
    Quit,
}

/// What the host does there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Answers this, without the final CRLF; between lines there must be one.
    Reply(String),
    /// Answers this and closes.
    ReplyAndClose(String),
    /// Closes.
    Close,
    /// Says nothing, and keeps the connection.
    Hang,
}

impl Action {
    /// Answers this.
    pub fn reply(text: &str) -> Self {
        Self::Reply(text.to_owned())
    }
}

/// What a smart host does.
#[derive(Clone, Default)]
pub struct Script {
    /// The lines of the answer to EHLO, after the first.
    pub extensions: Vec<String>,
    /// With STARTTLS offered or TLS from the start, the certificate it has.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// TLS from the first octet.
    pub implicit_tls: bool,
    /// The access tokens that AUTH XOAUTH2 takes. What is no proper response is a panic.
    pub tokens: Vec<String>,
    rules: Vec<Rule>,
}

#[derive(Clone)]
struct Rule {
    step: Step,
    containing: String,
    /// How often it still applies; `None` for always.
    left: Option<usize>,
    action: Action,
}

/// A message that the host answered positively.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The whole MAIL command.
    pub mail: String,
    /// The accepted addresses.
    pub recipients: Vec<String>,
    /// The content, dots undone.
    pub content: Vec<u8>,
    /// Whether it came under TLS.
    pub encrypted: bool,
    /// Whether the client has shown a certificate.
    pub certified: bool,
    /// As whom it was logged in with a token.
    pub login: Option<String>,
}

/// A command as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The number of the connection, from 0.
    pub connection: usize,
    /// The line.
    pub line: String,
    /// Whether more had arrived behind it before it was answered.
    pub pipelined: bool,
}

/// What a host has seen.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// How many connections were opened.
    pub connections: usize,
    /// How many of them have ended.
    pub closed: usize,
    /// Every command.
    pub commands: Vec<Command>,
    /// Every message taken.
    pub messages: Vec<Received>,
}

/// A running host. It ends when dropped.
pub struct FakeSmartHost {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    script: Script,
    rules: Mutex<Vec<Rule>>,
    log: watch::Sender<Log>,
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// One connection.
struct Session {
    shared: Arc<Shared>,
    number: usize,
    wire: Box<dyn Wire>,
    buffer: Vec<u8>,
    encrypted: bool,
    certified: bool,
    login: Option<String>,
    mail: Option<String>,
    recipients: Vec<String>,
}

/// The connection ends: by script, by QUIT, or because the client went away.
struct Ended;

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Script {
    /// A host that offers PIPELINING, SIZE, 8BITMIME, SMTPUTF8 and ENHANCEDSTATUSCODES.
    #[must_use]
    pub fn modern() -> Self {
        Self::offering(&["PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"])
    }

    /// A host that offers these.
    #[must_use]
    pub fn offering(extensions: &[&str]) -> Self {
        Self { extensions: extensions.iter().map(|&line| line.to_owned()).collect(), ..Self::default() }
    }

    /// Always does `action` at `step`.
    #[must_use]
    pub fn on(self, step: Step, action: Action) -> Self {
        self.rule(step, "", None, action)
    }

    /// Does `action` the first time `step` is reached.
    #[must_use]
    pub fn once(self, step: Step, action: Action) -> Self {
        self.rule(step, "", Some(1), action)
    }

    /// Does `action` at `step` for commands that contain `text`.
    #[must_use]
    pub fn on_containing(self, step: Step, text: &str, action: Action) -> Self {
        self.rule(step, text, None, action)
    }

    fn rule(mut self, step: Step, containing: &str, left: Option<usize>, action: Action) -> Self {
        self.rules.push(Rule { step, containing: containing.to_owned(), left, action });
        self
    }
}

impl FakeSmartHost {
    /// Starts a host on a free port of the loopback.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(script: Script) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let rules = Mutex::new(script.rules.clone());
        let shared = Arc::new(Shared { script, rules, log: watch::Sender::new(Log::default()) });
        let task = tokio::spawn(serve(listener, shared.clone()));
        Ok(Self { address, shared, task })
    }

    /// What it has seen so far.
    #[must_use]
    pub fn log(&self) -> Log {
        self.shared.log.borrow().clone()
    }

    /// Waits until it has seen what `enough` looks for.
    pub async fn until(&self, enough: impl FnMut(&Log) -> bool) -> Log {
        match self.shared.log.subscribe().wait_for(enough).await {
            Ok(log) => log.clone(),
            // The sender is in `self`.
            Err(_) => Log::default(),
        }
    }
}

impl Drop for FakeSmartHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // The sessions end with the set, and the set with this task.
    let mut sessions = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let mut number = 0;
        shared.log.send_modify(|log| {
            number = log.connections;
            log.connections += 1;
        });
        let shared = shared.clone();
        sessions.spawn(async move {
            let session = Session {
                shared: shared.clone(),
                number,
                wire: Box::new(socket),
                buffer: Vec::new(),
                encrypted: false,
                certified: false,
                login: None,
                mail: None,
                recipients: Vec::new(),
            };
            let Ended = session.run().await;
            shared.log.send_modify(|log| log.closed += 1);
        });
    }
}

impl Session {
    async fn run(mut self) -> Ended {
        if self.shared.script.implicit_tls {
            match self.encrypt().await {
                Ok(encrypted) => self = encrypted,
                Err(ended) => return ended,
            }
        }
        if let Err(ended) = self.step(Step::Greeting, "", "220 fake.example ESMTP").await {
            return ended;
        }
        loop {
            let line = match self.line().await {
                Ok(line) => line,
                Err(ended) => return ended,
            };
            let verb = line.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().to_ascii_uppercase();
            let done = match verb.as_str() {
                "STARTTLS" => match self.step(Step::Starttls, &line, "220 go ahead").await {
                    Ok(220) => match self.encrypt().await {
                        Ok(encrypted) => {
                            self = encrypted;
                            Ok(())
                        }
                        Err(ended) => return ended,
                    },
                    Ok(_) => Ok(()),
                    Err(ended) => Err(ended),
                },
                "DATA" => self.data(&line).await,
                _ => self.command(&verb, &line).await,
            };
            if let Err(ended) = done {
                return ended;
            }
        }
    }

    async fn command(&mut self, verb: &str, line: &str) -> Result<(), Ended> {
        match verb {
            "EHLO" => {
                let mut lines = vec!["fake.example".to_owned()];
                let hidden = |name: &&String| self.encrypted && name.as_str() == "STARTTLS";
                lines.extend(self.shared.script.extensions.iter().filter(|name| !hidden(name)).cloned());
                let last = lines.len() - 1;
                let line_of = |(nth, text): (usize, &String)| format!("250{}{text}", if nth == last { ' ' } else { '-' });
                let reply: Vec<String> = lines.iter().enumerate().map(line_of).collect();
                self.step(Step::Ehlo, line, &reply.join("\r\n")).await?;
            }
            "HELO" => {
                self.step(Step::Helo, line, "250 fake.example").await?;
            }
            "AUTH" if line.eq_ignore_ascii_case("AUTH XOAUTH2") => self.xoauth2(line).await?,
            "AUTH" => {
                let default = if line.to_ascii_uppercase().starts_with("AUTH LOGIN") { "334 VXNlcm5hbWU6" } else { "235 2.7.0 welcome" };
                let mut code = self.step(Step::Auth, line, default).await?;
                let mut nth = 0;
                while code == 334 {
                    let answer = self.line().await?;
                    let default = if nth == 0 && default.starts_with("334") { "334 UGFzc3dvcmQ6" } else { "235 2.7.0 welcome" };
                    code = self.step(Step::Auth, &answer, default).await?;
                    nth += 1;
                }
            }
            "MAIL" => {
                if self.step(Step::Mail, line, "250 2.1.0 ok").await? == 250 {
                    self.mail = Some(line.to_owned());
                    self.recipients.clear();
                }
            }
            "RCPT" => {
                let default = if self.mail.is_some() { "250 2.1.5 ok" } else { "503 5.5.1 MAIL first" };
                if self.step(Step::Rcpt, line, default).await? == 250 {
                    let address = line.split_once('<').and_then(|(_, rest)| rest.rsplit_once('>')).map_or("", |(address, _)| address);
                    self.recipients.push(address.to_owned());
                }
            }
            "RSET" => {
                self.mail = None;
                self.recipients.clear();
                self.step(Step::Rset, line, "250 2.0.0 ok").await?;
            }
            "QUIT" => {
                self.step(Step::Quit, line, "221 2.0.0 bye").await?;
                return Err(Ended);
            }
            _ => self.write("500 5.5.2 what?").await?,
        }
        Ok(())
    }

    /// <https://developers.google.com/workspace/gmail/imap/xoauth2-protocol>, in the form where the response
    /// has a line of its own.
    async fn xoauth2(&mut self, line: &str) -> Result<(), Ended> {
        const EXPLAINED: &str = r#"{"status":"401","schemes":"bearer","scope":"https://mail.example/"}"#;
        if self.step(Step::Auth, line, "334 ").await? != 334 {
            return Ok(());
        }
        let response = self.line().await?;
        let decoded = STANDARD.decode(&response).ok().and_then(|decoded| String::from_utf8(decoded).ok()).unwrap_or_default();
        let parts: Vec<&str> = decoded.split('\x01').collect();
        let (user, token) = match parts[..] {
            [user, auth, "", ""] => (user.strip_prefix("user="), auth.strip_prefix("auth=Bearer ")),
            _ => (None, None),
        };
        let (Some(user), Some(token)) = (user, token) else { panic!("no response of XOAUTH2: {decoded:?}") };
        if self.shared.script.tokens.iter().any(|known| known == token) {
            if self.step(Step::Auth, &response, "235 2.7.0 Authentication successful").await? == 235 {
                self.login = Some(user.to_owned());
            }
            return Ok(());
        }
        if self.step(Step::Auth, &response, &format!("334 {}", STANDARD.encode(EXPLAINED))).await? == 334 {
            let answer = self.line().await?;
            assert!(answer.is_empty(), "the explanation of a refusal is answered with an empty line, not {answer:?}");
            self.step(Step::Auth, &answer, "535 5.7.3 Authentication unsuccessful").await?;
        }
        Ok(())
    }

    async fn data(&mut self, line: &str) -> Result<(), Ended> {
        let default = if self.recipients.is_empty() { "554 5.5.1 no valid recipients" } else { "354 go ahead" };
        if self.step(Step::Data, line, default).await? != 354 {
            return Ok(());
        }
        let mut interrupted = false;
        while end_of_data(&self.buffer).is_none() {
            self.fill().await?;
            if !interrupted && let Some(action) = self.shared.next(Step::Content, "") {
                interrupted = true;
                self.act(action).await?;
            }
        }
        let end = end_of_data(&self.buffer).unwrap_or_default();
        let wire: Vec<u8> = self.buffer.drain(..end + 3).collect();
        let received = Received {
            mail: self.mail.take().unwrap_or_default(),
            recipients: std::mem::take(&mut self.recipients),
            content: unstuff(&wire[..end]),
            encrypted: self.encrypted,
            certified: self.certified,
            login: self.login.clone(),
        };
        let default = format!("250 2.0.0 Ok: queued as FAKE{}", self.shared.log.borrow().messages.len());
        let action = self.shared.next(Step::FinalDot, "").unwrap_or(Action::Reply(default));
        // Noted before it is answered, so that whoever has the answer finds it in the log.
        if matches!(&action, Action::Reply(text) if text.starts_with('2')) {
            self.shared.log.send_modify(|log| log.messages.push(received));
        }
        self.act(action).await.map(|_| ())
    }

    /// Answers `line` by script, or with `default`, and returns the code.
    async fn step(&mut self, step: Step, line: &str, default: &str) -> Result<u16, Ended> {
        if step != Step::Greeting {
            let command = Command { connection: self.number, line: line.to_owned(), pipelined: !self.buffer.is_empty() };
            self.shared.log.send_modify(|log| log.commands.push(command));
        }
        let action = self.shared.next(step, line).unwrap_or_else(|| Action::reply(default));
        self.act(action).await
    }

    async fn act(&mut self, action: Action) -> Result<u16, Ended> {
        match action {
            Action::Reply(text) => {
                self.write(&text).await?;
                Ok(text.get(..3).and_then(|code| code.parse().ok()).unwrap_or_default())
            }
            Action::ReplyAndClose(text) => {
                self.write(&text).await?;
                Err(Ended)
            }
            Action::Close => Err(Ended),
            Action::Hang => {
                // Until the client goes away.
                let mut sink = [0; 4096];
                while self.wire.read(&mut sink).await? > 0 {}
                Err(Ended)
            }
        }
    }

    async fn write(&mut self, text: &str) -> Result<(), Ended> {
        self.wire.write_all(format!("{text}\r\n").as_bytes()).await?;
        Ok(self.wire.flush().await?)
    }

    async fn line(&mut self) -> Result<String, Ended> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Ended> {
        if self.wire.read_buf(&mut self.buffer).await? == 0 { Err(Ended) } else { Ok(()) }
    }

    async fn encrypt(self) -> Result<Self, Ended> {
        let config = self.shared.script.tls.clone().ok_or(Ended)?;
        let stream = TlsAcceptor::from(config).accept(self.wire).await?;
        let certified = stream.get_ref().1.peer_certificates().is_some();
        Ok(Self { wire: Box::new(stream), buffer: Vec::new(), encrypted: true, certified, ..self })
    }
}

impl Shared {
    fn next(&self, step: Step, line: &str) -> Option<Action> {
        let mut rules = self.rules.lock();
        let rule = rules.iter_mut().find(|rule| rule.step == step && line.contains(&rule.containing) && rule.left != Some(0))?;
        rule.left = rule.left.map(|left| left - 1);
        Some(rule.action.clone())
    }
}

/// Where the final dot stands: at the start, or after a CRLF, and before one.
fn end_of_data(buffer: &[u8]) -> Option<usize> {
    if buffer.starts_with(b".\r\n") {
        return Some(0);
    }
    memchr::memmem::find(buffer, b"\r\n.\r\n").map(|at| at + 2)
}

fn unstuff(wire: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(wire.len());
    let mut line_start = true;
    for (at, &byte) in wire.iter().enumerate() {
        if !(line_start && byte == b'.') {
            content.push(byte);
        }
        line_start = byte == b'\n' && at > 0 && wire[at - 1] == b'\r';
    }
    content
}
