//! The applications of the demo: each speaks SMTP to the gateway, as it would to any server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};

/// Who sends, and to whom.
const APPLICATIONS: [(&str, &str, &str); 4] = [
    ("erp@erp.corp.example", "customer@example.net", "Your invoice"),
    ("scanner@print.corp.example", "office@example.org", "Scan from the third floor"),
    ("alerts@monitor.corp.example", "oncall@example.com", "Disk is 91% full"),
    ("shop@test.corp.example", "buyer@staging.example", "Your order (staging)"),
];

/// How many applications send at the same time.
const SENDERS: usize = 8;

/// The stream of messages.
#[derive(Debug)]
pub(super) struct Traffic {
    server: SocketAddr,
    total: usize,
    next: AtomicUsize,
    /// Message-IDs of what the gateway answered 250 to.
    accepted: Mutex<Vec<String>>,
}

impl Traffic {
    pub(super) fn new(server: SocketAddr, total: u32) -> Self {
        Self { server, total: total as usize, next: AtomicUsize::new(0), accepted: Mutex::default() }
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.lock().len()
    }

    pub(super) fn message_ids(&self) -> Vec<String> {
        self.accepted.lock().clone()
    }

    pub(super) fn is_done(&self) -> bool {
        self.accepted() >= self.total
    }

    /// Sends everything, `rate` messages a second. An application whose message was not accepted keeps
    /// it and tries again, as the protocol has it.
    pub(super) async fn run(self: Arc<Self>, rate: u32) {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..SENDERS {
            let traffic = Arc::clone(&self);
            tasks.spawn(async move {
                #[expect(clippy::cast_possible_truncation, reason = "a handful of senders")]
                let mut pace = interval(Duration::from_secs(1) * SENDERS as u32 / rate.max(1));
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    let number = traffic.next.fetch_add(1, Ordering::Relaxed);
                    if number >= traffic.total {
                        return;
                    }
                    pace.tick().await;
                    while traffic.send(number).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            });
        }
        tasks.join_all().await;
    }

    async fn send(&self, number: usize) -> std::io::Result<()> {
        let (from, to, subject) = APPLICATIONS[number % APPLICATIONS.len()];
        let message_id = format!("<{number}@applications.demo.example>");
        let mut stream = BufReader::new(TcpStream::connect(self.server).await?);
        expect(&mut stream, b'2').await?;
        for command in ["HELO application".to_owned(), format!("MAIL FROM:<{from}>"), format!("RCPT TO:<{to}>")] {
            stream.write_all(format!("{command}\r\n").as_bytes()).await?;
            expect(&mut stream, b'2').await?;
        }
        stream.write_all(b"DATA\r\n").await?;
        expect(&mut stream, b'3').await?;
        let content = format!(
            "From: <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nMessage-ID: {message_id}\r\n\r\nMessage {number} of the demo.\r\n.\r\n"
        );
        stream.write_all(content.as_bytes()).await?;
        expect(&mut stream, b'2').await?;
        self.accepted.lock().push(message_id);
        // Only politeness from here on: the message is the gateway's.
        let _ = stream.write_all(b"QUIT\r\n").await;
        Ok(())
    }
}

/// Reads one reply, and holds its first digit to what the application hopes for.
async fn expect(stream: &mut BufReader<TcpStream>, class: u8) -> std::io::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            break;
        }
    }
    if line.as_bytes().first() == Some(&class) { Ok(()) } else { Err(std::io::Error::other(line)) }
}
