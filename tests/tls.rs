//! The running program encrypts, for clients that nobody here wrote, and takes renewed certificates.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use postrider::sandbox::{SandboxSmarthost, SmarthostSettings};
use support::process::Postrider;
use support::{client, eventually, free_port, run, server, smarthost};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The program with a listener of each kind, and the smart host behind it.
struct Relay {
    directory: tempfile::TempDir,
    host: SandboxSmarthost,
    postrider: Postrider,
    starttls: u16,
    required: u16,
    implicit: u16,
}

/// Writes a certificate and its key, as renewal programs do: beside them, and then renamed.
fn certificate(directory: &Path, file: &str, names: &[&str]) {
    let made = rcgen::generate_simple_self_signed(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    replace(directory, &format!("{file}.pem"), &made.cert.pem());
    replace(directory, &format!("{file}-key.pem"), &made.signing_key.serialize_pem());
}

fn replace(directory: &Path, file: &str, content: &str) {
    std::fs::write(directory.join("new"), content).unwrap();
    std::fs::rename(directory.join("new"), directory.join(file)).unwrap();
}

impl Relay {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        certificate(&path, "relay", &["relay.example", "127.0.0.1"]);
        certificate(&path, "corp", &["*.corp.example"]);
        let host = SandboxSmarthost::start(SmarthostSettings { keep_bodies: true, ..SmarthostSettings::default() }).await.unwrap();
        let ports = [free_port(), free_port(), free_port()];
        let mut config = server(&path.join("data"));
        for (tls, port) in ["starttls", "required", "implicit"].into_iter().zip(ports) {
            config += &format!(
                "[[listener]]\nbind = \"127.0.0.1:{port}\"\ntls = \"{tls}\"\ncertificate = {:?}\nprivate_key = {:?}\n\
                 more_certificates = [{{ certificate = {:?}, private_key = {:?} }}]\n",
                path.join("relay.pem"),
                path.join("relay-key.pem"),
                path.join("corp.pem"),
                path.join("corp-key.pem"),
            );
        }
        config += &smarthost("only", host.address().port());
        let postrider = tokio::task::spawn_blocking(move || Postrider::start(&path, &config)).await.unwrap();
        Self { directory, host, postrider, starttls: ports[0], required: ports[1], implicit: ports[2] }
    }

    fn path(&self, file: &str) -> String {
        self.directory.path().join(file).display().to_string()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("postrider.log")).unwrap_or_default()
    }

    /// Waits for a line of the log that has all of these words.
    async fn logged(&self, words: &[&str]) -> String {
        let mut found = None;
        eventually(&format!("the log says {words:?}"), async || {
            found = self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Runs `openssl s_client`; gives whether it went well, and what it printed.
    async fn openssl(&self, port: u16, options: &[&str]) -> (bool, String) {
        let mut command = client("openssl", &["s_client", "-brief", "-connect"]);
        command.arg(format!("127.0.0.1:{port}")).args(options);
        let output = run(command, b"").await;
        (output.status.success(), said(&output))
    }

    /// Which certificate a client gets that asks for `host`, by the name that it is checked against.
    async fn is_for(&self, host: &str, name: &str, file: &str) -> bool {
        let file = self.path(file);
        let options = ["-servername", host, "-verify_hostname", name, "-verify_return_error", "-CAfile", &file];
        self.openssl(self.implicit, &options).await.0
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn openssl_shakes_hands_by_starttls_and_at_once_with_both_versions() {
    let relay = Relay::start().await;
    for (port, starttls) in [(relay.starttls, true), (relay.required, true), (relay.implicit, false)] {
        for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let mut options = vec![option];
            if starttls {
                options.extend(["-starttls", "smtp"]);
            }
            let (success, said) = relay.openssl(port, &options).await;
            assert!(success && said.contains(&format!("Protocol version: {version}")), "{port} {options:?}\n{said}");
        }
    }
}

#[tokio::test]
async fn the_certificate_is_the_one_for_the_name_that_is_asked_for() {
    let relay = Relay::start().await;
    assert!(relay.is_for("relay.example", "relay.example", "relay.pem").await);
    assert!(relay.is_for("mail.corp.example", "mail.corp.example", "corp.pem").await);
    assert!(!relay.is_for("a.mail.corp.example", "mail.corp.example", "corp.pem").await);
    assert!(relay.is_for("unknown.example", "relay.example", "relay.pem").await, "the first is for everybody else");
    let file = relay.path("relay.pem");
    let (success, said) = relay.openssl(relay.implicit, &["-noservername", "-verify_return_error", "-CAfile", &file]).await;
    assert!(success, "{said}");
}

#[tokio::test]
async fn a_client_whose_tls_is_too_old_is_named_in_the_log() {
    let relay = Relay::start().await;
    let old = ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-servername", "relay.example"];
    let (success, said) = relay.openssl(relay.implicit, &old).await;
    assert!(!success, "{said}");
    let line = relay.logged(&["the client's TLS is too old"]).await;
    let listener = format!("listener=127.0.0.1:{}", relay.implicit);
    for part in ["WARN", "client=127.0.0.1", &listener, "offered=TLS 1.1", "server_name=\"relay.example\"", "TLS 1.2 is the least"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    // RSA key exchange only, as Windows Server 2008 has it.
    let weak = ["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0", "-starttls", "smtp"];
    assert!(!relay.openssl(relay.starttls, &weak).await.0);
    relay.logged(&["WARN", "no way to encrypt in common", "offered=TLS 1.2", "ECDHE"]).await;
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_is_named_in_the_log() {
    let relay = Relay::start().await;
    let (success, _) = relay.openssl(relay.implicit, &["-verify_return_error"]).await;
    assert!(!success);
    relay.logged(&["WARN", "client=127.0.0.1", "the client refuses", "does not trust the certificate"]).await;
}

#[tokio::test]
async fn plain_smtp_at_the_implicit_port_is_answered_and_logged() {
    let relay = Relay::start().await;
    let mut client = tokio::net::TcpStream::connect(("127.0.0.1", relay.implicit)).await.unwrap();
    client.write_all(b"EHLO printer.example\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("554 5.7.0 This port speaks TLS from the first octet"), "{answer}");
    relay.logged(&["WARN", "client=127.0.0.1", "speaks plain SMTP, and said EHLO", "switch on SSL/TLS"]).await;
}

#[tokio::test]
async fn a_handshake_before_the_greeting_of_starttls_is_logged() {
    let relay = Relay::start().await;
    assert!(!relay.openssl(relay.starttls, &[]).await.0);
    let listener = format!("listener=127.0.0.1:{}", relay.starttls);
    relay.logged(&["WARN", "client=127.0.0.1", &listener, "TLS from the first octet, and this listener does not"]).await;
}

#[tokio::test]
async fn postrider_send_finds_a_listener_that_wants_starttls() {
    let relay = Relay::start().await;
    for server in [relay.starttls, relay.required] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command.args(["send", "--from", "a@corp.example", "--to", "b@example.net", "--server", &format!("127.0.0.1:{server}")]);
        let output = run(command, b"").await;
        assert!(said(&output).starts_with("accepted <b@example.net>: 250 2.0.0 Ok: queued as "), "{}", said(&output));
    }
    relay.host.recorder().reached(2).await;
}

const SMTPLIB: &str = r#"
import smtplib, ssl, sys
starttls, required, implicit, certificate = sys.argv[1:]
context = ssl.create_default_context(cafile=certificate)
message = "Subject: %s\r\n\r\ntext\r\n"
recipients = ["b@example.net"]

for port in starttls, required:
    with smtplib.SMTP("127.0.0.1", int(port), local_hostname="smtplib.example") as server:
        server.ehlo()
        assert server.has_extn("starttls")
        print(server.docmd("MAIL", "FROM:<a@corp.example>")[0], server.docmd("RSET")[0])
        server.starttls(context=context)
        server.ehlo()
        assert not server.has_extn("starttls")
        server.sendmail("a@corp.example", recipients, message % "starttls")
        print(server.docmd("STARTTLS")[0])

with smtplib.SMTP_SSL("127.0.0.1", int(implicit), local_hostname="smtplib.example", context=context) as server:
    server.sendmail("a@corp.example", recipients, message % "implicit")
    print(server.sock.version())
"#;

#[tokio::test]
async fn smtplib_submits_by_starttls_and_over_ssl() {
    let relay = Relay::start().await;
    let ports = [relay.starttls, relay.required, relay.implicit].map(|port| port.to_string());
    let file = relay.path("relay.pem");
    let output = run(client("python3", &["-", &ports[0], &ports[1], &ports[2], &file]), SMTPLIB.as_bytes()).await;
    assert_eq!(said(&output), "250 250\n503\n530 530\n503\nTLSv1.3\n");
    relay.host.recorder().reached(3).await;
    for received in relay.host.recorder().received() {
        let body = String::from_utf8(received.body.unwrap().to_vec()).unwrap();
        assert!(body.contains(" with ESMTPS id ") && body.contains("\ttls TLS_AES_256_GCM_SHA384 (TLSv1.3);"), "{body}");
    }
    relay.logged(&["accepted", "tls=\"TLSv1.3\""]).await;
}

#[tokio::test]
async fn curl_swaks_and_msmtp_submit_encrypted() {
    let relay = Relay::start().await;
    let file = relay.path("message");
    // Larger than what the TLS library holds at once.
    std::fs::write(&file, "Subject: x\r\n\r\n".to_owned() + &"a line of text\r\n".repeat(100_000)).unwrap();
    let trust = relay.path("relay.pem");
    let [starttls, required, implicit] = [relay.starttls, relay.required, relay.implicit].map(|port| port.to_string());
    let curl = |scheme: &str, port: &str| {
        let url = format!("{scheme}://relay.example:{port}/curl.example");
        let resolve = format!("relay.example:{port}:127.0.0.1");
        let arguments = ["-sS", "--ssl-reqd", "--cacert", &trust, "--resolve", &resolve, &url, "-T", &file];
        let mut command = client("curl", &arguments);
        command.args(["--mail-from", "a@corp.example", "--mail-rcpt", "b@example.net"]);
        command
    };
    let swaks = |tls: &str, port: &str| {
        client("swaks", &["--server", "127.0.0.1", "--port", port, tls, "--from", "a@corp.example", "--to", "b@example.net"])
    };
    let msmtp = |tls: &str, port: &str| {
        let mut command = client("msmtp", &["--host=127.0.0.1", "--auth=off", "--tls=on", tls, "--from=a@corp.example"]);
        command.args([format!("--tls-trust-file={trust}"), format!("--port={port}"), "b@example.net".to_owned()]);
        command
    };
    let commands = [
        curl("smtps", &implicit),
        curl("smtp", &required),
        swaks("--tls", &starttls),
        swaks("--tlsc", &implicit),
        msmtp("--tls-starttls=on", &starttls),
        msmtp("--tls-starttls=off", &implicit),
    ];
    for (index, command) in commands.into_iter().enumerate() {
        let shown = format!("{command:?}");
        let output = run(command, b"Subject: x\r\n\r\ntext\r\n").await;
        assert!(output.status.success(), "{shown}\n{}", said(&output));
        relay.host.recorder().reached(index + 1).await;
    }
    assert_eq!(relay.host.recorder().violations(), Vec::<String>::new());
    let large = relay.host.recorder().received().into_iter().filter(|received| received.octets > 1_600_000).count();
    assert_eq!(large, 2);
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_at_sighup_and_a_bad_one_is_not() {
    let relay = Relay::start().await;
    let directory = relay.directory.path();
    certificate(directory, "relay", &["renewed.example"]);
    relay.postrider.hang_up();
    relay.logged(&["INFO", "SIGHUP: the certificate files were read again", "taken=1", "unchanged=1"]).await;
    relay.logged(&["INFO", "a new certificate is in use", "relay.pem", "renewed.example", "expires="]).await;
    assert!(relay.is_for("x.example", "renewed.example", "relay.pem").await);

    let good = std::fs::read_to_string(directory.join("relay.pem")).unwrap();
    std::fs::write(directory.join("kept.pem"), &good).unwrap();
    replace(directory, "relay.pem", "no certificate\n");
    relay.postrider.hang_up();
    let line = relay.logged(&["ERROR", "the new certificate cannot be used, and the old one stays in use"]).await;
    assert!(line.contains("relay.pem holds no certificate"), "{line}");
    assert!(relay.is_for("x.example", "renewed.example", "kept.pem").await);

    // Nobody says that it is there: it is found within ten seconds.
    certificate(directory, "relay", &["third.example"]);
    relay.logged(&["INFO", "a new certificate is in use", "third.example"]).await;
    assert!(relay.is_for("x.example", "third.example", "relay.pem").await);
    assert_eq!(relay.log().matches("cannot be used").count(), 1);
}

#[test]
fn check_says_what_is_encrypted_and_which_name_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    certificate(directory.path(), "other", &["other.example"]);
    let config = server(directory.path())
        + &format!(
            "tls = \"required\"\ncertificate = {:?}\nprivate_key = {:?}\n",
            directory.path().join("other.pem"),
            directory.path().join("other-key.pem")
        )
        + &smarthost("only", 25);
    let path = directory.path().join("postrider.toml");
    std::fs::write(&path, config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_postrider")).args(["check", "--config"]).arg(&path).output().unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("listens on   127.0.0.1:0 (STARTTLS required)"), "{said}");
    assert!(said.contains("warning: the certificate is not for this host's name, relay.example"), "{said}");
    assert!(said.contains("it is for other.example"), "{said}");
}
