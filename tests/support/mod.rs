//! What the integration tests share: the real program as a process, the gateway in this process, the
//! tools of Postfix, and a small client.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "what does not work here fails the test that uses it")]

pub mod client;
pub mod peer;
pub mod process;
pub mod sink;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use postrider::config::{Config, Secrets};
use postrider::gateway::Gateway;
use postrider::spool::sqlite::SqliteSpool;

/// A gateway in this process, on a free port.
pub async fn gateway(config: &str) -> Gateway<SqliteSpool> {
    Gateway::start(&parse(config)).await.unwrap_or_else(|error| panic!("{error}"))
}

/// A config that must be good.
pub fn parse(config: &str) -> Config {
    match Config::parse(config, Path::new("test.toml"), Secrets::Read) {
        Ok((config, _)) => config,
        Err(errors) => panic!("{errors}"),
    }
}

/// `[server]` and a listener on a free port, to begin a config with. It mends nothing, so that what
/// arrives can be compared with what was sent.
pub fn server(directory: &Path) -> String {
    format!(
        "[server]\nhostname = \"relay.example\"\ndata_dir = {directory:?}\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
         tolerance = {{ missing_fields = \"keep\", long_lines = \"keep\" }}\n"
    )
}

/// `[provider.smarthost.<name>]` for a port of this host. Its own options may follow.
pub fn smarthost(name: &str, port: u16) -> String {
    format!("[provider.smarthost.{name}]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"off\"\n")
}

/// Waits, in a bounded time, until something that other processes bring about is the case.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// A port on which nobody listens, until somebody is told to. It is below those that the system gives to
/// whoever asks for any, so that no other connection takes it meanwhile.
pub fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(101);
    loop {
        let nth = first.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + u16::try_from(nth % 12_000).unwrap();
        if std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A program of Postfix or another peer, where Debian installs it.
pub fn program(name: &str) -> std::path::PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::iter::once(target).chain(std::env::split_paths(&path)).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("`{name}` is missing; `make test` installs it, and so does tests/install.sh peers"))
}

/// A peer's program with its arguments.
pub fn client(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(name));
    command.args(arguments);
    command
}

/// Runs a program to its end, with this on its standard input.
pub async fn run(mut command: Command, input: impl AsRef<[u8]>) -> Output {
    let input = input.as_ref().to_vec();
    let run = move || {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // In a thread of its own: a program that writes much before it reads would wait for a reader. One
        // that reads nothing may have ended before.
        let writing = std::thread::spawn(move || stdin.write_all(&input).is_ok());
        let output = child.wait_with_output().unwrap();
        let _ = writing.join();
        output
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}
