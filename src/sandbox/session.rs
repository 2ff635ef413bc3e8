//! One client's dialogue with the sandbox smart host, strict on the wire.
//!
//! Commands and content lines end with CRLF and nothing else, dot-stuffing is undone exactly, and a
//! parameter that was not announced is refused. What a client does wrong is kept as a violation, in
//! words, beside the reply that it gets.

use std::io;
use std::sync::Arc;

use postrider_providers::contract::{Notify, OriginalRecipient, Returned, xtext};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::smarthost::{Host, SmarthostMode};
use super::switch::Order;

type Mode = watch::Receiver<Order<SmarthostMode>>;

/// Room for a path of 256 octets in UTF-8 and every parameter (RFC 5321 section 4.5.3.1.4 asks for
/// 512 octets, and extensions add to that).
const MAX_COMMAND: u64 = 2048;

/// The session is over: the client left, or the mode ends it.
struct Gone;

type Step<T> = Result<T, Gone>;

struct Session {
    reader: BufReader<OwnedReadHalf>,
    writer: BufWriter<OwnedWriteHalf>,
    mode: Mode,
    host: Arc<Host>,
    /// Whether EHLO was used, so that extensions may be.
    extended: bool,
    transaction: Option<Transaction>,
}

struct Transaction {
    reverse_path: String,
    recipients: Vec<String>,
    /// What was asked about notifications with MAIL, and with each recipient.
    dsn: Vec<String>,
    eight_bit: bool,
    utf8: bool,
}

pub(super) async fn serve(stream: TcpStream, host: Arc<Host>, mode: Mode) {
    let (reader, writer) = stream.into_split();
    let (reader, writer) = (BufReader::with_capacity(16 << 10, reader), BufWriter::new(writer));
    let mut session = Session { reader, writer, mode, host, extended: false, transaction: None };
    // How it ended is the client's business; what it took is in the recorder.
    let _ = session.run().await;
    let _ = session.writer.flush().await;
}

impl Session {
    async fn run(&mut self) -> Step<()> {
        // A hanging server accepts and stays silent: the mode is looked at before the first word.
        unless_cut(&mut self.mode, std::future::ready(Ok(()))).await?;
        let hostname = self.host.settings.hostname.clone();
        if self.mode() == SmarthostMode::Busy {
            self.reply(&format!("421 4.3.2 {hostname} is busy, try again later")).await?;
            return Err(Gone);
        }
        self.reply(&format!("220 {hostname} ESMTP")).await?;
        loop {
            let Some(line) = self.command_line().await? else { continue };
            if self.mode() == SmarthostMode::Busy {
                self.reply(&format!("421 4.3.2 {hostname} is busy, try again later")).await?;
                return Err(Gone);
            }
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" | "HELO" if rest.trim().is_empty() => self.refuse("501 5.5.4 A name is needed", &line).await?,
                "EHLO" => {
                    (self.extended, self.transaction) = (true, None);
                    let size = self.host.settings.max_message_size;
                    for keyword in [&hostname, "PIPELINING", "8BITMIME", "SMTPUTF8", &format!("SIZE {size}")] {
                        self.reply(&format!("250-{keyword}")).await?;
                    }
                    if self.host.settings.dsn {
                        self.reply("250-DSN").await?;
                    }
                    self.reply("250 ENHANCEDSTATUSCODES").await?;
                }
                "HELO" => {
                    (self.extended, self.transaction) = (false, None);
                    self.reply(&format!("250 {hostname}")).await?;
                }
                "MAIL" => self.mail(&line).await?,
                "RCPT" => self.rcpt(&line).await?,
                "DATA" if rest.is_empty() => self.data().await?,
                "RSET" if rest.is_empty() => {
                    self.transaction = None;
                    self.reply("250 2.0.0 Ok").await?;
                }
                "NOOP" => self.reply("250 2.0.0 Ok").await?,
                "VRFY" => self.reply("252 2.5.0 Send some mail, and see").await?,
                "QUIT" if rest.is_empty() => {
                    self.reply("221 2.0.0 Bye").await?;
                    return Ok(());
                }
                _ => self.refuse("500 5.5.2 Not a command of this server", &line).await?,
            }
        }
    }

    async fn mail(&mut self, line: &str) -> Step<()> {
        if self.transaction.is_some() {
            return self.refuse("503 5.5.1 A transaction is open already", line).await;
        }
        let Some((path, parameters)) = path(line, "MAIL FROM:") else {
            return self.refuse("501 5.5.4 Expected MAIL FROM:<path>", line).await;
        };
        let mut transaction =
            Transaction { reverse_path: path.to_owned(), recipients: Vec::new(), dsn: Vec::new(), eight_bit: false, utf8: false };
        let mut asked = Vec::new();
        for parameter in parameters.split_ascii_whitespace() {
            let (keyword, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match (keyword.to_ascii_uppercase().as_str(), value.to_ascii_uppercase().as_str()) {
                _ if !self.extended => return self.refuse("555 5.5.4 Parameters need EHLO", line).await,
                ("BODY", "8BITMIME") => transaction.eight_bit = true,
                ("BODY", "7BIT") => {}
                ("SMTPUTF8", "") => transaction.utf8 = true,
                ("SIZE", size) => match size.parse::<u64>() {
                    Ok(size) if size <= self.host.settings.max_message_size => {}
                    // A client that reads EHLO knows; still it is no fault of form.
                    Ok(_) => return self.reply("552 5.3.4 Larger than this server takes").await,
                    Err(_) => return self.refuse("501 5.5.4 SIZE needs a number", line).await,
                },
                _ if self.host.settings.dsn && is_dsn(parameter, &["RET", "ENVID"]) => asked.push(parameter),
                _ => return self.refuse("555 5.5.4 This parameter was not announced", line).await,
            }
        }
        if self.host.settings.dsn {
            transaction.dsn.push(asked.join(" "));
        }
        if !path.is_ascii() && !transaction.utf8 {
            return self.refuse("553 5.6.7 An address outside ASCII needs SMTPUTF8", line).await;
        }
        self.transaction = Some(transaction);
        self.reply("250 2.1.0 Ok").await
    }

    async fn rcpt(&mut self, line: &str) -> Step<()> {
        let utf8 = match &self.transaction {
            Some(transaction) => transaction.utf8,
            // Behind a refused MAIL, a pipelining client has sent these already (RFC 2920).
            None => return self.reply("503 5.5.1 MAIL comes first").await,
        };
        let offers_dsn = self.extended && self.host.settings.dsn;
        let is_offered = |parameters: &str| offers_dsn && parameters.split(' ').all(|one| is_dsn(one, &["NOTIFY", "ORCPT"]));
        let (recipient, asked) = match path(line, "RCPT TO:") {
            Some((recipient, parameters)) if !recipient.is_empty() && (parameters.is_empty() || is_offered(parameters)) => {
                (recipient.to_owned(), parameters.to_owned())
            }
            Some((_, parameters)) if !parameters.is_empty() => {
                return self.refuse("555 5.5.4 This parameter was not announced", line).await;
            }
            _ => return self.refuse("501 5.5.4 Expected RCPT TO:<path>", line).await,
        };
        if !recipient.is_ascii() && !utf8 {
            return self.refuse("553 5.6.7 An address outside ASCII needs SMTPUTF8", line).await;
        }
        let refused = self.host.refused.lock().get(&recipient).cloned();
        if let Some(reply) = refused {
            return self.reply(&reply).await;
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.recipients.push(recipient);
            if offers_dsn {
                transaction.dsn.push(asked);
            }
        }
        self.reply("250 2.1.5 Ok").await
    }

    async fn data(&mut self) -> Step<()> {
        match &self.transaction {
            None => return self.reply("503 5.5.1 MAIL comes first").await,
            Some(transaction) if transaction.recipients.is_empty() => return self.reply("554 5.5.1 No valid recipients").await,
            Some(_) => {}
        }
        match self.mode() {
            SmarthostMode::Defer => return self.reply("451 4.3.0 Not now, try again later").await,
            SmarthostMode::DropAtData => return Err(Gone),
            _ => {}
        }
        // RFC 2920 section 3.1: DATA is the last of its group.
        if !self.reader.buffer().is_empty() {
            self.host.recorder.violation("content was sent before the 354");
        }
        self.reply("354 End data with <CR><LF>.<CR><LF>").await?;
        self.flush().await?;
        if self.mode() == SmarthostMode::DropBeforeDot {
            unless_cut(&mut self.mode, self.reader.fill_buf()).await?;
            return Err(Gone);
        }
        let (content, fault) = self.content().await?;
        let Some(transaction) = self.transaction.take() else { return Err(Gone) };
        let latency = self.host.settings.latency;
        let thinking = async {
            tokio::time::sleep(latency).await;
            Ok(())
        };
        unless_cut(&mut self.mode, thinking).await?;
        let eight_bit = transaction.eight_bit || content.is_ascii();
        if let Some(reply) = fault {
            return self.reply(&reply).await;
        }
        if !eight_bit {
            return self.refuse("554 5.6.1 Content outside ASCII needs BODY=8BITMIME", "DATA").await;
        }
        let id = self.host.recorder.record(transaction.reverse_path, transaction.recipients, transaction.dsn, content);
        if self.mode() == SmarthostMode::DropAfterDot {
            return Err(Gone);
        }
        self.reply(&format!("250 2.0.0 Ok: queued as {id}")).await?;
        // What was taken is answered, whatever the mode has become.
        self.writer.flush().await.map_err(|_| Gone)
    }

    /// The content up to CRLF.CRLF with the dot-stuffing undone, and the reply to it when it is
    /// refused (RFC 5321 sections 4.1.1.4 and 4.5.2).
    async fn content(&mut self) -> Step<(Vec<u8>, Option<String>)> {
        let limit = self.host.settings.max_message_size;
        let mut content = Vec::new();
        let mut fault = None;
        let mut line = Vec::new();
        let mut at_line_start = true;
        loop {
            line.clear();
            let mut bounded = (&mut self.reader).take(limit + 1);
            if unless_cut(&mut self.mode, bounded.read_until(b'\n', &mut line)).await? == 0 {
                return Err(Gone);
            }
            if at_line_start && line == b".\r\n" {
                return Ok((content, fault));
            }
            let stuffed = usize::from(at_line_start && line.starts_with(b"."));
            at_line_start = line.ends_with(b"\r\n");
            let text = line.strip_suffix(b"\r\n").unwrap_or(&line);
            if memchr::memchr2(b'\r', b'\n', text).is_some() && fault.is_none() {
                self.host.recorder.violation("a CR or LF of its own in the content (RFC 5321 section 2.3.8)");
                fault = Some("554 5.6.0 A CR or LF of its own in the content".to_owned());
            }
            if content.len() + line.len() - stuffed > usize::try_from(limit).unwrap_or(usize::MAX) {
                fault = Some("552 5.3.4 Larger than this server takes".to_owned());
                content.clear();
            } else {
                content.extend_from_slice(&line[stuffed..]);
            }
        }
    }

    /// The next command without its CRLF; `None` when it was none and has been answered.
    async fn command_line(&mut self) -> Step<Option<String>> {
        // Replies to a group of commands leave together, when the next command is not here yet.
        if memchr::memchr(b'\n', self.reader.buffer()).is_none() {
            self.flush().await?;
        }
        let mut line = Vec::new();
        let mut bounded = (&mut self.reader).take(MAX_COMMAND);
        if unless_cut(&mut self.mode, bounded.read_until(b'\n', &mut line)).await? == 0 {
            return Err(Gone);
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        if !line.ends_with(b"\n") {
            // Either too long, or the connection ended in the middle of a command.
            self.refuse("500 5.5.2 The command does not end", text.get(..80).unwrap_or(&text)).await?;
            return Err(Gone);
        }
        match text.strip_suffix("\r\n") {
            Some(command) if !command.contains(['\r', '\0']) => Ok(Some(command.to_owned())),
            _ => {
                self.refuse("500 5.5.2 A command ends with CRLF, and has no other CR", text.trim_end()).await?;
                Ok(None)
            }
        }
    }

    fn mode(&self) -> SmarthostMode {
        self.mode.borrow().mode
    }

    /// Puts `reply` behind those that wait to be sent.
    async fn reply(&mut self, reply: &str) -> Step<()> {
        let line = format!("{reply}\r\n");
        unless_cut(&mut self.mode, self.writer.write_all(line.as_bytes())).await
    }

    /// A reply to what the client should not have said.
    async fn refuse(&mut self, reply: &str, said: &str) -> Step<()> {
        self.host.recorder.violation(format!("{said:?} was answered {reply}"));
        self.reply(reply).await
    }

    async fn flush(&mut self) -> Step<()> {
        unless_cut(&mut self.mode, self.writer.flush()).await
    }
}

/// Does `work`, unless the mode ends the session before: at once when the host goes down, and with
/// the mode when it hangs.
async fn unless_cut<T>(mode: &mut Mode, work: impl Future<Output = io::Result<T>>) -> Step<T> {
    let hangs = tokio::select! {
        biased;
        cut = mode.wait_for(|order| matches!(order.mode, SmarthostMode::Down | SmarthostMode::Hang)) => {
            cut.is_ok_and(|order| order.mode == SmarthostMode::Hang)
        }
        done = work => return done.map_err(|_| Gone),
    };
    if hangs {
        // An error means that the host has been dropped, which ends the session as well.
        let _ = mode.wait_for(|order| order.mode != SmarthostMode::Hang).await;
    }
    Err(Gone)
}

/// Whether `parameter` is one of those `keywords` (RFC 3461 section 4), and well formed.
fn is_dsn(parameter: &str, keywords: &[&str]) -> bool {
    let (keyword, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    keywords.contains(&keyword)
        && match keyword {
            "RET" => Returned::parse(value).is_some(),
            "ENVID" => (1..=100).contains(&value.len()) && xtext::decode(value).is_ok(),
            "NOTIFY" => Notify::parse(value).is_some(),
            _ => value.len() <= 500 && OriginalRecipient::parse(value).is_ok(),
        }
}

/// The path behind `verb`, without its brackets, and the parameters behind it.
fn path<'a>(line: &'a str, verb: &str) -> Option<(&'a str, &'a str)> {
    let rest = line.get(verb.len()..).filter(|_| line[..verb.len()].eq_ignore_ascii_case(verb))?.strip_prefix('<')?;
    let (mut quoted, mut escaped) = (false, false);
    let end = rest.find(|c: char| {
        let closes = c == '>' && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    })?;
    let parameters = &rest[end + 1..];
    (parameters.is_empty() || parameters.starts_with(' ')).then(|| (&rest[..end], parameters.trim_start()))
}
