//! The dialogue with a smart host, where it or the message is not as one would wish.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

use std::time::Duration;

use postrider_providers::conformance::attempt;
use postrider_providers::conformance::smart_host::{Action, FakeSmartHost, Script, Step};
use postrider_providers::contract::{Delivery, Failure, ProviderName};
use postrider_providers::registry::{Context, Settings as _};
use postrider_providers::smarthost;
use serde_json::json;

/// Hands one message over to a host that follows `script`.
async fn deliver(script: Script, content: &[u8]) -> (Delivery, FakeSmartHost) {
    let host = FakeSmartHost::start(script).await.unwrap();
    let config = json!({ "host": "127.0.0.1", "port": host.address.port(), "tls": "off" });
    let config: smarthost::Config = serde_json::from_value(config).unwrap();
    let context = Context::new("relay.example").unwrap();
    let provider = config.connect(ProviderName::new("smarthost", "subject"), &context).unwrap().provider;
    (provider.deliver(attempt(content, Duration::from_secs(60))).await, host)
}

#[tokio::test]
async fn a_refusal_in_one_packet_with_the_go_ahead_is_heard_and_nothing_is_sent() {
    const REFUSAL: &str = "354 go ahead\r\n554 5.7.1 not this one";
    for action in [Action::Reply(REFUSAL.to_owned()), Action::ReplyAndClose(REFUSAL.to_owned())] {
        let (delivery, host) = deliver(Script::modern().on(Step::Data, action.clone()), b"Subject: x\r\n\r\ntext\r\n").await;
        let Err(Failure::Rejected(diagnostic)) = delivery else { panic!("{action:?}: {delivery:?}") };
        assert_eq!((diagnostic.code, diagnostic.text.as_str()), (Some(554), "5.7.1 not this one"), "{action:?}");
        assert_eq!(host.log().messages, [], "{action:?}");
    }
}

#[tokio::test]
async fn content_outside_ascii_is_declared_where_the_host_knows_it_though_the_client_did_not() {
    const SEVEN: &[u8] = b"Subject: x\r\n\r\ntext\r\n";
    const EIGHT: &[u8] = b"Subject: x\r\n\r\nGr\xfc\xdfe\r\n";
    for (extensions, content, declared) in
        [(&["8BITMIME"][..], SEVEN, false), (&["8BITMIME"], EIGHT, true), (&["PIPELINING"], SEVEN, false), (&["PIPELINING"], EIGHT, false)]
    {
        let (delivery, host) = deliver(Script::offering(extensions), content).await;
        assert!(matches!(&delivery, Ok(report) if report.outcomes.iter().all(|(_, outcome)| outcome.name() == "relayed")), "{delivery:?}");
        let [taken] = &host.log().messages[..] else { panic!("{:?}", host.log()) };
        assert_eq!((taken.mail.ends_with(" BODY=8BITMIME"), &taken.content[..]), (declared, content), "{extensions:?}");
    }
}
