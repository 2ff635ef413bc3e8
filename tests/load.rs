//! Postfix's generator and sink at both ends of the real program: nothing is lost, nothing doubled.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use support::process::Postrider;
use support::sink::{Sink, source};
use support::{eventually, server, smarthost};

const MESSAGES: usize = 10_000;

#[tokio::test]
async fn ten_thousand_messages_over_fifty_sessions_arrive_once_each() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start(&directory.path().join("sink"), &[]);
    let config = server(directory.path()) + &smarthost("sink", sink.port()) + "limits = { concurrency = 50 }\n";
    let postrider = Postrider::start(directory.path(), &config);
    source(postrider.address(), MESSAGES, 50, 4096).await;
    eventually("everything has arrived", async || sink.copies().len() == MESSAGES).await;
    assert!(postrider.terminate().success());
    let copies = sink.copies();
    let doubled = copies.values().filter(|copies| **copies > 1).count();
    assert_eq!((copies.len(), doubled), (MESSAGES, 0));
}
