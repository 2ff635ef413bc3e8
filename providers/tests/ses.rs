//! Amazon SES against a scripted API, over real sockets.
#![cfg(feature = "ses")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use postrider_providers::conformance::http_api::{Answer, FakeApi};
use postrider_providers::conformance::{address, attempt, content};
use postrider_providers::contract::{
    Attempt, Body, Delivery, DynProvider, Failure, Outcome, Probed, ProviderName, Recipient, RecipientIndex, ReversePath,
};
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

/// An attempt for `count` recipients.
fn many(count: u32) -> Attempt {
    let attempt = small();
    let mut message = (*attempt.message).clone();
    message.envelope.recipients = (0..count).map(|n| Recipient::from(address(&format!("r{n}@a.example")))).collect();
    Attempt { message: Arc::new(message), recipients: (0..count).map(RecipientIndex).collect(), ..attempt }
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
async fn more_than_fifty_recipients_go_in_parts_with_outcomes_of_their_own() {
    let api = FakeApi::start([taken("a"), taken("b"), taken("c")]).await.unwrap();
    let report = provider(&api, json!({})).deliver(many(120)).await.unwrap();
    let sizes: Vec<usize> = sent(&api).iter().map(|body| body["Destination"]["ToAddresses"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [50, 50, 20]);
    let id = |at: usize| match &report.outcomes[at] {
        (index, Outcome::Relayed(receipt)) => (index.0 as usize, receipt.remote_id.clone().unwrap()),
        other => panic!("{other:?}"),
    };
    assert_eq!([id(0), id(49), id(50), id(119)], [(0, "a".into()), (49, "a".into()), (50, "b".into()), (119, "c".into())]);
}

#[tokio::test]
async fn a_part_that_fails_takes_back_nothing_of_the_one_before() {
    for (second, expected, calls) in [
        (error(429, "TooManyRequestsException", "slow down"), "deferred", 2),
        (error(403, "AccessDeniedException", "no"), "deferred", 2),
        (error(500, "InternalServiceErrorException", "oops"), "in_doubt", 2),
        (Answer::Close, "in_doubt", 2),
        (error(400, "BadRequestException", "bad recipient"), "bounced", 3),
    ] {
        let api = FakeApi::start([taken("a"), second.clone(), taken("c")]).await.unwrap();
        let delivery = provider(&api, json!({})).deliver(many(120)).await;
        let names = names(&delivery);
        let last = if calls == 3 { "relayed" } else { "deferred" };
        assert_eq!((names.len(), names[0], names[50], names[119]), (120, "relayed", expected, last), "{second:?}");
        assert_eq!(api.requests().len(), calls, "{second:?}");
    }
    let api = FakeApi::start([error(429, "TooManyRequestsException", "slow down")]).await.unwrap();
    let delivery = provider(&api, json!({})).deliver(many(120)).await;
    assert!(matches!(&delivery, Err(Failure::Throttled { retry_after: Some(_), .. })), "{delivery:?}");
    assert_eq!(api.requests().len(), 1, "nobody else is asked to wait");
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
async fn an_identity_that_is_not_verified_is_the_senders_unless_only_recipients_are_listed() {
    let text =
        |listed: &str| format!("Email address is not verified. The following identities failed the check in region EU-WEST-1: {listed}");
    for listed in ["sender@app.example", "sender@app.example, first@a.example", "arn:aws:ses:eu-west-1:1:identity/app.example"] {
        let api = FakeApi::start([error(400, "MessageRejected", &text(listed))]).await.unwrap();
        let delivery = provider(&api, json!({})).deliver(small()).await;
        assert!(matches!(&delivery, Err(Failure::SenderRefused(diagnostic)) if diagnostic.text.contains(listed)), "{delivery:?}");
    }
    let api = FakeApi::start([error(400, "MessageRejected", &text("refused@b.example"))]).await.unwrap();
    let delivery = provider(&api, json!({})).deliver(small()).await;
    assert_eq!(names(&delivery), ["deferred", "bounced", "deferred"]);
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
}

#[tokio::test]
async fn a_probe_asks_for_the_account() {
    let api = FakeApi::start([Answer::json(200, "{}"), error(403, "SignatureDoesNotMatch", "no"), error(503, "Down", "")]).await.unwrap();
    let provider = provider(&api, json!({}));
    assert_eq!(provider.probe().await, Ok(Probed::default()));
    assert!(matches!(provider.probe().await, Err(Failure::Unauthorized(_))));
    assert!(matches!(provider.probe().await, Err(Failure::Unavailable(_))), "a probe leaves nothing in doubt");
    assert!(api.requests()[0].0.head.starts_with("GET /v2/email/account "));
}

#[tokio::test]
async fn a_key_that_may_only_send_passes_the_probe() {
    let denied = error(403, "AccessDeniedException", "User is not authorized to perform: ses:GetAccount");
    let api = FakeApi::start([denied, Answer::json(404, "")]).await.unwrap();
    let provider = provider(&api, json!({}));
    assert_eq!(provider.probe().await, Ok(Probed::default()));
    assert_eq!(provider.probe().await, Ok(Probed::default()), "a stand-in that does not know the call");
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
