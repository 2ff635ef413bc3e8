//! A server that nobody here wrote, with an HTTP interface: started on a free port, asked what it
//! got, and stopped when the test ends.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{eventually, free_port, program};

/// A running server.
pub struct Peer {
    child: Child,
    port: u16,
}

impl Peer {
    /// Starts `name` with these options and `port_option`, and waits until it answers at `ready_path`.
    pub async fn start(directory: &Path, name: &str, options: &[&str], port_option: &str, ready_path: &str) -> Self {
        Self::start_with(directory, name, &[], options, port_option, ready_path).await
    }

    /// The same, with this in its environment.
    pub async fn start_with(
        directory: &Path,
        name: &str,
        environment: &[(&str, &str)],
        options: &[&str],
        port_option: &str,
        ready_path: &str,
    ) -> Self {
        let port = free_port();
        let log = std::fs::File::create(directory.join(format!("{name}.log"))).unwrap();
        let child = Command::new(program(name))
            .envs(environment.iter().copied())
            .args(options)
            .args([port_option, &port.to_string()])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut peer = Self { child, port };
        eventually(&format!("{name} answers on port {port}"), async || {
            let ended = peer.child.try_wait().unwrap();
            let said = || std::fs::read_to_string(directory.join(format!("{name}.log"))).unwrap();
            assert!(ended.is_none(), "{name} ended by itself:\n{}", said());
            peer.request("GET", ready_path, "").await.is_ok()
        })
        .await;
        peer
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The JSON that it answers to GET.
    pub async fn get(&self, path: &str) -> serde_json::Value {
        serde_json::from_slice(&self.request("GET", path, "").await.unwrap()).unwrap()
    }

    /// Posts JSON, and wants success.
    pub async fn post(&self, path: &str, json: &serde_json::Value) {
        self.request("POST", path, &json.to_string()).await.unwrap();
    }

    async fn request(&self, method: &str, path: &str, json: &str) -> Result<Vec<u8>, String> {
        // HTTP/1.0, so that the answer comes in one piece and ends with the connection. Of the
        // signature only the service is read, which is all that these servers want.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/eu-west-1/ses/aws4_request, SignedHeaders=host, Signature=x\r\n\r\n{json}",
            self.port,
            json.len()
        );
        let mut answer = Vec::new();
        let exchange = async {
            let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
            connection.write_all(request.as_bytes()).await?;
            connection.read_to_end(&mut answer).await
        };
        exchange.await.map_err(|error| error.to_string())?;
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no HTTP answer")?;
        match answer.get(9..12) {
            Some(b"200") => Ok(answer.split_off(head + 4)),
            _ => Err(String::from_utf8_lossy(&answer).into_owned()),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
