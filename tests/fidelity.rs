//! What goes out by a smart host is, octet for octet, what came in, plus one Received field.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use postrider::sandbox::{SandboxSmarthost, SmarthostSettings};
use support::client::Client;
use support::{eventually, gateway, server, smarthost};

/// Odd but legal messages, by name.
fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let header = b"From: <a@b.example>\r\nSubject: x\r\n".as_slice();
    let with_body = |body: &[u8]| [header, b"\r\n", body].concat();
    vec![
        ("empty", Vec::new()),
        ("only an empty line", b"\r\n".to_vec()),
        ("a header without a body", header.to_vec()),
        ("a body without a header", b"just text, no header\r\nmore: text\r\n".to_vec()),
        ("eight-bit octets of no charset", with_body(&(128..=255).chain(b"\r\n".iter().copied()).collect::<Vec<u8>>())),
        ("UTF-8 in header and body", "Subject: gr\u{fc}\u{df}e\r\n\r\n\u{65e5}\u{672c}\r\n".as_bytes().to_vec()),
        ("leading dots", with_body(b".\r\n..\r\n...\r\n.x\r\n\r\n.\r\n.. .\r\n")),
        ("empty lines at the end", with_body(b"text\r\n\r\n\r\n\r\n")),
        ("NUL and other controls", with_body(b"a\0b\x01\x7f\x1b[0m\r\n")),
        ("a line of 100,000 octets", with_body(&[vec![b'x'; 100_000], b"\r\n".to_vec()].concat())),
        ("lines of 998 octets", with_body(&[vec![b'y'; 998], b"\r\n".to_vec()].concat().repeat(50))),
        ("folded and odd header fields", b"Subject: one\r\n\ttwo\r\n three\r\nX-Empty:\r\nX-Spaces  : v \r\nReceived: from x\r\n\tby y; z\r\n\r\nb\r\n".to_vec()),
        ("trailing spaces", with_body(b"a \t\r\n \r\n\t\r\n")),
        (
            "a signed message",
            b"MIME-Version: 1.0\r\nContent-Type: multipart/signed; protocol=\"application/pkcs7-signature\";\r\n boundary=\"b\"\r\n\r\n--b\r\n\
              Content-Type: text/plain\r\n\r\nsigned text \r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\
              Content-Transfer-Encoding: base64\r\n\r\nMIIB\r\n--b--\r\n"
                .to_vec(),
        ),
        ("a megabyte of dots", with_body(&b".\r\n".repeat(350_000))),
        ("25 MiB", with_body(&b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\r\n".repeat(25 * 1024 * 1024 / 65))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_odd_message_goes_out_as_it_came_in_plus_one_received_field() {
    let directory = tempfile::tempdir().unwrap();
    let host = SandboxSmarthost::start(SmarthostSettings { keep_bodies: true, ..SmarthostSettings::default() }).await.unwrap();
    let gateway = gateway(&(server(directory.path()) + &smarthost("host", host.address().port()))).await;
    let mut client = Client::connect(gateway.addresses()[0]).await.unwrap();
    for (number, (name, content)) in corpus().into_iter().enumerate() {
        let reply = client.send("<a@b.example> BODY=8BITMIME", &["c@d.example"], &content).await.unwrap();
        assert!(reply.starts_with("250"), "{name}: {reply}");
        host.recorder().reached(number + 1).await;
        let received = host.recorder().received().pop().unwrap();
        let body = received.body.unwrap();
        let trace = body.len() - content.len();
        assert!(body.ends_with(&content), "{name}: the content was changed");
        let trace = std::str::from_utf8(&body[..trace]).unwrap();
        assert!(trace.starts_with("Received: from client.example ([127.0.0.1])\r\n\t") && trace.ends_with("\r\n"), "{name}: {trace}");
        assert!(trace[..trace.len() - 2].split("\r\n").skip(1).all(|line| line.starts_with('\t')), "{name}: one field only: {trace}");
    }
    eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;
    assert!(host.recorder().violations().is_empty(), "{:?}", host.recorder().violations());
}

#[tokio::test]
async fn a_bcc_field_reaches_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let host = SandboxSmarthost::start(SmarthostSettings { keep_bodies: true, ..SmarthostSettings::default() }).await.unwrap();
    let gateway = gateway(&(server(directory.path()) + &smarthost("host", host.address().port()))).await;
    let content = b"To: <c@d.example>\r\nBcc: <secret@d.example>,\r\n <other@d.example>\r\nSubject: x\r\n\r\ntext\r\n";
    support::client::send(gateway.addresses()[0], "a@b.example", &["c@d.example", "secret@d.example"], content).await;
    host.recorder().reached(1).await;
    let received = host.recorder().received().pop().unwrap();
    assert_eq!(received.recipients, ["c@d.example", "secret@d.example"], "the envelope says who receives");
    assert!(received.body.unwrap().ends_with(b"To: <c@d.example>\r\nSubject: x\r\n\r\ntext\r\n"));
}
