//! `kill -9` in the middle of a load, again and again: what was acknowledged arrives.
//!
//! `POSTRIDER_CRASH_ROUNDS=500 cargo test --test crash` runs it longer.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use support::client::{Client, message};
use support::process::Postrider;
use support::sink::Sink;
use support::{eventually, server, smarthost};

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
