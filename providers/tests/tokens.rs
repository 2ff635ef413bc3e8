//! Graph and Gmail with tokens that come and go: refused ones, and each mailbox with its own.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use postrider_providers::conformance::http_api::{Answer, FakeApi, Request};
use postrider_providers::conformance::{attempt, content};
use postrider_providers::contract::{Attempt, DynProvider, Failure, Outcome, ProviderName, ReversePath};
use postrider_providers::registry::{Context, Settings, SettingsError};
use postrider_providers::{gmail, graph};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// An API that takes the tokens whose number is in `good`, and numbers those that it gives out.
async fn numbered(good: &'static [u32]) -> FakeApi {
    let given = Mutex::new(0);
    let answer = move |request: &Request| {
        if request.line().ends_with("/token") {
            let mut given = given.lock();
            *given += 1;
            return Answer::json(200, &json!({ "access_token": format!("t{given}"), "expires_in": 3599 }).to_string());
        }
        let number = request.header("authorization").unwrap().strip_prefix("Bearer t").unwrap().parse().unwrap();
        match good.contains(&number) {
            false => Answer::json(401, &json!({ "error": { "code": "InvalidAuthenticationToken", "message": "expired" } }).to_string()),
            true if request.head.contains("sendMail") => Answer::Reply { status: 202, headers: Vec::new(), body: String::new() },
            true => Answer::json(200, &json!({ "id": "18c1" }).to_string()),
        }
    };
    FakeApi::asking(|_| None, answer).await.unwrap()
}

fn connect(kind: &str, config: &impl Settings) -> Result<Arc<dyn DynProvider>, SettingsError> {
    Ok(config.connect(ProviderName::new(kind, "test"), &Context::new("relay.example").unwrap())?.provider)
}

fn graph(api: &FakeApi, more: Value) -> Result<Arc<dyn DynProvider>, SettingsError> {
    let mut config = json!({ "tenant": "corp.example", "client_id": "app", "endpoint": api.url(), "authority": api.url() });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    connect("graph", &serde_json::from_value::<graph::Config>(config).unwrap())
}

fn gmail(api: &FakeApi, more: Value) -> Result<Arc<dyn DynProvider>, SettingsError> {
    let mut config = json!({ "endpoint": api.url(), "token_endpoint": format!("{}/token", api.url()) });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    connect("gmail", &serde_json::from_value::<gmail::Config>(config).unwrap())
}

fn small() -> Attempt {
    attempt(&content(300), PATIENCE)
}

/// An attempt at a message of another sender.
fn from(sender: ReversePath) -> Attempt {
    let attempt = small();
    let mut message = (*attempt.message).clone();
    message.envelope.reverse_path = sender;
    Attempt { message: Arc::new(message), ..attempt }
}

async fn relayed(provider: &Arc<dyn DynProvider>, attempt: Attempt) -> bool {
    let delivery = provider.deliver(attempt).await;
    delivery
        .is_ok_and(|report| report.outcomes.len() == 3 && report.outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Relayed(_))))
}

/// Lets time pass. Only then does the clock stand still: sockets need the real one.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

fn lines(api: &FakeApi) -> Vec<String> {
    api.requests().iter().map(|(request, _)| request.line().to_owned()).collect()
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_within_the_attempt_and_mail_is_sent_once() {
    for kind in ["graph", "gmail"] {
        let api = numbered(&[2]).await;
        let provider = match kind {
            "graph" => graph(&api, json!({ "client_secret": "x", "mailbox": "relay@corp.example" })),
            _ => gmail(&api, json!({ "client_id": "app", "client_secret": "x", "refresh_token": "r" })),
        };
        let provider = provider.unwrap();
        // Refused when it is new: the credential is at fault.
        assert!(matches!(provider.deliver(small()).await, Err(Failure::Unauthorized(_))), "{kind}");
        assert_eq!(api.requests().len(), 2, "{kind}");
        // Refused when it is old: another one is fetched.
        pass(120).await;
        assert!(relayed(&provider, small()).await, "{kind}");
        assert!(relayed(&provider, small()).await, "{kind}");
        let accepted = api.requests().iter().filter(|(_, answer)| matches!(answer, Answer::Reply { status: 200 | 202, .. })).count();
        assert_eq!((api.requests().len(), accepted), (6, 4), "{kind}: two tokens, two refusals, two messages");
    }
}

#[tokio::test]
async fn without_a_mailbox_graph_sends_from_each_senders_own() {
    let api = numbered(&[1]).await;
    let provider = graph(&api, json!({ "client_secret": "x" })).unwrap();
    assert!(relayed(&provider, small()).await);
    assert!(relayed(&provider, from(ReversePath::Mailbox("odd/name+1@corp.example".parse().unwrap()))).await);
    assert!(matches!(provider.deliver(from(ReversePath::Null)).await, Err(Failure::Unsuitable(_))));
    let sent: Vec<String> = lines(&api).into_iter().filter(|line| line.ends_with("sendMail")).collect();
    assert_eq!(sent, ["POST /v1.0/users/sender@app.example/sendMail", "POST /v1.0/users/odd%2Fname+1@corp.example/sendMail"]);
}

#[tokio::test]
async fn what_is_larger_than_one_request_takes_goes_as_a_draft_unless_it_is_signed() {
    let token = Answer::json(200, &json!({ "access_token": "t", "expires_in": 3599 }).to_string());
    let made = Answer::json(201, &json!({ "id": "AAMk" }).to_string());
    let sent = Answer::Reply { status: 202, headers: Vec::new(), body: String::new() };
    let api = FakeApi::start([token, made, sent]).await.unwrap();
    let settings = json!({ "client_secret": "x", "mailbox": "relay@corp.example", "mime_size": "1KB" });
    let provider = graph(&api, settings).unwrap();
    let signed = [b"Content-Type: multipart/signed; boundary=b\r\n", &content(2000)[..]].concat();
    assert!(matches!(provider.deliver(attempt(&signed, PATIENCE)).await, Err(Failure::Unsuitable(_))));
    assert!(api.requests().is_empty());
    assert!(relayed(&provider, attempt(&content(2000), PATIENCE)).await);
    let user = "/v1.0/users/relay@corp.example";
    assert_eq!(lines(&api)[1..], [format!("POST {user}/messages"), format!("POST {user}/messages/AAMk/send")]);
    let draft = api.requests()[1].0.json();
    assert_eq!(draft["toRecipients"], json!([{ "emailAddress": { "address": "first@a.example" } }]));
    assert_eq!(draft["bccRecipients"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_message_without_from_is_sent_in_the_name_of_the_mailbox() {
    let api = numbered(&[1]).await;
    let provider = graph(&api, json!({ "client_secret": "x", "mailbox": "relay@corp.example" })).unwrap();
    assert!(relayed(&provider, attempt(b"Subject: s\r\n\r\nt\r\n", PATIENCE)).await);
    let (request, _) = api.requests().pop().unwrap();
    let message = String::from_utf8(STANDARD.decode(&request.body).unwrap()).unwrap();
    assert!(message.starts_with("From: <relay@corp.example>\r\nBcc: <first@a.example>,\r\n"), "{message}");
    assert!(message.ends_with("\r\nSubject: s\r\n\r\nt\r\n"), "{message}");
}

#[tokio::test]
async fn a_service_account_acts_for_each_sender_with_a_token_of_its_own() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = key_file(&dir);
    let api = numbered(&[1, 2]).await;
    let provider = gmail(&api, json!({ "credentials_file": path })).unwrap();
    for sender in ["one@corp.example", "two@corp.example", "ONE@corp.example"] {
        assert!(relayed(&provider, from(ReversePath::Mailbox(sender.parse().unwrap()))).await);
    }
    let subjects: Vec<String> =
        api.requests().iter().filter(|(request, _)| request.line() == "POST /token").map(|(request, _)| subject(request)).collect();
    assert_eq!(subjects, ["one@corp.example", "two@corp.example"]);
    assert!(matches!(provider.deliver(from(ReversePath::Null)).await, Err(Failure::Unsuitable(_))));
}

#[tokio::test]
async fn what_is_refused_of_one_senders_mailbox_is_no_refusal_of_the_credential() {
    let answer = |status: u16, body: Value| Answer::json(status, &body.to_string());
    let token = || answer(200, json!({ "access_token": "t", "expires_in": 3599 }));
    for (status, code) in [(403, "ErrorAccessDenied"), (404, "ResourceNotFound")] {
        let refused = || answer(status, json!({ "error": { "code": code, "message": "no" } }));
        let api = FakeApi::start([token(), refused()]).await.unwrap();
        let own = graph(&api, json!({ "client_secret": "x" })).unwrap();
        assert!(matches!(own.deliver(small()).await, Err(Failure::SenderRefused(_))), "{code}");
        let api = FakeApi::start([token(), refused()]).await.unwrap();
        let one = graph(&api, json!({ "client_secret": "x", "mailbox": "relay@corp.example" })).unwrap();
        assert!(matches!(one.deliver(small()).await, Err(Failure::Unauthorized(_))), "{code}");
    }
    let dir = tempfile::TempDir::new().unwrap();
    let path = key_file(&dir);
    let refused = answer(401, json!({ "error": "unauthorized_client", "error_description": "Client is unauthorized" }));
    let api = FakeApi::start([refused]).await.unwrap();
    let own = gmail(&api, json!({ "credentials_file": path })).unwrap();
    assert!(matches!(own.deliver(small()).await, Err(Failure::SenderRefused(_))));
    let one = gmail(&api, json!({ "credentials_file": path, "mailbox": "relay@corp.example" })).unwrap();
    assert!(matches!(one.deliver(small()).await, Err(Failure::Unauthorized(_))));
}

#[tokio::test]
async fn a_mailbox_without_gmail_is_no_refusal_of_the_credential() {
    let dir = tempfile::TempDir::new().unwrap();
    let token = Answer::json(200, &json!({ "access_token": "t", "expires_in": 3599 }).to_string());
    let no = json!({ "error": { "errors": [{ "reason": "failedPrecondition" }], "message": "Precondition check failed." } });
    let api = FakeApi::start([token, Answer::json(400, &no.to_string())]).await.unwrap();
    let own = gmail(&api, json!({ "credentials_file": key_file(&dir) })).unwrap();
    assert!(matches!(own.deliver(small()).await, Err(Failure::SenderRefused(_))));
}

#[tokio::test]
async fn one_mailbox_that_has_sent_all_it_may_does_not_stop_the_others() {
    let answer = |status: u16, body: Value| Answer::json(status, &body.to_string());
    let token = || answer(200, json!({ "access_token": "t", "expires_in": 3599 }));
    let quota = || answer(400, json!({ "error": { "code": "ErrorExceededMessageLimit", "message": "no" } }));
    let limit = || {
        let errors = json!([{ "reason": "rateLimitExceeded" }]);
        answer(429, json!({ "error": { "errors": errors, "message": "User-rate limit exceeded (Mail sending)" } }))
    };
    let dir = tempfile::TempDir::new().unwrap();
    let path = key_file(&dir);
    for (mailbox, pause) in [(json!({}), 0), (json!({ "mailbox": "relay@corp.example" }), 3600)] {
        let with = |mut own: Value| {
            own.as_object_mut().unwrap().extend(mailbox.as_object().unwrap().clone());
            own
        };
        let api = FakeApi::start([token(), quota()]).await.unwrap();
        let graph = graph(&api, with(json!({ "client_secret": "x" }))).unwrap();
        let api = FakeApi::start([token(), limit()]).await.unwrap();
        let gmail = gmail(&api, with(json!({ "credentials_file": path }))).unwrap();
        for provider in [graph, gmail] {
            let delivery = provider.deliver(small()).await;
            let Err(Failure::Throttled { retry_after, .. }) = delivery else { panic!("{delivery:?}") };
            assert_eq!(retry_after, Some(Duration::from_secs(pause)));
        }
    }
}

/// A service account's key.
fn key_file(dir: &tempfile::TempDir) -> std::path::PathBuf {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let path = dir.path().join("key.json");
    let file = json!({ "client_email": "relay@project.iam.example", "private_key_id": "k", "private_key": key.serialize_pem() });
    std::fs::write(&path, file.to_string()).unwrap();
    path
}

/// For whom a service account asks.
fn subject(request: &Request) -> String {
    let body = String::from_utf8(request.body.clone()).unwrap();
    let (_, assertion) = body.split_once("&assertion=").unwrap();
    let claims = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["sub"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn settings_without_one_whole_credential_are_refused() {
    let api = numbered(&[]).await;
    for (settings, key) in [
        (json!({}), "credentials_file"),
        (json!({ "credentials_file": "/nowhere/key.json" }), "credentials_file"),
        (json!({ "credentials_file": "/nowhere/key.json", "client_id": "x" }), "credentials_file"),
        (json!({ "client_id": "x" }), "client_secret"),
        (json!({ "client_id": "x", "client_secret": "x" }), "refresh_token"),
        (json!({ "client_secret": "x", "refresh_token": "x" }), "client_id"),
        (json!({ "client_id": "x", "client_secret": "x", "refresh_token": "x", "mailbox": "a@b" }), "mailbox"),
    ] {
        assert_eq!(gmail(&api, settings.clone()).err().map(|error| error.key), Some(key), "{settings}");
    }
    for (settings, key) in [
        (json!({}), "client_secret"),
        (json!({ "client_secret": "x", "mailbox": "relay" }), "mailbox"),
        (json!({ "client_secret": "x", "timeouts": { "answer": "0s" } }), "timeouts.answer"),
    ] {
        assert_eq!(graph(&api, settings.clone()).err().map(|error| error.key), Some(key), "{settings}");
    }
}

#[tokio::test]
async fn a_probe_tells_what_can_be_seen_without_sending() {
    let answer = |status: u16, body: Value| Answer::json(status, &body.to_string());
    let token = || answer(200, json!({ "access_token": "t", "expires_in": 3599 }));
    let denied = answer(403, json!({ "error": { "code": "ErrorAccessDenied", "message": "Access is denied." } }));
    let scope = answer(
        403,
        json!({ "error": { "errors": [{ "reason": "insufficientPermissions" }], "message": "Request had insufficient authentication scopes." } }),
    );
    let settings = json!({ "client_secret": "x", "mailbox": "relay@corp.example" });

    let api = FakeApi::start([token(), denied]).await.unwrap();
    let probed = graph(&api, settings.clone()).unwrap().probe().await.unwrap();
    assert!(probed.warnings[0].contains("Mail.ReadWrite"), "{probed:?}");
    assert_eq!(lines(&api)[1], "GET /v1.0/users/relay@corp.example/mailFolders/drafts");

    let api = FakeApi::start([token(), answer(200, json!({ "id": "drafts" }))]).await.unwrap();
    assert_eq!(graph(&api, settings.clone()).unwrap().probe().await.unwrap().warnings, Vec::<String>::new());

    let api =
        FakeApi::start([answer(401, json!({ "error": "invalid_client", "error_description": "AADSTS7000222: expired" }))]).await.unwrap();
    let failure = graph(&api, settings).unwrap().probe().await.unwrap_err();
    assert!(failure.diagnostic().advice.unwrap().contains("expired"), "{failure:?}");

    let api = FakeApi::start([token(), scope]).await.unwrap();
    let provider = gmail(&api, json!({ "client_id": "app", "client_secret": "x", "refresh_token": "r" })).unwrap();
    assert_eq!(provider.probe().await.unwrap().warnings, Vec::<String>::new());
    assert_eq!(lines(&api)[1], "GET /gmail/v1/users/me/profile");
}
