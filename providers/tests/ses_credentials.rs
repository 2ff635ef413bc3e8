//! Each source of AWS credentials, from its own scripted endpoint to the signature of a message.
//!
//! A process has one environment, and a test must not change it. So each test runs this very program
//! again as a child with an environment of its own, in which [`the_child`] hands one message over.
#![cfg(feature = "ses")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_providers::conformance::http_api::{Answer, FakeApi, Request};
use postrider_providers::conformance::{attempt, content};
use postrider_providers::contract::ProviderName;
use postrider_providers::registry::{Context, Settings};
use postrider_providers::ses;
use serde_json::{Value, json};

/// The settings of the child's provider, as JSON.
const SETTINGS: &str = "POSTRIDER_TEST_SETTINGS";
/// How many messages it hands over.
const MESSAGES: &str = "POSTRIDER_TEST_MESSAGES";

/// Hands messages over, one after the other, and prints what became of each.
#[tokio::test]
#[ignore = "the child of the other tests"]
async fn the_child() {
    let config: ses::Config = serde_json::from_str(&std::env::var(SETTINGS).unwrap()).unwrap();
    let context = Context::new("relay.example").unwrap();
    let provider = config.connect(ProviderName::new("ses", "test"), &context).unwrap().provider;
    let messages: u32 = std::env::var(MESSAGES).unwrap().parse().unwrap();
    for _ in 0..messages {
        let delivery = provider.deliver(attempt(&content(300), Duration::from_secs(60))).await;
        let said = match &delivery {
            Ok(report) => report.outcomes[0].1.name().to_owned(),
            Err(failure) => format!("{} {} ({:?})", failure.name(), failure.diagnostic(), failure.diagnostic().advice),
        };
        // On a line of its own, whatever the test harness has begun to write.
        println!("\n> {said}");
    }
}

/// Runs the child with this environment and nothing else; gives what it printed, line by line.
async fn child(settings: Value, messages: u32, environment: &[(&str, &str)]) -> Vec<String> {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_child", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env_clear().env(SETTINGS, settings.to_string()).env(MESSAGES, messages.to_string());
    // No files of whoever runs the tests, and nobody to ask but those that a test names.
    command.env("HOME", "/nonexistent").env("AWS_EC2_METADATA_DISABLED", "true");
    command.envs(environment.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    printed.lines().filter_map(|line| line.strip_prefix("> ")).map(str::to_owned).collect()
}

/// SES, which takes every message.
async fn ses() -> FakeApi {
    FakeApi::start([Answer::json(200, r#"{"MessageId":"id"}"#)]).await.unwrap()
}

fn settings(ses: &FakeApi, more: Value) -> Value {
    let mut settings = json!({ "region": "eu-west-1", "endpoint": ses.url() });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

/// The access key's id that each message was signed with, and its token.
fn signed(ses: &FakeApi) -> Vec<(String, String)> {
    let key = |request: &Request| {
        let (_, rest) = request.header("authorization").unwrap().split_once("Credential=").unwrap();
        (rest.split_once('/').unwrap().0.to_owned(), request.header("x-amz-security-token").unwrap_or_default().to_owned())
    };
    ses.requests().iter().map(|(request, _)| key(request)).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, token)| ((*key).to_owned(), (*token).to_owned())).collect()
}

/// Temporary credentials, as the container and the instance metadata service write them.
fn temporary(id: &str, expires: &str) -> String {
    json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-11-24T10:00:00Z",
        "AccessKeyId": id, "SecretAccessKey": "secret", "Token": format!("token of {id}"), "Expiration": expires,
    })
    .to_string()
}

const FAR: &str = "2099-01-01T00:00:00Z";

/// STS, which lends credentials to whoever asks for `action`. They are called `ASIA1`, `ASIA2` and so on.
async fn sts(action: &'static str) -> FakeApi {
    let count = Mutex::new(0);
    let answer = move |request: &Request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        assert!(request.line() == "POST /" && body.contains(&format!("Action={action}&")), "{} {body}", request.line());
        let mut count = count.lock();
        *count += 1;
        let xml = format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><AssumedRoleUser>\
             <Arn>arn:aws:sts::1:assumed-role/relay/x</Arn><AssumedRoleId>A:x</AssumedRoleId></AssumedRoleUser><Credentials>\
             <AccessKeyId>ASIA{count}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>token of ASIA{count}</SessionToken>\
             <Expiration>{FAR}</Expiration></Credentials></{action}Result></{action}Response>"
        );
        Answer::Reply { status: 200, headers: vec!["Content-Type: text/xml".to_owned()], body: xml }
    };
    FakeApi::asking(|_| None, answer).await.unwrap()
}

fn form(request: &Request) -> Vec<(String, String)> {
    reqwest::Url::parse(&format!("http://x/?{}", String::from_utf8_lossy(&request.body))).unwrap().query_pairs().into_owned().collect()
}

fn has(form: &[(String, String)], name: &str, value: &str) -> bool {
    form.iter().any(|(found, text)| found == name && text == value)
}

#[tokio::test]
async fn a_key_in_the_environment_signs() {
    let ses = ses().await;
    let environment = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_SESSION_TOKEN", "token")];
    assert_eq!(child(settings(&ses, json!({})), 1, &environment).await, ["relayed"]);
    assert_eq!(signed(&ses), pairs(&[("AKIAENV", "token")]));
}

fn files(directory: &Path) -> (String, String) {
    let (config, credentials) = (directory.join("config"), directory.join("credentials"));
    let process = directory.join("process");
    std::fs::write(&process, "echo '{\"Version\":1,\"AccessKeyId\":\"AKIAPROC\",\"SecretAccessKey\":\"s\"}'\n").unwrap();
    let profiles = format!(
        "[default]\nregion = us-east-1\n[profile mail]\n[profile program]\ncredential_process = /bin/sh {}\n\
         [profile lent]\nrole_arn = arn:aws:iam::1:role/lent\nsource_profile = mail\n",
        process.display()
    );
    std::fs::write(&config, profiles).unwrap();
    let keys = "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = s\n[mail]\naws_access_key_id = AKIAMAIL\naws_secret_access_key = s\n";
    std::fs::write(&credentials, keys).unwrap();
    (config.display().to_string(), credentials.display().to_string())
}

#[tokio::test]
async fn a_profile_signs_and_one_that_is_named_wins_over_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let (config, credentials) = files(directory.path());
    let files = [("AWS_CONFIG_FILE", config.as_str()), ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str())];
    let ses = ses().await;
    assert_eq!(child(settings(&ses, json!({})), 1, &files).await, ["relayed"]);
    let with_key = [files[0], files[1], ("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "s")];
    assert_eq!(child(settings(&ses, json!({ "profile": "mail" })), 1, &with_key).await, ["relayed"]);
    assert_eq!(child(settings(&ses, json!({ "profile": "program" })), 1, &files).await, ["relayed"]);
    assert_eq!(signed(&ses), pairs(&[("AKIADEFAULT", ""), ("AKIAMAIL", ""), ("AKIAPROC", "")]));

    let said = child(settings(&ses, json!({ "profile": "absent" })), 1, &files).await;
    assert!(said[0].starts_with("unauthorized ") && said[0].contains("absent"), "{said:?}");
}

#[tokio::test]
async fn a_profile_may_name_a_role_that_is_assumed_over_the_same_client() {
    let directory = tempfile::tempdir().unwrap();
    let (config, credentials) = files(directory.path());
    let (ses, sts) = (ses().await, sts("AssumeRole").await);
    let sts_url = sts.url();
    let environment =
        [("AWS_CONFIG_FILE", config.as_str()), ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str()), ("AWS_ENDPOINT_URL_STS", &sts_url)];
    assert_eq!(child(settings(&ses, json!({ "profile": "lent" })), 1, &environment).await, ["relayed"]);
    assert_eq!(signed(&ses), pairs(&[("ASIA1", "token of ASIA1")]));
    assert!(has(&form(&sts.requests()[0].0), "RoleArn", "arn:aws:iam::1:role/lent"));
}

#[tokio::test]
async fn a_web_identity_token_is_changed_for_credentials() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "a.web.token").unwrap();
    let (ses, sts) = (ses().await, sts("AssumeRoleWithWebIdentity").await);
    let (token, sts_url) = (token.display().to_string(), sts.url());
    let environment =
        [("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod"), ("AWS_ENDPOINT_URL_STS", &sts_url)];
    assert_eq!(child(settings(&ses, json!({})), 1, &environment).await, ["relayed"]);
    assert_eq!(signed(&ses), pairs(&[("ASIA1", "token of ASIA1")]));
    let form = form(&sts.requests()[0].0);
    assert!(has(&form, "WebIdentityToken", "a.web.token") && has(&form, "RoleArn", "arn:aws:iam::1:role/pod"), "{form:?}");
}

#[tokio::test]
async fn a_container_is_asked_once_for_many_messages() {
    let (ses, container) = (ses().await, FakeApi::start([Answer::json(200, &temporary("ASIACONT", FAR))]).await.unwrap());
    let url = format!("{}/creds", container.url());
    let environment = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Basic pod")];
    assert_eq!(child(settings(&ses, json!({})), 3, &environment).await, ["relayed"; 3]);
    assert_eq!(signed(&ses), pairs(&[("ASIACONT", "token of ASIACONT"); 3]));
    let asked = container.requests();
    assert_eq!((asked.len(), asked[0].0.line(), asked[0].0.header("authorization")), (1, "GET /creds", Some("Basic pod")));
}

#[tokio::test]
async fn an_instance_is_asked_with_a_token_of_its_metadata_service() {
    let answer = |request: &Request| match request.line() {
        "PUT /latest/api/token" => {
            let headers = vec!["X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600".to_owned()];
            Answer::Reply { status: 200, headers, body: "metadata-token".to_owned() }
        }
        line => {
            assert_eq!(request.header("x-aws-ec2-metadata-token"), Some("metadata-token"), "{line}");
            // Newer services know a second path, where a name has more to it.
            let text = |body: &str| Answer::Reply { status: 200, headers: Vec::new(), body: body.to_owned() };
            match line.trim_end_matches('/') {
                "GET /latest/meta-data/iam/security-credentials" => text("relay-role"),
                "GET /latest/meta-data/iam/security-credentials/relay-role" => text(&temporary("ASIAINST", FAR)),
                _ => Answer::Reply { status: 404, headers: Vec::new(), body: String::new() },
            }
        }
    };
    let (ses, metadata) = (ses().await, FakeApi::asking(|_| None, answer).await.unwrap());
    let url = metadata.url();
    let environment = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()), ("AWS_EC2_METADATA_DISABLED", "false")];
    let lines = |api: &FakeApi| api.requests().iter().map(|(request, _)| request.line().to_owned()).collect::<Vec<_>>();
    assert_eq!(child(settings(&ses, json!({})), 2, &environment).await, ["relayed"; 2], "{:?}", lines(&metadata));
    assert_eq!(signed(&ses), pairs(&[("ASIAINST", "token of ASIAINST"); 2]));
}

#[tokio::test]
async fn a_role_of_the_config_is_assumed_once_and_again_when_its_session_has_expired() {
    let expired = Answer::Reply {
        status: 403,
        headers: vec!["x-amzn-ErrorType: ExpiredTokenException".to_owned()],
        body: r#"{"message":"The security token included in the request is expired"}"#.to_owned(),
    };
    let taken = || Answer::json(200, r#"{"MessageId":"id"}"#);
    let ses = FakeApi::start([taken(), expired.clone(), taken(), taken(), expired.clone(), expired, taken()]).await.unwrap();
    let sts = sts("AssumeRole").await;
    let sts_url = sts.url();
    let role = json!({
        "access_key_id": "AKIABASE", "secret_access_key": "s", "role_arn": "arn:aws:iam::2:role/relay", "external_id": "corp:mail",
    });
    let said = child(settings(&ses, role), 4, &[("AWS_ENDPOINT_URL_STS", &sts_url)]).await;
    // The second message got a new session within its attempt; the last one found that no use.
    assert_eq!(said[..3], ["relayed"; 3]);
    assert!(said[3].starts_with("unauthorized ") && said[3].contains("ExpiredToken"), "{said:?}");
    let keys: Vec<String> = signed(&ses).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["ASIA1", "ASIA1", "ASIA2", "ASIA2", "ASIA2", "ASIA3"]);
    let (request, _) = &sts.requests()[0];
    let form = form(request);
    assert!(request.header("authorization").unwrap().contains("Credential=AKIABASE/"), "{}", request.head);
    for (name, value) in [("RoleArn", "arn:aws:iam::2:role/relay"), ("ExternalId", "corp:mail"), ("RoleSessionName", "postrider")] {
        assert!(has(&form, name, value), "{name}: {form:?}");
    }
}

#[tokio::test]
async fn a_role_that_may_not_be_assumed_is_ours_to_mend_and_a_silent_sts_is_not() {
    let role = json!({ "access_key_id": "AKIABASE", "secret_access_key": "s", "role_arn": "arn:aws:iam::2:role/relay", "timeouts": { "connect": "2s" } });
    let ses = ses().await;
    let denied = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>AccessDenied</Code>\
                  <Message>not authorized to perform: sts:AssumeRole</Message></Error><RequestId>1</RequestId></ErrorResponse>";
    let sts = FakeApi::start([Answer::Reply { status: 403, headers: Vec::new(), body: denied.to_owned() }]).await.unwrap();
    let said = child(settings(&ses, role.clone()), 1, &[("AWS_ENDPOINT_URL_STS", &sts.url())]).await;
    assert!(said[0].starts_with("unauthorized ") && said[0].contains("sts:AssumeRole"), "{said:?}");
    let broken = |status: u16, code: &str| {
        let body = match code {
            "" => "<html>try later</html>".to_owned(),
            code => denied.replace("AccessDenied", code),
        };
        Answer::Reply { status, headers: Vec::new(), body }
    };
    for answer in [Answer::Close, Answer::Hang, broken(503, ""), broken(500, "InternalFailure"), broken(400, "Throttling")] {
        let sts = FakeApi::start([answer]).await.unwrap();
        let said = child(settings(&ses, role.clone()), 1, &[("AWS_ENDPOINT_URL_STS", &sts.url())]).await;
        assert!(said[0].starts_with("unavailable "), "{said:?}");
    }
    assert!(ses.requests().is_empty());
}

#[tokio::test]
async fn where_there_are_no_credentials_at_all_it_is_said_what_to_set() {
    let ses = ses().await;
    let said = child(settings(&ses, json!({})), 1, &[]).await;
    assert!(said[0].starts_with("unauthorized ") && said[0].contains("access_key_id"), "{said:?}");
    assert!(ses.requests().is_empty());
}
