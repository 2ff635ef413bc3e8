//! What a smart host says at moments when it should be silent.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

use std::time::Duration;

use postrider_providers::conformance::attempt;
use postrider_providers::conformance::smart_host::{Action, FakeSmartHost, Script, Step};
use postrider_providers::contract::{Delivery, Failure, ProviderName};
use postrider_providers::registry::{Context, Settings as _};
use postrider_providers::smarthost;
use serde_json::json;

/// Hands one message over to a host that follows `script`.
async fn deliver(script: Script) -> (Delivery, FakeSmartHost) {
    let host = FakeSmartHost::start(script).await.unwrap();
    let config = json!({ "host": "127.0.0.1", "port": host.address.port(), "tls": "off" });
    let config: smarthost::Config = serde_json::from_value(config).unwrap();
    let context = Context::new("relay.example").unwrap();
    let provider = config.connect(ProviderName::new("smarthost", "subject"), &context).unwrap().provider;
    (provider.deliver(attempt(b"Subject: x\r\n\r\ntext\r\n", Duration::from_secs(60))).await, host)
}

#[tokio::test]
async fn a_refusal_in_one_packet_with_the_go_ahead_is_heard_and_nothing_is_sent() {
    const REFUSAL: &str = "354 go ahead\r\n554 5.7.1 not this one";
    for action in [Action::Reply(REFUSAL.to_owned()), Action::ReplyAndClose(REFUSAL.to_owned())] {
        let (delivery, host) = deliver(Script::modern().on(Step::Data, action.clone())).await;
        let Err(Failure::Rejected(diagnostic)) = delivery else { panic!("{action:?}: {delivery:?}") };
        assert_eq!((diagnostic.code, diagnostic.text.as_str()), (Some(554), "5.7.1 not this one"), "{action:?}");
        assert_eq!(host.log().messages, [], "{action:?}");
    }
}
