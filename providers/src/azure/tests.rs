//! Operations that end well, badly, late, or unseen; and settings that cannot work.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::conformance::http_api::{Answer as Scripted, FakeApi};
use crate::conformance::{attempt, content};
use crate::contract::DynProvider;

fn config(settings: &Value) -> Config {
    serde_json::from_value(settings.clone()).unwrap()
}

fn provider(endpoint: &str, wait: &str) -> Arc<dyn DynProvider> {
    let settings = json!({ "endpoint": endpoint, "access_key": "a2V5", "wait": wait });
    let context = Context::new("relay.example").unwrap();
    config(&settings).connect(ProviderName::new("azure", "test"), &context).unwrap().provider
}

fn state(status: u16, state: &str, error: &str) -> Scripted {
    let error = if error.is_empty() { Value::Null } else { json!({ "code": error, "message": "words" }) };
    let body = json!({ "id": "an-id", "status": state, "error": error }).to_string();
    Scripted::Reply { status, headers: vec!["Retry-After: 0.1".to_owned()], body }
}

/// What a script of answers leads to, and the requests that were made.
async fn delivered(wait: &str, script: Vec<Scripted>) -> (Delivery, Vec<String>) {
    let api = FakeApi::start(script).await.unwrap();
    let delivery = provider(&api.url(), wait).deliver(attempt(&content(300), Duration::from_secs(20))).await;
    let id = |request: &crate::conformance::http_api::Request| request.header("operation-id").map(str::to_owned);
    let requests = api.requests();
    let own = requests.iter().find_map(|(request, _)| id(request)).unwrap();
    (delivery, requests.iter().map(|(request, _)| request.line().replace(&own, "ID")).collect())
}

fn outcomes(delivery: &Delivery) -> Vec<&'static str> {
    match delivery {
        Ok(report) => report.outcomes.iter().map(|(_, outcome)| outcome.name()).collect(),
        Err(failure) => vec![failure.name()],
    }
}

const SEND: &str = "POST /emails:send?api-version=2025-09-01";
const ASK: &str = "GET /emails/operations/ID?api-version=2025-09-01";

#[tokio::test]
async fn an_accepted_operation_is_followed_to_its_end() {
    let script = vec![state(202, "Running", ""), state(200, "Running", ""), state(200, "Succeeded", "")];
    let (delivery, requests) = delivered("10s", script).await;
    assert_eq!(outcomes(&delivery), ["relayed"; 3]);
    assert_eq!(requests, [SEND, ASK, ASK]);

    let (delivery, _) = delivered("10s", vec![state(202, "Running", ""), state(200, "Failed", "EmailDropped")]).await;
    assert_eq!(outcomes(&delivery), ["rejected"]);
    let script = vec![state(202, "Running", ""), state(200, "Failed", "EmailDroppedAllRecipientsSuppressed")];
    assert_eq!(outcomes(&delivered("10s", script).await.0), ["bounced"; 3]);
    let script = vec![state(202, "Running", ""), state(200, "Failed", "SomethingNew")];
    assert_eq!(outcomes(&delivered("10s", script).await.0), ["unsuitable"], "nobody got it, so another may be asked");
}

#[tokio::test]
async fn what_is_accepted_counts_where_its_end_is_not_seen() {
    let (delivery, requests) = delivered("0s", vec![state(202, "Running", "")]).await;
    assert_eq!((outcomes(&delivery), requests.len()), (vec!["relayed"; 3], 1));
    let (delivery, requests) = delivered("10s", vec![state(202, "Running", ""), Scripted::json(429, "{}")]).await;
    assert_eq!((outcomes(&delivery), requests.len()), (vec!["relayed"; 3], 2));
    let (delivery, _) = delivered("500ms", vec![state(202, "NotStarted", "")]).await;
    assert_eq!(outcomes(&delivery), ["relayed"; 3]);
}

#[tokio::test]
async fn a_lost_answer_is_looked_for_by_the_operations_id() {
    let (delivery, requests) = delivered("10s", vec![Scripted::Close, state(200, "Succeeded", "")]).await;
    assert_eq!((outcomes(&delivery), requests), (vec!["relayed"; 3], vec![SEND.to_owned(), ASK.to_owned()]));
    for (answer, expected) in [
        (state(200, "Failed", "EmailDropped"), vec!["rejected"]),
        (state(404, "", "OperationNotFound"), vec!["in_doubt"; 3]),
        (Scripted::json(200, "<html>"), vec!["in_doubt"; 3]),
        (Scripted::Close, vec!["in_doubt"; 3]),
    ] {
        assert_eq!(outcomes(&delivered("10s", vec![Scripted::json(503, ""), answer]).await.0), expected);
    }
    // The id was used before: by a handover whose answer was lost.
    let conflict = Scripted::json(409, r#"{"error":{"code":"Conflict","message":"exists"}}"#);
    assert_eq!(outcomes(&delivered("10s", vec![conflict, state(200, "Running", ""), state(200, "Succeeded", "")]).await.0), ["relayed"; 3]);
}

#[tokio::test]
async fn a_probe_sends_nothing_and_tells_a_wrong_key_and_a_wrong_place() {
    let not_found = r#"{"error":{"code":"NotFound","message":"no such operation"}}"#;
    for (answer, is_good) in [
        (Scripted::json(404, not_found), true),
        (Scripted::json(404, "<html>"), false),
        (Scripted::json(200, "<html>"), false),
        (Scripted::json(401, r#"{"error":{"code":"Denied","message":"Denied by the resource provider."}}"#), false),
    ] {
        let api = FakeApi::start([answer.clone()]).await.unwrap();
        assert_eq!(provider(&api.url(), "1s").probe().await.is_ok(), is_good, "{answer:?}");
        assert!(api.requests()[0].0.line().starts_with("GET /emails/operations/0000"));
    }
}

#[tokio::test]
async fn an_application_of_entra_signs_with_a_token() {
    let authority =
        FakeApi::start([Scripted::json(200, r#"{"access_token":"tok","expires_in":3599,"token_type":"Bearer"}"#)]).await.unwrap();
    let api = FakeApi::start([state(202, "Succeeded", "")]).await.unwrap();
    let settings = json!({
        "endpoint": api.url(), "tenant": "corp.example", "client_id": "app", "client_secret": "s", "authority": authority.url(),
    });
    let context = Context::new("relay.example").unwrap();
    let provider = config(&settings).connect(ProviderName::new("azure", "test"), &context).unwrap().provider;
    let delivery = provider.deliver(attempt(&content(300), Duration::from_secs(20))).await;
    assert_eq!(outcomes(&delivery), ["relayed"; 3]);
    assert_eq!(api.requests()[0].0.header("authorization"), Some("Bearer tok"));
    let asked = String::from_utf8(authority.requests()[0].0.body.clone()).unwrap();
    assert!(asked.contains("scope=https%3A%2F%2Fcommunication.azure.com%2F%2F.default"), "{asked}");
}

#[test]
fn a_setting_that_cannot_work_is_named() {
    let context = Context::new("relay.example").unwrap();
    for (settings, key) in [
        (json!({ "endpoint": "https://r.example" }), ""),
        (json!({ "endpoint": "https://r.example", "access_key": "a2V5", "tenant": "t" }), ""),
        (json!({ "access_key": "a2V5" }), "endpoint"),
        (json!({ "endpoint": "https://r.example", "access_key": "no base64" }), "access_key"),
        (json!({ "connection_string": "r.example" }), "connection_string"),
        (json!({ "endpoint": "https://r.example", "tenant": "t" }), "client_id"),
    ] {
        let error = config(&settings).connect(ProviderName::new("azure", "test"), &context).unwrap_err();
        assert_eq!(error.key, key, "{settings}: {error}");
        assert!(!error.message.contains("no base64;") || !error.message.contains("\"no base64\""));
    }
    let good = config(&json!({ "connection_string": "endpoint=https://r.communication.azure.com/;accesskey=a2V5", "max_size": "30MB" }));
    let connected = good.connect(ProviderName::new("azure", "test"), &context).unwrap();
    assert_eq!(connected.provider.capabilities().max_message_size(), Some(30_000_000));
}
