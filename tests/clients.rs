//! Clients that nobody here wrote submit to the running program, and what they sent arrives at the
//! smart host octet for octet, below one Received field.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::process::{Command, Output};

use postrider::sandbox::{Received, SandboxSmarthost, SmarthostSettings};
use support::process::Postrider;
use support::sink::Sink;
use support::{client, eventually, run, server, smarthost};

/// The program, and the smart host behind it.
struct Relay {
    directory: tempfile::TempDir,
    host: SandboxSmarthost,
    postrider: Postrider,
}

impl Relay {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = SandboxSmarthost::start(SmarthostSettings { keep_bodies: true, ..SmarthostSettings::default() }).await.unwrap();
        let config = server(&directory.path().join("data")) + &smarthost("only", host.address().port());
        let path = directory.path().to_owned();
        let postrider = tokio::task::spawn_blocking(move || Postrider::start(&path, &config)).await.unwrap();
        Self { directory, host, postrider }
    }

    fn port(&self) -> String {
        self.postrider.address().port().to_string()
    }

    /// The only message that arrives.
    async fn one(&self) -> Received {
        self.host.recorder().reached(1).await;
        assert_eq!(self.host.recorder().violations(), Vec::<String>::new());
        let received = self.host.recorder().received();
        assert_eq!(received.len(), 1);
        received.into_iter().next().unwrap()
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// Wants success, and gives what the client printed.
fn success(output: &Output) -> String {
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", output.status);
    said
}

/// What lies below the one Received field of this relay.
fn sent(received: &Received) -> Vec<u8> {
    let body = received.body.as_ref().unwrap();
    let field = "by relay.example (Postrider) with ";
    assert_eq!(text(body).matches("Received:").count(), 1, "{}", text(body));
    assert!(body.starts_with(b"Received: from ") && text(body).contains(field), "{}", text(body));
    // A folded line begins with white space; the first that does not ends the field.
    let lines = body.split_inclusive(|&byte| byte == b'\n');
    let length: usize = lines.enumerate().take_while(|(at, line)| *at == 0 || line.starts_with(b"\t")).map(|(_, line)| line.len()).sum();
    body[length..].to_vec()
}

const MESSAGE: &str = "From: <a@corp.example>\r\nTo: <b@example.net>\r\nSubject: x\r\n\r\n.leading dot\r\n..\r\nlast line\r\n";

#[tokio::test]
async fn swaks_submits_to_smtp_sink() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start(&directory.path().join("sink"), &[]);
    let config = server(&directory.path().join("data")) + &smarthost("only", sink.port());
    let postrider = Postrider::start(directory.path(), &config);
    let port = postrider.address().port().to_string();
    let arguments =
        ["--server", "127.0.0.1", "--port", &port, "--from", "a@corp.example", "--to", "b@example.net", "--ehlo", "swaks.example"];
    let said = success(&run(client("swaks", &arguments), b"").await);
    assert!(said.contains("250 2.0.0 Ok: queued as "), "{said}");
    eventually("it arrives", async || !sink.dumped().is_empty()).await;
    let dumped = sink.dumped();
    assert_eq!(dumped.len(), 1);
    assert_eq!(dumped[0].mail.split(' ').next(), Some("<a@corp.example>"));
    assert_eq!(dumped[0].recipients, ["b@example.net"]);
    let content = text(&dumped[0].content);
    assert!(content.contains("Received: from swaks.example ([127.0.0.1])\n\tby relay.example (Postrider) with ESMTP id "), "{content}");
    assert!(content.contains("\n\tfor <b@example.net>;\n") && content.ends_with("\n\nThis is a test mailing\n\n\n\n"), "{content:?}");
}

#[tokio::test]
async fn swaks_pipelines_to_several_recipients_with_an_eight_bit_body() {
    let relay = Relay::start().await;
    let file = relay.directory.path().join("message");
    let message = MESSAGE.replace("last line", "Gr\u{fc}\u{df}e");
    // swaks ends what it sends with a line end of its own.
    std::fs::write(&file, message.trim_end()).unwrap();
    let (port, file) = (relay.port(), format!("@{}", file.display()));
    let recipients = "b@example.net,c@example.net,d@example.org";
    let arguments =
        ["--server", "127.0.0.1", "--port", &port, "--pipeline", "--from", "a@corp.example", "--to", recipients, "--data", &file];
    success(&run(client("swaks", &arguments), b"").await);
    let received = relay.one().await;
    assert_eq!(received.reverse_path, "a@corp.example");
    assert_eq!(received.recipients, ["b@example.net", "c@example.net", "d@example.org"]);
    assert_eq!(text(&sent(&received)), message);
}

#[tokio::test]
async fn swaks_is_told_which_recipient_is_wrong() {
    let relay = Relay::start().await;
    let port = relay.port();
    let arguments = ["--server", "127.0.0.1", "--port", &port, "--from", "a@corp.example", "--to", "no..dots@example.net,b@example.net"];
    let said = success(&run(client("swaks", &arguments), b"").await);
    assert!(said.contains("<** 501 5.1.3 "), "{said}");
    assert_eq!(relay.one().await.recipients, ["b@example.net"]);
}

/// A session of smtplib: 8BITMIME declared, SMTPUTF8 used, and a recipient refused in between.
const SMTPLIB: &str = r#"
import smtplib, sys
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8

with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), local_hostname="smtplib.example") as server:
    server.ehlo()
    assert server.has_extn("8bitmime") and server.has_extn("smtputf8") and int(server.esmtp_features["size"]) > 1 << 20

    plain = EmailMessage(policy=SMTP)
    plain["From"], plain["To"], plain["Bcc"], plain["Subject"] = "a@corp.example", "b@example.net", "c@example.net", "plain"
    plain.set_content(".dot\n..\nGr\u00fc\u00dfe\n", cte="8bit")
    print(server.send_message(plain, mail_options=["BODY=8BITMIME"]))

    foreign = EmailMessage(policy=SMTPUTF8)
    foreign["From"], foreign["To"], foreign["Subject"] = "j\u00fcrgen@corp.example", "\u03b4\u03bf\u03ba\u03b9\u03bc\u03ae@example.net", "\u00fc"
    foreign.set_content("text\n")
    print(server.send_message(foreign))

    refused = server.sendmail("a@corp.example", ["b@example.net", "no..dots@example.net"], "Subject: partly\r\n\r\ntext\r\n")
    print([(address, code) for address, (code, _) in refused.items()])
    try:
        server.sendmail("a@corp.example", ["no..dots@example.net"], "Subject: not at all\r\n\r\ntext\r\n")
    except smtplib.SMTPRecipientsRefused as error:
        print("refused", [code for code, _ in error.recipients.values()])
    print(server.noop()[0], server.verify("b@example.net")[0], server.docmd("EXPN", "list")[0])
"#;

#[tokio::test]
async fn smtplib_uses_every_extension_in_one_session() {
    let relay = Relay::start().await;
    let port = relay.port();
    let said = success(&run(client("python3", &["-", &port]), SMTPLIB.as_bytes()).await);
    assert_eq!(said, "{}\n{}\n[('no..dots@example.net', 501)]\nrefused [501]\n250 252 502\n");

    relay.host.recorder().reached(3).await;
    assert_eq!(relay.host.recorder().violations(), Vec::<String>::new());
    let mut received = relay.host.recorder().received();
    received.sort_by_key(|received| received.header("Subject"));
    let [partly, plain, foreign] = &received[..] else { panic!("{received:?}") };
    assert_eq!(partly.recipients, ["b@example.net"]);
    assert_eq!(text(&sent(partly)), "Subject: partly\r\n\r\ntext\r\n");

    assert_eq!(
        (plain.reverse_path.as_str(), &plain.recipients[..]),
        ("a@corp.example", &["b@example.net".to_owned(), "c@example.net".to_owned()][..])
    );
    let content = text(&sent(plain));
    assert!(content.ends_with("\r\n\r\n.dot\r\n..\r\nGr\u{fc}\u{df}e\r\n") && !content.contains("Bcc"), "{content}");

    assert_eq!(foreign.reverse_path, "j\u{fc}rgen@corp.example");
    assert_eq!(foreign.recipients, ["\u{3b4}\u{3bf}\u{3ba}\u{3b9}\u{3bc}\u{3ae}@example.net"]);
    assert_eq!(foreign.header("Subject").as_deref(), Some("\u{fc}"));
    assert!(text(foreign.body.as_ref().unwrap()).contains(" with UTF8SMTP id "));
}

#[tokio::test]
async fn curl_uploads_a_message_larger_than_what_is_kept_in_memory() {
    let relay = Relay::start().await;
    let file = relay.directory.path().join("message");
    let message = MESSAGE.to_owned() + &".a line that begins with a dot\r\n".repeat(30_000);
    std::fs::write(&file, &message).unwrap();
    let (url, file) = (format!("smtp://127.0.0.1:{}/curl.example", relay.port()), file.display().to_string());
    let arguments =
        ["-sS", &url, "--mail-from", "a@corp.example", "--mail-rcpt", "b@example.net", "--mail-rcpt", "c@example.net", "-T", &file];
    success(&run(client("curl", &arguments), b"").await);
    let received = relay.one().await;
    assert_eq!((received.reverse_path.as_str(), received.recipients.len()), ("a@corp.example", 2));
    assert!(sent(&received) == message.as_bytes(), "the {} octets that arrived are not the {} sent", received.octets, message.len());
}

#[tokio::test]
async fn msmtp_takes_its_recipients_from_the_header() {
    let relay = Relay::start().await;
    let port = relay.port();
    let settings = ["--host=127.0.0.1", "--auth=off", "--tls=off", "--domain=msmtp.example", "--from=a@corp.example", "--read-recipients"];
    let mut command = client("msmtp", &settings);
    command.arg(format!("--port={port}"));
    let message = "To: <b@example.net>\nCc: <c@example.net>\nBcc: <d@example.net>\nFrom: <a@corp.example>\nSubject: x\n\n.dot\n..\n";
    success(&run(command, message.as_bytes()).await);
    let received = relay.one().await;
    assert_eq!(received.recipients, ["b@example.net", "c@example.net", "d@example.net"]);
    let content = text(&sent(&received));
    assert!(content.ends_with("Subject: x\r\n\r\n.dot\r\n..\r\n") && !content.contains("d@example.net"), "{content}");
}

fn postrider_send(server: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.args(["send", "--server", server, "--from", "a@corp.example"]).args(arguments);
    command
}

#[tokio::test]
async fn postrider_send_prints_the_reply() {
    let relay = Relay::start().await;
    let server = relay.postrider.address().to_string();
    let output =
        run(postrider_send(&server, &["--to", "b@example.net", "--message", "-", "--json"]), MESSAGE.replace('\r', "").as_bytes()).await;
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&printed["to"], &printed["outcome"]), (&"b@example.net".into(), &"accepted".into()));
    assert!(printed["reply"].as_str().unwrap().starts_with("250 2.0.0 Ok: queued as "), "{printed}");
    assert_eq!(text(&sent(&relay.one().await)), MESSAGE);
}

#[tokio::test]
async fn the_exit_code_of_postrider_send_says_whether_to_try_again() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = format!("127.0.0.1:{}", support::free_port());
    let mut table = String::new();
    for (name, faults) in [
        ("takes it", None),
        ("refuses the recipient", Some(["-B", "550 5.1.1 no such user", "-f", "RCPT"])),
        ("defers the recipient", Some(["-b", "450 4.2.1 greylisted", "-r", "RCPT"])),
        ("refuses the sender", Some(["-B", "550 5.7.1 not authorised", "-f", "MAIL"])),
        ("refuses the content", Some(["-B", "554 5.6.0 bad content", "-f", "."])),
        ("closes the service", Some(["-h", "sink", "-Q", "MAIL"])),
        ("hangs up after the dot", Some(["-h", "sink", "-q", "."])),
    ] {
        let sink = Sink::start(&directory.path().join(name), faults.as_ref().map_or(&[], |faults| &faults[..]));
        let output = run(postrider_send(&format!("127.0.0.1:{}", sink.port()), &["--to", "b@example.net"]), b"").await;
        table += &format!("{name}: {}\n{}", output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr));
        table = table.replace(&sink.port().to_string(), "PORT");
    }
    for (name, server, arguments) in [
        ("is not there", nobody.as_str(), &["--to", "b@example.net"][..]),
        ("has a port that is none", "127.0.0.1:70000", &["--to", "b@example.net"]),
        ("and the message is missing", nobody.as_str(), &["--to", "b@example.net", "--message", "/nonexistent/message"]),
    ] {
        let output = run(postrider_send(server, arguments), b"").await;
        table += &format!(
            "{name}: {}\n{}",
            output.status.code().unwrap(),
            text(&output.stdout) + &text(&output.stderr).replace(&nobody, "NOBODY")
        );
    }
    let usage = run(postrider_send(&nobody, &[]), b"").await;
    assert_eq!((usage.status.code(), text(&usage.stderr).contains("--to <ADDRESS>")), (Some(64), true));
    // In doubt is 75, as a time-out is: who tries again may send a second copy.
    assert_eq!(
        table,
        "\
takes it: 0
accepted <b@example.net>: 250 2.0.0 Ok
refuses the recipient: 69
bounced <b@example.net>: RCPT: 550 5.1.1 no such user
defers the recipient: 75
deferred <b@example.net>: RCPT: 450 4.2.1 greylisted
refuses the sender: 69
postrider: 127.0.0.1:PORT did not take the message (sender_refused): MAIL: 550 5.7.1 not authorised
refuses the content: 65
postrider: 127.0.0.1:PORT did not take the message (rejected): final dot: 554 5.6.0 bad content
closes the service: 75
postrider: 127.0.0.1:PORT did not take the message (unavailable): MAIL: 421 4.0.0 Server closing connection
hangs up after the dot: 75
in_doubt <b@example.net>: final dot: the host closed the connection
is not there: 75
postrider: NOBODY did not take the message (unavailable): connect: NOBODY: Connection refused (os error 111)
has a port that is none: 64
postrider: --server 127.0.0.1:70000: expected HOST or HOST:PORT, as in 127.0.0.1:2525 or [::1]:2525
and the message is missing: 65
postrider: cannot read /nonexistent/message: No such file or directory (os error 2)
"
    );
}

#[tokio::test]
async fn postrider_send_finds_the_listener_in_the_config() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start(&directory.path().join("sink"), &[]);
    let listener = format!("bind = \"0.0.0.0:{}\"", support::free_port());
    let config = server(directory.path()).replace("bind = \"127.0.0.1:0\"", &listener) + &smarthost("sink", sink.port());
    let _postrider = Postrider::start(directory.path(), &config);
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.args(["send", "--from", "a@corp.example", "--to", "b@example.net", "--config"]).arg(directory.path().join("postrider.toml"));
    let printed = success(&run(command, b"").await);
    assert!(printed.starts_with("accepted <b@example.net>: 250 2.0.0 Ok: queued as "), "{printed}");
}
