//! What strangers' tools say about the door: nmap looks for an open relay in every sample config, and
//! testssl.sh judges its TLS.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use postrider::clock::Clock;
use postrider::config::{CertificateFiles, Config, ListenerTls, Secrets};
use postrider::gateway::Gateway;
use postrider::spool::memory::MemorySpool;
use postrider_providers::contract::{Attempt, Capabilities, Connected, Delivery, Outcome, Probed, Provider, Receipt, Report};
use support::program;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// Takes everything: what passes the door would have gone out.
struct TakesAll;

impl Provider for TakesAll {
    fn capabilities(&self) -> Capabilities {
        Capabilities::EVERYTHING
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let receipt = Receipt { remote_id: None, reply: "taken".to_owned(), ..Receipt::default() };
        Ok(Report::uniform(&attempt.recipients, &Outcome::Relayed(receipt)))
    }

    async fn probe(&self) -> Result<Probed, postrider_providers::contract::Failure> {
        Ok(Probed::default())
    }
}

/// A gateway with the rules of `config`, on loopback, which believes 127.0.0.1 about who its clients are.
async fn gateway(mut config: Config, certificate: &CertificateFiles) -> Gateway<MemorySpool> {
    for listener in &mut config.listeners {
        listener.bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        listener.proxy_protocol = true;
        if listener.tls != ListenerTls::Off {
            listener.certificates = vec![certificate.clone()];
        }
    }
    config.access.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    config.access.password_file = None;
    let connected = config.providers.iter().map(|provider| Connected {
        name: provider.name.clone(),
        default_concurrency: 10,
        provider: Arc::new(TakesAll),
    });
    let connected = connected.collect();
    Gateway::start_with(&config, MemorySpool::new(), connected, Clock::system()).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Passes connections on to `server` as those of `client`: a load balancer with one client.
async fn as_client(client: &'static str, server: SocketAddr) -> (u16, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut to = TcpStream::connect(server).await.unwrap();
                to.write_all(format!("PROXY TCP4 {client} 127.0.0.1 40000 25\r\n").as_bytes()).await.unwrap();
                // Either side may hang up.
                let _ = copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    (port, AbortOnDropHandle::new(task))
}

/// Runs a judge, and gives what it printed.
async fn run(mut command: Command) -> String {
    let run = move || command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What nmap says about the door, seen from `client`.
async fn scan(client: &'static str, server: SocketAddr) -> String {
    let (port, _passing) = as_client(client, server).await;
    let mut command = Command::new(program("nmap"));
    // A plus runs a script whatever the port's number is.
    command.args(["-Pn", "-n", "-p", &port.to_string(), "--script", "+smtp-open-relay,+smtp-commands"]);
    command.args(["--script-args", "smtp-open-relay.domain=scanner.example", "127.0.0.1"]);
    run(command).await
}

fn self_signed(directory: &Path) -> CertificateFiles {
    let made = rcgen::generate_simple_self_signed(["relay.example", "localhost", "127.0.0.1"].map(str::to_owned)).unwrap();
    let files = CertificateFiles { certificate: directory.join("cert.pem"), private_key: directory.join("key.pem") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.private_key, made.signing_key.serialize_pem()).unwrap();
    files
}

/// What testssl.sh finds at a port, as (id, severity, finding).
async fn testssl(directory: &Path, options: &[&str], port: u16) -> Vec<(String, String, String)> {
    let report = directory.join(format!("testssl-{port}.json"));
    let mut command = Command::new(program("testssl"));
    command.args(["--quiet", "--warnings", "batch", "--color", "0", "--nodns", "none", "--ip", "127.0.0.1"]);
    command.args(["--protocols", "--std", "--fs", "--server-defaults", "--vulnerable"]);
    command.args(options).arg("--jsonfile").arg(&report).arg(format!("localhost:{port}"));
    let said = run(command).await;
    let json = std::fs::read_to_string(&report).unwrap_or_else(|error| panic!("{error}\n{said}"));
    let findings: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}\n{json}"));
    let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    findings.iter().map(|finding| (text(finding, "id"), text(finding, "severity"), text(finding, "finding"))).collect()
}

/// Nothing older than TLS 1.2, nothing weak, nothing vulnerable.
fn assert_is_sound(findings: &[(String, String, String)]) {
    let finding = |wanted: &str| findings.iter().find(|(id, _, _)| id == wanted).map(|(_, _, finding)| finding.as_str());
    for protocol in ["SSLv2", "SSLv3", "TLS1", "TLS1_1"] {
        assert!(finding(protocol).is_some_and(|said| said.starts_with("not offered")), "{protocol}: {findings:#?}");
    }
    for protocol in ["TLS1_2", "TLS1_3"] {
        assert!(finding(protocol).is_some_and(|said| said.starts_with("offered")), "{protocol}: {findings:#?}");
    }
    // The test's certificate is one that nobody vouches for.
    let bad = |(id, severity, _): &&(String, String, String)| {
        matches!(severity.as_str(), "LOW" | "MEDIUM" | "HIGH" | "CRITICAL" | "FATAL") && !id.starts_with("cert")
    };
    let bad: Vec<_> = findings.iter().filter(bad).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// The sample configs, with the certificates that they name taken from here.
fn samples(certificate: &CertificateFiles) -> Vec<(PathBuf, Config)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut samples: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    samples.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    samples.sort();
    assert!(samples.len() >= 5, "{samples:?}");
    let parse = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("/etc/postrider/cert.pem", certificate.certificate.to_str().unwrap());
        let text = text.replace("/etc/postrider/key.pem", certificate.private_key.to_str().unwrap());
        let (config, _) = Config::parse(&text, &path, Secrets::Skip).unwrap_or_else(|errors| panic!("{errors}"));
        (path, config)
    };
    samples.into_iter().map(parse).collect()
}

#[tokio::test]
async fn nmap_finds_no_open_relay_in_any_sample_config() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = self_signed(directory.path());
    for (path, config) in samples(&certificate) {
        let gateway = gateway(config.clone(), &certificate).await;
        for (listener, address) in config.listeners.iter().zip(gateway.addresses()) {
            if listener.tls == ListenerTls::Implicit {
                // The script speaks no TLS; the rules are the same for all listeners.
                continue;
            }
            let at = format!("{}, {}", path.display(), listener.bind);
            let said = scan("203.0.113.9", address).await;
            let verdicts =
                ["Server doesn't seem to be an open relay, all tests failed", "Server isn't an open relay, authentication needed"];
            assert!(verdicts.iter().any(|verdict| said.contains(&format!("smtp-open-relay: {verdict}"))), "{at}:\n{said}");
            assert!(said.contains("smtp-commands: ") && said.contains("PIPELINING"), "{at}:\n{said}");
        }
        gateway.drain().await;
    }
}

#[tokio::test]
async fn nmap_would_have_seen_an_open_relay() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = self_signed(directory.path());
    let (_, config) = samples(&certificate).into_iter().find(|(path, _)| path.ends_with("minimal.toml")).unwrap();
    let gateway = gateway(config, &certificate).await;
    // To a client on a trusted network the same door is open, and nmap says so.
    let said = scan("192.168.7.7", gateway.addresses()[0]).await;
    assert!(said.contains("smtp-open-relay: Server is an open relay"), "{said}");
    gateway.drain().await;
}

#[tokio::test]
async fn testssl_finds_nothing_old_and_nothing_weak() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = self_signed(directory.path());
    let (_, mut config) = samples(&certificate).into_iter().find(|(path, _)| path.ends_with("minimal.toml")).unwrap();
    config.listeners.truncate(1);
    config.listeners.push(config.listeners[0].clone());
    (config.listeners[0].tls, config.listeners[1].tls) = (ListenerTls::StartTls, ListenerTls::Implicit);
    let gateway = gateway(config, &certificate).await;
    for (options, address) in [&["--starttls", "smtp"][..], &[]].into_iter().zip(gateway.addresses()) {
        let (port, _passing) = as_client("203.0.113.9", address).await;
        assert_is_sound(&testssl(directory.path(), options, port).await);
    }
    gateway.drain().await;
}
