//! What the providers of a route can carry, as clients meet it at the door: in EHLO, and in refusals that
//! say why.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use postrider::clock::Clock;
use postrider::gateway::Gateway;
use postrider::spool::memory::MemorySpool;
use postrider_providers::contract::{
    Attempt, Capabilities, Connected, Delivery, Failure, Outcome, Probed, Provider, Receipt, Report, SizeLimit,
};
use support::client::{Client, message};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// A provider that can carry what it says, and what it was told to say may change.
#[derive(Clone)]
struct Carrier(Arc<Mutex<Capabilities>>);

impl Carrier {
    fn new(max_message_size: Option<u64>, smtputf8: bool, null_sender: bool) -> Self {
        Self(Arc::new(Mutex::new(Capabilities {
            max_size: max_message_size.map(SizeLimit::message),
            smtputf8,
            null_sender,
            ..Capabilities::EVERYTHING
        })))
    }

    fn connected(&self, name: &str) -> Connected {
        Connected { name: name.into(), default_concurrency: 1, provider: Arc::new(self.clone()) }
    }
}

impl Provider for Carrier {
    fn capabilities(&self) -> Capabilities {
        *self.0.lock()
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        Ok(Report::uniform(&attempt.recipients, &Outcome::Relayed(Receipt::default())))
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        Ok(Probed::default())
    }
}

/// Mail to `api.example` goes through a provider like SES, mail of `lab.example` through an old host, and
/// the rest through one that is neither.
const CONFIG: &str = r#"
[server]
hostname = "relay.example"
[[listener]]
bind = "127.0.0.1:0"
[access]
max_message_size = "1MiB"
[provider.capture.api]
directory = "/nowhere/api"
[provider.capture.old]
directory = "/nowhere/old"
[provider.capture.good]
directory = "/nowhere/good"
[[route]]
name = "api"
when = { recipient_domain = "api.example" }
providers = ["capture.api"]
[[route]]
name = "lab"
when = { sender_domain = "lab.example" }
providers = ["capture.old", "capture.api"]
[[route]]
name = "elsewhere"
when = { client = "192.0.2.0/24" }
providers = ["capture.good"]
[[route]]
name = "rest"
providers = ["capture.good"]
"#;

struct Bench {
    api: Carrier,
    old: Carrier,
    good: Carrier,
    gateway: Gateway<MemorySpool>,
}

impl Bench {
    async fn start() -> Self {
        Self::of(CONFIG).await
    }

    async fn of(config: &str) -> Self {
        let api = Carrier::new(Some(200_000), false, false);
        let old = Carrier::new(Some(100_000), true, true);
        let good = Carrier::new(Some(500_000), true, true);
        let connected = vec![api.connected("capture.api"), old.connected("capture.old"), good.connected("capture.good")];
        let gateway = Gateway::start_with(&support::parse(config), MemorySpool::new(), connected, Clock::system()).await.unwrap();
        Self { api, old, good, gateway }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.addresses()[0]
    }

    /// The extensions that EHLO offers.
    async fn offers(&self) -> Vec<String> {
        let mut stream = BufReader::new(TcpStream::connect(self.address()).await.unwrap());
        stream.write_all(b"EHLO client.example\r\nQUIT\r\n").await.unwrap();
        let mut lines = Vec::new();
        let mut line = String::new();
        while stream.read_line(&mut line).await.unwrap() > 0 {
            lines.extend(line.trim_end().strip_prefix("250").map(|offer| offer[1..].to_owned()));
            line.clear();
        }
        lines
    }

    async fn client(&self) -> Client {
        Client::connect(self.address()).await.unwrap()
    }
}

fn offer<'a>(offers: &'a [String], name: &str) -> Option<&'a str> {
    offers.iter().map(String::as_str).find(|offer| offer.split(' ').next() == Some(name))
}

#[tokio::test]
async fn ehlo_offers_the_most_that_any_route_of_the_client_can_carry() {
    let bench = Bench::start().await;
    let offers = bench.offers().await;
    assert_eq!((offer(&offers, "SIZE"), offer(&offers, "SMTPUTF8")), (Some("SIZE 500000"), Some("SMTPUTF8")));
    // A provider has learned that it carries more than we take, and another that it carries less.
    bench.good.0.lock().max_size = Some(SizeLimit::message(50_000));
    bench.good.0.lock().smtputf8 = false;
    bench.old.0.lock().smtputf8 = false;
    let offers = bench.offers().await;
    assert_eq!((offer(&offers, "SIZE"), offer(&offers, "SMTPUTF8")), (Some("SIZE 200000"), None));
    bench.api.0.lock().max_size = None;
    assert_eq!(offer(&bench.offers().await, "SIZE"), Some("SIZE 1048576"), "our own limit");
}

#[tokio::test]
async fn a_route_that_this_client_cannot_take_offers_nothing() {
    let only_elsewhere =
        CONFIG.replace("name = \"rest\"\nproviders = [\"capture.good\"]", "name = \"rest\"\nproviders = [\"capture.old\"]");
    let bench = Bench::of(&only_elsewhere).await;
    let offers = bench.offers().await;
    assert_eq!(offer(&offers, "SIZE"), Some("SIZE 200000"), "500000 are for clients in 192.0.2.0/24");
}

#[tokio::test]
async fn what_no_provider_of_the_route_can_carry_is_refused_with_the_reason() {
    let bench = Bench::start().await;
    let sent = |mail: &'static str, to: Option<&'static str>| {
        let bench = &bench;
        async move {
            let mut client = bench.client().await;
            let reply = client.command(&format!("MAIL FROM:{mail}")).await.unwrap();
            let Some(to) = to else { return reply };
            assert!(reply.starts_with("250"), "{mail}: {reply}");
            client.command(&format!("RCPT TO:<{to}>")).await.unwrap()
        }
    };
    for (mail, to, expected) in [
        ("<a@x.example> SIZE=500000", Some("b@y.example"), "250 2.1.5 Ok"),
        (
            "<a@x.example> SIZE=600000",
            None,
            "552 5.3.4 the message has 600000 octets; no provider of the routes \"api\", \"rest\" takes more than 500000",
        ),
        ("<a@x.example> SIZE=2000000", None, "552 5.3.4 Message exceeds the maximum size; see SIZE in the answer to EHLO"),
        (
            "<a@x.example> SIZE=300000",
            Some("b@api.example"),
            "552 5.3.4 <b@api.example>: the message has 300000 octets; no provider of route \"api\" takes more than 200000",
        ),
        ("<a@lab.example> SIZE=150000", Some("b@y.example"), "250 2.1.5 Ok"),
        (
            "<a@lab.example> SIZE=150000 SMTPUTF8",
            None,
            "554 5.3.3 no single provider of the routes \"api\", \"lab\" takes a message with this size, SMTPUTF8 and reverse-path together",
        ),
        ("<a@x.example> SMTPUTF8", Some("b@api.example"), "550 5.6.7 <b@api.example>: no provider of route \"api\" carries SMTPUTF8"),
        ("<a@x.example> SMTPUTF8", Some("\u{fc}@api.example"), "553 5.6.7 <?@api.example>: no provider of route \"api\" carries SMTPUTF8"),
        ("<a@x.example>", Some("\u{fc}@y.example"), "553 5.6.7 An address outside ASCII needs the SMTPUTF8 parameter of MAIL"),
        ("<a@x.example>", Some("\u{fc}@api.example"), "553 5.6.7 <?@api.example>: no provider of route \"api\" carries SMTPUTF8"),
        ("<>", Some("b@y.example"), "250 2.1.5 Ok"),
        ("<>", Some("b@api.example"), "550 5.7.1 <b@api.example>: no provider of route \"api\" takes mail with the null reverse-path <>"),
    ] {
        assert_eq!(sent(mail, to).await, expected, "{mail} {to:?}");
    }
    bench.good.0.lock().smtputf8 = false;
    bench.old.0.lock().smtputf8 = false;
    let refused = sent("<a@x.example> SMTPUTF8", None).await;
    assert_eq!(refused, "550 5.6.7 no provider of the routes \"api\", \"rest\" carries SMTPUTF8");
}

#[tokio::test]
async fn a_stranger_hears_of_no_route() {
    let strangers = CONFIG.replace("[access]\n", "[access]\ntrusted_networks = [\"192.0.2.0/24\"]\n");
    let bench = Bench::of(&strangers).await;
    let mut client = bench.client().await;
    assert_eq!(client.command("MAIL FROM:<a@x.example> SIZE=600000").await.unwrap(), "250 2.1.0 Ok");
    assert_eq!(client.command("RCPT TO:<b@y.example>").await.unwrap(), "554 5.7.1 <b@y.example>: relay access denied for [127.0.0.1]");
}

#[tokio::test]
async fn a_message_that_turns_out_too_large_for_one_recipient_is_refused_and_does_not_bounce() {
    let bench = Bench::start().await;
    let content = |octets: usize| {
        let mut content = message("large");
        while content.len() < octets {
            content.extend_from_slice(b"Sixty-two letters of text, and each line is as long as that.\r\n");
        }
        content
    };
    let mut client = bench.client().await;
    let refused = client.send("<a@x.example>", &["b@y.example", "c@api.example"], &content(250_000)).await.unwrap();
    assert_eq!(refused, "552 5.3.4 <c@api.example>: the message is too large; no provider of route \"api\" takes more than 200000 octets");
    // The session goes on: without that recipient it fits, and with a smaller message both have it.
    let taken = client.send("<a@x.example>", &["b@y.example"], &content(250_000)).await.unwrap();
    assert!(taken.starts_with("250"), "{taken}");
    let taken = client.send("<a@x.example>", &["b@y.example", "c@api.example"], &content(150_000)).await.unwrap();
    assert!(taken.starts_with("250"), "{taken}");
    support::eventually("both messages have left", async || bench.gateway.counts().await.unwrap().messages == 0).await;
}
