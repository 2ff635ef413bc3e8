//! Whole dialogues: any packets give the same replies and the same messages, and every message that
//! was promised is there.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use postrider::access::{Access, Client};
use postrider::clock::Clock;
use postrider::config::{self, Application, BareNewline, Listener, PasswordHash, Route, When};
use postrider::queue::{Queue, Settings as QueueSettings};
use postrider::route::Router;
use postrider::smtp::{Door, FrontEnd, Settings, converse};
use postrider::spool::memory::MemorySpool;
use postrider_providers::contract::Envelope;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::sync::CancellationToken;

use super::cuts::cut;
use super::reply;

/// The hash of `hunter2`, of bcrypt's least cost.
const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

/// Longer inputs find nothing that shorter ones do not.
const MAX_INPUT: usize = 16 * 1024;

/// What a dialogue came to.
#[derive(Debug, PartialEq, Eq)]
struct Dialogue {
    output: String,
    messages: Vec<(Envelope, Bytes)>,
}

/// Checks a dialogue: the first octet chooses the door, the second how the rest is cut into packets,
/// and the rest is what the client sends before it closes its side.
///
/// # Panics
/// When the packets make a difference to replies or messages; when a reply is not well formed; when
/// there are not exactly as many messages as replies that said "queued as".
pub fn check(input: &[u8]) {
    let [door, seed, input @ ..] = input else { return };
    let input = &input[..input.len().min(MAX_INPUT)];
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build() else {
        panic!("there is no room for a runtime");
    };
    runtime.block_on(async {
        let whole = hold(*door, &[input]).await;
        for seed in [0, *seed] {
            let other = hold(*door, &cut(input, seed)).await;
            assert_eq!(other, whole, "packets cut by {seed} change the dialogue");
        }
    });
}

/// Holds one dialogue and checks what can be seen of it alone.
async fn hold(door: u8, packets: &[&[u8]]) -> Dialogue {
    let spool = MemorySpool::new();
    let front_end = Arc::new(front_end(door, spool));
    let client: IpAddr = if door & 1 == 0 { [127, 0, 0, 1].into() } else { [192, 0, 2, 1].into() };
    let listener = Listener { auth_without_tls: door & 8 != 0, ..Listener::plain(([127, 0, 0, 1], 25).into()) };
    let listener = Arc::new(Door { listener, tls: None });

    let (ours, theirs) = duplex(1024 * 1024);
    let session = tokio::spawn(converse(theirs, Client::at(client), listener, Arc::clone(&front_end), CancellationToken::new()));
    let (mut read, mut write) = tokio::io::split(ours);
    let mut output = Vec::new();
    let writing = async {
        for packet in packets {
            // The server may hang up in the middle; what it has said until then is what counts.
            if write.write_all(packet).await.is_err() {
                break;
            }
            // The session's turn: it sees this packet before the next one is there.
            tokio::task::yield_now().await;
        }
        let _ = write.shutdown().await;
    };
    let (_, read) = tokio::join!(writing, read.read_to_end(&mut output));
    assert!(read.is_ok(), "the server's side broke: {read:?}");
    if let Err(error) = session.await {
        panic!("the session ended with {error}");
    }
    the_dialogue(&front_end.queue, &output).await
}

/// What was said and stored, without what differs from run to run.
async fn the_dialogue(queue: &Queue<MemorySpool>, output: &[u8]) -> Dialogue {
    let replies = reply::split(output);
    let promised: Vec<&str> = replies
        .iter()
        .filter_map(|lines| lines[0].strip_prefix("250 ").and_then(|text| text.split_once("queued as ")).map(|(_, id)| id))
        .collect();
    let mut messages = Vec::new();
    for _ in 0..queue.in_window() {
        let lease = queue.lease().await;
        let message = lease.message();
        let id = message.id.to_string();
        assert!(promised.contains(&&*id), "a message was stored that nobody was promised: {id}");
        let Ok(body) = message.body.bytes().await else { panic!("the body of {id} cannot be read") };
        messages.push((message.envelope.clone(), without(&body, &id)));
    }
    assert_eq!(messages.len(), promised.len(), "promised: {promised:?}");
    let mut output = String::from_utf8_lossy(output).into_owned();
    for id in promised {
        output = output.replace(id, "ID");
    }
    Dialogue { output, messages }
}

/// `body` without the message's own id, which stands in its Received field, and in the Message-ID of
/// a message that came without one.
fn without(mut body: &[u8], id: &str) -> Bytes {
    let mut rest = Vec::new();
    while let Some(at) = body.windows(id.len()).position(|window| window == id.as_bytes()) {
        rest.extend_from_slice(&body[..at]);
        body = &body[at + id.len()..];
    }
    assert!(!rest.is_empty(), "the Received field does not name the message");
    rest.extend_from_slice(body);
    rest.into()
}

/// A small gateway behind the door: limits that can be reached, a clock that stands still.
fn front_end(door: u8, spool: MemorySpool) -> FrontEnd<MemorySpool> {
    let access = config::Access {
        bare_newline: if door & 2 == 0 { BareNewline::Normalize } else { BareNewline::Reject },
        max_message_size: if door & 4 == 0 { 4096 } else { 100 },
        max_recipients: 5,
        ..config::Access::default()
    };
    let route = Route { name: "all".into(), when: When::default(), providers: vec!["capture.all".into()], ..Route::default() };
    let clock = Clock::following_tokio(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000));
    FrontEnd {
        settings: Settings { hostname: "relay.example".to_owned(), ..Settings::default() },
        access: Access::new(access, if door & 8 == 0 { Vec::new() } else { vec![Arc::new(application())] }),
        router: Arc::new(Router::new(vec![route])),
        queue: Queue::new(spool, QueueSettings::default(), clock),
        clock,
        census: Arc::default(),
    }
}

/// An application that logs in as `erp` with `hunter2`.
fn application() -> Application {
    let Ok(password) = PasswordHash::parse(HASH) else { panic!("the hash of the test is none") };
    let Ok(senders) = "@b.example".parse().map(|sender| vec![sender]) else { panic!("the sender of the test is none") };
    Application { passwords: vec![password], senders, ..Application::named("erp".into()) }
}
