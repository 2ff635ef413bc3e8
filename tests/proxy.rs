//! Behind a load balancer: the PROXY protocol over TCP, and HAProxy, which nobody here wrote.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test may end the test")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use postrider::gateway::Gateway;
use postrider::spool::sqlite::SqliteSpool;
use proxy_header::{ProxiedAddress, ProxyHeader};
use support::client::{Client, message};
use support::{eventually, free_port, program};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A gateway that takes mail from the clients of these proxies, if the clients are in these networks.
/// What it takes lands in `mail`.
async fn gateway(directory: &Path, proxies: &str, trusted: &str, more: &str) -> Gateway<SqliteSpool> {
    let mail = directory.join("mail");
    support::gateway(&format!(
        "{}proxy_protocol = true\n[access]\ntrusted_proxies = [{proxies:?}]\ntrusted_networks = [{trusted:?}]\n{more}\n[provider.capture.all]\ndirectory = {mail:?}\n",
        support::server(&directory.join("data")),
    ))
    .await
}

/// Everything that comes back for `input`.
async fn say(server: SocketAddr, input: &[u8]) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(input).await.unwrap();
    let mut output = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut output).await;
    String::from_utf8(output).unwrap()
}

fn version_1(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 198.51.100.1 40000 25\r\n").into_bytes()
}

fn version_2(source: &str) -> Vec<u8> {
    let address = ProxiedAddress::stream(SocketAddr::new(source.parse().unwrap(), 40000), "198.51.100.1:25".parse().unwrap());
    let mut header = Vec::new();
    ProxyHeader::with_address(address).encode_v2(&mut header).unwrap();
    header
}

const RELAY: &[u8] = b"EHLO app.example\r\nMAIL FROM:<a@corp.example>\r\nRCPT TO:<b@example.net>\r\nQUIT\r\n";

#[tokio::test]
async fn the_client_is_who_the_trusted_proxy_says() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = gateway(directory.path(), "127.0.0.1", "192.0.2.0/24", "").await;
    let address = gateway.addresses()[0];
    for header in [version_1, version_2] {
        let replies = say(address, &[&header("192.0.2.7"), RELAY].concat()).await;
        assert!(replies.starts_with("220 ") && replies.contains("\r\n250 2.1.5 "), "{replies}");
        let replies = say(address, &[&header("203.0.113.7"), RELAY].concat()).await;
        assert!(replies.contains("\r\n554 5.7.1 ") && replies.contains("[203.0.113.7]"), "{replies}");
    }
    // The proxy itself is not one of the clients that may relay.
    let replies = say(address, &[b"PROXY UNKNOWN\r\n", RELAY].concat()).await;
    assert!(replies.contains("\r\n554 5.7.1 ") && replies.contains("[127.0.0.1]"), "{replies}");
    gateway.drain().await;
}

#[tokio::test]
async fn a_header_from_anybody_else_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = gateway(directory.path(), "192.0.2.1", "127.0.0.1", "").await;
    for input in [&version_1("127.0.0.1")[..], &version_2("127.0.0.1"), b""] {
        assert_eq!(say(gateway.addresses()[0], &[input, RELAY].concat()).await, "");
    }
    gateway.drain().await;
}

#[tokio::test]
async fn a_connection_without_a_header_gets_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = gateway(directory.path(), "127.0.0.1", "127.0.0.1", "").await;
    assert_eq!(say(gateway.addresses()[0], RELAY).await, "");
    assert_eq!(say(gateway.addresses()[0], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await, "");
    gateway.drain().await;
}

#[tokio::test]
async fn the_limit_of_a_client_is_the_clients_and_not_the_proxys() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = gateway(directory.path(), "127.0.0.1", "192.0.2.0/24", "max_connections_per_client = 1\n").await;
    let address = gateway.addresses()[0];
    let connect = async |client: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&version_2(client)).await.unwrap();
        let mut greeting = vec![0; 4];
        stream.read_exact(&mut greeting).await.unwrap();
        (stream, String::from_utf8(greeting).unwrap())
    };
    let (_first, greeting) = connect("192.0.2.1").await;
    assert_eq!(greeting, "220 ");
    let (_second, greeting) = connect("192.0.2.2").await;
    assert_eq!(greeting, "220 ", "the proxy is not the client");
    let (_third, greeting) = connect("192.0.2.1").await;
    assert_eq!(greeting, "421 ");
    gateway.drain().await;
}

/// HAProxy in front of `server`.
struct Haproxy {
    child: Child,
    port: u16,
}

impl Haproxy {
    fn start(directory: &Path, server: SocketAddr, option: &str) -> Self {
        let port = free_port();
        let config = directory.join("haproxy.cfg");
        std::fs::write(
            &config,
            format!(
                "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n\
                 listen smtp\n  bind 127.0.0.1:{port}\n  server postrider {server} {option}\n"
            ),
        )
        .unwrap();
        let child =
            Command::new(program("haproxy")).arg("-f").arg(config).arg("-db").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, port }
    }

    /// A session through it, from another address of this host.
    async fn connect_from(&self, client: &str) -> std::io::Result<Client> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(client.parse().unwrap(), 0))?;
        Client::over(socket.connect(SocketAddr::from(([127, 0, 0, 1], self.port))).await?).await
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn behind_haproxy_the_real_client_is_judged_and_named() {
    for option in ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn check check-send-proxy inter 100ms"] {
        let directory = tempfile::tempdir().unwrap();
        let gateway = gateway(directory.path(), "127.0.0.1", "127.0.0.7", "").await;
        let haproxy = Haproxy::start(directory.path(), gateway.addresses()[0], option);
        let mut connected = None;
        eventually("HAProxy serves", async || {
            connected = haproxy.connect_from("127.0.0.7").await.ok();
            connected.is_some()
        })
        .await;
        let reply = connected.unwrap().send("<app@corp.example>", &["b@example.net"], &message("one")).await.unwrap();
        assert!(reply.starts_with("250"), "{option}: {reply}");
        let reply = haproxy.connect_from("127.0.0.8").await.unwrap().send("<app@corp.example>", &["b@example.net"], b"").await.unwrap();
        assert!(reply.starts_with("554 5.7.1") && reply.contains("[127.0.0.8]"), "{option}: {reply}");

        let mail = directory.path().join("mail");
        let mut content = String::new();
        eventually("the message arrives", async || {
            let files = std::fs::read_dir(&mail).into_iter().flatten().map(|entry| entry.unwrap().path());
            let message = files.filter(|path| path.extension().is_some_and(|extension| extension == "eml")).collect::<Vec<_>>();
            content = message.first().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
            !content.is_empty()
        })
        .await;
        assert!(content.starts_with("Received: from client.example ([127.0.0.7])\r\n"), "{option}: {content}");
        gateway.drain().await;
    }
}
