//! Logging in with tokens, and connections that belong to a mailbox, over real sockets and TLS.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "conformance/smtp.rs"]
#[allow(dead_code, reason = "what else is in there is for the suite")]
mod smtp;
#[path = "conformance/strict.rs"]
#[allow(dead_code, reason = "what else is in there is for the suite")]
mod strict;

use std::sync::Arc;
use std::time::Duration;

use postrider_providers::conformance::http_api::{Answer, FakeApi};
use postrider_providers::conformance::smart_host::{Action, Log, Script, Step};
use postrider_providers::conformance::{address, attempt, content};
use postrider_providers::contract::{Attempt, Delivery, DynProvider, Failure, Outcome, ProviderName, ReversePath};
use postrider_providers::registry::{Context, Settings};
use postrider_providers::{office365, office365_connector, workspace};
use serde_json::{Value, json};
use smtp::{FarSide, TOKEN};

fn connect(kind: &str, config: &impl Settings) -> Arc<dyn DynProvider> {
    config.connect(ProviderName::new(kind, "test"), &Context::new("relay.example").unwrap()).unwrap().provider
}

/// A provider for the far side, with tokens from `authority`.
fn provider(far: &FarSide, authority: &str, settings: Value) -> Arc<dyn DynProvider> {
    let own = json!({ "tenant": "contoso.example", "client_id": "app", "client_secret": "s", "authority": authority });
    connect("office365", &serde_json::from_value::<office365::Config>(far.settings(own, settings)).unwrap())
}

fn script() -> Script {
    Script::offering(&["PIPELINING", "SIZE 157286400", "8BITMIME", "AUTH LOGIN XOAUTH2"])
}

async fn far() -> FarSide {
    FarSide::start(script(), false).await
}

fn granting(tokens: &[&str]) -> Vec<Answer> {
    let answer = |token: &&str| Answer::json(200, &json!({ "access_token": token, "expires_in": 3599 }).to_string());
    tokens.iter().map(answer).collect()
}

fn from(sender: &str) -> Attempt {
    let mut attempt = attempt(&content(300), Duration::from_secs(60));
    let mut message = (*attempt.message).clone();
    message.envelope.reverse_path = if sender.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(address(sender)) };
    attempt.message = Arc::new(message);
    attempt
}

fn is_relayed(delivery: &Delivery) -> bool {
    delivery.as_ref().is_ok_and(|report| report.outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Relayed(_))))
}

fn auths(log: &Log) -> usize {
    log.commands.iter().filter(|command| command.line == "AUTH XOAUTH2").count()
}

#[tokio::test]
async fn each_sender_logs_in_to_its_own_mailbox_and_keeps_its_connection() {
    let far = far().await;
    let provider = provider(&far, &far.tokens.url(), json!({}));
    for sender in ["a@contoso.example", "b@contoso.example", "A@contoso.example", "b@contoso.example"] {
        let delivery = provider.deliver(from(sender)).await;
        assert!(is_relayed(&delivery), "{delivery:?}");
    }
    let log = far.host.log();
    let logins: Vec<&str> = log.messages.iter().map(|message| message.login.as_deref().unwrap()).collect();
    assert_eq!(logins, ["a@contoso.example", "b@contoso.example", "a@contoso.example", "b@contoso.example"]);
    assert_eq!((log.connections, auths(&log), far.tokens.requests().len()), (2, 2, 1), "one token, one connection for each mailbox");
    assert!(log.messages.iter().all(|message| message.encrypted));
}

#[tokio::test]
async fn however_many_mailboxes_there_are_the_connections_that_stand_idle_are_bounded_and_end() {
    const SENDERS: usize = 65;
    let far = far().await;
    let provider = provider(&far, &far.tokens.url(), json!({}));
    for sender in 0..SENDERS {
        assert!(is_relayed(&provider.deliver(from(&format!("sender{sender}@contoso.example"))).await));
    }
    // 60 are kept, the youngest; each of the others was told.
    far.host.until(|log| log.closed == SENDERS - 60).await;
    let log = far.host.log();
    assert_eq!((log.connections, log.commands.iter().filter(|command| command.line == "QUIT").count()), (SENDERS, SENDERS - 60));
    assert!(
        log.messages.iter().enumerate().all(|(nth, message)| message.login.as_deref() == Some(&*format!("sender{nth}@contoso.example")))
    );
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    far.host.until(|log| log.closed == SENDERS).await;
}

#[tokio::test]
async fn with_a_mailbox_everybody_shares_its_connection() {
    let far = far().await;
    let provider = provider(&far, &far.tokens.url(), json!({ "mailbox": "relay@contoso.example" }));
    for sender in ["a@contoso.example", "", "b@contoso.example"] {
        assert!(is_relayed(&provider.deliver(from(sender)).await));
    }
    let log = far.host.log();
    assert!(log.messages.iter().all(|message| message.login.as_deref() == Some("relay@contoso.example")));
    assert_eq!((log.connections, log.messages[1].mail.as_str()), (1, "MAIL FROM:<> SIZE=334"));
}

#[tokio::test]
async fn a_notification_without_a_mailbox_to_log_in_to_is_left_to_others() {
    let far = far().await;
    let provider = provider(&far, &far.tokens.url(), json!({}));
    assert!(!provider.capabilities().null_sender);
    let delivery = provider.deliver(from("")).await;
    assert!(matches!(&delivery, Err(Failure::Unsuitable(diagnostic)) if diagnostic.advice.is_some()), "{delivery:?}");
    assert_eq!(far.host.log().connections, 0);
}

#[tokio::test]
async fn a_refused_token_is_told_with_what_the_host_explains_and_never_shown() {
    let far = far().await;
    let entra = FakeApi::start(granting(&["not-taken-there"])).await.unwrap();
    let provider = provider(&far, &entra.url(), json!({ "mailbox": "relay@contoso.example" }));
    let Err(Failure::Unauthorized(diagnostic)) = provider.deliver(from("a@contoso.example")).await else { panic!("it was refused") };
    let explained =
        r#"5.7.3 Authentication unsuccessful (the host explains: {"status":"401","schemes":"bearer","scope":"https://mail.example/"})"#;
    assert_eq!((diagnostic.code, diagnostic.text.as_str()), (Some(535), explained));
    assert!(diagnostic.advice.unwrap().contains("New-ServicePrincipal"));
    let log = far.host.log();
    assert_eq!(log.commands.last().unwrap().line, "", "the explanation is answered with an empty line");
    assert_eq!(auths(&log), 1, "the token was fetched just now, and another one would fare no better");
}

#[tokio::test]
async fn a_token_that_is_refused_before_its_time_is_replaced_once() {
    for (second, relayed) in [(TOKEN, true), ("revoked, too", false)] {
        let far = FarSide::start(script(), false).await;
        let entra = FakeApi::start(granting(&["revoked", &second.replace([',', ' '], "-")])).await.unwrap();
        let provider = provider(&far, &entra.url(), json!({ "mailbox": "relay@contoso.example", "idle_timeout": "0s" }));
        // The first one is fetched, and grows old.
        assert!(provider.deliver(from("a@contoso.example")).await.is_err());
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(120)).await;
        tokio::time::resume();
        let delivery = provider.deliver(from("a@contoso.example")).await;
        assert_eq!(is_relayed(&delivery), relayed, "{delivery:?}");
        assert!(relayed || matches!(delivery, Err(Failure::Unauthorized(_))), "{delivery:?}");
        assert_eq!((entra.requests().len(), auths(&far.host.log())), (2, 3));
    }
}

#[tokio::test]
async fn one_sender_whose_login_is_refused_does_not_stop_the_others() {
    for (reply, sender_only) in [
        ("535 5.7.3 Authentication unsuccessful", true),
        ("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.", true),
        ("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.", false),
    ] {
        let far = FarSide::start(script().on(Step::Auth, Action::reply(reply)), false).await;
        let delivery = provider(&far, &far.tokens.url(), json!({})).deliver(from("a@contoso.example")).await;
        let failure = delivery.unwrap_err();
        assert_eq!(failure.name(), if sender_only { "sender_refused" } else { "unauthorized" }, "{reply}");
        assert!(failure.diagnostic().advice.is_some());
    }
}

#[tokio::test]
async fn one_mailbox_whose_quota_is_used_up_does_not_stop_the_others() {
    let quota = "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException";
    let machine = "451 4.7.500 Server busy. Please try again later from [192.0.2.1].";
    for (reply, settings, pause) in
        [(quota, json!({}), Some(0)), (quota, json!({ "mailbox": "relay@contoso.example" }), Some(3600)), (machine, json!({}), None)]
    {
        let far = FarSide::start(script().on(Step::Mail, Action::reply(reply)), false).await;
        let delivery = provider(&far, &far.tokens.url(), settings).deliver(from("a@contoso.example")).await;
        let Err(Failure::Throttled { retry_after, .. }) = delivery else { panic!("{delivery:?}") };
        assert_eq!(retry_after.map(|pause| pause.as_secs()), pause, "{reply}");
    }
}

#[tokio::test]
async fn a_mailbox_has_three_connections_at_a_time_and_no_more() {
    let far = FarSide::start(script().on(Step::FinalDot, Action::Hang), false).await;
    let provider = provider(&far, &far.tokens.url(), json!({ "mailbox": "relay@contoso.example" }));
    let busy: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn({
                let provider = provider.clone();
                async move { provider.deliver(from("a@contoso.example")).await }
            })
        })
        .collect();
    far.host.until(|log| log.commands.iter().filter(|command| command.line == "DATA").count() == 3).await;
    let delivery = provider.deliver(from("a@contoso.example")).await;
    assert!(matches!(&delivery, Err(Failure::Throttled { retry_after: Some(_), .. })), "{delivery:?}");
    assert_eq!(far.host.log().connections, 3);
    for one in busy {
        one.abort();
        let _ = one.await;
    }
    assert!(
        !matches!(
            provider.deliver(Attempt { deadline: tokio::time::Instant::now() + Duration::from_secs(1), ..from("a@contoso.example") }).await,
            Err(Failure::Throttled { .. })
        ),
        "a handover that is given up gives its place back"
    );
}

#[tokio::test]
async fn a_token_goes_to_no_host_without_tls_or_xoauth2() {
    for (script, in_clear) in [(script(), true), (Script::offering(&["AUTH LOGIN"]), false)] {
        let far = FarSide::start(script, in_clear).await;
        let failure =
            provider(&far, &far.tokens.url(), json!({ "mailbox": "m@contoso.example" })).deliver(from("a@b.example")).await.unwrap_err();
        assert_eq!(failure.name(), if in_clear { "unavailable" } else { "unauthorized" });
        assert_eq!(auths(&far.host.log()), 0);
    }
}

#[tokio::test]
async fn a_probe_tries_the_login_where_there_is_one() {
    let far = far().await;
    let probed = provider(&far, &far.tokens.url(), json!({ "mailbox": "m@contoso.example" })).probe().await.unwrap();
    assert_eq!(
        (probed.facts, probed.warnings.len()),
        (
            vec![
                format!("127.0.0.1:{} answers under TLS", far.port),
                "logged in as m@contoso.example".to_owned(),
                "takes messages of up to 150MiB".to_owned()
            ],
            0
        )
    );
    let probed = provider(&far, &far.tokens.url(), json!({})).probe().await.unwrap();
    assert_eq!((probed.facts.len(), probed.warnings.len()), (3, 1), "{probed:?}");
    assert!(far.host.log().messages.is_empty());
}

#[tokio::test]
async fn a_connector_shows_its_certificate_and_only_then_carries_notifications() {
    let far = FarSide::start(Script::offering(&["PIPELINING"]), false).await;
    let certificate = json!({ "certificate": far.certificate(), "private_key": far.key() });
    for (settings, certified) in [(json!({}), false), (certificate, true)] {
        let config: office365_connector::Config = serde_json::from_value(far.settings(json!({}), settings)).unwrap();
        let provider = connect("office365_connector", &config);
        assert_eq!(provider.capabilities().null_sender, certified);
        let delivery = provider.deliver(from("a@contoso.example")).await;
        assert!(is_relayed(&delivery), "{delivery:?}");
        let taken = far.host.log().messages.pop().unwrap();
        assert_eq!((taken.certified, taken.encrypted, taken.login), (certified, true, None));
    }
}

#[tokio::test]
async fn a_sender_that_a_connector_does_not_relay_for_does_not_stop_the_others_unless_a_certificate_speaks_for_all() {
    let refusal = "550 5.7.64 TenantAttribution; Relay Access Denied";
    let banned = "550 5.7.606 Access denied, banned sending IP [192.0.2.1].";
    let certificate = |far: &FarSide| json!({ "certificate": far.certificate(), "private_key": far.key() });
    for (reply, certified, expected) in
        [(refusal, false, "sender_refused"), (refusal, true, "unauthorized"), (banned, false, "unauthorized")]
    {
        let far = FarSide::start(Script::offering(&["PIPELINING"]).on(Step::Mail, Action::reply(reply)), false).await;
        let own = if certified { certificate(&far) } else { json!({}) };
        let config: office365_connector::Config = serde_json::from_value(far.settings(json!({}), own)).unwrap();
        let failure = connect("office365_connector", &config).deliver(from("a@elsewhere.example")).await.unwrap_err();
        assert_eq!(failure.name(), expected, "{reply}");
        assert!(failure.diagnostic().advice.is_some());
    }
}

#[tokio::test]
async fn workspace_takes_an_app_password_as_google_shows_it_or_none_at_all() {
    let far = FarSide::start(Script::offering(&["AUTH PLAIN"]), false).await;
    for (settings, auth) in [
        (
            json!({ "username": "u@corp.example", "password": "abcd efgh ijkl mnop" }),
            Some("AUTH PLAIN AHVAY29ycC5leGFtcGxlAGFiY2RlZmdoaWprbG1ub3A="),
        ),
        (json!({}), None),
    ] {
        let before = far.host.log().commands.len();
        let config: workspace::Config = serde_json::from_value(far.settings(json!({}), settings)).unwrap();
        assert!(is_relayed(&connect("workspace", &config).deliver(from("a@corp.example")).await));
        let log = far.host.log();
        let said = log.commands[before..].iter().map(|command| command.line.as_str()).find(|line| line.starts_with("AUTH"));
        assert_eq!(said, auth);
    }
}
