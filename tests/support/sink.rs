//! Postfix's test server and generator: `smtp-sink` and `smtp-source`.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{free_port, program};

/// A running `smtp-sink` that writes every transaction down.
pub struct Sink {
    child: Child,
    port: u16,
    directory: PathBuf,
}

impl Sink {
    /// Starts it with further options, as in `["-q", "DATA"]`.
    pub fn start(directory: &Path, options: &[&str]) -> Self {
        Self::start_at(directory, free_port(), options)
    }

    /// Starts it on a port that was chosen before.
    pub fn start_at(directory: &Path, port: u16, options: &[&str]) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let mut command = Command::new(program("smtp-sink"));
        if std::env::var("USER").as_deref() == Ok("root") || is_root() {
            // It refuses to run as root, and must write where it runs.
            command.args(["-u", "nobody"]);
            let opened = Command::new("chmod").arg("a+rwx").arg(directory).status().unwrap();
            assert!(opened.success());
        }
        let child = command
            .arg("-D")
            .arg(directory.join("mail"))
            .args(options)
            .arg(format!("127.0.0.1:{port}"))
            .arg("1000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sink = Self { child, port, directory: directory.to_owned() };
        for _ in 0..500 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return sink;
            }
            #[expect(clippy::disallowed_methods, reason = "waits for another process, which says nothing when it is ready")]
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("smtp-sink does not listen on port {port}");
    }

    /// Stops it; what it has written stays.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How often each recipient got a message.
    pub fn copies(&self) -> HashMap<String, usize> {
        let mut copies = HashMap::new();
        for recipient in self.dumped().into_iter().flat_map(|dumped| dumped.recipients) {
            *copies.entry(recipient).or_default() += 1;
        }
        copies
    }

    /// Every message that it read to the final dot, whatever it answered then.
    pub fn dumped(&self) -> Vec<Dumped> {
        let dump = std::fs::read(self.directory.join("mail")).unwrap_or_default();
        let mut all: Vec<Dumped> = Vec::new();
        // Its own fields come before each message, and the field that it adds as an MTA ends them.
        let mut rest = &dump[..];
        while let Some(line) = rest.split_inclusive(|&byte| byte == b'\n').next() {
            rest = &rest[line.len()..];
            if line.starts_with(b"X-Client-Addr: ") {
                all.push(Dumped::default());
            }
            let Some(last) = all.last_mut() else { continue };
            let text = String::from_utf8_lossy(line).into_owned();
            let own =
                |name: &str| text.strip_prefix(name).and_then(|value| value.strip_prefix(": ")).map(|value| value.trim_end().to_owned());
            if !last.content.is_empty() {
                last.content.extend_from_slice(line);
            } else if let Some(mail) = own("X-Mail-Args") {
                last.mail = mail;
            } else if let Some(recipient) = own("X-Rcpt-Args") {
                let address = recipient.trim_start_matches('<').split('>').next().unwrap_or_default();
                last.recipients.push(address.to_owned());
                last.rcpt.push(recipient);
            } else if !text.starts_with("X-") {
                last.content.extend_from_slice(line);
            }
        }
        all
    }

    /// Whether it ended by itself, as its option `-M` makes it do.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

/// A message in the dump.
#[derive(Debug, Default)]
pub struct Dumped {
    /// The argument of MAIL FROM, with its parameters.
    pub mail: String,
    /// Each address of RCPT TO.
    pub recipients: Vec<String>,
    /// Each argument of RCPT TO, with its parameters.
    pub rcpt: Vec<String>,
    /// What came after DATA, below the Received field that smtp-sink adds. Its lines end with LF.
    pub content: Vec<u8>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends `count` messages with `smtp-source`, each to a recipient of its own (`1rcpt@…`, `2rcpt@…`).
pub async fn source(server: SocketAddr, count: usize, sessions: usize, octets: usize) {
    let mut command = Command::new(program("smtp-source"));
    command
        .args(["-d", "-N", "-f", "app@corp.example", "-t", "rcpt@example.net"])
        .args(["-m", &count.to_string(), "-s", &sessions.to_string(), "-l", &octets.to_string()])
        .arg(server.to_string());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "smtp-source: {}", String::from_utf8_lossy(&output.stderr));
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
