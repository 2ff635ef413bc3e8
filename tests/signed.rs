//! Signed mail, through a whole gateway: it stays away from a provider that takes fields, whatever the client
//! hears about it comes at the end of data, and a route may say otherwise.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use postrider::gateway::Gateway;
use postrider::spool::sqlite::SqliteSpool;
use postrider_providers::conformance::http_api::{Answer, FakeApi};
use postrider_providers::conformance::smart_host::{FakeSmartHost, Script};
use support::client::Client;
use support::{eventually, gateway, server, smarthost};

const SIGNED: &[u8] =
    b"From: a@corp.example\r\nSubject: signed\r\nContent-Type: multipart/signed;\r\n protocol=\"application/pkcs7-signature\"; \
    micalg=sha-256;\r\n boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\nMAA=\r\n--b--\r\n";
const PGP: &[u8] = b"From: a@corp.example\r\nContent-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"\r\n\r\nx\r\n";
const DKIM: &[u8] = b"DKIM-Signature: v=1; a=rsa-sha256; d=corp.example;\r\n b=abc\r\nFrom: a@corp.example\r\nSubject: d\r\n\r\nx\r\n";
const PLAIN: &[u8] = b"From: a@corp.example\r\nSubject: plain\r\n\r\nx\r\n";

/// SendGrid in front of a smart host, and a gateway with these routes.
struct Bench {
    fields: FakeApi,
    raw: FakeSmartHost,
    gateway: Gateway<SqliteSpool>,
    _directory: tempfile::TempDir,
}

impl Bench {
    async fn start(routes: &str) -> Self {
        let accepted = Answer::Reply { status: 202, headers: vec!["X-Message-Id: 1".to_owned()], body: String::new() };
        let (fields, raw) = (FakeApi::start([accepted]).await.unwrap(), FakeSmartHost::start(Script::modern()).await.unwrap());
        let directory = tempfile::tempdir().unwrap();
        let sendgrid = format!("[provider.sendgrid.x]\napi_key = \"SG.key\"\nendpoint = \"{}\"\n", fields.url());
        let config = [server(directory.path()), sendgrid, smarthost("x", raw.address.port()), routes.to_owned()].concat();
        Self { fields, raw, gateway: gateway(&config).await, _directory: directory }
    }

    /// What the client hears at the end of data.
    async fn send(&self, content: &[u8]) -> String {
        let mut client = Client::connect(self.gateway.addresses()[0]).await.unwrap();
        let reply = client.send("<a@corp.example>", &["b@example.net"], content).await.unwrap();
        eventually("the queue is empty", async || self.gateway.counts().await.unwrap().messages == 0).await;
        reply
    }

    /// How many messages each got.
    fn got(&self) -> (usize, usize) {
        (self.fields.requests().len(), self.raw.log().messages.len())
    }
}

#[tokio::test]
async fn signed_mail_passes_over_the_provider_that_takes_fields_and_arrives_as_it_was() {
    let both = "[[route]]\nname = \"all\"\nproviders = [\"sendgrid.x\", \"smarthost.x\"]\n";
    let bench = Bench::start(both).await;
    for (nth, content) in (1..).zip([SIGNED, PGP, DKIM]) {
        assert!(bench.send(content).await.starts_with("250"));
        assert_eq!(bench.got(), (0, nth));
        let arrived = bench.raw.log().messages.last().unwrap().content.clone();
        assert!(arrived.ends_with(content), "{}", String::from_utf8_lossy(&arrived));
    }
    assert!(bench.send(PLAIN).await.starts_with("250"));
    assert_eq!(bench.got(), (1, 3));
}

#[tokio::test]
async fn signed_mail_that_no_provider_of_its_route_would_keep_is_refused_at_the_end_of_data() {
    let bench = Bench::start("[[route]]\nname = \"all\"\nproviders = [\"sendgrid.x\"]\n").await;
    for (content, name) in [(SIGNED, "S/MIME"), (PGP, "PGP/MIME"), (DKIM, "DKIM")] {
        let reply = bench.send(content).await;
        assert!(reply.starts_with("554 5.6.2 ") && reply.contains(name) && reply.contains("route \"all\""), "{reply}");
    }
    assert!(bench.send(PLAIN).await.starts_with("250"));
    assert_eq!(bench.got(), (1, 0));
}

#[tokio::test]
async fn a_route_that_lets_signatures_break_hands_signed_mail_to_anybody() {
    let bench = Bench::start("[[route]]\nname = \"all\"\nproviders = [\"sendgrid.x\"]\nbreak_signatures = true\n").await;
    assert!(bench.send(SIGNED).await.starts_with("250"));
    assert_eq!(bench.got(), (1, 0));
}

#[tokio::test]
async fn a_route_that_is_raw_only_asks_no_provider_that_takes_fields() {
    let bench = Bench::start("[[route]]\nname = \"all\"\nproviders = [\"sendgrid.x\", \"smarthost.x\"]\nraw_only = true\n").await;
    assert!(bench.send(PLAIN).await.starts_with("250"));
    assert_eq!(bench.got(), (0, 1));
}

#[tokio::test]
async fn each_recipients_route_counts_also_where_content_comes_in_chunks() {
    let routes = "[[route]]\nname = \"fields\"\nwhen = { recipient_domain = \"fields.example\" }\nproviders = [\"sendgrid.x\"]\n\
                  [[route]]\nname = \"rest\"\nproviders = [\"sendgrid.x\", \"smarthost.x\"]\n";
    let bench = Bench::start(routes).await;
    let mut client = Client::connect(bench.gateway.addresses()[0]).await.unwrap();
    for (recipients, expected) in [
        (&["b@rest.example"][..], "250 "),
        (&["b@rest.example", "b@fields.example", "c@rest.example"], "554 5.6.2 <b@fields.example>: "),
        (&["b@rest.example", "c@rest.example"], "250 "),
    ] {
        client.command("MAIL FROM:<a@corp.example>").await.unwrap();
        for recipient in recipients {
            let reply = client.command(&format!("RCPT TO:<{recipient}>")).await.unwrap();
            assert!(reply.starts_with("250"), "{reply}");
        }
        // The header comes in two chunks, cut behind a line.
        let (first, last) = SIGNED.split_at(SIGNED.iter().position(|octet| *octet == b';').unwrap() + 3);
        let mut replies = Vec::new();
        for (chunk, more) in [(first, ""), (last, " LAST")] {
            let text = std::str::from_utf8(chunk).unwrap().strip_suffix("\r\n").unwrap();
            replies.push(client.command(&format!("BDAT {}{more}\r\n{text}", chunk.len())).await.unwrap());
        }
        assert!(replies[0].starts_with("250 ") && replies[1].starts_with(expected), "{recipients:?}: {replies:?}");
    }
    eventually("the queue is empty", async || bench.gateway.counts().await.unwrap().messages == 0).await;
    assert_eq!(bench.got(), (0, 2));
}
