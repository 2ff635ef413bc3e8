//! Smart hosts that nobody here wrote: Postfix with SASL behind STARTTLS, maildev and aiosmtpd.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

#[path = "oauth_smtp/dovecot.rs"]
mod dovecot;
#[path = "smart_hosts/postfix.rs"]
mod postfix;
mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dovecot::{Dovecot, Logins, certify};
use postfix::Postfix;
use postrider_providers::conformance::{attempt, content};
use postrider_providers::contract::{Delivery, Failure, ProviderName};
use postrider_providers::registry::{Context, Settings as _};
use postrider_providers::smarthost;
use serde_json::{Value, json};
use support::peer::Peer;
use support::sink::Sink;
use support::{eventually, free_port, program};

const USER: &str = "relay@corp.example";
const PASSWORD: &str = "correct-horse";

/// Hands one message over to the host on this port.
async fn deliver(port: u16, settings: Value) -> Delivery {
    let mut config = json!({ "host": "127.0.0.1", "port": port });
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let config: smarthost::Config = serde_json::from_value(config).unwrap();
    let provider = config.connect(ProviderName::new("smarthost", "x"), &Context::new("relay.example").unwrap()).unwrap().provider;
    provider.deliver(attempt(&content(3000), Duration::from_secs(60))).await
}

fn is_relayed(delivery: &Delivery) -> bool {
    delivery.as_ref().is_ok_and(|report| report.outcomes.iter().all(|(_, outcome)| outcome.name() == "relayed"))
}

fn login(directory: &Path, password: &str) -> Value {
    json!({ "tls": "starttls", "ca_file": directory.join("certificate.pem"), "username": USER, "password": password })
}

#[tokio::test]
async fn postfix_relays_for_a_login_under_starttls_and_says_no_to_all_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    certify(path);
    let sink = Sink::start(&path.join("sink"), &[]);
    let dovecot = Dovecot::start(path, &Logins::Password { user: USER, password: PASSWORD }, sink.port());
    let postfix = Postfix::start(path, dovecot.auth_port, sink.port());
    let delivery = deliver(postfix.port, login(path, PASSWORD)).await;
    assert!(is_relayed(&delivery), "{delivery:?}: {}", postfix.said());
    eventually("all three have it", async || sink.copies().len() == 3).await;

    let delivery = deliver(postfix.port, login(path, "wrong")).await;
    assert!(matches!(&delivery, Err(Failure::Unauthorized(diagnostic)) if diagnostic.advice.is_some()), "{delivery:?}");
    let delivery = deliver(postfix.port, json!({ "tls": "opportunistic" })).await;
    assert!(matches!(&delivery, Err(Failure::SenderRefused(diagnostic)) if diagnostic.advice.is_some()), "{delivery:?}");
    assert_eq!(sink.copies().values().sum::<usize>(), 3);
}

#[tokio::test]
async fn dovecot_relays_for_a_password_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    certify(path);
    let sink = Sink::start(&path.join("sink"), &[]);
    let dovecot = Dovecot::start(path, &Logins::Password { user: USER, password: PASSWORD }, sink.port());
    let delivery = deliver(dovecot.port, login(path, PASSWORD)).await;
    assert!(is_relayed(&delivery), "{delivery:?}: {}", dovecot.said());
    eventually("all three have it", async || sink.copies().len() == 3).await;
}

#[tokio::test]
async fn maildev_gets_what_was_sent() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port().to_string();
    let options = ["--smtp", &port, "--ip", "127.0.0.1", "--web-ip", "127.0.0.1", "--incoming-user", "u", "--incoming-pass", "p"];
    let maildev = Peer::start(directory.path(), "maildev", &options, "--web", "/api/email").await;
    let port = port.parse().unwrap();
    let delivery = deliver(port, json!({ "tls": "off", "username": "u", "password": "p" })).await;
    assert!(is_relayed(&delivery), "{delivery:?}");
    let delivery = deliver(port, json!({ "tls": "off", "username": "u", "password": "wrong" })).await;
    assert!(matches!(delivery, Err(Failure::Unauthorized(_))), "{delivery:?}");
    eventually("it shows the message", async || maildev.get("/api/email").await.as_array().is_some_and(|all| all.len() == 1)).await;
    let shown = &maildev.get("/api/email").await[0];
    assert_eq!(
        (shown["subject"].as_str(), shown["envelope"]["from"]["address"].as_str()),
        (Some("conformance"), Some("sender@app.example"))
    );
}

#[tokio::test]
async fn aiosmtpd_keeps_every_octet() {
    let directory = tempfile::tempdir().unwrap();
    let (port, maildir) = (free_port(), directory.path().join("maildir"));
    let address = format!("127.0.0.1:{port}");
    let mut aiosmtpd = Command::new(program("aiosmtpd"))
        .args(["-n", "-l", &address, "-c", "aiosmtpd.handlers.Mailbox"])
        .arg(&maildir)
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(directory.path().join("aiosmtpd.log")).unwrap())
        .spawn()
        .unwrap();
    eventually("aiosmtpd listens", async || tokio::net::TcpStream::connect(&address).await.is_ok()).await;
    let delivery = deliver(port, json!({ "tls": "off" })).await;
    let _ = aiosmtpd.kill();
    let _ = aiosmtpd.wait();
    assert!(is_relayed(&delivery), "{delivery:?}");
    let kept: Vec<_> = std::fs::read_dir(maildir.join("new")).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    let [kept] = &kept[..] else { panic!("{} messages", kept.len()) };
    // It adds fields of its own to the header.
    let body = |message: &[u8]| String::from_utf8_lossy(message).replace("\r\n", "\n").split_once("\n\n").unwrap().1.to_owned();
    assert_eq!(body(kept), body(&content(3000)));
}
