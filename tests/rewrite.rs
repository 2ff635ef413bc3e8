//! Mail in another name, through a whole gateway: a provider gets its verified sender, a route has one for the
//! rest, large messages included, and what bounces comes back to whoever sent it.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use postrider_providers::conformance::http_api::{Answer, FakeApi};
use postrider_providers::conformance::smart_host::{FakeSmartHost, Script};
use support::client::send;
use support::{eventually, gateway, server, smarthost};

const ROUTE: &str = "[[route]]\nname = \"all\"\n\
    rewrite = { from = \"noreply@relay.example\", envelope = \"bounces@relay.example\", except = [\"@kept.example\"] }\n";

#[tokio::test]
async fn a_smart_host_gets_the_verified_sender_and_every_other_octet_as_it_was() {
    let host = FakeSmartHost::start(Script::modern()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config =
        [server(directory.path()), smarthost("x", host.address.port()), ROUTE.to_owned(), "providers = [\"smarthost.x\"]\n".to_owned()];
    let gateway = gateway(&config.concat()).await;
    // So large that it is a file in the spool.
    let rest =
        [b"Subject: s\r\nX-Odd : \r\n kept\r\n\r\nFrom: text\r\n".to_vec(), b"0123456789\r\n..\r\n\xff\r\n".repeat(100_000)].concat();
    let content = |from: &str| [from.as_bytes(), &rest].concat();
    let mail = [
        ("app@corp.example", "From: =?utf-8?q?J=C3=BCrg?= <app@corp.example>\r\nSender: x@corp.example\r\n"),
        ("app@kept.example", "From: app@kept.example\r\nSender: x@corp.example\r\n"),
    ];
    for (sender, from) in mail {
        send(gateway.addresses()[0], sender, &["b@example.net"], &content(from)).await;
        eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;
    }
    let log = host.log();
    let [changed, kept] = log.messages.as_slice() else { panic!("{} messages", log.messages.len()) };
    assert!(changed.mail.starts_with("MAIL FROM:<bounces@relay.example>"), "{}", changed.mail);
    let expected = content("From: =?utf-8?q?J=C3=BCrg?= <noreply@relay.example>\r\nReply-To: =?utf-8?q?J=C3=BCrg?= <app@corp.example>\r\n");
    assert!(changed.content.starts_with(b"Received: ") && changed.content.ends_with(&expected));
    assert!(kept.mail.starts_with("MAIL FROM:<app@kept.example>") && kept.content.ends_with(&content(mail[1].1)));
}

#[tokio::test]
async fn a_provider_has_a_name_of_its_own_and_what_bounces_comes_back_to_the_sender() {
    let refused = Answer::json(400, r#"{"errors":[{"message":"no","field":"subject"}]}"#);
    let api = FakeApi::start([refused]).await.unwrap();
    let host = FakeSmartHost::start(Script::modern()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = [
        server(directory.path()),
        format!("[provider.sendgrid.x]\napi_key = \"SG.key\"\nendpoint = \"{}\"\nrewrite = {{ from = \"news@sg.example\" }}\n", api.url()),
        smarthost("x", host.address.port()),
        "[[route]]\nname = \"bounces\"\nwhen = { null_sender = true }\nproviders = [\"smarthost.x\"]\n".to_owned(),
        ROUTE.to_owned(),
        "providers = [\"sendgrid.x\"]\n".to_owned(),
    ];
    let gateway = gateway(&config.concat()).await;
    let content = b"From: App <app@corp.example>\r\nSubject: s\r\n\r\ntext\r\n";
    send(gateway.addresses()[0], "app@corp.example", &["b@example.net"], content).await;
    eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;
    let requests = api.requests();
    let told = requests[0].0.json();
    assert_eq!(told["from"]["email"], "news@sg.example", "{told}");
    assert_eq!(told["from"]["name"], "App", "{told}");
    let log = host.log();
    assert_eq!(log.messages.len(), 1);
    assert!(log.messages[0].mail.starts_with("MAIL FROM:<>"));
    assert_eq!(log.messages[0].recipients, ["app@corp.example"]);
    let notification = String::from_utf8_lossy(&log.messages[0].content);
    assert!(
        notification.contains("From: App <app@corp.example>") && !notification.contains("news@sg.example"),
        "what is returned was not changed"
    );
}
