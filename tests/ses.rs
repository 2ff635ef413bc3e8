//! Amazon SES as three independent projects understand it: moto's server, which keeps the destinations
//! of each call, aws-ses-v2-local, which parses each message and tells of an account, and AWS's own model
//! of the service, as botocore has it, which judges each request.

#![cfg(feature = "ses")]
#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use postrider::gateway::Gateway;
use postrider::spool::sqlite::SqliteSpool;
use postrider_providers::conformance::http_api::{Answer, FakeApi};
use serde_json::{Value, json};
use support::client::{Client, message, send};
use support::peer::Peer;
use support::sink::source;
use support::{eventually, gateway, program, server};
use tokio::time::Instant;

/// Few enough for a test, and enough that every session sends many.
const MESSAGES: usize = 1000;
const SESSIONS: usize = 20;

/// A gateway whose only provider is SES at this endpoint.
async fn gateway_to(directory: &Path, peer: &Peer) -> Gateway<SqliteSpool> {
    gateway_with(directory, &format!("http://127.0.0.1:{}", peer.port()), "").await
}

/// The same, with more settings of its own.
async fn gateway_with(directory: &Path, endpoint: &str, settings: &str) -> Gateway<SqliteSpool> {
    let provider = format!(
        "[provider.ses.x]\nregion = \"eu-west-1\"\nendpoint = \"{endpoint}\"\naccess_key_id = \"test\"\nsecret_access_key = \"test\"\n{settings}\n"
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

/// aws-ses-v2-local with an account of these limits.
async fn ses_local_with_account(directory: &Path, quota: Value) -> Peer {
    let account = json!({
        "DedicatedIpAutoWarmupEnabled": false, "EnforcementStatus": "HEALTHY", "ProductionAccessEnabled": true, "SendingEnabled": true,
        "SendQuota": quota, "SuppressionAttributes": { "SuppressedReasons": [] },
        "Details": {
            "AdditionalContactEmailAddresses": [], "ContactLanguage": "EN", "MailType": "TRANSACTIONAL", "UseCaseDescription": "x",
            "WebsiteURL": "https://corp.example", "ReviewDetails": { "CaseId": "1", "Status": "GRANTED" },
        },
    });
    let environment = [("AWS_SES_ACCOUNT", account.to_string())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    Peer::start_with(directory, "aws-ses-v2-local", &environment, &["--host", "127.0.0.1"], "--port", "/store").await
}

async fn emails(peer: &Peer) -> usize {
    peer.get("/store").await["emails"].as_array().unwrap().len()
}

#[tokio::test]
async fn the_rate_that_aws_ses_v2_local_tells_of_its_account_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let peer = ses_local_with_account(directory.path(), json!({ "Max24HourSend": -1, "MaxSendRate": 5, "SentLast24Hours": 0 })).await;
    let gateway = gateway_to(directory.path(), &peer).await;
    let begun = Instant::now();
    for number in 0..20 {
        send(gateway.addresses()[0], "a@corp.example", &["b@example.net"], &message(&number.to_string())).await;
    }
    queue_empties(&gateway).await;
    // Five of them go at once, and five in each second after that.
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(emails(&peer).await, 20);
}

#[tokio::test]
async fn mail_beyond_the_quota_that_aws_ses_v2_local_tells_of_its_account_waits_in_the_queue() {
    let directory = tempfile::tempdir().unwrap();
    let peer = ses_local_with_account(directory.path(), json!({ "Max24HourSend": 200, "MaxSendRate": 100, "SentLast24Hours": 197 })).await;
    let gateway = gateway_to(directory.path(), &peer).await;
    for number in 0..5 {
        send(gateway.addresses()[0], "a@corp.example", &["b@example.net"], &message(&number.to_string())).await;
    }
    eventually("two messages wait", async || gateway.counts().await.unwrap().messages == 2).await;
    assert_eq!(emails(&peer).await, 3);
}

/// What botocore's model of the service says against a request; nothing when it is good.
fn judged(request: &Value) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ses/service_model.py");
    let output = Command::new(program("python-with-botocore")).args([script, "SendEmail", &request.to_string()]).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn every_request_is_good_by_the_service_model_of_botocore() {
    let directory = tempfile::tempdir().unwrap();
    let api = FakeApi::start([Answer::json(200, r#"{"MessageId":"id"}"#)]).await.unwrap();
    let plain = gateway_with(&directory.path().join("plain"), &api.url(), "").await;
    let settings = "configuration_set = \"transactional\"\ntags = { team = \"billing\", system = \"erp\" }\nfeedback_address = \"bounces@corp.example\"\n\
                    tenant = \"erp\"\nfrom_identity_arn = \"arn:aws:ses:eu-west-1:123456789012:identity/corp.example\"";
    let full = gateway_with(&directory.path().join("full"), &api.url(), settings).await;
    let (recipients, content) = to_many();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    for gateway in [&plain, &full] {
        send(gateway.addresses()[0], "a@corp.example", &recipients, &content).await;
        queue_empties(gateway).await;
    }
    let mut judgements = 0;
    for (request, _) in api.requests() {
        if request.line().starts_with("GET ") {
            assert_eq!(request.line(), "GET /v2/email/account");
            continue;
        }
        let (method, uri) = request.line().split_once(' ').unwrap();
        let body = request.json();
        let said = judged(&json!({ "method": method, "uri": uri, "body": body }));
        assert_eq!(said, "", "{body}");
        judgements += 1;
    }
    assert_eq!(judgements, 6);
}

/// A judge that finds nothing wrong may be one that does not look.
#[test]
fn the_judge_sees_what_is_wrong_with_a_request() {
    let good = json!({
        "FromEmailAddress": "a@b.example", "Destination": { "ToAddresses": ["c@d.example"] }, "Content": { "Raw": { "Data": "eA==" } },
        "EmailTags": [{ "Name": "a", "Value": "b" }],
    });
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = good.clone();
        change(&mut body);
        judged(&json!({ "method": "POST", "uri": "/v2/email/outbound-emails", "body": body }))
    };
    assert_eq!(with(&|_| {}), "");
    type Change = dyn Fn(&mut Value);
    let wrong: [(&Change, &str); 7] = [
        (&|body| body["Subject"] = "x".into(), "Subject: no member"),
        (&|body| body["Content"]["Raw"] = json!({}), "Content.Raw.Data: is required"),
        (&|body| body["Content"]["Raw"]["Data"] = "no base64!".into(), "Content.Raw.Data: no base64"),
        (&|body| body["Destination"]["ToAddresses"] = "c@d.example".into(), "Destination.ToAddresses: no list"),
        (&|body| body["Destination"]["ToAddresses"][0] = 1.into(), "Destination.ToAddresses[0]: no string"),
        (&|body| body["TenantName"] = "".into(), "TenantName: shorter than 1"),
        (&|body| body["EmailTags"][0] = json!({ "Name": "a" }), "EmailTags[0].Value: is required"),
    ];
    for (change, expected) in wrong {
        let said = with(change);
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let elsewhere = judged(&json!({ "method": "PUT", "uri": "/v1/email", "body": good }));
    assert!(elsewhere.contains("PUT /v1/email"), "{elsewhere}");
}
