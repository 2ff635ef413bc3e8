//! Amazon SES against a scripted API, over real sockets.
#![cfg(feature = "ses")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use postrider_providers::conformance::http_api::{Answer, FakeApi};
use postrider_providers::conformance::{address, attempt, content};
use postrider_providers::contract::{Allowance, Attempt, Body, Delivery, DynProvider, Failure, Outcome, ProviderName, ReversePath};
use postrider_providers::registry::{Context, Settings};
use postrider_providers::ses;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

fn provider(api: &FakeApi, settings: Value) -> Arc<dyn DynProvider> {
    let mut config = json!({ "region": "eu-west-1", "endpoint": api.url(), "access_key_id": "AKIATEST", "secret_access_key": "secret" });
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let config: ses::Config = serde_json::from_value(config).unwrap();
    let context = Context::new("relay.example").unwrap();
    config.connect(ProviderName::new("ses", "test"), &context).unwrap().provider
}

fn taken(id: &str) -> Answer {
    Answer::json(200, &json!({ "MessageId": id }).to_string())
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    let headers = vec![format!("x-amzn-ErrorType: {code}"), "Content-Type: application/json".to_owned()];
    Answer::Reply { status, headers, body: json!({ "message": message }).to_string() }
}

fn small() -> Attempt {
    attempt(&content(300), PATIENCE)
}

fn names(delivery: &Delivery) -> Vec<&'static str> {
    delivery.as_ref().unwrap().outcomes.iter().map(|(_, outcome)| outcome.name()).collect()
}

fn sent(api: &FakeApi) -> Vec<Value> {
    api.requests().iter().map(|(request, _)| serde_json::from_slice(&request.body).unwrap()).collect()
}

#[tokio::test]
async fn a_message_goes_out_raw_with_its_envelope_as_destination() {
    let api = FakeApi::start([taken("0102-id")]).await.unwrap();
    let provider = provider(&api, json!({ "configuration_set": "transactional", "session_token": "token" }));
    let bytes = b"From: <other@app.example>\r\nSubject: x\r\n\r\n.\r\n\xff\x00 no end".to_vec();
    let report = provider.deliver(attempt(&bytes, PATIENCE)).await.unwrap();
    for (_, outcome) in &report.outcomes {
        let Outcome::Relayed(receipt) = outcome else { panic!("{outcome:?}") };
        assert_eq!((receipt.remote_id.as_deref(), receipt.reply.as_str()), (Some("0102-id"), "200 0102-id"));
    }
    let (request, _) = &api.requests()[0];
    assert!(request.head.starts_with("POST /v2/email/outbound-emails HTTP/1.1\r\n"), "{}", request.head);
    let head = request.head.to_ascii_lowercase();
    assert!(head.contains("authorization: aws4-hmac-sha256 credential=akiatest/") && head.contains("/eu-west-1/ses/aws4_request"));
    assert!(head.contains("x-amz-security-token: token"), "{head}");
    let body = &sent(&api)[0];
    assert_eq!(body["FromEmailAddress"], "sender@app.example");
    assert_eq!(body["ConfigurationSetName"], "transactional");
    assert_eq!(body["Destination"], json!({ "ToAddresses": ["first@a.example", "refused@b.example", "Third+Tag@C.example"] }));
    let data = base64::engine::general_purpose::STANDARD.decode(body["Content"]["Raw"]["Data"].as_str().unwrap()).unwrap();
    assert_eq!(data, bytes);
}

#[tokio::test]
async fn nothing_is_tried_twice_behind_the_queues_back() {
    for answer in [error(500, "InternalServiceErrorException", "oops"), error(503, "ServiceUnavailable", "oops"), Answer::Close] {
        let api = FakeApi::start([answer.clone()]).await.unwrap();
        let delivery = provider(&api, json!({})).deliver(small()).await;
        assert_eq!(names(&delivery), ["in_doubt"; 3], "{answer:?}");
        assert_eq!(api.requests().len(), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn a_sender_that_is_not_verified_is_told_with_what_is_wrong_about_it() {
    let text =
        |listed: &str| format!("Email address is not verified. The following identities failed the check in region EU-WEST-1: {listed}");
    // The message's From is sender@app.example, too, but for the last one.
    for (listed, words) in [
        ("sender@app.example", None),
        ("arn:aws:ses:eu-west-1:1:identity/app.example", None),
        ("sender@app.example, first@a.example", Some("recipients are among them, so the account is in the SES sandbox, too")),
        ("author@other.example", Some("this is the address of the header's From, not the envelope's sender")),
    ] {
        let api = FakeApi::start([error(400, "MessageRejected", &text(listed))]).await.unwrap();
        let by_other = b"From: <author@other.example>\r\n\r\nx\r\n";
        let attempt = if listed.contains("other") { attempt(by_other, PATIENCE) } else { small() };
        let delivery = provider(&api, json!({})).deliver(attempt).await;
        let Err(Failure::SenderRefused(diagnostic)) = &delivery else { panic!("{delivery:?}") };
        assert!(diagnostic.text.contains(listed) && words.is_none_or(|words| diagnostic.text.contains(words)), "{diagnostic}");
        assert!(diagnostic.advice.unwrap().contains("Configuration > Identities"), "{diagnostic:?}");
    }
}

#[tokio::test]
async fn what_ses_cannot_carry_is_not_sent() {
    let api = FakeApi::start([taken("a")]).await.unwrap();
    let provider = provider(&api, json!({}));
    let altered = |change: &dyn Fn(&mut postrider_providers::contract::Message)| {
        let mut message = (*small().message).clone();
        change(&mut message);
        Attempt { message: Arc::new(message), ..small() }
    };
    let null = altered(&|message| message.envelope.reverse_path = ReversePath::Null);
    let foreign = altered(&|message| message.envelope.recipients[0].address = address("bücher@a.example"));
    let large = altered(&|message| message.body = Body::File { path: "/nonexistent".into(), len: 30_000_001 });
    for attempt in [null, foreign, large] {
        let delivery = provider.deliver(attempt).await;
        assert!(matches!(&delivery, Err(Failure::Unsuitable(_))), "{delivery:?}");
    }
    assert!(api.requests().is_empty());
    let capabilities = provider.capabilities();
    assert_eq!(capabilities.max_message_size(), Some(30_000_000));
    assert!(!capabilities.null_sender && !capabilities.smtputf8);
    assert_eq!(capabilities.max_recipients, Some(50), "the gateway splits beyond it");
}

const ACCOUNT: &str = r#"{"SendQuota":{"Max24HourSend":50000.0,"MaxSendRate":14.0,"SentLast24Hours":1200.0},"SendingEnabled":true,
    "ProductionAccessEnabled":true,"EnforcementStatus":"HEALTHY","DedicatedIpAutoWarmupEnabled":false}"#;
const SANDBOX: &str = r#"{"SendQuota":{"Max24HourSend":200.0,"MaxSendRate":1.0,"SentLast24Hours":0.0},"SendingEnabled":false,
    "ProductionAccessEnabled":false,"EnforcementStatus":"PROBATION"}"#;

#[tokio::test]
async fn a_probe_tells_the_state_of_the_account_and_what_it_allows() {
    let api = FakeApi::start([Answer::json(200, ACCOUNT), Answer::json(200, SANDBOX)]).await.unwrap();
    let provider = provider(&api, json!({}));
    let probed = provider.probe().await.unwrap();
    assert_eq!(probed.warnings, Vec::<String>::new());
    assert!(probed.facts.contains(&"1200 of 50000 recipients used in the last 24 hours".to_owned()), "{probed:?}");
    let allowance = Allowance { per_second: Some(14.0), per_day: Some(50_000), used_today: Some(1200) };
    assert_eq!(probed.allowance, Some(allowance));
    let probed = provider.probe().await.unwrap();
    for (warning, words) in probed.warnings.iter().zip(["sending is paused", "request production access", "under review"]) {
        assert!(warning.contains(words), "{warning}");
    }
    assert_eq!((probed.warnings.len(), probed.facts.len()), (3, 2));
    assert!(api.requests()[0].0.head.starts_with("GET /v2/email/account "));
}

#[tokio::test]
async fn a_probe_that_fails_leaves_nothing_in_doubt() {
    let api = FakeApi::start([error(403, "SignatureDoesNotMatch", "no"), error(503, "Down", ""), Answer::Close]).await.unwrap();
    let provider = provider(&api, json!({}));
    let failed = provider.probe().await;
    assert!(matches!(&failed, Err(Failure::Unauthorized(said)) if said.advice.unwrap().contains("IAM console")), "{failed:?}");
    assert!(matches!(provider.probe().await, Err(Failure::Unavailable(_))));
    assert!(matches!(provider.probe().await, Err(Failure::Unavailable(_))));
}

#[tokio::test]
async fn a_key_that_may_only_send_passes_the_probe() {
    let denied = error(403, "AccessDeniedException", "User is not authorized to perform: ses:GetAccount");
    let api = FakeApi::start([denied.clone(), denied, Answer::json(404, ""), Answer::json(404, "")]).await.unwrap();
    let provider = provider(&api, json!({}));
    assert!(provider.probe().await.unwrap().warnings[0].contains("ses:GetAccount"));
    let denied = provider.allowance().await.unwrap_err();
    assert!(denied.diagnostic().advice.unwrap().contains("ses:GetAccount"), "{denied:?}");
    assert_eq!(provider.probe().await.unwrap().facts, Vec::<String>::new(), "a stand-in that does not know the call");
    assert_eq!(provider.allowance().await, Ok(None));
}

#[tokio::test]
async fn the_allowance_is_what_the_account_says() {
    let unlimited = r#"{"SendQuota":{"Max24HourSend":-1.0,"MaxSendRate":500.0,"SentLast24Hours":3.0},"SendingEnabled":true}"#;
    let api = FakeApi::start([Answer::json(200, unlimited), Answer::json(200, "{}"), error(500, "InternalFailure", "")]).await.unwrap();
    let provider = provider(&api, json!({}));
    let allowance = Allowance { per_second: Some(500.0), per_day: None, used_today: Some(3) };
    assert_eq!(provider.allowance().await, Ok(Some(allowance)));
    assert_eq!(provider.allowance().await, Ok(Some(Allowance::default())), "it may be told later");
    assert!(provider.allowance().await.is_err());
}

#[tokio::test]
async fn an_expired_token_of_the_config_is_not_tried_again() {
    let api = FakeApi::start([error(403, "ExpiredTokenException", "expired"), taken("a")]).await.unwrap();
    let delivery = provider(&api, json!({ "session_token": "token" })).deliver(small()).await;
    assert!(matches!(&delivery, Err(Failure::Unauthorized(said)) if said.advice.unwrap().contains("session_token")), "{delivery:?}");
    assert_eq!(api.requests().len(), 1, "there is no other to be had");
}

#[tokio::test]
async fn a_refused_connection_says_why() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let api = FakeApi::start([taken("a")]).await.unwrap();
    let delivery = provider(&api, json!({ "endpoint": format!("http://127.0.0.1:{port}") })).deliver(small()).await;
    assert!(matches!(&delivery, Err(Failure::Unavailable(diagnostic)) if diagnostic.text.contains("refused")), "{delivery:?}");
}

#[tokio::test]
async fn silence_is_in_doubt_only_after_the_request_has_left() {
    let api = FakeApi::start([Answer::Hang]).await.unwrap();
    let delivery = provider(&api, json!({ "timeouts": { "answer": "300ms" } })).deliver(small()).await;
    assert_eq!(names(&delivery), ["in_doubt"; 3]);

    // Larger than all buffers in between, and nobody reads.
    let api = FakeApi::start([Answer::HangAtOnce]).await.unwrap();
    let delivery = provider(&api, json!({ "timeouts": { "answer": "300ms" } })).deliver(attempt(&content(6 << 20), PATIENCE)).await;
    assert!(matches!(&delivery, Err(Failure::Unavailable(_))), "{delivery:?}");
}
