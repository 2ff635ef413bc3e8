//! The smart host, against a scripted one.

use postrider_providers::conformance::smart_host::{Action, FakeSmartHost, Script, Step};
use postrider_providers::conformance::{Arranged, Arranging, Behaviour, Seen, SeenContent, Subject, nobody};
use postrider_providers::smarthost;
use serde_json::json;

use super::connect;

/// The smart host.
pub struct SmartHost;

impl Subject for SmartHost {
    fn kind(&self) -> &'static str {
        "smarthost"
    }

    fn arrange(&self, behaviour: Behaviour) -> Arranging<'_> {
        Box::pin(async move {
            let plain = Script::modern();
            let script = match behaviour {
                Behaviour::Accepts | Behaviour::RefusesConnections => plain,
                Behaviour::RefusesOneRecipient => plain.on_containing(Step::Rcpt, "refused@", Action::reply("550 5.1.1 no such mailbox")),
                Behaviour::HangsBeforeTheMessage => plain.on(Step::Greeting, Action::Hang),
                Behaviour::ClosesInTheMessage => plain.on(Step::Content, Action::Close),
                Behaviour::ClosesAfterTheMessage => plain.on(Step::FinalDot, Action::Close),
                Behaviour::HangsAfterTheMessage => plain.on(Step::FinalDot, Action::Hang),
                Behaviour::AnswersNonsense => plain.on(Step::FinalDot, Action::reply("<html>")),
                Behaviour::Throttles => plain.on(Step::Mail, Action::reply("451 4.7.0 too many messages, slow down")),
                Behaviour::RefusesTheCredential => plain.on(Step::Mail, Action::reply("530 5.7.0 Authentication required")),
                Behaviour::RefusesTheSender => plain.on(Step::Mail, Action::reply("550 5.7.1 not your address")),
                Behaviour::RefusesTheContent => plain.on(Step::FinalDot, Action::reply("554 5.6.0 no")),
            };
            let host = FakeSmartHost::start(script).await.unwrap();
            let address = if behaviour == Behaviour::RefusesConnections { nobody().await } else { host.address };
            let config: smarthost::Config = serde_json::from_value(json!({
                "host": "127.0.0.1", "port": address.port(), "tls": "off",
                "timeouts": { "command": if behaviour == Behaviour::HangsBeforeTheMessage { "500ms" } else { "20s" } },
            }))
            .unwrap();
            let taken = move || {
                let taken = |message| {
                    let postrider_providers::conformance::smart_host::Received { recipients, content, .. } = message;
                    Seen { recipients, content: SeenContent::Raw(content) }
                };
                host.log().messages.into_iter().map(taken).collect()
            };
            Some(Arranged { provider: connect("smarthost", &config), taken: Box::new(taken) })
        })
    }
}
