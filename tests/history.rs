//! What happened to messages is known afterwards, whatever happened to the program.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider::gateway::Gateway;
use postrider::history::{Event, Past, PastState, Query, Trace};
use postrider::sandbox::{SandboxSmarthost, SmarthostMode, SmarthostSettings};
use postrider::spool::sqlite::SqliteSpool;
use support::client::{Client, message, send};
use support::process::Postrider;
use support::sink::Sink;
use support::{eventually, gateway, server, smarthost};

async fn host(mode: SmarthostMode) -> SandboxSmarthost {
    SandboxSmarthost::start(SmarthostSettings { mode, ..SmarthostSettings::default() }).await.unwrap()
}

/// The only message to this recipient, once it has left the queue.
async fn ended(gateway: &Gateway<SqliteSpool>, recipient: &str) -> Trace {
    let query = Query { recipient: Some(recipient.to_owned()), ..Query::default() };
    let mut found: Vec<Past> = Vec::new();
    eventually("the message is in the history", async || {
        found = gateway.history().search(&query).await.unwrap_or_default();
        found.iter().any(|past| past.ended.is_some())
    })
    .await;
    assert_eq!(found.len(), 1, "{found:?}");
    gateway.history().trace(found[0].id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_trace_tells_of_the_failover_and_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (host(SmarthostMode::Busy).await, host(SmarthostMode::Up).await);
    let route = "[[route]]\nname = \"default\"\nproviders = [\"smarthost.first\", \"smarthost.second\"]\n";
    let config = [
        server(directory.path()),
        smarthost("first", first.address().port()),
        smarthost("second", second.address().port()),
        route.to_owned(),
    ]
    .concat();
    let running = gateway(&config).await;
    send(running.addresses()[0], "a@corp.example", &["b@example.net"], &message("one")).await;
    let trace = ended(&running, "b@EXAMPLE.net").await;
    let attempts: Vec<(&str, &str, bool)> = trace
        .events
        .iter()
        .filter_map(|moment| match &moment.event {
            Event::Attempt { provider, verdict, words, .. } => Some((provider.as_str(), verdict.as_str(), words.is_empty())),
            _ => None,
        })
        .collect();
    assert_eq!(attempts, [("smarthost.first", "unavailable", false), ("smarthost.second", "relayed", false)]);
    let Event::Relayed { provider, .. } = &trace.events.last().unwrap().event else { panic!("{trace:?}") };
    assert_eq!(provider, "smarthost.second");
    assert_eq!((trace.past.state, trace.past.about.sender.as_str()), (PastState::Relayed, "a@corp.example"));
    running.drain().await;

    let again = gateway(&config).await;
    assert_eq!(ended(&again, "b@example.net").await, trace);
    again.drain().await;
}

#[tokio::test]
async fn with_no_time_to_keep_it_nothing_is_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let up = host(SmarthostMode::Up).await;
    let config = [server(directory.path()), smarthost("up", up.address().port()), "[history]\nkeep = \"0s\"\n".to_owned()].concat();
    let running = gateway(&config).await;
    send(running.addresses()[0], "a@corp.example", &["b@example.net"], &message("one")).await;
    eventually("it is relayed", async || running.counts().await.unwrap().messages == 0).await;
    running.drain().await;
    assert!(!directory.path().join("history.db").exists());
}

/// How many times the program is killed.
const ROUNDS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn each_message_that_was_acknowledged_has_one_history_after_any_number_of_kills() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start(&directory.path().join("sink"), &[]);
    let config =
        [server(directory.path()), smarthost("sink", sink.port()), "limits = { concurrency = 5 }\n[queue]\nretry = [\"1s\"]\n".to_owned()]
            .concat();
    let accepted: Arc<Mutex<HashSet<String>>> = Arc::default();
    for round in 0..ROUNDS {
        let postrider = Postrider::start(directory.path(), &config);
        let (address, noted) = (postrider.address(), Arc::clone(&accepted));
        let sending = tokio::spawn(async move {
            let Ok(mut client) = Client::connect(address).await else { return };
            for number in 0.. {
                let recipient = format!("r{round}-{number}@example.net");
                match client.send("<app@corp.example>", &[&recipient], &message("x")).await {
                    Ok(reply) if reply.starts_with("250") => noted.lock().insert(recipient),
                    Ok(_) | Err(_) => return,
                };
            }
        });
        // Long enough for records to be on their way, and another moment each time.
        let (start, patience) = (accepted.lock().len() + 20 + 13 * round, Duration::from_millis(170 * round as u64));
        eventually("enough was accepted", async || accepted.lock().len() >= start).await;
        tokio::time::sleep(patience).await;
        postrider.kill();
        sending.await.unwrap();
    }
    let running = gateway(&config).await;
    eventually("the queue is empty", async || running.counts().await.unwrap().messages == 0).await;
    let accepted = std::mem::take(&mut *accepted.lock());
    println!("{} messages were acknowledged", accepted.len());
    for recipient in &accepted {
        let trace = ended(&running, recipient).await;
        let relayed = trace.events.iter().filter(|moment| matches!(moment.event, Event::Relayed { .. })).count();
        assert_eq!((relayed, trace.past.state), (1, PastState::Relayed), "{trace:?}");
        assert_eq!(trace.past.about.sender, "app@corp.example");
    }
    running.drain().await;
}
