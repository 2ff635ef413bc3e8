//! The door under pressure: the real program, with as many clients as it takes, and more.
//!
//! `POSTRIDER_PRESSURE_MIB=25` has each of the thousand clients send its whole message, which takes
//! 25 GB of disk space.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test may end the test")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::client::{Client, message};
use support::eventually;
use support::process::Postrider;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Clients that send at the same time.
const CLIENTS: usize = 1000;

/// What the program may take for all of them.
const MEMORY: u64 = 192 << 20;

fn config(directory: &Path, access: &str) -> String {
    let mail = directory.join("mail");
    format!("{}[access]\n{access}[provider.capture.all]\ndirectory = {mail:?}\n", support::server(&directory.join("data")))
}

/// Begins a message of 25 MiB, sends so much of it, and gives the connection with the rest unsent.
async fn begin(server: SocketAddr, mib: usize, content: Arc<Vec<u8>>) -> std::io::Result<Client> {
    let mut client = Client::connect(server).await?;
    for line in ["MAIL FROM:<a@corp.example> SIZE=26214400", "RCPT TO:<b@example.net>", "DATA"] {
        let reply = client.command(line).await?;
        assert!(reply.starts_with("250") || reply.starts_with("354"), "{reply}");
    }
    client.write(b"Subject: large\r\n\r\n").await?;
    for _ in 0..mib {
        client.write(&content).await?;
    }
    Ok(client)
}

fn arriving(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("data/incoming")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_large_messages_at_once_take_no_more_memory_than_they_may() {
    let mib = std::env::var("POSTRIDER_PRESSURE_MIB").map_or(1, |mib| mib.parse().unwrap());
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let access = format!("max_connections = {}\nmax_connections_per_client = 5000\n", CLIENTS + 1);
    let postrider = Postrider::start(directory.path(), &config(directory.path(), &access));
    let idle = postrider.peak_memory();

    let mut line = [b'x'; 64];
    line[62..].copy_from_slice(b"\r\n");
    let content = Arc::new(line.repeat((1 << 20) / line.len()));
    let started = tokio::time::Instant::now();
    let mut beginning = JoinSet::new();
    for _ in 0..CLIENTS {
        let begin = begin(postrider.address(), mib, Arc::clone(&content));
        beginning.spawn(tokio::time::timeout(Duration::from_secs(60 * mib as u64), begin));
    }
    let begun = beginning.join_all().await.into_iter();
    let clients: Vec<Client> = begun.map(|begun| begun.expect("in time").expect("each is served")).collect();
    eventually("each has its file", async || arriving(directory.path()) == CLIENTS).await;

    // Somebody else is served as if nothing were the matter.
    support::client::send(postrider.address(), "app@corp.example", &["c@example.net"], &message("meanwhile")).await;
    let peak = postrider.peak_memory();
    println!(
        "{CLIENTS} clients with {mib} MiB each: {} MiB at the most, {} MiB before; {:.1} s",
        peak >> 20,
        idle >> 20,
        started.elapsed().as_secs_f64()
    );
    assert!(peak < MEMORY, "{} MiB are more than {}", peak >> 20, MEMORY >> 20);

    drop(clients);
    eventually("nothing is left of what never was complete", async || arriving(directory.path()) == 0).await;
    assert!(postrider.terminate().success());
}

/// What comes back for a connection that says nothing.
async fn greeting(server: SocketAddr) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let mut greeting = vec![0; 512];
    let read = stream.read(&mut greeting).await.unwrap();
    String::from_utf8_lossy(&greeting[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_take_every_place_for_a_while_and_not_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let access = "max_connections = 50\nidle_timeout = \"10s\"\n";
    let postrider = Postrider::start(directory.path(), &config(directory.path(), access));
    let address = postrider.address();
    let mut slow = JoinSet::new();
    for _ in 0..50 {
        let mut client = Client::connect(address).await.unwrap();
        slow.spawn(async move {
            // Never silent, and never done.
            while client.write(b"N").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
    assert_eq!(greeting(address).await, "421 4.3.2 Too many connections, try again later\r\n");

    // Who has sent something already hears it all the same: it is no reset.
    let mut eager = TcpStream::connect(address).await.unwrap();
    eager.write_all(&b"EHLO client.example\r\n".repeat(1000)).await.unwrap();
    eager.shutdown().await.unwrap();
    let mut output = String::new();
    eager.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "421 4.3.2 Too many connections, try again later\r\n");

    // The first who gets in keeps the place: it may be the only one that is free.
    let mut after = None;
    eventually("the slow ones are dropped", async || {
        after = Client::connect(address).await.ok();
        after.is_some()
    })
    .await;
    let reply = after.unwrap().send("<app@corp.example>", &["c@example.net"], &message("after")).await.unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    slow.shutdown().await;
    assert!(postrider.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_over_its_limit_takes_no_places_from_others() {
    let directory = tempfile::tempdir().unwrap();
    let access = "max_connections = 20\nmax_connections_per_client = 5\n";
    let postrider = Postrider::start(directory.path(), &config(directory.path(), access));
    let address = postrider.address();
    let mut greedy = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut reply = [0; 3];
        stream.read_exact(&mut reply).await.unwrap();
        greedy.push((stream, reply));
    }
    assert_eq!(greedy.iter().filter(|(_, reply)| reply == b"220").count(), 5);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(address).await.unwrap();
    let mut reply = [0; 3];
    other.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"220", "while those who were refused have not closed");
    drop(greedy);
    assert!(postrider.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_file_descriptors_it_says_so_and_serves_again_when_some_are_free() {
    let directory = tempfile::tempdir().unwrap();
    let limited = |command: &mut std::process::Command| {
        // Both limits, so that it cannot help itself.
        let program = command.get_program().to_owned();
        *command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -n 80; exec \"$0\" \"$@\""]).arg(program);
    };
    let postrider = Postrider::try_start_with(directory.path(), &config(directory.path(), ""), limited).unwrap();
    let address = postrider.address();
    let (mut served, mut refused) = (Vec::new(), 0);
    for _ in 0..90 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut code = [0; 3];
        stream.read_exact(&mut code).await.unwrap();
        match &code {
            b"220" => served.push(stream),
            b"421" => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 10 && served.len() > 20, "{refused} refused, {} served", served.len());
    drop(served);
    eventually("there are places again", async || greeting(address).await.starts_with("220 ")).await;
    support::client::send(address, "app@corp.example", &["c@example.net"], &message("after")).await;
    let log = std::fs::read_to_string(directory.path().join("postrider.log")).unwrap();
    assert!(log.contains("the limit on open files is too low for access.max_connections = 1000"), "{log}");
    assert!(postrider.terminate().success());
}
