//! STARTTLS and implicit TLS, with a client of the TLS library over a stream in memory.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config::{CertificateFiles, ListenerTls};
use crate::tls::CertificateStore;

/// A gate with certificates, and a client configuration that trusts them.
struct Encrypted {
    gate: Gate,
    trust: Arc<ClientConfig>,
    _folder: TempDir,
}

impl Encrypted {
    fn new(tls: ListenerTls) -> Self {
        Self::with(tls, |_| {})
    }

    fn with(tls: ListenerTls, change: impl FnOnce(&mut Setup)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut roots = RootCertStore::empty();
        let mut files = Vec::new();
        for name in ["relay.example", "other.example"] {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            let path = |kind: &str| folder.path().join(format!("{name}.{kind}"));
            std::fs::write(path("crt"), made.cert.pem()).unwrap();
            std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
            roots.add(CertificateDer::from_pem_file(path("crt")).unwrap()).unwrap();
            files.push(CertificateFiles { certificate: path("crt"), private_key: path("key") });
        }
        let mut gate = gate_with(change, When::default());
        let listener = Listener { tls, certificates: files.clone(), ..gate.door.listener.clone() };
        let tls = CertificateStore::new(Clock::system()).listener(&files).unwrap();
        gate.door = Arc::new(Door { listener, tls: Some(tls) });
        let trust = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { gate, trust: Arc::new(trust), _folder: folder }
    }

    fn connect(&self) -> Plain {
        Plain(self.gate.connect_from("127.0.0.1"))
    }

    async fn handshake(&self, io: DuplexStream, host: &str) -> std::io::Result<Tls> {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        TlsConnector::from(Arc::clone(&self.trust)).connect(name, io).await.map(Tls)
    }

    /// A client that has said STARTTLS and shaken hands.
    async fn after_starttls(&self) -> Tls {
        let mut client = self.connect();
        assert_eq!(codes(&client.say("EHLO before.example\r\nSTARTTLS\r\n", 3).await), ["220", "250", "220"]);
        self.handshake(client.0, "relay.example").await.unwrap()
    }
}

/// A client in clear text.
struct Plain(DuplexStream);

/// A client that is encrypted.
struct Tls(TlsStream<DuplexStream>);

/// Says this and reads so many replies.
async fn say<T: AsyncRead + AsyncWrite + Unpin>(io: &mut T, input: &str, replies: usize) -> Vec<String> {
    io.write_all(input.as_bytes()).await.unwrap();
    io.flush().await.unwrap();
    let (mut lines, mut line) = (Vec::new(), String::new());
    while codes(&lines).len() < replies {
        line.push(char::from(io.read_u8().await.unwrap()));
        if line.ends_with("\r\n") {
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
        }
    }
    lines
}

impl Plain {
    async fn say(&mut self, input: &str, replies: usize) -> Vec<String> {
        say(&mut self.0, input, replies).await
    }
}

impl Tls {
    async fn say(&mut self, input: &str, replies: usize) -> Vec<String> {
        say(&mut self.0, input, replies).await
    }
}

#[tokio::test]
async fn a_login_that_a_proxy_told_in_clear_text_does_not_come_back_after_the_handshake() {
    let server = Encrypted::with(ListenerTls::StartTls, |setup| {
        setup.listener.xclient = true;
        setup.access.trusted_proxies = vec!["127.0.0.1".parse::<IpAddr>().unwrap().into()];
        setup.applications = vec![Application::named("erp".into())];
    });
    let mut client = server.connect();
    assert_eq!(codes(&client.say("XCLIENT ADDR=192.0.2.1 LOGIN=erp\r\nSTARTTLS\r\n", 3).await), ["220", "220", "220"]);
    let mut client = server.handshake(client.0, "relay.example").await.unwrap();
    let replies = client.say("XCLIENT NAME=x\r\nEHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nQUIT\r\n", 5).await;
    assert_eq!(codes(&replies), ["220", "250", "250", "554", "221"], "{replies:?}");
}

const MESSAGE: &str = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nSubject: x\r\n\r\nhi\r\n.\r\n";

#[tokio::test]
async fn a_message_comes_in_encrypted_after_starttls() {
    let server = Encrypted::new(ListenerTls::StartTls);
    let mut client = server.after_starttls().await;
    let replies = client.say(&format!("EHLO after.example\r\n{MESSAGE}QUIT\r\n"), 6).await;
    assert_eq!(codes(&replies), ["250", "250", "250", "354", "250", "221"]);
    let (_, body) = server.gate.message().await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.starts_with("Received: from after.example ([127.0.0.1])\r\n\tby relay.example (Postrider) with ESMTPS id "), "{text}");
    assert!(text.contains("\r\n\tfor <c@d.example>\r\n\ttls TLS_AES_256_GCM_SHA384 (TLSv1.3);\r\n\t"), "{text}");
}

//= https://www.rfc-editor.org/rfc/rfc3207#section-4.2
//= type=test
//# A server MUST NOT return the STARTTLS extension in response to an
//# EHLO command received after a TLS handshake has completed.
#[tokio::test]
async fn starttls_is_offered_where_it_can_be_used() {
    let server = Encrypted::new(ListenerTls::StartTls);
    let mut client = server.connect();
    let offers = |replies: &[String]| replies.iter().any(|line| line.ends_with("STARTTLS"));
    assert!(offers(&client.say("EHLO x\r\n", 2).await));
    let mut client = server.after_starttls().await;
    let replies = client.say("EHLO x\r\nSTARTTLS\r\nNOOP\r\n", 3).await;
    assert!(!offers(&replies));
    assert_eq!(codes(&replies), ["250", "503", "250"]);

    let without = gate();
    let replies = without.say("EHLO x\r\nSTARTTLS\r\nSTARTTLS now\r\nQUIT\r\n").await;
    assert!(!offers(&replies));
    assert_eq!(codes(&replies), ["220", "250", "502", "501", "221"]);
}

//= https://www.rfc-editor.org/rfc/rfc3207#section-4.2
//= type=test
//# The server MUST discard any knowledge
//# obtained from the client, such as the argument to the EHLO command,
//# which was not obtained from the TLS negotiation itself.
#[tokio::test]
async fn nothing_that_was_said_before_the_handshake_counts_after_it() {
    let server = Encrypted::new(ListenerTls::StartTls);
    let mut client = server.connect();
    let begun = "EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nSTARTTLS\r\n";
    assert_eq!(codes(&client.say(begun, 5).await), ["220", "250", "250", "250", "220"]);
    let mut client = server.handshake(client.0, "relay.example").await.unwrap();
    assert_eq!(codes(&client.say("RCPT TO:<c@d.example>\r\nDATA\r\nMAIL FROM:<a@b.example>\r\n", 3).await), ["503", "503", "503"]);
    assert_eq!(codes(&client.say(&format!("EHLO x\r\n{MESSAGE}"), 5).await), ["250", "250", "250", "354", "250"]);
}

#[tokio::test]
async fn commands_that_came_in_clear_text_behind_starttls_are_never_carried_out() {
    let server = Encrypted::new(ListenerTls::StartTls);
    let mut client = server.connect();
    // In one write, as an attacker in the middle would have it; a client that reads both replies shakes
    // hands as if nothing had happened.
    let injected = "EHLO x\r\nSTARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<evil@y.example>\r\n";
    assert_eq!(codes(&client.say(injected, 3).await), ["220", "250", "220"]);
    let mut client = server.handshake(client.0, "relay.example").await.unwrap();
    // The next reply is that of the next command, and no transaction is open.
    let replies = client.say("NOOP\r\nRCPT TO:<c@d.example>\r\n", 2).await;
    assert_eq!(codes(&replies), ["250", "503"]);
    assert_eq!(replies[0], "250 2.0.0 Ok");
}

//= https://www.rfc-editor.org/rfc/rfc3207#section-4
//= type=test
//# In this case, the server SHOULD return the reply code:
//# 530 Must issue a STARTTLS command first
//# to every command other than NOOP, EHLO, STARTTLS, or QUIT.
#[tokio::test]
async fn where_tls_is_required_clear_text_gets_530() {
    let server = Encrypted::new(ListenerTls::Required);
    let mut client = server.connect();
    let refused = ["HELO x", "MAIL FROM:<a@b.example>", "RCPT TO:<a@b.example>", "DATA", "RSET", "VRFY x", "HELP"];
    let dialogue = format!("NOOP\r\nEHLO x\r\n{}\r\nNOOP\r\nSTARTTLS\r\n", refused.join("\r\n"));
    let replies = client.say(&dialogue, refused.len() + 5).await;
    assert_eq!(codes(&replies), ["220", "250", "250", "530", "530", "530", "530", "530", "530", "530", "250", "220"]);
    assert!(replies.iter().any(|line| line == "530 5.7.0 Must issue a STARTTLS command first"));
    let mut client = server.handshake(client.0, "relay.example").await.unwrap();
    assert_eq!(codes(&client.say(&format!("EHLO x\r\n{MESSAGE}"), 5).await), ["250", "250", "250", "354", "250"]);
    assert_eq!(codes(&server.connect().say("QUIT\r\n", 2).await), ["220", "221"]);
}

//= https://www.rfc-editor.org/rfc/rfc8314#section-3.3
//= type=test
//# When a TCP connection is established for the "submissions" service
//# (default port 465), a TLS handshake begins immediately.
#[tokio::test]
async fn an_implicit_listener_shakes_hands_before_its_greeting() {
    let server = Encrypted::new(ListenerTls::Implicit);
    let mut client = server.handshake(server.connect().0, "relay.example").await.unwrap();
    let replies = client.say(&format!("EHLO x\r\n{MESSAGE}STARTTLS\r\nQUIT\r\n"), 8).await;
    assert_eq!(codes(&replies), ["220", "250", "250", "250", "354", "250", "503", "221"]);
    assert!(!replies.iter().any(|line| line.contains("STARTTLS")));
    let (_, body) = server.gate.message().await;
    assert!(String::from_utf8(body.to_vec()).unwrap().contains(" with ESMTPS id "));
}

#[tokio::test]
async fn the_name_that_the_client_asks_for_decides_which_certificate_it_gets() {
    let server = Encrypted::new(ListenerTls::Implicit);
    for host in ["relay.example", "other.example"] {
        // The client checks the name against the certificate.
        let client = server.handshake(server.connect().0, host).await;
        assert!(client.is_ok(), "{host}: {:?}", client.err());
    }
    let error = server.handshake(server.connect().0, "third.example").await.err().unwrap();
    assert!(error.to_string().ends_with("only valid for DnsName(\"relay.example\")"), "{error}");
}

#[tokio::test]
async fn a_client_of_plain_smtp_at_an_implicit_listener_is_told() {
    let server = Encrypted::new(ListenerTls::Implicit);
    let mut client = server.connect().0;
    client.write_all(b"EHLO client.example\r\n").await.unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("554 5.7.0 This port speaks TLS from the first octet"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_a_greeting_at_an_implicit_listener_is_told_after_half_a_minute() {
    let server = Encrypted::new(ListenerTls::Implicit);
    let start = tokio::time::Instant::now();
    let mut said = String::new();
    server.connect().0.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("554 5.7.0 This port speaks TLS"), "{said}");
    assert_eq!(start.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_a_deadline() {
    let server = Encrypted::new(ListenerTls::StartTls);
    let mut client = server.connect();
    client.say("EHLO x\r\nSTARTTLS\r\n", 3).await;
    let start = tokio::time::Instant::now();
    // The first octets of a record that never ends.
    client.0.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let mut rest = Vec::new();
    client.0.read_to_end(&mut rest).await.unwrap();
    assert_eq!((rest, start.elapsed().as_secs()), (Vec::new(), 30));
}

#[tokio::test]
async fn a_shutdown_ends_a_handshake() {
    let server = Encrypted::new(ListenerTls::StartTls);
    let mut client = server.connect();
    client.say("EHLO x\r\nSTARTTLS\r\n", 3).await;
    server.gate.shutdown.cancel();
    let mut rest = Vec::new();
    client.0.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, Vec::<u8>::new());
}

#[tokio::test]
async fn a_failed_handshake_ends_the_session_and_nothing_is_said_in_clear_text() {
    let server = Encrypted::new(ListenerTls::StartTls);
    for garbage in [&b"EHLO again.example\r\n"[..], &[0; 64], b"\x16\x03\x01\x00\x02\x01\xff\xff\xff\xff"] {
        let mut client = server.connect();
        client.say("EHLO x\r\nSTARTTLS\r\n", 3).await;
        client.0.write_all(garbage).await.unwrap();
        client.0.shutdown().await.unwrap();
        let mut rest = Vec::new();
        client.0.read_to_end(&mut rest).await.unwrap();
        // Nothing, or an alert.
        assert!(rest.is_empty() || rest[0] == 21, "{rest:?}");
    }
}

#[tokio::test]
async fn a_drain_says_goodbye_over_the_encrypted_connection() {
    let server = Encrypted::new(ListenerTls::StartTls);
    let mut client = server.after_starttls().await;
    client.say("EHLO x\r\n", 1).await;
    server.gate.shutdown.cancel();
    let mut rest = String::new();
    client.0.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("421 4.3.2 "), "{rest}");
}
