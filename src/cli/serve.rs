//! `postrider serve`: runs the gateway until it is told to stop.

use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::{Exit, fail};
use crate::admin::Order;
use crate::config::Config;
use crate::gateway::{DurableGateway, FileWatch, Gateway, StartError};
use crate::telemetry;

pub(super) async fn run(path: &Path) -> Exit {
    let (config, warnings) = match Config::load(path) {
        Ok(loaded) => loaded,
        Err(errors) => return super::check::report(&errors),
    };
    telemetry::init(config.log);
    for warning in warnings {
        warn!("{}", warning.title());
    }
    super::descriptors::provide_for(config.access.max_connections);
    let Ok(signals) = Signals::new() else {
        return fail(Exit::Unavailable, "signals cannot be handled on this system");
    };
    let gateway = match Gateway::start(&config).await {
        Ok(gateway) => gateway,
        Err(StartError::Config(errors)) => return super::check::report(&errors),
        Err(error) => {
            error!(%error, "the gateway cannot start");
            return Exit::Unavailable;
        }
    };
    for address in gateway.addresses() {
        info!(%address, "listening");
    }
    if let Some(address) = gateway.admin_address() {
        info!(at = %address, "the admin API answers");
    }
    for provider in &config.providers {
        info!(provider = %provider.name, destination = %provider.destination, "provider");
    }
    info!(version = env!("CARGO_PKG_VERSION"), hostname = %config.server.hostname, data_dir = %config.server.data_dir.display(), "ready");

    attend(gateway, path, signals).await
}

/// What the system may tell the program.
struct Signals {
    stop: Stop,
    hangup: Signal,
}

/// The two that end it.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

/// Does what the gateway is told to until it ends, by order or because it cannot go on.
async fn attend(mut gateway: DurableGateway, path: &Path, signals: Signals) -> Exit {
    let Signals { mut stop, mut hangup } = signals;
    let (mut watch, handle) = (FileWatch::new(path), gateway.handle());
    let exit = loop {
        let watches = gateway.config().server.watch_config;
        tokio::select! {
            () = stop.requested() => break Exit::Ok,
            why = handle.failed() => {
                error!(%why, "the gateway cannot go on, and ends; it has to be started again");
                break Exit::Software;
            }
            _ = hangup.recv() => {
                let looked = gateway.reload_certificates().await;
                info!(taken = looked.taken, unchanged = looked.unchanged, bad = looked.bad, "SIGHUP: the certificate files were read again");
                watch.know();
                // What came of it stands in the log.
                let _ = gateway.reload_file(path).await;
            }
            () = watch.changed(), if watches => {
                info!(config = %path.display(), "the config file has changed");
                let _ = gateway.reload_file(path).await;
            }
            order = gateway.order() => match order {
                Order::Drain { by } => {
                    info!(%by, "told to drain and end, by the admin API");
                    break Exit::Ok;
                }
                Order::Reload { by, answer } => {
                    info!(%by, "told to read the config again, by the admin API");
                    watch.know();
                    let reloaded = gateway.reload_file(path).await;
                    // Whoever asked may have gone.
                    let _ = answer.send(reloaded.map(|changes| changes.in_words()).map_err(|error| error.to_string()));
                }
            },
        }
    };
    drop(handle);
    tokio::select! {
        () = gateway.drain() => exit,
        () = stop.requested() => {
            warn!("stopped at once by a second signal; what was being handed over is in doubt");
            Exit::TempFail
        }
    }
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let stop = Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        Ok(Self { stop, hangup: signal(SignalKind::hangup())? })
    }
}

impl Stop {
    async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::clock::Clock;
    use crate::config::Secrets;
    use crate::spool::sqlite::{Committed, Settings, SqliteSpool};

    /// Sends all of `lines`, and gives everything that is answered.
    async fn said(address: SocketAddr, lines: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(lines.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// The answers to one message, without the greeting.
    async fn send(address: SocketAddr) -> String {
        let lines = "HELO app\r\nMAIL FROM:<a@corp.example>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n";
        said(address, lines).await
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        said(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")).await
    }

    #[tokio::test]
    async fn when_the_writer_of_the_spool_panics_no_mail_is_taken_health_fails_and_the_program_ends_badly() {
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "[server]\nhostname = \"relay.example\"\ndata_dir = {:?}\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
             [provider.smarthost.one]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"off\"\n[admin]\nbind = \"127.0.0.1:0\"\n",
            directory.path()
        );
        let Ok((config, _)) = Config::parse(&text, Path::new("test.toml"), Secrets::Read) else { panic!("{text}") };
        let armed = Arc::new(AtomicBool::new(false));
        let pulled = Arc::clone(&armed);
        let committed = Committed(Arc::new(move |_, _| assert!(!pulled.load(Ordering::Relaxed), "as asked")));
        let settings = Settings { committed: Some(committed), ..Settings::new(directory.path()) };
        let (spool, _) = SqliteSpool::open(settings).await.unwrap();
        let gateway = Gateway::start_with(&config, spool, Vec::new(), Clock::system()).await.unwrap();
        let (mail, admin) = (gateway.addresses()[0], gateway.admin_address().unwrap());
        let taken = send(mail).await;
        assert!(taken.contains("queued as"), "{taken}");
        assert!(ask(admin, "/healthz").await.starts_with("HTTP/1.1 200"));

        armed.store(true, Ordering::Relaxed);
        for attempt in 1..=2 {
            let refused = send(mail).await;
            let reply = refused.lines().rfind(|line| !line.starts_with("221")).unwrap();
            assert!(reply.starts_with("4"), "{attempt}: {refused}");
        }
        for path in ["/healthz", "/readyz"] {
            let answer = ask(admin, path).await;
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("spool-write of the spool panicked"), "{path}: {answer}");
        }
        let ended = tokio::time::timeout(Duration::from_secs(20), attend(gateway, directory.path(), Signals::new().unwrap())).await;
        assert_eq!(ended, Ok(Exit::Software));
    }
}
