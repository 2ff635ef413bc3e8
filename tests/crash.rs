//! `kill -9` in the middle of a load, again and again: what was acknowledged arrives.
//!
//! `POSTRIDER_CRASH_ROUNDS=500 cargo test --test crash` runs it longer.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::Value;
use support::client::{Client, message, send};
use support::process::Postrider;
use support::sink::Sink;
use support::{eventually, free_port, server, smarthost};

/// How many times the program is killed.
fn rounds() -> usize {
    std::env::var("POSTRIDER_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(50)
}

/// Sessions that send at the same time.
const SENDERS: usize = 8;

/// Handovers at the same time: as many messages may be in flight when the program is killed.
const CONCURRENCY: usize = 10;

/// Sends until the server goes away; every recipient that got a 250 is noted.
async fn send_until_killed(server: SocketAddr, next: Arc<AtomicUsize>, accepted: Arc<Mutex<HashSet<String>>>) {
    let Ok(mut client) = Client::connect(server).await else { return };
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let recipient = format!("r{number}@example.net");
        match client.send("<app@corp.example>", &[&recipient], &message(&number.to_string())).await {
            Ok(reply) if reply.starts_with("250") => accepted.lock().insert(recipient),
            Ok(_) | Err(_) => return,
        };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_message_survives_and_only_what_was_in_flight_is_doubled() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start(&directory.path().join("sink"), &[]);
    let config = [
        server(directory.path()),
        smarthost("sink", sink.port()),
        format!("limits = {{ concurrency = {CONCURRENCY} }}\n[queue]\nretry = [\"1s\"]\n"),
    ]
    .concat();
    let (next, accepted) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(HashSet::new())));
    let rounds = rounds();
    for round in 0..rounds {
        let postrider = Postrider::start(directory.path(), &config);
        let senders: Vec<_> =
            (0..SENDERS).map(|_| tokio::spawn(send_until_killed(postrider.address(), Arc::clone(&next), Arc::clone(&accepted)))).collect();
        // The moment differs from round to round: after so many more messages.
        let more = accepted.lock().len() + 20 + (round * 37) % 200;
        eventually("enough was accepted", async || accepted.lock().len() >= more).await;
        postrider.kill();
        for sender in senders {
            sender.await.unwrap();
        }
    }
    let postrider = Postrider::start(directory.path(), &config);
    let accepted = std::mem::take(&mut *accepted.lock());
    eventually("every acknowledged message has arrived", async || {
        let copies = sink.copies();
        accepted.iter().all(|recipient| copies.contains_key(recipient))
    })
    .await;
    assert!(postrider.terminate().success());
    let copies = sink.copies();
    let lost = accepted.iter().filter(|recipient| !copies.contains_key(*recipient)).count();
    let doubled: usize = copies.values().map(|copies| copies - 1).sum();
    println!(
        "{rounds} kills, {} acknowledged, {lost} lost, {doubled} doubled (at most {} were in flight)",
        accepted.len(),
        rounds * CONCURRENCY
    );
    assert_eq!(lost, 0);
    assert!(doubled <= rounds * CONCURRENCY, "{doubled} doubles are more than were in flight");
}

/// What a command says as JSON about the gateway with the config in this directory.
fn asked(directory: &Path, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    let output = command.args(arguments).arg("--json").env("POSTRIDER_CONFIG", directory.join("postrider.toml")).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_of_a_quota_is_not_forgotten_when_the_program_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let sink = Sink::start(&directory.join("sink"), &[]);
    let config = [
        server(directory),
        smarthost("sink", sink.port()),
        format!("limits = {{ quota = \"5/hour\" }}\n[admin]\nbind = \"127.0.0.1:{}\"\n", free_port()),
    ]
    .concat();
    let submit = async |server: SocketAddr, numbers: std::ops::Range<usize>| {
        for number in numbers {
            send(server, "app@corp.example", &[&format!("r{number}@example.net")], &message(&number.to_string())).await;
        }
    };
    let postrider = Postrider::start(directory, &config);
    submit(postrider.address(), 0..3).await;
    // Not while one is being handed over, which would be in doubt.
    eventually("three have gone", async || sink.copies().len() == 3 && asked(directory, &["queue"])["messages"] == 0).await;
    postrider.kill();

    let postrider = Postrider::start(directory, &config);
    submit(postrider.address(), 3..8).await;
    let mut quota = Value::Null;
    eventually("the quota is used up", async || {
        quota = asked(directory, &["providers", "show", "smarthost.sink"])["limits"][0].clone();
        sink.copies().len() == 5 && quota["left"] == 0
    })
    .await;
    assert_eq!((&quota["used"], &quota["count"]), (&Value::from(5), &Value::from(5)));
    assert!(quota["next"].is_string(), "the next one has its time: {quota}");
    eventually("three wait", async || asked(directory, &["queue"])["messages"] == 3).await;
    assert!(postrider.terminate().success());
    assert_eq!(sink.copies().values().sum::<usize>(), 5, "{:?}", sink.copies());
}
