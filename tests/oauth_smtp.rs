//! Mail to a mailbox host that takes access tokens only: Dovecot's submission service, and
//! oauth2-mock-server as the tenant's token service.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

#[path = "oauth_smtp/dovecot.rs"]
mod dovecot;
mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dovecot::{Dovecot, Logins, certify};
use postrider_providers::conformance::{attempt, content};
use postrider_providers::contract::{DynProvider, Failure, ProviderName};
use postrider_providers::office365;
use postrider_providers::registry::{Context, Settings as _};
use support::client::Client;
use support::peer::Peer;
use support::sink::Sink;
use support::{eventually, gateway, server};

const MAILBOX: &str = "app@contoso.example";

/// Where Dovecot hands mail to, Dovecot, and the service that it asks about tokens.
struct Tenant {
    sink: Sink,
    dovecot: Dovecot,
    tokens: Peer,
    directory: tempfile::TempDir,
}

impl Tenant {
    /// `lifetime` of a token in seconds; `standing`: whether tokens are `known` after they were granted.
    async fn start(lifetime: &str, standing: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        certify(path);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oauth_smtp/token_service.js");
        let options = [script.to_str().unwrap(), "/contoso.example/oauth2/v2.0/token", MAILBOX, lifetime, standing];
        let tokens = Peer::start(path, "node-with-mail", &options, "--port", "/.well-known/openid-configuration").await;
        let sink = Sink::start(&path.join("sink"), &[]);
        let introspection = format!("http://127.0.0.1:{}/userinfo", tokens.port());
        let dovecot = Dovecot::start(path, &Logins::Tokens { introspection: &introspection }, sink.port());
        Self { sink, dovecot, tokens, directory }
    }

    fn settings(&self) -> String {
        format!(
            "tenant = \"contoso.example\"\nclient_id = \"the-app\"\nclient_secret = \"the-secret\"\nmailbox = \"{MAILBOX}\"\n\
             authority = \"http://127.0.0.1:{}\"\nhost = \"127.0.0.1\"\nport = {}\nca_file = {:?}\nidle_timeout = \"0s\"\n",
            self.tokens.port(),
            self.dovecot.port,
            self.directory.path().join("certificate.pem"),
        )
    }

    fn provider(&self) -> Arc<dyn DynProvider> {
        let config: office365::Config = toml::from_str(&self.settings()).unwrap();
        config.connect(ProviderName::new("office365", "main"), &Context::new("relay.example").unwrap()).unwrap().provider
    }

    /// What the token service printed for each token that it granted.
    fn granted(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.directory.path().join("node-with-mail.log")).unwrap();
        log.lines().filter(|line| line.starts_with("granted")).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn the_gateway_delivers_through_a_mailbox_that_takes_tokens_only() {
    let tenant = Tenant::start("3600", "known").await;
    let data = tempfile::tempdir().unwrap();
    let config = format!(
        "{}[provider.office365.main]\n{}[[route]]\nname = \"all\"\nproviders = [\"office365.main\"]\n",
        server(data.path()),
        tenant.settings()
    );
    let gateway = gateway(&config).await;
    let mut client = Client::connect(gateway.addresses()[0]).await.unwrap();
    for number in 0..3 {
        let reply =
            client.send("<app@contoso.example>", &[&format!("to{number}@example.net")], b"Subject: x\r\n\r\nhello\r\n").await.unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }
    eventually("three messages have arrived", async || tenant.sink.copies().len() == 3).await;
    gateway.drain().await;
    let copies = tenant.sink.copies();
    assert!(copies.values().all(|copies| *copies == 1), "{copies:?}");
    assert_eq!(tenant.granted(), ["granted client_credentials the-app the-secret https://outlook.office365.com/.default"]);
    assert!(tenant.dovecot.said().contains(MAILBOX), "{}", tenant.dovecot.said());
}

#[tokio::test]
async fn a_token_that_the_host_disowns_is_told_in_its_own_words_with_what_to_do() {
    let tenant = Tenant::start("3600", "unknown").await;
    let delivery = tenant.provider().deliver(attempt(&content(300), Duration::from_secs(60))).await;
    let Err(Failure::Unauthorized(diagnostic)) = delivery else { panic!("{delivery:?}: {}", tenant.dovecot.said()) };
    assert_eq!(diagnostic.code, Some(535), "{diagnostic:?}");
    assert!(diagnostic.text.contains("the host explains: {\"status\":"), "{diagnostic:?}");
    assert!(diagnostic.advice.is_some_and(|advice| advice.contains("New-ServicePrincipal")), "{diagnostic:?}");
    assert!(tenant.sink.copies().is_empty());
}

#[tokio::test]
async fn a_token_that_has_expired_is_never_shown_to_the_host() {
    let tenant = Tenant::start("2", "known").await;
    let provider = tenant.provider();
    let begun = tokio::time::Instant::now();
    let mut handed_over = 0;
    // Long enough for the first token to be of no use any more, with a login for every message.
    while begun.elapsed() < Duration::from_secs(8) {
        let delivery = provider.deliver(attempt(&content(300), Duration::from_secs(60))).await;
        assert!(delivery.is_ok(), "{delivery:?}: {}", tenant.dovecot.said());
        handed_over += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(tenant.granted().len() >= 2, "{:?}", tenant.granted());
    eventually("every message has arrived", async || tenant.sink.dumped().len() == handed_over).await;
}

#[tokio::test]
async fn a_probe_logs_in_and_sends_nothing() {
    let tenant = Tenant::start("3600", "known").await;
    let probed = tenant.provider().probe().await.unwrap();
    assert!(probed.facts.contains(&format!("logged in as {MAILBOX}")), "{probed:?}");
    assert!(tenant.sink.copies().is_empty());
}
