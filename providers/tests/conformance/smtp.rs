//! Services that are reached by SMTP: one scripted host for all, and their tables of refusals.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use postrider_providers::conformance::http_api::{Answer, FakeApi};
use postrider_providers::conformance::smart_host::{Action, FakeSmartHost, Received, Script, Step};
use postrider_providers::conformance::{Arranged, Arranging, Behaviour, Seen, SeenContent, Subject, attempt, content, nobody};
use postrider_providers::contract::{Delivery, Diagnostic, DynProvider, Failure, Outcome};
use postrider_providers::smtp::rules::Rule;
use postrider_providers::smtp::verdict::{Stage, Verdict, read};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use super::strict;

/// The token that the scripted token service gives, and the scripted host takes.
pub const TOKEN: &str = "token-1";

/// One row of a service's table: what it says when, and what that means.
pub type Row = (Stage, &'static str, Verdict);

/// A service under test.
pub trait SmtpSubject: Sync + Send + Copy + 'static {
    /// The kind, as in `Providers::KINDS`.
    fn kind(&self) -> &'static str;

    /// A provider with these settings beside those it needs.
    fn provider(&self, far: &FarSide, settings: Value) -> Arc<dyn DynProvider>;

    /// What the host offers when it is reached, beside STARTTLS.
    fn offers(&self) -> &'static [&'static str];

    /// Whether it is spoken to in clear text.
    fn in_clear(&self) -> bool {
        false
    }

    /// The provider's rules.
    fn rules(&self) -> &'static [&'static [Rule]];

    /// Real replies, and what they mean.
    fn table(&self) -> Vec<Row>;
}

/// A host, a token service, and the certificates of both sides.
pub struct FarSide {
    pub host: FakeSmartHost,
    pub tokens: FakeApi,
    pub port: u16,
    directory: tempfile::TempDir,
}

impl FarSide {
    /// A host that does what `script` says, under TLS unless `in_clear`.
    pub async fn start(mut script: Script, in_clear: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(directory.path().join("certificate.pem"), certified.cert.pem()).unwrap();
        std::fs::write(directory.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
        if !in_clear {
            let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut roots = rustls::RootCertStore::empty();
            roots.add(certified.cert.der().clone()).unwrap();
            let clients =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto.clone()).allow_unauthenticated().build().unwrap();
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
            let server = rustls::ServerConfig::builder_with_provider(crypto)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_client_cert_verifier(clients)
                .with_single_cert(vec![certified.cert.der().clone()], key)
                .unwrap();
            script.tls = Some(Arc::new(server));
            script.extensions.push("STARTTLS".to_owned());
        }
        script.tokens.push(TOKEN.to_owned());
        let host = FakeSmartHost::start(script).await.unwrap();
        let granted = json!({ "access_token": TOKEN, "token_type": "Bearer", "expires_in": 3599 });
        let tokens = FakeApi::start([Answer::json(200, &granted.to_string())]).await.unwrap();
        Self { port: host.address.port(), host, tokens, directory }
    }

    /// The certificate, which is its own authority, and the one that clients show.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// Its key.
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// What every provider needs to reach it, and `settings`.
    pub fn settings(&self, own: Value, settings: Value) -> Value {
        let base = json!({ "host": "127.0.0.1", "port": self.port, "ca_file": self.certificate() });
        strict::settings(strict::settings(base, own), settings)
    }
}

/// Makes a service's subject one for the general suite.
pub struct Smtp<S>(pub S);

impl<S: SmtpSubject> Subject for Smtp<S> {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn arrange(&self, behaviour: Behaviour) -> Arranging<'_> {
        let subject = self.0;
        Box::pin(async move {
            let plain = Script::offering(subject.offers());
            let refusing = |wanted: fn(Verdict) -> bool| {
                let row = subject.table().into_iter().find(|(_, _, verdict)| wanted(*verdict));
                let Some((stage, reply, _)) = row else { panic!("{}: no row for {behaviour:?}", subject.kind()) };
                play(plain.clone(), stage, reply)
            };
            let script = match behaviour {
                Behaviour::Accepts | Behaviour::RefusesConnections => plain,
                Behaviour::RefusesOneRecipient => plain.on_containing(Step::Rcpt, "refused@", Action::reply("550 5.1.1 no such mailbox")),
                Behaviour::HangsBeforeTheMessage => plain.on(Step::Greeting, Action::Hang),
                Behaviour::ClosesInTheMessage => plain.on(Step::Content, Action::Close),
                Behaviour::ClosesAfterTheMessage => plain.on(Step::FinalDot, Action::Close),
                Behaviour::HangsAfterTheMessage => plain.on(Step::FinalDot, Action::Hang),
                Behaviour::AnswersNonsense => plain.on(Step::FinalDot, Action::reply("<html>")),
                Behaviour::Throttles => refusing(|verdict| matches!(verdict, Verdict::Throttled(_))),
                Behaviour::RefusesTheCredential => refusing(|verdict| verdict == Verdict::Unauthorized),
                Behaviour::RefusesTheSender => refusing(|verdict| verdict == Verdict::SenderRefused),
                Behaviour::RefusesTheContent => refusing(|verdict| verdict == Verdict::Rejected),
            };
            let mut far = FarSide::start(script, subject.in_clear()).await;
            if behaviour == Behaviour::RefusesConnections {
                far.port = nobody().await.port();
            }
            let settings = match behaviour {
                Behaviour::HangsBeforeTheMessage => json!({ "timeouts": { "command": "500ms" } }),
                _ => json!({}),
            };
            let provider = subject.provider(&far, settings);
            let taken = move || {
                // All of the far side, so that it lasts as long as the provider.
                let far = &far;
                let taken = |Received { recipients, content, .. }| Seen { recipients, content: SeenContent::Raw(content) };
                far.host.log().messages.into_iter().map(taken).collect()
            };
            Some(Arranged { provider, taken: Box::new(taken) })
        })
    }
}

fn play(script: Script, stage: Stage, reply: &str) -> Script {
    let step = match stage {
        Stage::Greeting => Step::Greeting,
        Stage::Auth => Step::Auth,
        Stage::Mail => Step::Mail,
        Stage::Rcpt => Step::Rcpt,
        Stage::Data => Step::Data,
        Stage::Message => Step::FinalDot,
    };
    script.on(step, Action::reply(reply))
}

/// The table as documentation shows it: reply, verdict, advice.
pub fn rows(subject: &impl SmtpSubject) -> Vec<(String, &'static str, &'static str)> {
    let row = |(stage, reply, _): Row| {
        let (verdict, advice) = read(subject.rules(), stage, reply).unwrap();
        (reply.to_owned(), verdict.name(), advice.unwrap_or_default())
    };
    subject.table().into_iter().map(row).collect()
}

/// Plays every row of the table, and holds the provider to its verdict and its advice. Each rule must be
/// shown by a row.
pub async fn check_table(subject: impl SmtpSubject) {
    let kind = subject.kind();
    let mut shown: Vec<Rule> = Vec::new();
    for (stage, reply, verdict) in subject.table() {
        let context = format!("{kind}, {stage:?}: {reply}");
        let (code, text) = reply.split_once(' ').unwrap();
        let rule = subject.rules().iter().copied().flatten().find(|rule| rule.fits(stage, code.parse().unwrap(), text));
        shown.extend(rule);
        let far = FarSide::start(play(Script::offering(subject.offers()), stage, reply), subject.in_clear()).await;
        let delivery = subject.provider(&far, json!({})).deliver(attempt(&content(300), Duration::from_secs(30))).await;
        let (name, diagnostic) = told(&context, &delivery);
        assert_eq!(name, verdict.name(), "{context}: {delivery:?}");
        let expected = read(subject.rules(), stage, reply).unwrap();
        assert_eq!((expected.0, diagnostic.advice), (verdict, expected.1), "{context}");
        assert_eq!(diagnostic.text, text, "{context}: its own words are kept");
        if let (Verdict::Throttled(pause), Err(Failure::Throttled { retry_after, .. })) = (verdict, &delivery) {
            assert_eq!(pause, *retry_after, "{context}");
        }
        if matches!(verdict, Verdict::Unauthorized | Verdict::SenderRefused) {
            assert!(diagnostic.advice.is_some(), "{context}: a person must act, and is not told how");
        }
        assert!(far.host.log().messages.is_empty(), "{context}: it was taken");
    }
    for rule in subject.rules().iter().copied().flatten() {
        assert!(shown.contains(rule), "{kind}: no row of the table shows this rule: {rule:?}");
    }
}

/// The verdict's name, which is the same for every recipient, and its words.
fn told<'a>(context: &str, delivery: &'a Delivery) -> (&'static str, &'a Diagnostic) {
    let report = match delivery {
        Err(failure) => return (failure.name(), failure.diagnostic()),
        Ok(report) => report,
    };
    let first = &report.outcomes[0].1;
    assert!(report.outcomes.iter().all(|(_, outcome)| outcome.name() == first.name()), "{context}: {report:?}");
    match first {
        Outcome::Deferred(diagnostic) | Outcome::Bounced(diagnostic) | Outcome::InDoubt(diagnostic) => (first.name(), diagnostic),
        Outcome::Relayed(_) => panic!("{context}: relayed"),
    }
}
