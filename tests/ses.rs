//! Amazon SES as two independent projects understand it: moto's server, which keeps the destinations
//! of each call, and aws-ses-v2-local, which parses each message.

#![cfg(feature = "ses")]
#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use postrider::gateway::Gateway;
use postrider::spool::sqlite::SqliteSpool;
use serde_json::{Value, json};
use support::client::{Client, message, send};
use support::peer::Peer;
use support::sink::source;
use support::{eventually, gateway, server};

/// Few enough for a test, and enough that every session sends many.
const MESSAGES: usize = 1000;
const SESSIONS: usize = 20;

/// A gateway whose only provider is SES at this endpoint.
async fn gateway_to(directory: &Path, peer: &Peer) -> Gateway<SqliteSpool> {
    let provider = format!(
        "[provider.ses.x]\nregion = \"eu-west-1\"\nendpoint = \"http://127.0.0.1:{}\"\naccess_key_id = \"test\"\nsecret_access_key = \"test\"\n",
        peer.port()
    );
    gateway(&(server(&directory.join("data")) + &provider)).await
}

async fn queue_empties(gateway: &Gateway<SqliteSpool>) {
    eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;
}

async fn moto(directory: &Path) -> Peer {
    let moto = Peer::start(directory, "moto_server", &["-H", "127.0.0.1"], "-p", "/moto-api/data.json").await;
    // Like SES, it takes mail from verified senders only.
    moto.post("/v2/email/identities", &json!({ "EmailIdentity": "corp.example" })).await;
    moto
}

/// Every call that moto has taken.
async fn raw_messages(moto: &Peer) -> Vec<Value> {
    moto.get("/moto-api/data.json").await["ses"]["RawMessage"].as_array().unwrap().clone()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// 120 recipients, and a message that names none of them but one in Bcc. moto adds recipients from the
/// header to those of the call, which this keeps it from.
fn to_many() -> (Vec<String>, Vec<u8>) {
    let recipients = (0..120).map(|number| format!("r{number:03}@example.net")).collect();
    let content = b"From: <a@corp.example>\r\nSubject: To many\r\nBcc: <r000@example.net>,\r\n <r001@example.net>\r\nX-Kept: yes\r\n\r\nGr\xc3\xbc\xc3\x9fe.\r\n.\r\n..\r\n";
    (recipients, content.to_vec())
}

#[tokio::test]
async fn moto_gets_every_message_once() {
    let directory = tempfile::tempdir().unwrap();
    let moto = moto(directory.path()).await;
    let gateway = gateway_to(directory.path(), &moto).await;
    source(gateway.addresses()[0], MESSAGES, SESSIONS, 2048).await;
    queue_empties(&gateway).await;

    let mut copies: BTreeMap<String, usize> = (1..=MESSAGES).map(|number| (format!("{number}rcpt@example.net"), 0)).collect();
    for call in raw_messages(&moto).await {
        assert_eq!(call["source"], "app@corp.example");
        // Behind the recipient of the call stands what moto found in the header.
        *copies.get_mut(strings(&call["destinations"])[0]).unwrap() += 1;
    }
    copies.retain(|_, copies| *copies != 1);
    assert_eq!(copies, BTreeMap::new(), "lost or doubled");
}

#[tokio::test]
async fn a_message_to_120_recipients_is_told_to_moto_in_calls_that_it_takes_and_without_bcc() {
    let directory = tempfile::tempdir().unwrap();
    let moto = moto(directory.path()).await;
    let gateway = gateway_to(directory.path(), &moto).await;
    let (recipients, content) = to_many();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    send(gateway.addresses()[0], "a@corp.example", &recipients, &content).await;
    queue_empties(&gateway).await;

    let calls = raw_messages(&moto).await;
    let sizes: Vec<usize> = calls.iter().map(|call| strings(&call["destinations"]).len()).collect();
    assert_eq!(sizes, [50, 50, 20]);
    let mut told: Vec<&str> = calls.iter().flat_map(|call| strings(&call["destinations"])).collect();
    told.sort_unstable();
    assert_eq!(told, recipients);
    for call in &calls {
        assert_eq!(call["source"], "a@corp.example");
        let raw = call["raw_data"].as_str().unwrap();
        let (received, rest) = raw.split_at(raw.find("From: ").unwrap());
        assert!(received.starts_with("Received: from client.example ") && received.matches("Received:").count() == 1, "{raw}");
        assert_eq!(rest, "From: <a@corp.example>\r\nSubject: To many\r\nX-Kept: yes\r\n\r\nGr\u{fc}\u{df}e.\r\n.\r\n..\r\n");
    }
}

async fn ses_local(directory: &Path) -> Peer {
    Peer::start(directory, "aws-ses-v2-local", &["--host", "127.0.0.1"], "--port", "/store").await
}

#[tokio::test]
async fn aws_ses_v2_local_gets_every_message_once() {
    let directory = tempfile::tempdir().unwrap();
    let peer = ses_local(directory.path()).await;
    let gateway = gateway_to(directory.path(), &peer).await;
    let address = gateway.addresses()[0];
    // It keeps the text of a message, by which each is known.
    let mut sessions = tokio::task::JoinSet::new();
    for session in 0..SESSIONS {
        sessions.spawn(async move {
            let mut client = Client::connect(address).await.unwrap();
            for number in 0..MESSAGES / SESSIONS {
                let content = message(&format!("{session}-{number}"));
                let reply = client.send("<a@corp.example>", &["b@example.net"], &content).await.unwrap();
                assert!(reply.starts_with("250"), "{reply}");
            }
        });
    }
    while let Some(session) = sessions.join_next().await {
        session.unwrap();
    }
    queue_empties(&gateway).await;

    let store = peer.get("/store").await;
    let mut received: Vec<&str> =
        store["emails"].as_array().unwrap().iter().map(|email| email["body"]["text"].as_str().unwrap().trim()).collect();
    let mut sent: Vec<String> = Vec::new();
    for session in 0..SESSIONS {
        sent.extend((0..MESSAGES / SESSIONS).map(|number| format!("Text of {session}-{number}.")));
    }
    received.sort_unstable();
    sent.sort_unstable();
    assert_eq!(received, sent);
}

#[tokio::test]
async fn a_message_to_120_recipients_reaches_aws_ses_v2_local_in_three_calls_and_without_bcc() {
    let directory = tempfile::tempdir().unwrap();
    let peer = ses_local(directory.path()).await;
    let gateway = gateway_to(directory.path(), &peer).await;
    let (recipients, content) = to_many();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    send(gateway.addresses()[0], "a@corp.example", &recipients, &content).await;
    queue_empties(&gateway).await;

    let store = peer.get("/store").await;
    let emails = store["emails"].as_array().unwrap();
    assert_eq!(emails.len(), 3);
    for email in emails {
        assert_eq!(email["subject"], "To many");
        assert_eq!(email["destination"], json!({ "to": [], "cc": [], "bcc": [] }));
        assert_eq!(email["body"]["text"].as_str().unwrap().trim_end(), "Gr\u{fc}\u{df}e.\n.\n..");
    }
}
