//! A provider of your own, outside the tree: `cargo run --example custom_provider`.
//!
//! The collector takes mail over TCP: a line of JSON with the envelope and the content's length, then
//! the content; it answers `ok <id>`. That is no protocol anybody has, but everything is here that a
//! real provider needs: one call without retries, each failure classified by how far it got, and one
//! outcome for each recipient. The gateway does the rest: durable queue, limits, circuit, failover.

#![allow(clippy::print_stdout, reason = "an example shows what happens")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use postrider::clock::Clock;
use postrider::config::{Config, Secrets};
use postrider::gateway::Gateway;
use postrider::spool::memory::MemorySpool;
use postrider_providers::contract::{
    Attempt, Capabilities, Connected, Delivery, Diagnostic, Failure, Outcome, Probed, Provider, ProviderName, Receipt, Report, SizeLimit,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout_at;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The provider: all it needs to know is where the collector is.
struct Collector {
    address: SocketAddr,
}

impl Collector {
    /// Sends everything. An error in here means that the message has not left as a whole.
    async fn send(&self, attempt: &Attempt) -> std::io::Result<BufReader<TcpStream>> {
        let message = &attempt.message;
        let recipients: Vec<&str> = attempt.recipients().map(|(_, recipient)| recipient.address.as_str()).collect();
        let envelope = serde_json::json!({
            "id": message.id.to_string(),
            "from": message.envelope.reverse_path.as_str(),
            "to": recipients,
            "octets": message.body.len(),
        });
        let mut body = message.body.open().await?;
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(format!("{envelope}\n").as_bytes()).await?;
        // In pieces, so that a large message never stands in memory as a whole.
        while let Some(piece) = body.chunk().await? {
            stream.write_all(&piece).await?;
        }
        Ok(BufReader::new(stream))
    }
}

impl Provider for Collector {
    fn capabilities(&self) -> Capabilities {
        Capabilities { max_size: Some(SizeLimit::message(25 << 20)), ..Capabilities::EVERYTHING }
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        // Not handed over: `Err`, and the gateway may ask the route's next provider at once.
        let unavailable = |text: String| Failure::Unavailable(Diagnostic::during("collect", text));
        let mut stream = match timeout_at(attempt.deadline, self.send(&attempt)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unavailable(format!("{}: {error}", self.address))),
            Err(_) => return Err(unavailable(format!("{} takes nothing", self.address))),
        };
        // From here on the message has left. Only an answer ends the doubt.
        let mut answer = String::new();
        let outcome = match timeout_at(attempt.deadline, stream.read_line(&mut answer)).await {
            Ok(Ok(_)) => match answer.trim_end().split_once(' ') {
                Some(("ok", id)) => {
                    Outcome::Relayed(Receipt { remote_id: Some(id.to_owned()), reply: answer.trim_end().to_owned(), ..Receipt::default() })
                }
                // A refusal in the collector's own words: this message is final, and never shopped around.
                Some(("no", why)) => return Err(Failure::Rejected(Diagnostic::during("collect", why))),
                _ => Outcome::InDoubt(Diagnostic::during("collect", format!("an answer that means nothing: {answer:?}"))),
            },
            Ok(Err(error)) => Outcome::InDoubt(Diagnostic::during("collect", format!("no answer: {error}"))),
            Err(_) => Outcome::InDoubt(Diagnostic::during("collect", "no answer in time")),
        };
        Ok(Report::uniform(&attempt.recipients, &outcome))
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let connected = TcpStream::connect(self.address).await;
        connected.map(|_| Probed::default()).map_err(|error| Failure::Unavailable(Diagnostic::during("connect", error.to_string())))
    }
}

/// The far side, for the sake of the example: shows one message and acknowledges it.
async fn collect_one(listener: TcpListener) -> Result<(), Error> {
    let (stream, _) = listener.accept().await?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let envelope: serde_json::Value = serde_json::from_str(&line)?;
    let octets = envelope["octets"].as_u64().ok_or("the envelope has no length")?;
    let mut content = String::new();
    (&mut stream).take(octets).read_to_string(&mut content).await?;
    println!("\nThe collector got {envelope}\n\n{content}");
    stream.get_mut().write_all(b"ok 4711\n").await?;
    Ok(())
}

/// An application that submits one message by SMTP.
async fn submit(server: SocketAddr) -> Result<(), Error> {
    let mut stream = BufReader::new(TcpStream::connect(server).await?);
    let content = "Subject: Hello\r\nFrom: app@corp.example\r\nTo: desk@example.net\r\n\r\nFrom an application, by SMTP.\r\n.\r\n";
    let (mut line, dialogue) = (String::new(), ["HELO app", "MAIL FROM:<app@corp.example>", "RCPT TO:<desk@example.net>", "DATA"]);
    stream.read_line(&mut line).await?;
    for said in dialogue.iter().map(|command| format!("{command}\r\n")).chain([content.to_owned(), "QUIT\r\n".to_owned()]) {
        stream.get_mut().write_all(said.as_bytes()).await?;
        line.clear();
        stream.read_line(&mut line).await?;
        println!("{:<32} {}", said.lines().next().unwrap_or_default(), line.trim_end());
        if !line.starts_with(['2', '3']) {
            return Err(line.into());
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let provider = Collector { address: listener.local_addr()? };
    let name = ProviderName::new("collector", "desk");

    // The config file knows the kinds of provider that are built in. Ours takes the place of one.
    let text = "[[listener]]\nbind = \"127.0.0.1:0\"\n[provider.capture.placeholder]\ndirectory = \"placeholder\"\n";
    let (mut config, _) = Config::parse(text, Path::new("example.toml"), Secrets::Skip)?;
    for route in &mut config.routes {
        route.providers = vec![name.clone()];
    }
    let connected = vec![Connected { name, default_concurrency: 4, provider: Arc::new(provider) }];
    let gateway = Gateway::start_with(&config, MemorySpool::new(), connected, Clock::system()).await?;

    let collecting = tokio::spawn(collect_one(listener));
    submit(*gateway.addresses().first().ok_or("the gateway listens nowhere")?).await?;
    collecting.await??;
    // Lets the attempt at hand end, so that its outcome is written down, too.
    gateway.drain().await;
    println!("Delivered.");
    Ok(())
}
