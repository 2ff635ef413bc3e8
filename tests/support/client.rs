//! A client that sends what it is told, octet for octet, and wants 250 for it.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// One open session.
pub struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects and says EHLO.
    pub async fn connect(server: SocketAddr) -> std::io::Result<Self> {
        Self::over(TcpStream::connect(server).await?).await
    }

    /// Waits for the greeting, whatever it says, and says EHLO.
    pub async fn over(stream: TcpStream) -> std::io::Result<Self> {
        let mut client = Self(BufReader::new(stream));
        client.reply().await?;
        client.command("EHLO client.example").await?;
        Ok(client)
    }

    /// Sends one command and gives the reply's last line.
    pub async fn command(&mut self, line: &str) -> std::io::Result<String> {
        self.0.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Sends these octets and waits for nothing.
    pub async fn write(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.0.write_all(octets).await
    }

    async fn reply(&mut self) -> std::io::Result<String> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line.trim_end().to_owned());
            }
        }
    }

    /// Sends a message; `content` is dot-stuffed here and must end with CRLF. Gives the final reply.
    pub async fn send(&mut self, mail: &str, recipients: &[&str], content: &[u8]) -> std::io::Result<String> {
        let reply = self.command(&format!("MAIL FROM:{mail}")).await?;
        if !reply.starts_with("250") {
            return Ok(reply);
        }
        for recipient in recipients {
            let reply = self.command(&format!("RCPT TO:<{recipient}>")).await?;
            if !reply.starts_with("250") {
                return Ok(reply);
            }
        }
        let reply = self.command("DATA").await?;
        if !reply.starts_with("354") {
            return Ok(reply);
        }
        let mut wire = Vec::with_capacity(content.len() + 16);
        for line in content.split_inclusive(|&byte| byte == b'\n') {
            if line.starts_with(b".") {
                wire.push(b'.');
            }
            wire.extend_from_slice(line);
        }
        wire.extend_from_slice(b".\r\n");
        self.0.write_all(&wire).await?;
        self.reply().await
    }
}

/// Sends one message in a session of its own, and wants it accepted.
pub async fn send(server: SocketAddr, from: &str, recipients: &[&str], content: &[u8]) {
    let reply = Client::connect(server).await.unwrap().send(&format!("<{from}>"), recipients, content).await.unwrap();
    assert!(reply.starts_with("250"), "{reply}");
}

/// A small message with this Message-ID.
pub fn message(id: &str) -> Vec<u8> {
    format!("From: <a@corp.example>\r\nSubject: test\r\nMessage-ID: <{id}@test>\r\n\r\nText of {id}.\r\n").into_bytes()
}
