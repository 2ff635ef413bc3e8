//! What happens when the first provider of a route fails, fault by fault.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::fmt::Write as _;

use postrider::sandbox::{SandboxSmarthost, SmarthostMode, SmarthostSettings};
use support::client::{message, send};
use support::{eventually, gateway, server, smarthost};

/// Short waits, so that a retry is seen; patience with silence is shorter still.
const IMPATIENT: &str = "timeouts = { connect = \"500ms\", command = \"500ms\", data = \"500ms\", final = \"2s\" }\n";
const TAIL: &str = "[[route]]\nname = \"default\"\nproviders = [\"smarthost.first\", \"smarthost.second\"]\n\
                    [queue]\nretry = [\"1s\"]\n[failover]\ntrip_after = 3\nprobe_after = \"500ms\"\nprobe_max = \"1s\"\n";

/// What became of one message that met a fault, before and after the first provider recovered.
async fn drill(mode: SmarthostMode, content: &[u8]) -> (usize, usize) {
    let directory = tempfile::tempdir().unwrap();
    let first = SandboxSmarthost::start(SmarthostSettings { mode, ..SmarthostSettings::default() }).await.unwrap();
    let second = SandboxSmarthost::start(SmarthostSettings::default()).await.unwrap();
    let config = [
        server(directory.path()),
        smarthost("first", first.address().port()) + IMPATIENT,
        smarthost("second", second.address().port()),
        TAIL.to_owned(),
    ]
    .concat();
    let gateway = gateway(&config).await;
    send(gateway.addresses()[0], "a@corp.example", &["b@example.net"], content).await;
    if mode == SmarthostMode::DropAfterDot {
        // In doubt: it stays with the first provider, which is asked again when it is well.
        first.recorder().reached(1).await;
        first.set_mode(SmarthostMode::Up).await;
    }
    eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;
    gateway.drain().await;
    assert!(first.recorder().violations().is_empty() && second.recorder().violations().is_empty());
    (first.recorder().count(), second.recorder().count())
}

#[tokio::test]
async fn each_fault_of_the_first_provider_ends_where_the_truth_table_says() {
    let small = message("small");
    // So large that content is still to be sent when the connection is dropped.
    let large = [message("large"), b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789\r\n".repeat(100_000)].concat();
    let mut table = String::from("fault of the first provider      | copies at first | at second\n");
    for (fault, mode, content) in [
        ("none", SmarthostMode::Up, &small),
        ("refuses connections", SmarthostMode::Down, &small),
        ("hangs after connect", SmarthostMode::Hang, &small),
        ("answers 421", SmarthostMode::Busy, &small),
        ("answers 451 to DATA", SmarthostMode::Defer, &small),
        ("drops the connection at DATA", SmarthostMode::DropAtData, &small),
        ("drops it before the final dot", SmarthostMode::DropBeforeDot, &large),
        ("drops it after the final dot", SmarthostMode::DropAfterDot, &small),
    ] {
        let (first, second) = drill(mode, content).await;
        writeln!(table, "{fault:<32} | {first:>15} | {second:>9}").unwrap();
    }
    // Two copies in the last line: the sandbox keeps what it took before it dropped the connection,
    // and takes it again. Nobody else ever gets it.
    assert_eq!(
        table,
        "\
fault of the first provider      | copies at first | at second
none                             |               1 |         0
refuses connections              |               0 |         1
hangs after connect              |               0 |         1
answers 421                      |               0 |         1
answers 451 to DATA              |               0 |         1
drops the connection at DATA     |               0 |         1
drops it before the final dot    |               0 |         1
drops it after the final dot     |               2 |         0
"
    );
}

#[tokio::test]
async fn mail_flows_back_when_the_first_provider_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let first = SandboxSmarthost::start(SmarthostSettings { mode: SmarthostMode::Down, ..SmarthostSettings::default() }).await.unwrap();
    let second = SandboxSmarthost::start(SmarthostSettings::default()).await.unwrap();
    let config = [
        server(directory.path()),
        smarthost("first", first.address().port()),
        smarthost("second", second.address().port()),
        TAIL.to_owned(),
    ];
    let gateway = gateway(&config.concat()).await;
    for number in 0..5 {
        send(gateway.addresses()[0], "a@corp.example", &["b@example.net"], &message(&number.to_string())).await;
    }
    second.recorder().reached(5).await;
    first.set_mode(SmarthostMode::Up).await;
    let mut number = 5;
    eventually("the first provider takes mail again", async || {
        send(gateway.addresses()[0], "a@corp.example", &["b@example.net"], &message(&number.to_string())).await;
        number += 1;
        first.recorder().count() > 0
    })
    .await;
    eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;
    assert_eq!(first.recorder().count() + second.recorder().count(), number);
}

#[tokio::test]
async fn mail_waits_while_every_provider_is_down_and_none_is_refused_at_the_door() {
    let directory = tempfile::tempdir().unwrap();
    let down = SmarthostSettings { mode: SmarthostMode::Down, ..SmarthostSettings::default() };
    let first = SandboxSmarthost::start(down.clone()).await.unwrap();
    let second = SandboxSmarthost::start(down).await.unwrap();
    let config = [
        server(directory.path()),
        smarthost("first", first.address().port()),
        smarthost("second", second.address().port()),
        TAIL.to_owned(),
    ];
    let gateway = gateway(&config.concat()).await;
    for number in 0..20 {
        send(gateway.addresses()[0], "a@corp.example", &["b@example.net"], &message(&number.to_string())).await;
    }
    assert_eq!(gateway.counts().await.unwrap().messages, 20);
    second.set_mode(SmarthostMode::Up).await;
    second.recorder().reached(20).await;
    eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;
    assert_eq!((first.recorder().count(), second.recorder().count()), (0, 20));
}

#[tokio::test]
async fn a_refused_recipient_bounces_and_the_others_get_the_message() {
    let directory = tempfile::tempdir().unwrap();
    let host = SandboxSmarthost::start(SmarthostSettings { keep_bodies: true, ..SmarthostSettings::default() }).await.unwrap();
    host.refuse("nobody@example.net", "550 5.1.1 No such user");
    let config = [server(directory.path()), smarthost("only", host.address().port())].concat();
    let gateway = gateway(&config).await;
    send(gateway.addresses()[0], "a@corp.example", &["b@example.net", "nobody@example.net", "c@example.net"], &message("x")).await;
    host.recorder().reached(2).await;
    eventually("the queue is empty", async || gateway.counts().await.unwrap().messages == 0).await;
    let mut received = host.recorder().received();
    received.sort_by_key(|received| received.reverse_path.is_empty());
    assert_eq!(received[0].recipients, ["b@example.net", "c@example.net"]);
    assert_eq!((received[1].reverse_path.as_str(), &received[1].recipients[..]), ("", &["a@corp.example".to_owned()][..]));
    let notification = String::from_utf8_lossy(received[1].body.as_ref().unwrap()).into_owned();
    assert!(
        notification.contains("Final-Recipient: rfc822; nobody@example.net") && notification.contains("550 5.1.1 No such user"),
        "{notification}"
    );
}
