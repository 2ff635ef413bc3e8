//! `postrider serve`: runs the gateway until it is told to stop.

use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::{Exit, fail};
use crate::admin::Order;
use crate::config::Config;
use crate::gateway::{FileWatch, Gateway, StartError};
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
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        return fail(Exit::Unavailable, "signals cannot be handled on this system");
    };
    let mut gateway = match Gateway::start(&config).await {
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

    let mut watch = FileWatch::new(path);
    loop {
        let watches = gateway.config().server.watch_config;
        tokio::select! {
            () = stop_requested(&mut terminate, &mut interrupt) => break,
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
                    break;
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
    }
    tokio::select! {
        () = gateway.drain() => Exit::Ok,
        () = stop_requested(&mut terminate, &mut interrupt) => {
            warn!("stopped at once by a second signal; what was being handed over is in doubt");
            Exit::TempFail
        }
    }
}

async fn stop_requested(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
