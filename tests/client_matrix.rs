//! Every client of `docs/clients.md` uses every feature of its table against the running program.
//!
//! A cell is *yes* only if the client did it here and the message arrived as it was sent; a cell that
//! a client cannot do says why. The table in the page is what this test found: it fails when the two
//! differ, and `UPDATE_EXPECTED=1` writes the page anew.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

#[path = "client_matrix/clients.rs"]
mod clients;
#[path = "client_matrix/postfix.rs"]
mod postfix;
mod support;
#[path = "client_matrix/withholding.rs"]
mod withholding;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use postrider::sandbox::{Received, SandboxSmarthost, SmarthostSettings};
use support::process::Postrider;
use support::{free_port, smarthost};

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feature {
    Plain,
    StartTls,
    Implicit,
    AuthPlain,
    AuthLogin,
    EightBit,
    SmtpUtf8,
    Large,
    Pipelining,
}

impl Feature {
    const ALL: [Self; 9] = [
        Self::Plain,
        Self::StartTls,
        Self::Implicit,
        Self::AuthPlain,
        Self::AuthLogin,
        Self::EightBit,
        Self::SmtpUtf8,
        Self::Large,
        Self::Pipelining,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::StartTls => "STARTTLS",
            Self::Implicit => "implicit TLS",
            Self::AuthPlain => "AUTH PLAIN",
            Self::AuthLogin => "AUTH LOGIN",
            Self::EightBit => "8-bit",
            Self::SmtpUtf8 => "SMTPUTF8",
            Self::Large => "20 MB",
            Self::Pipelining => "pipelining",
        }
    }

    /// A recipient that tells the cells apart.
    fn recipient(self, client: &str) -> String {
        let local = if self == Self::SmtpUtf8 { "empf\u{e4}nger" } else { "to" };
        format!("{local}@{self:?}.{client}.example").to_lowercase()
    }

    /// How the connection is encrypted. Credentials travel under TLS only.
    fn tls(self) -> Tls {
        match self {
            Self::StartTls | Self::AuthPlain | Self::AuthLogin => Tls::Started,
            Self::Implicit => Tls::Implicit,
            _ => Tls::Off,
        }
    }

    fn mechanism(self) -> Option<&'static str> {
        match self {
            Self::AuthPlain => Some("PLAIN"),
            Self::AuthLogin => Some("LOGIN"),
            _ => None,
        }
    }

    /// `with` of the Received field (RFC 3848, RFC 6531 section 4.3).
    fn protocol(self, encrypts_always: bool) -> String {
        let name = if self == Self::SmtpUtf8 { "UTF8SMTP" } else { "ESMTP" };
        let encrypted = if encrypts_always || self.tls() != Tls::Off { "S" } else { "" };
        let authenticated = if self.mechanism().is_some() { "A" } else { "" };
        format!("{name}{encrypted}{authenticated}")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    Off,
    Started,
    Implicit,
}

/// What a client is told.
struct Task {
    feature: Feature,
    port: u16,
    from: &'static str,
    to: String,
    /// The message, as a file.
    file: PathBuf,
    /// The certificate to trust.
    ca: PathBuf,
    /// A folder of its own.
    directory: PathBuf,
}

/// Who logs in, and with what.
const USER: &str = "erp";
const PASSWORD: &str = "correct horse battery staple";

/// The running program, and the smart host behind it.
struct Relay {
    directory: tempfile::TempDir,
    host: SandboxSmarthost,
    _postrider: Postrider,
    /// Clear text, and STARTTLS for who wants it.
    submission: u16,
    /// TLS from the first octet.
    submissions: u16,
}

impl Relay {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = self_signed(directory.path());
        let settings = SmarthostSettings { keep_bodies: true, ..SmarthostSettings::default() };
        let host = SandboxSmarthost::start(settings).await.unwrap();
        let (submission, submissions) = (free_port(), free_port());
        let files = format!("certificate = {certificate:?}\nprivate_key = {key:?}\n");
        let config = format!(
            "[server]\nhostname = \"relay.example\"\ndata_dir = {:?}\n\
             [[listener]]\nbind = \"127.0.0.1:{submission}\"\ntls = \"starttls\"\n{files}\
             [[listener]]\nbind = \"127.0.0.1:{submissions}\"\ntls = \"implicit\"\n{files}\
             [app.{USER}]\npassword = \"{}\"\n",
            directory.path().join("data"),
            hash(PASSWORD),
        ) + &smarthost("only", host.address().port());
        let path = directory.path().to_owned();
        let postrider = tokio::task::spawn_blocking(move || Postrider::start(&path, &config)).await.unwrap();
        Self { directory, host, _postrider: postrider, submission, submissions }
    }

    /// Lets one client do one thing, and wants it to arrive.
    async fn verify(&self, client: &clients::Client, feature: Feature) {
        let directory = self.directory.path().join(format!("{}-{feature:?}", client.name));
        std::fs::create_dir_all(&directory).unwrap();
        let content = message(feature);
        std::fs::write(directory.join("message"), &content).unwrap();
        let port = if feature == Feature::Implicit { self.submissions } else { self.submission };
        // Only a client that does not wait for the reply to MAIL gets through this one.
        let withholding = match feature {
            Feature::Pipelining if !client.encrypts_always => Some(withholding::Withholding::start(port).await),
            _ => None,
        };
        let task = Task {
            feature,
            port: withholding.as_ref().map_or(port, withholding::Withholding::port),
            from: if feature == Feature::SmtpUtf8 { "j\u{fc}rgen@corp.example" } else { "erp@corp.example" },
            to: feature.recipient(client.name),
            file: directory.join("message"),
            ca: self.directory.path().join("cert.pem"),
            directory,
        };
        let run = client.run;
        let (task, said) = tokio::task::spawn_blocking(move || run(&task).map(|said| (task, said))).await.unwrap().unwrap_or_else(|said| {
            panic!("{} could not do {}:\n{said}\nThe log of the relay:\n{}", client.name, feature.title(), self.log());
        });
        let arrived = self.arrived(&task.to).await;
        let at = || format!("{}, {}:\n{said}\n{}", client.name, feature.title(), self.log());
        let body = arrived.body.as_ref().unwrap();
        assert_eq!(arrived.reverse_path, task.from, "{}", at());
        let head = String::from_utf8_lossy(&body[..body.len().min(2000)]).into_owned();
        assert!(
            head.contains(&format!("by relay.example (Postrider) with {} id ", feature.protocol(client.encrypts_always))),
            "{head}\n{}",
            at()
        );
        assert!(text_of(body) == text_of(&content), "what arrived is not what was sent: {head}\n{}", at());
        if let Some(mechanism) = feature.mechanism() {
            let log = self.log();
            let login = log.lines().rfind(|line| line.contains("logged in")).unwrap_or_default();
            assert!(login.contains(&format!("application={USER} mechanism=\"{mechanism}\"")), "not by {mechanism}: {}", at());
        }
    }

    /// The message for this recipient.
    async fn arrived(&self, to: &str) -> Received {
        let mut count = 0;
        loop {
            count += 1;
            let reached = tokio::time::timeout(std::time::Duration::from_secs(60), self.host.recorder().reached(count)).await;
            let received = self.host.recorder().received();
            if let Some(found) = received.iter().find(|received| received.recipients == [to]) {
                return found.clone();
            }
            assert!(reached.is_ok(), "nothing arrived for {to} within a minute\n{}", self.log());
            count = received.len();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("postrider.log")).unwrap()
    }
}

/// A certificate for 127.0.0.1 and localhost, as files; the paths of it and of its key.
fn self_signed(directory: &Path) -> (PathBuf, PathBuf) {
    let names = ["relay.example", "localhost", "127.0.0.1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

/// What `postrider password` makes of a password.
fn hash(password: &str) -> String {
    use std::io::Write as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .arg("password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The message of one feature. Its lines begin with dots where they may.
fn message(feature: Feature) -> Vec<u8> {
    let subject = if feature == Feature::SmtpUtf8 { "gr\u{fc}\u{df}e" } else { "test" };
    let mut message = format!(
        "From: <erp@corp.example>\r\nTo: <to@example.net>\r\nSubject: {subject}\r\nDate: Tue, 24 Nov 2026 08:00:00 +0000\r\n\
         Message-ID: <1@corp.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    );
    let eight_bit = matches!(feature, Feature::EightBit | Feature::SmtpUtf8);
    if eight_bit {
        message += "Content-Transfer-Encoding: 8bit\r\n";
    }
    message += "\r\n.a line\r\n..\r\n";
    if eight_bit {
        message += "Gr\u{fc}\u{df}e, \u{3b4}\u{3bf}\u{3ba}\u{3b9}\u{3bc}\u{3ae}\r\n";
    }
    if feature == Feature::Large {
        let line = "0123456789".repeat(7) + "\r\n";
        message += &line.repeat(20_000_000 / line.len());
    }
    message += "the end\r\n";
    message.into_bytes()
}

/// What stands below the header.
fn text_of(message: &[u8]) -> &[u8] {
    let end = message.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    &message[end + 4..]
}

#[tokio::test]
async fn every_client_does_what_the_table_says() {
    let relay = Relay::start().await;
    let mut table = String::from("| client |");
    for feature in Feature::ALL {
        let _ = write!(table, " {} |", feature.title());
    }
    table += "\n|---|";
    table += &":-:|".repeat(Feature::ALL.len());
    table.push('\n');
    let mut reasons = Vec::new();
    for client in clients::all() {
        let _ = write!(table, "| {} |", client.title);
        for feature in Feature::ALL {
            match (client.cannot)(feature) {
                None => {
                    relay.verify(&client, feature).await;
                    table += " yes |";
                }
                Some(reason) => {
                    let number = reasons.iter().position(|known| *known == reason).unwrap_or_else(|| {
                        reasons.push(reason);
                        reasons.len() - 1
                    });
                    let _ = write!(table, " no ({}) |", number + 1);
                }
            }
        }
        table.push('\n');
    }
    table.push('\n');
    for (number, reason) in reasons.iter().enumerate() {
        let _ = writeln!(table, "{}. {reason}", number + 1);
    }
    assert_eq!(relay.host.recorder().violations(), Vec::<String>::new());

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- table: begin -->\n", "<!-- table: end -->");
    let (before, rest) = page.split_once(begin).unwrap();
    let (written, after) = rest.split_once(end).unwrap();
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, format!("{before}{begin}{table}{end}{after}")).unwrap();
    } else {
        assert_eq!(written, table, "docs/clients.md differs from what was found; UPDATE_EXPECTED=1 writes it anew");
    }
}
