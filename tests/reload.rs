//! The config is changed while mail flows.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use postrider::dispatch::CircuitState;
use postrider::gateway::{Gateway, ReloadError};
use postrider::sandbox::{SandboxSmarthost, SmarthostMode, SmarthostSettings};
use postrider::spool::sqlite::SqliteSpool;
use support::client::{Client, message, send};
use support::{eventually, gateway, parse, server, smarthost};

async fn provider() -> SandboxSmarthost {
    SandboxSmarthost::start(SmarthostSettings::default()).await.unwrap()
}

fn route(providers: &[&str]) -> String {
    let list: Vec<String> = providers.iter().map(|name| format!("\"smarthost.{name}\"")).collect();
    format!("[[route]]\nname = \"default\"\nproviders = [{}]\n[queue]\nretry = [\"1s\"]\n", list.join(", "))
}

/// The whole of a config: the server, these providers, and a route over all of them.
fn config(directory: &std::path::Path, providers: &[(&str, &SandboxSmarthost)]) -> String {
    let tables = providers.iter().map(|(name, host)| smarthost(name, host.address().port()));
    let names: Vec<&str> = providers.iter().map(|(name, _)| *name).collect();
    [server(directory), tables.collect(), route(&names)].concat()
}

async fn is_empty(gateway: &Gateway<SqliteSpool>) -> bool {
    gateway.counts().await.unwrap().messages == 0
}

/// Sends messages one after another until told to stop, and says which were acknowledged.
async fn load(address: SocketAddr, sender: usize, stop: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> Vec<String> {
    let mut client = Client::connect(address).await.unwrap();
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let id = format!("{sender}.{}", acknowledged.len());
        let reply = client.send("<a@corp.example>", &[&format!("{id}@example.net")], &message(&id)).await.unwrap();
        assert!(reply.starts_with("250"), "{reply}");
        acknowledged.push(id);
        count.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_nothing_is_lost_or_doubled_while_the_config_changes() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (provider().await, provider().await);
    let configs = [
        config(directory.path(), &[("one", &one)]),
        config(directory.path(), &[("two", &two)]),
        config(directory.path(), &[("one", &one), ("two", &two)]) + "[limits.sending_domain]\ndefault = \"500/s\"\n",
        config(directory.path(), &[("two", &two), ("one", &one)]) + "[failover]\ntrip_after = 2\n",
    ];
    let gateway = gateway(&configs[0]).await;
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let address = gateway.addresses()[0];
    let senders: Vec<_> = (0..4).map(|sender| tokio::spawn(load(address, sender, Arc::clone(&stop), Arc::clone(&count)))).collect();
    for turn in 1..=40 {
        // Mail has passed under each of them.
        let before = count.load(Ordering::Relaxed);
        eventually("mail flows", async || count.load(Ordering::Relaxed) >= before + 5).await;
        let changes = gateway.reload(parse(&configs[turn % configs.len()])).await.unwrap();
        assert!(!changes.lines().is_empty());
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = HashSet::new();
    for sender in senders {
        // Each is one session, which lived through all of it.
        acknowledged.extend(sender.await.unwrap());
    }
    eventually("the queue is empty", async || is_empty(&gateway).await).await;
    let mut arrived: Vec<String> = [&one, &two]
        .iter()
        .flat_map(|host| host.recorder().received())
        .flat_map(|message| message.recipients.clone())
        .map(|recipient| recipient.trim_end_matches("@example.net").to_owned())
        .collect();
    arrived.sort();
    let mut expected: Vec<String> = acknowledged.into_iter().collect();
    expected.sort();
    assert_eq!(arrived, expected, "each exactly once");
    assert!(one.recorder().count() > 0 && two.recorder().count() > 0, "both were in use");
    gateway.drain().await;
}

#[tokio::test]
async fn a_session_keeps_its_rules_and_the_next_one_has_the_new() {
    let directory = tempfile::tempdir().unwrap();
    let one = provider().await;
    let before = config(directory.path(), &[("one", &one)]);
    let gateway = gateway(&before).await;
    let address = gateway.addresses()[0];
    let mut old = Client::connect(address).await.unwrap();
    gateway.reload(parse(&(before + "[access]\ntrusted_networks = [\"192.0.2.0/24\"]\n"))).await.unwrap();
    let mut new = Client::connect(address).await.unwrap();
    let reply = new.send("<a@corp.example>", &["b@example.net"], &message("new")).await.unwrap();
    assert!(reply.starts_with('5'), "{reply}");
    let reply = old.send("<a@corp.example>", &["b@example.net"], &message("old")).await.unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    one.recorder().reached(1).await;
    gateway.drain().await;
}

#[tokio::test]
async fn what_is_queued_follows_the_new_routes_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (provider().await, provider().await);
    // An hour is longer than this test waits: only the reload can let the second message go.
    let slow = "[provider.smarthost.one.limits]\nrate = \"1/h\"\n";
    let before = [server(directory.path()), smarthost("one", one.address().port()), slow.to_owned(), route(&["one"])].concat();
    let gateway = gateway(&before).await;
    for id in ["first", "second"] {
        send(gateway.addresses()[0], "a@corp.example", &["b@example.net"], &message(id)).await;
    }
    one.recorder().reached(1).await;
    let changes = gateway.reload(parse(&config(directory.path(), &[("two", &two)]))).await.unwrap();
    let text = changes.lines().join("\n");
    assert!(text.contains("provider smarthost.one removed") && text.contains("provider smarthost.two added"), "{text}");
    assert!(text.contains("route default changed: providers [smarthost.one] -> [smarthost.two]"), "{text}");
    two.recorder().reached(1).await;
    eventually("the queue is empty", async || is_empty(&gateway).await).await;
    assert_eq!((one.recorder().count(), two.recorder().count()), (1, 1));
    gateway.drain().await;
}

#[tokio::test]
async fn circuits_and_what_was_used_of_limits_outlive_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let (down, limited) = (provider().await, provider().await);
    down.set_mode(SmarthostMode::Down).await;
    let write = |quota: &str, trip_after: u32| {
        let limits = format!("[provider.smarthost.limited.limits]\nquota = \"{quota}\"\n");
        let tables = [smarthost("down", down.address().port()), smarthost("limited", limited.address().port()), limits];
        let tail = format!("[failover]\ntrip_after = {trip_after}\nprobe_after = \"1h\"\nprobe_max = \"1h\"\n");
        [server(directory.path()), tables.concat(), route(&["down", "limited"]), tail].concat()
    };
    let gateway = gateway(&write("2/day", 1)).await;
    let address = gateway.addresses()[0];
    for id in ["first", "second"] {
        send(address, "a@corp.example", &["b@example.net"], &message(id)).await;
    }
    limited.recorder().reached(2).await;
    gateway.reload(parse(&write("3/day", 2))).await.unwrap();
    for id in ["third", "fourth"] {
        send(address, "a@corp.example", &["b@example.net"], &message(id)).await;
    }
    limited.recorder().reached(3).await;
    let is_open = |gateway: &Gateway<SqliteSpool>| matches!(gateway.circuits()[0].1.state(), CircuitState::Open { .. });
    assert!(is_open(&gateway), "nobody has asked it again");
    // The fourth waits: of three a day, two were used before the change.
    eventually("one waits", async || gateway.counts().await.unwrap().messages == 1).await;
    assert_eq!(limited.recorder().count(), 3);
    gateway.drain().await;
}

#[tokio::test]
async fn a_config_that_is_no_good_changes_nothing_and_what_is_wrong_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let one = provider().await;
    let good = config(directory.path(), &[("one", &one)]);
    let gateway = gateway(&good).await;
    let file = directory.path().join("postrider.toml");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = format!("[[listener]]\nbind = \"{}\"\n", taken.local_addr().unwrap());
    let unreadable = "[[listener]]\nbind = \"127.0.0.1:0\"\ntls = \"required\"\ncertificate = \"/nowhere/cert.pem\"\nprivate_key = \"/nowhere/key.pem\"\n";
    let secret = good.replace("tls = \"off\"\n", "tls = \"off\"\nusername = \"u\"\npassword = { file = \"/nowhere/secret\" }\n");
    for (what, text, expected) in [
        ("no TOML", "[server\n".to_owned(), "postrider.toml"),
        ("a typo", good.replace("providers", "provider"), "provider"),
        ("an unknown provider", good.replace("\"smarthost.one\"", "\"smarthost.two\""), "smarthost.two"),
        ("an address that is taken", good.clone() + &busy, "cannot listen"),
        ("a certificate that is not there", good.clone() + unreadable, "/nowhere/cert.pem"),
        ("a secret that is not there", secret, "/nowhere/secret"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = gateway.reload_file(&file).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
        let last = gateway.last_reload();
        assert_eq!(last.generation, 1, "{what}");
        assert_eq!(last.failure.as_ref().map(|(_, why)| why.to_string()), Some(error), "{what}");
        send(gateway.addresses()[0], "a@corp.example", &["b@example.net"], &message("still")).await;
    }
    one.recorder().reached(6).await;
    std::fs::write(&file, &good).unwrap();
    assert!(gateway.reload_file(&file).await.unwrap().lines().is_empty());
    assert!(gateway.last_reload().failure.is_none());
    let handle = gateway.handle();
    gateway.drain().await;
    assert!(matches!(handle.reload(parse(&good)).await, Err(ReloadError::Draining)));
}

#[tokio::test]
async fn listeners_open_and_close_and_the_sessions_of_a_closed_one_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let one = provider().await;
    let (first, second) = (support::free_port(), support::free_port());
    let write = |ports: &[u16]| {
        let listeners: String = ports.iter().map(|port| format!("[[listener]]\nbind = \"127.0.0.1:{port}\"\n")).collect();
        let rest = config(directory.path(), &[("one", &one)]);
        rest.replace("[[listener]]\nbind = \"127.0.0.1:0\"\n", "[x]\n")
            .replace("[x]\ntolerance = { missing_fields = \"keep\", long_lines = \"keep\" }\n", &listeners)
    };
    let gateway = gateway(&write(&[first])).await;
    let mut session = Client::connect(([127, 0, 0, 1], first).into()).await.unwrap();
    let changes = gateway.reload(parse(&write(&[second]))).await.unwrap();
    assert_eq!(changes.lines(), [format!("listener 127.0.0.1:{first} removed"), format!("listener 127.0.0.1:{second} added (tls off)")]);
    send(([127, 0, 0, 1], second).into(), "a@corp.example", &["b@example.net"], &message("new")).await;
    let reply = session.send("<a@corp.example>", &["b@example.net"], &message("old")).await.unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    eventually("the old port is closed", async || Client::connect(([127, 0, 0, 1], first).into()).await.is_err()).await;
    one.recorder().reached(2).await;
    gateway.drain().await;
}

#[tokio::test]
async fn two_hundred_reloads_leave_no_task_and_no_descriptor_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (provider().await, provider().await);
    let port = support::free_port();
    let further = format!("[[listener]]\nbind = \"127.0.0.1:{port}\"\n");
    let configs = [config(directory.path(), &[("one", &one)]), config(directory.path(), &[("two", &two)]) + &further];
    let gateway = gateway(&configs[0]).await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let turn = async |turn: usize| {
        gateway.reload(parse(&configs[turn % 2])).await.unwrap();
    };
    for first in 1..=10 {
        turn(first).await;
    }
    let (before_descriptors, before_tasks) = (descriptors(), tasks());
    for next in 11..=210 {
        turn(next).await;
    }
    // What was closed needs a moment to end.
    eventually("nothing is left", async || descriptors() <= before_descriptors + 2 && tasks() <= before_tasks + 2).await;
    assert_eq!(gateway.last_reload().generation, 211);
    gateway.drain().await;
}
