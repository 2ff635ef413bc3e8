//! Delivery status notifications from end to end: what a client asks goes with the message or comes
//! back as a report, and what comes back is read by a parser that nobody here wrote.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use postrider::sandbox::{Received, SandboxSmarthost, SmarthostMode, SmarthostSettings};
#[cfg(feature = "ses")]
use postrider::sandbox::{SandboxSes, SesSettings};
use serde_json::Value;
use support::client::Client;
use support::sink::Sink;
use support::{eventually, gateway, program, server, smarthost};

const CONTENT: &[u8] = b"From: <a@corp.example>\r\nSubject: offer\r\nMessage-ID: <1@corp.example>\r\n\r\nText of it.\r\n";

async fn host(dsn: bool) -> SandboxSmarthost {
    SandboxSmarthost::start(SmarthostSettings { dsn, keep_bodies: true, ..SmarthostSettings::default() }).await.unwrap()
}

/// Sends a message; each recipient with its parameters.
async fn send(server: std::net::SocketAddr, mail: &str, recipients: &[&str], content: &[u8]) {
    let mut client = Client::connect(server).await.unwrap();
    let mut commands = vec![format!("MAIL FROM:{mail}")];
    commands.extend(recipients.iter().map(|recipient| format!("RCPT TO:{recipient}")));
    for command in commands {
        let reply = client.command(&command).await.unwrap();
        assert!(reply.starts_with("250"), "{command}: {reply}");
    }
    assert!(client.command("DATA").await.unwrap().starts_with("354"));
    let reply = client.command(&format!("{}.", String::from_utf8_lossy(content))).await.unwrap();
    assert!(reply.starts_with("250"), "{reply}");
}

/// What a notification says, by Python's email package.
const READER: &str = r#"
import base64, email, email.policy, json, sys
message = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.SMTPUTF8)
def defects(part):
    found = [str(defect) for defect in part.defects]
    return found + [one for inner in part.iter_parts() for one in defects(inner)] if part.is_multipart() else found
people, status, returned = message.iter_parts()
blocks = status.get_payload()
if status.get_content_type() == "message/global-delivery-status":
    # Python takes the global form for a message, with all but the first block as its text.
    text = blocks[0].as_bytes(policy=email.policy.SMTPUTF8).decode("utf-8")
    blocks = [email.message_from_string(block, policy=email.policy.SMTPUTF8) for block in text.split("\r\n\r\n") if block.strip()]
original = returned.get_payload()
original = original[0].as_bytes(policy=email.policy.SMTP) if isinstance(original, list) else returned.get_payload(decode=True)
encoded = returned.get_content_type() == "message/global" and returned["Content-Transfer-Encoding"] == "base64"
if encoded:
    # RFC 6532 section 3.7 allows it; Python knows only RFC 2045, which did not.
    original = base64.b64decode(original)
json.dump({
    "type": [message.get_content_type(), message.get_param("report-type")],
    "parts": [part.get_content_type() for part in (people, status, returned)],
    "to": str(message["To"]), "subject": str(message["Subject"]),
    "text": people.get_content(),
    "message": {key.lower(): str(value) for key, value in blocks[0].items()},
    "recipients": [{key.lower(): str(value) for key, value in block.items()} for block in blocks[1:]],
    "original": original.decode("utf-8"),
    "defects": [one for part in (people, status) for one in defects(part)] if encoded else defects(message),
}, sys.stdout)
"#;

async fn read(notification: &Received) -> Value {
    let body = notification.body.clone().unwrap();
    let run = move || {
        let mut python = Command::new(program("python3"));
        let mut child = python.args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&body).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let said = tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!(said["type"], serde_json::json!(["multipart/report", "delivery-status"]));
    assert_eq!(said["defects"], serde_json::json!([]), "{said}");
    said
}

/// The one notification that `host` received.
fn notification(host: &SandboxSmarthost) -> Received {
    let mut notifications: Vec<Received> = host.recorder().received();
    notifications.retain(|received| received.reverse_path.is_empty());
    assert_eq!(notifications.len(), 1);
    notifications.remove(0)
}

/// The fields `names` of one recipient.
fn fields<'a>(recipient: &'a Value, names: &[&str]) -> Vec<&'a str> {
    names.iter().map(|name| recipient[name].as_str().unwrap_or("-")).collect()
}

#[tokio::test]
async fn a_host_that_offers_dsn_gets_every_request_and_the_sender_hears_nothing_from_here() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(true).await;
    let gateway = gateway(&[server(directory.path()), smarthost("only", host.address().port())].concat()).await;
    let recipients = [
        "<bob@example.net> NOTIFY=SUCCESS ORCPT=rfc822;Bob+2Bold@Example.ORG",
        "<carol@example.net> NOTIFY=SUCCESS,FAILURE,DELAY",
        "<dana@example.net>",
        "<eric@example.net> NOTIFY=NEVER",
    ];
    send(gateway.addresses()[0], "<a@corp.example> RET=HDRS ENVID=QQ+20314159", &recipients, CONTENT).await;
    host.recorder().reached(1).await;
    eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;
    let received = host.recorder().received();
    assert_eq!(received.len(), 1, "no notification: the next hop makes it");
    let expected = [
        "RET=HDRS ENVID=QQ+20314159",
        "NOTIFY=SUCCESS ORCPT=rfc822;Bob+2Bold@Example.ORG",
        "NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;carol@example.net",
        "",
        "NOTIFY=NEVER ORCPT=rfc822;eric@example.net",
    ];
    assert_eq!(received[0].dsn, expected);
    assert_eq!(host.recorder().violations(), Vec::<String>::new());
}

#[tokio::test]
async fn postfix_as_the_next_hop_gets_every_request() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start(&directory.path().join("sink"), &[]);
    let gateway = gateway(&[server(&directory.path().join("data")), smarthost("only", sink.port())].concat()).await;
    let recipients = ["<bob@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob+2Bold@Example.ORG", "<carol@example.net> NOTIFY=NEVER"];
    send(gateway.addresses()[0], "<a@corp.example> RET=FULL ENVID=QQ+20314159", &recipients, CONTENT).await;
    eventually("smtp-sink has it", async || sink.dumped().len() == 1).await;
    eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;
    let dumped = sink.dumped().remove(0);
    assert_eq!(dumped.mail, "<a@corp.example> RET=FULL ENVID=QQ+20314159");
    assert_eq!(
        dumped.rcpt,
        [
            "<bob@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob+2Bold@Example.ORG",
            "<carol@example.net> NOTIFY=NEVER ORCPT=rfc822;carol@example.net"
        ]
    );
}

#[tokio::test]
async fn without_dsn_there_success_and_failure_are_reported_to_those_who_asked_and_nothing_about_others() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(false).await;
    for name in ["carol", "dana", "eric", "fred"] {
        host.refuse(format!("{name}@example.net"), "550 5.1.1 No such user");
    }
    let gateway = gateway(&[server(directory.path()), smarthost("only", host.address().port())].concat()).await;
    let recipients = [
        "<bob@example.net> NOTIFY=SUCCESS ORCPT=rfc822;Bob+2Bold@Example.ORG",
        "<carol@example.net> NOTIFY=SUCCESS,FAILURE",
        "<dana@example.net>",
        "<eric@example.net> NOTIFY=NEVER",
        "<fred@example.net> NOTIFY=SUCCESS,DELAY",
        "<george@example.net> NOTIFY=FAILURE",
        "<hans@example.net>",
    ];
    send(gateway.addresses()[0], "<a@corp.example> RET=FULL ENVID=QQ+20314159", &recipients, CONTENT).await;
    host.recorder().reached(2).await;
    eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;
    assert_eq!(host.recorder().violations(), Vec::<String>::new());

    let notification = notification(&host);
    assert_eq!(notification.recipients, ["a@corp.example"]);
    let said = read(&notification).await;
    assert_eq!(said["parts"], serde_json::json!(["text/plain", "message/delivery-status", "message/rfc822"]));
    assert_eq!(said["message"]["original-envelope-id"], "QQ 314159");
    assert_eq!(said["message"]["reporting-mta"], "dns; relay.example");
    let recipients = said["recipients"].as_array().unwrap();
    let names = ["original-recipient", "final-recipient", "action", "status", "remote-mta", "diagnostic-code"];
    let mut blocks: Vec<_> = recipients.iter().map(|recipient| fields(recipient, &names)).collect();
    blocks.sort_unstable_by_key(|block| block[1]);
    let refusal = "smtp; 550 5.1.1 No such user";
    assert_eq!(blocks.len(), 3, "{blocks:?}");
    assert_eq!(blocks[0][..5], ["rfc822; Bob+old@Example.ORG", "rfc822; bob@example.net", "relayed", "2.0.0", "dns; [127.0.0.1]"]);
    assert!(blocks[0][5].starts_with("smtp; 250 2.0.0 Ok: queued as"), "{blocks:?}");
    assert_eq!(blocks[1], ["-", "rfc822; carol@example.net", "failed", "5.1.1", "dns; [127.0.0.1]", refusal]);
    assert_eq!(blocks[2], ["-", "rfc822; dana@example.net", "failed", "5.1.1", "dns; [127.0.0.1]", refusal]);
    let original = said["original"].as_str().unwrap();
    assert!(original.starts_with("Received: ") && original.ends_with(std::str::from_utf8(CONTENT).unwrap()), "{original}");
    let text = said["text"].as_str().unwrap();
    for name in ["eric", "fred", "george", "hans"] {
        assert!(!text.contains(name), "RFC 3461 section 5.2.8: nothing about {name}\n{text}");
    }
}

#[cfg(feature = "ses")]
#[tokio::test]
async fn success_ends_at_an_api_and_is_reported_as_relayed_without_words_of_smtp() {
    let directory = tempfile::tempdir().unwrap();
    let (ses, host) = (SandboxSes::start(SesSettings::default()).await.unwrap(), host(true).await);
    let config = [
        server(directory.path()),
        smarthost("back", host.address().port()),
        format!(
            "[provider.ses.x]\nregion = \"eu-west-1\"\nendpoint = \"http://{}\"\naccess_key_id = \"test\"\nsecret_access_key = \"test\"\n\
             [[route]]\nname = \"notifications\"\nwhen = {{ null_sender = true }}\nproviders = [\"smarthost.back\"]\n\
             [[route]]\nname = \"default\"\nproviders = [\"ses.x\"]\n",
            ses.address()
        ),
    ];
    let gateway = gateway(&config.concat()).await;
    let recipients = ["<bob@example.net> NOTIFY=SUCCESS,FAILURE", "<carol@example.net>"];
    send(gateway.addresses()[0], "<a@corp.example> RET=FULL", &recipients, CONTENT).await;
    host.recorder().reached(1).await;
    assert_eq!(ses.recorder().count(), 1);
    let notification = notification(&host);
    assert_eq!(notification.dsn, ["", ""], "RFC 3461 section 6.1: no RET with a notification");
    let said = read(&notification).await;
    let names = ["final-recipient", "action", "status", "remote-mta", "diagnostic-code"];
    assert_eq!(said["recipients"].as_array().unwrap().len(), 1);
    assert_eq!(fields(&said["recipients"][0], &names), ["rfc822; bob@example.net", "relayed", "2.0.0", "-", "-"]);
}

#[tokio::test]
async fn a_message_in_a_file_is_returned_whole_and_the_spool_is_empty_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(false).await;
    host.refuse("bob@example.net", "550 5.1.1 No such user");
    let gateway = gateway(&[server(directory.path()), smarthost("only", host.address().port())].concat()).await;
    let content = [CONTENT.to_vec(), b"0123456789 0123456789 0123456789\r\n".repeat(20_000)].concat();
    send(gateway.addresses()[0], "<a@corp.example> RET=FULL", &["<bob@example.net>"], &content).await;
    host.recorder().reached(1).await;
    eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;
    let said = read(&notification(&host)).await;
    assert!(said["original"].as_str().unwrap().ends_with(std::str::from_utf8(&content).unwrap()));
    eventually("no body is left", async || std::fs::read_dir(directory.path().join("bodies")).unwrap().count() == 0).await;
}

#[tokio::test]
async fn a_message_with_the_null_reverse_path_is_never_reported_whatever_it_asks() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(false).await;
    host.refuse("bob@example.net", "550 5.1.1 No such user");
    let gateway = gateway(&[server(directory.path()), smarthost("only", host.address().port())].concat()).await;
    let recipients = ["<bob@example.net> NOTIFY=SUCCESS,FAILURE", "<carol@example.net> NOTIFY=SUCCESS"];
    send(gateway.addresses()[0], "<> RET=FULL", &recipients, CONTENT).await;
    // Nobody can be told, so it is kept for a person.
    eventually("a dead letter is all that is left", async || {
        let counts = gateway.counts().await.unwrap();
        (counts.messages, counts.dead) == (1, 1)
    })
    .await;
    assert_eq!(host.recorder().count(), 1);
    assert_eq!(host.recorder().received()[0].recipients, ["carol@example.net"]);
}

#[tokio::test]
async fn addresses_outside_ascii_come_back_in_the_form_that_their_sender_can_read() {
    let content = "Subject: \u{fc}ber\r\n\r\nf\u{fc}r dich\r\n".as_bytes();
    for (sender, parts, recipient) in [
        ("j\u{f6}rg@corp.example", ["message/global-delivery-status", "message/global"], "utf-8; b\u{fc}cher@example.net"),
        ("joerg@corp.example", ["message/delivery-status", "message/global"], "utf-8; b\\x{FC}cher@example.net"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let host = host(false).await;
        host.refuse("b\u{fc}cher@example.net", "550 5.1.1 No such user");
        let gateway = gateway(&[server(directory.path()), smarthost("only", host.address().port())].concat()).await;
        let recipient_said = "<b\u{fc}cher@example.net> NOTIFY=FAILURE ORCPT=utf-8;b\\x{FC}cher@example.net";
        send(gateway.addresses()[0], &format!("<{sender}> SMTPUTF8 BODY=8BITMIME RET=FULL"), &[recipient_said], content).await;
        host.recorder().reached(1).await;
        let notification = notification(&host);
        assert_eq!(notification.recipients, [sender]);
        assert_eq!(host.recorder().violations(), Vec::<String>::new());
        let said = read(&notification).await;
        assert_eq!(said["parts"], serde_json::json!(["text/plain", parts[0], parts[1]]));
        assert_eq!(fields(&said["recipients"][0], &["original-recipient", "final-recipient"]), [recipient, recipient]);
        assert!(said["original"].as_str().unwrap().contains("f\u{fc}r dich"), "{said}");
    }
}

#[tokio::test]
async fn requests_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(false).await;
    host.set_mode(SmarthostMode::Down).await;
    let config = [server(directory.path()), smarthost("only", host.address().port()), "[queue]\nretry = [\"1s\"]\n".to_owned()].concat();
    let first = gateway(&config).await;
    send(first.addresses()[0], "<a@corp.example> ENVID=1", &["<bob@example.net> NOTIFY=SUCCESS ORCPT=rfc822;old@example.net"], CONTENT)
        .await;
    first.drain().await;
    host.set_mode(SmarthostMode::Up).await;
    let second = gateway(&config).await;
    host.recorder().reached(2).await;
    eventually("the queue is empty", async || second.counts().await.unwrap().messages == 0).await;
    let said = read(&notification(&host)).await;
    assert_eq!(said["message"]["original-envelope-id"], "1");
    assert_eq!(fields(&said["recipients"][0], &["action", "original-recipient"]), ["relayed", "rfc822; old@example.net"]);
}

#[tokio::test]
async fn smtplib_asks_for_notifications_and_gets_them() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(false).await;
    let gateway = gateway(&[server(directory.path()), smarthost("only", host.address().port())].concat()).await;
    let script = r#"
import smtplib, sys
with smtplib.SMTP("127.0.0.1", int(sys.argv[1])) as smtp:
    smtp.ehlo()
    assert smtp.has_extn("dsn"), smtp.esmtp_features
    smtp.sendmail("a@corp.example", ["b@example.net"], "Subject: x\r\n\r\nhi\r\n",
                  mail_options=["RET=FULL", "ENVID=py+2B1"], rcpt_options=["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;b@example.net"])
"#;
    let port = gateway.addresses()[0].port().to_string();
    let run = move || Command::new(program("python3")).args(["-c", script, &port]).status().unwrap();
    assert!(tokio::task::spawn_blocking(run).await.unwrap().success());
    host.recorder().reached(2).await;
    let said = read(&notification(&host)).await;
    assert_eq!(said["message"]["original-envelope-id"], "py+1");
    assert_eq!(fields(&said["recipients"][0], &["action", "original-recipient"]), ["relayed", "rfc822; b@example.net"]);
    assert_eq!(said["parts"][2], "text/rfc822-headers", "without a failure only the header comes back");
}
