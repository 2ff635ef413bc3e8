//! How mail ends that cannot be delivered, from end to end: who is told, what warns, what is kept for a
//! person, and that no notification ever causes another one.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use postrider::gateway::Gateway;
use postrider::sandbox::{Received, SandboxSmarthost, SmarthostMode, SmarthostSettings};
#[cfg(feature = "ses")]
use postrider::sandbox::{SandboxSes, SesSettings};
use postrider::spool::sqlite::SqliteSpool;
use support::client::Client;
use support::{eventually, gateway, parse, server, smarthost};

const CONTENT: &str = "From: <a@corp.example>\r\nSubject: offer\r\nMessage-ID: <1@corp.example>\r\n\r\nSecret text.\r\n";

/// An application that is known by its address, and everybody who can be told.
const EVERYBODY: &str = "[app.erp]\nnetworks = [\"127.0.0.1/32\"]\nowner = \"owner@corp.example\"\n\
     [bounce]\nnotify = [\"sender\", \"owner\", \"operator\"]\noperator = \"ops@corp.example\"\n";

async fn host() -> SandboxSmarthost {
    SandboxSmarthost::start(SmarthostSettings { keep_bodies: true, ..SmarthostSettings::default() }).await.unwrap()
}

/// Two smart hosts: `out` for mail, `back` for notifications.
fn two_ways(directory: &Path, out: &SandboxSmarthost, back: &SandboxSmarthost) -> String {
    [
        server(directory),
        smarthost("out", out.address().port()),
        smarthost("back", back.address().port()),
        "[[route]]\nname = \"back\"\nwhen = { null_sender = true }\nproviders = [\"smarthost.back\"]\n\
         [[route]]\nname = \"out\"\nproviders = [\"smarthost.out\"]\n"
            .to_owned(),
    ]
    .concat()
}

/// Sends a message; the recipient with its parameters.
async fn send(server: SocketAddr, sender: &str, recipient: &str) {
    let mut client = Client::connect(server).await.unwrap();
    for command in [format!("MAIL FROM:<{sender}>"), format!("RCPT TO:{recipient}")] {
        let reply = client.command(&command).await.unwrap();
        assert!(reply.starts_with("250"), "{command}: {reply}");
    }
    assert!(client.command("DATA").await.unwrap().starts_with("354"));
    let reply = client.command(&format!("{CONTENT}.")).await.unwrap();
    assert!(reply.starts_with("250"), "{reply}");
}

async fn is_empty(gateway: &Gateway<SqliteSpool>) {
    eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;
}

fn text(received: &Received) -> String {
    String::from_utf8(received.body.clone().unwrap().to_vec()).unwrap()
}

fn recipients(host: &SandboxSmarthost) -> Vec<String> {
    let mut recipients: Vec<String> = host.recorder().received().into_iter().flat_map(|received| received.recipients).collect();
    recipients.sort_unstable();
    recipients
}

#[tokio::test]
async fn a_bounce_is_told_to_the_sender_the_owner_and_the_operator_each_in_its_own_words() {
    let directory = tempfile::tempdir().unwrap();
    let (out, back) = (host().await, host().await);
    out.refuse("bob@example.net", "550 5.1.1 No such user");
    let gateway = gateway(&(two_ways(directory.path(), &out, &back) + EVERYBODY)).await;
    send(gateway.addresses()[0], "a@corp.example", "<bob@example.net>").await;
    back.recorder().reached(3).await;
    is_empty(&gateway).await;
    assert_eq!(recipients(&back), ["a@corp.example", "ops@corp.example", "owner@corp.example"]);
    for received in back.recorder().received() {
        let text = text(&received);
        assert_eq!(received.reverse_path, "");
        for expected in ["multipart/report", "550 5.1.1 No such user", "Final-Recipient: rfc822; bob@example.net", "Subject: offer"] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        let own = received.recipients[0] == "a@corp.example";
        assert_eq!(text.contains("The sender is told, too."), !own, "{text}");
        assert_eq!(text.contains("Application: erp"), !own, "{text}");
        assert!(!text.contains("Secret text"), "{text}");
    }
    assert_eq!(back.recorder().violations(), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_sender_may_not_or_does_not_want_to_hear_is_told_to_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let (out, back) = (host().await, host().await);
    out.refuse("bob@example.net", "550 5.1.1 No such user");
    back.refuse("none@example.net", "550 5.1.1 No such user");
    let gateway = gateway(&(two_ways(directory.path(), &out, &back) + EVERYBODY)).await;
    send(gateway.addresses()[0], "a@corp.example", "<bob@example.net> NOTIFY=NEVER").await;
    send(gateway.addresses()[0], "", "<none@example.net> NOTIFY=FAILURE").await;
    back.recorder().reached(4).await;
    is_empty(&gateway).await;
    assert_eq!(recipients(&back), ["ops@corp.example", "ops@corp.example", "owner@corp.example", "owner@corp.example"]);
    assert!(back.recorder().received().iter().all(|received| text(received).contains("The sender is not told.")));
}

#[tokio::test]
async fn what_can_be_neither_delivered_nor_told_is_kept_over_restarts_and_causes_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let (out, back) = (host().await, host().await);
    out.refuse("bob@example.net", "550 5.1.1 No such user");
    for address in ["a@corp.example", "owner@corp.example", "ops@corp.example", "none@example.net"] {
        back.refuse(address, "550 5.1.1 No such user");
    }
    let config = two_ways(directory.path(), &out, &back) + EVERYBODY;
    let first = gateway(&config).await;
    // Three notifications of it, all of which bounce.
    send(first.addresses()[0], "a@corp.example", "<bob@example.net>").await;
    let dead = async |gateway: &Gateway<SqliteSpool>| {
        let counts = gateway.counts().await.unwrap();
        (counts.messages, counts.dead, counts.held)
    };
    eventually("three dead letters", async || dead(&first).await == (3, 3, 3)).await;
    first.drain().await;
    let second = gateway(&config).await;
    send(second.addresses()[0], "a@corp.example", "<carol@example.net>").await;
    out.recorder().reached(1).await;
    eventually("they are still there", async || dead(&second).await == (3, 3, 3)).await;
    assert_eq!(back.recorder().count(), 0);
}

#[tokio::test]
async fn without_anybody_to_tell_mail_bounces_and_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (out, back) = (host().await, host().await);
    out.refuse("bob@example.net", "550 5.1.1 No such user");
    let gateway = gateway(&(two_ways(directory.path(), &out, &back) + "[bounce]\nnotify = []\n")).await;
    send(gateway.addresses()[0], "a@corp.example", "<bob@example.net>").await;
    send(gateway.addresses()[0], "a@corp.example", "<carol@example.net>").await;
    out.recorder().reached(1).await;
    is_empty(&gateway).await;
    assert_eq!(back.recorder().count(), 0);
}

#[tokio::test]
async fn a_sender_hears_once_that_mail_waits_whether_it_is_tried_or_only_waits() {
    for failover in ["trip_after = 1000", "trip_after = 1\nprobe_after = \"5s\"\nprobe_max = \"5s\""] {
        let directory = tempfile::tempdir().unwrap();
        let (out, back) = (host().await, host().await);
        out.set_mode(SmarthostMode::Down).await;
        let queue = format!("[queue]\nretry = [\"1s\"]\ndelay_warning_after = \"2s\"\n[failover]\n{failover}\n");
        let gateway = gateway(&(two_ways(directory.path(), &out, &back) + EVERYBODY + &queue)).await;
        send(gateway.addresses()[0], "a@corp.example", "<bob@example.net>").await;
        send(gateway.addresses()[0], "a@corp.example", "<bob@example.net> NOTIFY=FAILURE").await;
        back.recorder().reached(1).await;
        // Long enough for more tries than one.
        tokio::time::sleep(Duration::from_secs(3)).await;
        out.set_mode(SmarthostMode::Up).await;
        out.recorder().reached(2).await;
        is_empty(&gateway).await;
        assert_eq!(recipients(&back), ["a@corp.example"], "once, and nobody else: {failover}");
        let text = text(&back.recorder().received()[0]);
        for expected in ["Subject: Mail is delayed", "Action: delayed\r\nStatus: 4.", "Will-Retry-Until: ", "You need not send it again"] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }
}

#[tokio::test]
async fn a_flood_of_bounces_comes_to_the_owner_as_a_digest() {
    let directory = tempfile::tempdir().unwrap();
    let (out, back) = (host().await, host().await);
    out.refuse("bob@example.net", "550 5.1.1 No such user");
    let mut config = parse(
        &(two_ways(directory.path(), &out, &back)
            + "[app.erp]\nnetworks = [\"127.0.0.1/32\"]\nowner = \"owner@corp.example\"\n[bounce]\nnotify = [\"owner\"]\ndigest_after = 2\n"),
    );
    config.bounce.digest_every = Duration::from_secs(4);
    let gateway = Gateway::start(&config).await.unwrap();
    for _ in 0..6 {
        send(gateway.addresses()[0], "a@corp.example", "<bob@example.net>").await;
    }
    back.recorder().reached(3).await;
    is_empty(&gateway).await;
    let digests: Vec<String> = back.recorder().received().iter().map(text).filter(|text| text.contains("more messages")).collect();
    assert_eq!((digests.len(), recipients(&back)), (1, vec!["owner@corp.example".to_owned(); 3]));
    assert!(digests[0].contains("4  refused: 550 5.1.1") && digests[0].contains("4  example.net"), "{}", digests[0]);
}

#[cfg(feature = "ses")]
#[tokio::test]
async fn a_route_that_takes_no_null_reverse_path_carries_notifications_in_the_name_of_bounce_sender() {
    let directory = tempfile::tempdir().unwrap();
    let (out, ses) = (host().await, SandboxSes::start(SesSettings { keep_bodies: true, ..SesSettings::default() }).await.unwrap());
    out.refuse("bob@example.net", "550 5.1.1 No such user");
    let config = |bounce: &str| {
        [
            server(directory.path()),
            smarthost("out", out.address().port()),
            format!(
                "[provider.ses.x]\nregion = \"eu-west-1\"\nendpoint = \"{}\"\naccess_key_id = \"test\"\nsecret_access_key = \"test\"\n\
                 [[route]]\nname = \"back\"\nwhen = {{ null_sender = true }}\nproviders = [\"ses.x\"]\n\
                 [[route]]\nname = \"out\"\nproviders = [\"smarthost.out\"]\n{bounce}",
                ses.endpoint()
            ),
        ]
        .concat()
    };
    let without = gateway(&config("")).await;
    send(without.addresses()[0], "a@corp.example", "<bob@example.net>").await;
    eventually("a dead letter", async || without.counts().await.unwrap().dead == 1).await;
    without.drain().await;
    assert_eq!(ses.recorder().count(), 0);

    let with = gateway(&config("[bounce]\nsender = \"notifications@corp.example\"\n")).await;
    send(with.addresses()[0], "a@corp.example", "<bob@example.net>").await;
    ses.recorder().reached(1).await;
    eventually("nothing is left but the dead letter", async || with.counts().await.unwrap().messages == 1).await;
    let received = &ses.recorder().received()[0];
    assert_eq!(received.recipients, ["a@corp.example"]);
    assert!(text(received).contains("From: Mail Delivery System <notifications@corp.example>"), "{}", text(received));
}
