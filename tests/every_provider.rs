//! A thousand generated messages through the gateway to every kind of provider at once: each provider is
//! told of its recipients and of nobody else, no Bcc shows anywhere, and what is raw is what came in.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

#[path = "every_provider/generated.rs"]
mod generated;
#[path = "../providers/tests/conformance/subjects.rs"]
#[allow(dead_code, unused_imports, reason = "what else is in there is for the suite itself")]
mod subjects;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use generated::{Generated, generate};
use postrider::clock::Clock;
use postrider::gateway::Gateway;
use postrider::spool::memory::MemorySpool;
use postrider_providers::conformance::api::{ApiSubject, fake};
use postrider_providers::conformance::{Arranged, Behaviour, Seen, SeenContent, address, attempt};
use postrider_providers::contract::{Attempt, Connected, ProviderName, Recipient, RecipientIndex};
use support::client::Client;
use support::{eventually, parse, server};

const MESSAGES: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_reach_exactly_their_envelope_at_every_provider() {
    let mut arranged: BTreeMap<&str, Arranged> = BTreeMap::new();
    for subject in subjects::all() {
        arranged.insert(subject.kind(), subject.arrange(Behaviour::Accepts).await.unwrap());
    }
    let directory = tempfile::tempdir().unwrap();
    let mut config = server(directory.path());
    for kind in arranged.keys() {
        let domain = domain(kind);
        write!(
            config,
            "[provider.capture.{kind}]\ndirectory = \"/nowhere/{kind}\"\n\
             [[route]]\nname = \"{kind}\"\nwhen = {{ recipient_domain = \"{domain}\" }}\nproviders = [\"capture.{kind}\"]\n"
        )
        .unwrap();
    }
    let name = |kind: &str| ProviderName::from(format!("capture.{kind}").as_str());
    let connected =
        |(kind, one): (&&str, &Arranged)| Connected { name: name(kind), default_concurrency: 2, provider: one.provider.clone() };
    let providers = arranged.iter().map(connected).collect();
    let gateway = Gateway::start_with(&parse(&config), MemorySpool::new(), providers, Clock::system()).await.unwrap();

    let domains: Vec<String> = arranged.keys().map(|kind| domain(kind)).collect();
    let messages: Vec<Generated> = (0..MESSAGES).map(|number| generate(number, &domains)).collect();
    let mut client = Client::connect(gateway.addresses()[0]).await.unwrap();
    for message in &messages {
        let recipients: Vec<&str> = message.recipients.iter().map(String::as_str).collect();
        let reply = client.send("<sender@app.example> BODY=8BITMIME", &recipients, &message.octets).await.unwrap();
        assert!(reply.starts_with("250"), "{}: {reply}", message.number);
    }
    eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;

    for (kind, arranged) in &arranged {
        let mut calls: BTreeMap<usize, Vec<Seen>> = BTreeMap::new();
        for seen in (arranged.taken)() {
            calls.entry(number(kind, &seen)).or_default().push(seen);
        }
        for message in &messages {
            check(kind, message, calls.get(&message.number).map_or(&[][..], Vec::as_slice));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_own_libraries_make_the_same_requests() {
    let mut bodies = BTreeMap::new();
    bodies.extend([
        bodies_of(subjects::brevo::Brevo).await,
        bodies_of(subjects::mailersend::MailerSend).await,
        bodies_of(subjects::postmark::Postmark).await,
        bodies_of(subjects::resend::Resend).await,
        bodies_of(subjects::scaleway::Scaleway).await,
        bodies_of(subjects::sendgrid::SendGrid).await,
        bodies_of(subjects::sparkpost::SparkPost).await,
    ]);
    let judge = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/every_provider/judge.py");
    let output = support::run(support::client("python-with-sdks", &[judge]), serde_json::to_vec(&bodies).unwrap()).await;
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

/// The bodies of the requests in which a hundred messages are handed to an API.
async fn bodies_of<S: ApiSubject + Clone>(subject: S) -> (&'static str, Vec<serde_json::Value>) {
    let running = fake(subject.clone(), None, false).await.unwrap();
    let provider = subject.provider(&running.api.url(), serde_json::json!({}));
    for number in 0..100 {
        let message = generate(number, &[domain(subject.kind())]);
        let recipients: Vec<Recipient> = message.recipients.iter().map(|one| Recipient::from(address(one))).collect();
        let indexes: Vec<RecipientIndex> = (0..).take(recipients.len()).map(RecipientIndex).collect();
        let attempt = attempt(&message.without_bcc, Duration::from_secs(60));
        let mut changed = (*attempt.message).clone();
        changed.envelope.recipients = recipients;
        let attempt = Attempt { message: Arc::new(changed), recipients: indexes.into(), ..attempt };
        let delivery = provider.deliver(attempt).await;
        assert!(delivery.is_ok(), "{}: {delivery:?}", subject.kind());
    }
    let requests = running.api.requests();
    let bodies = requests.iter().filter(|(request, _)| subject.read(request).is_some()).map(|(request, _)| request.json()).collect();
    (subject.kind(), bodies)
}

fn domain(kind: &str) -> String {
    format!("{}.example", kind.replace('_', "-"))
}

/// Which message this is: every subject has "no. N of today" in it, every Message-ID `mN@`.
fn number(kind: &str, seen: &Seen) -> usize {
    let digits = |text: &str, before: &str| -> Option<usize> {
        let (_, rest) = text.split_once(before)?;
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
    };
    let found = match &seen.content {
        SeenContent::Raw(octets) | SeenContent::Readdressed(octets) => digits(&String::from_utf8_lossy(octets), "Message-ID: <m"),
        SeenContent::Fields(fields) => digits(&fields.subject, "no. "),
    };
    found.unwrap_or_else(|| panic!("{kind}: which message is this? {seen:?}"))
}

/// Holds all calls for one message to what came in.
fn check(kind: &str, message: &Generated, calls: &[Seen]) {
    let context = format!("{kind}, message {}", message.number);
    let told: Vec<&str> = calls.iter().flat_map(|seen| seen.recipients.iter().map(String::as_str)).collect();
    let distinct: BTreeSet<&str> = told.iter().copied().collect();
    let wanted: BTreeSet<&str> =
        message.recipients.iter().map(String::as_str).filter(|address| address.ends_with(&format!("@{}", domain(kind)))).collect();
    assert_eq!(distinct, wanted, "{context}");
    assert_eq!(told.len(), distinct.len(), "{context}: somebody gets it twice: {told:?}");
    for seen in calls {
        check_content(&context, message, seen);
    }
}

fn check_content(context: &str, message: &Generated, seen: &Seen) {
    let header_of = |octets: &[u8]| String::from_utf8_lossy(octets).split("\r\n\r\n").next().unwrap().to_lowercase();
    match &seen.content {
        SeenContent::Raw(octets) => {
            assert!(!header_of(octets).contains("\r\nbcc:"), "{context}: Bcc leaks");
            assert!(octets.ends_with(&message.without_bcc), "{context}: the content was changed");
            let trace = String::from_utf8_lossy(&octets[..octets.len() - message.without_bcc.len()]);
            assert!(
                trace.starts_with("Received: ") && trace.matches("\r\n").count() == trace.matches("\r\n\t").count() + 1,
                "{context}: {trace}"
            );
        }
        SeenContent::Readdressed(octets) => {
            let end = |octets: &[u8]| String::from_utf8_lossy(octets).split_once("\r\n\r\n").unwrap().1.to_owned();
            assert!(end(octets) == end(&message.without_bcc), "{context}: the body was changed");
            // Who is named in its header decides who receives, so nobody else may be.
            assert!(!header_of(octets).contains("stranger"), "{context}: somebody gets it who must not");
        }
        SeenContent::Fields(fields) => {
            let same = |found: &Option<String>, wanted: &Option<String>| match (found, wanted) {
                (Some(found), Some(wanted)) => found.replace("\r\n", "\n").trim_end() == wanted.trim_end(),
                // Where a service wants both, one is made from the other.
                (_, None) => true,
                (None, Some(_)) => false,
            };
            assert_eq!(fields.subject, message.subject, "{context}");
            assert!(same(&fields.text, &message.text), "{context}: text: {:?}", fields.text);
            assert!(same(&fields.html, &message.html), "{context}: HTML: {:?}", fields.html);
            let octets = |list: &[(String, Vec<u8>)]| -> BTreeSet<(String, Vec<u8>)> { list.iter().cloned().collect() };
            assert!(octets(&fields.attachments) == octets(&message.attachments), "{context}: attachments");
            assert!(fields.headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("bcc")), "{context}: Bcc leaks");
        }
    }
}
