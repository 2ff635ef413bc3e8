//! Keeps the window supplied from the store, and this node's leases alive.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Shared;
use crate::spool::{Recovered, Spool, SpoolError, Want};

/// The longest sleep of the feeder: the wall clock may have been set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How long to wait after the store failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

pub(super) async fn run<S: Spool>(shared: &Shared<S>, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = shared.window.run() => {}
        () = fetch(shared) => {}
        () = renew(shared) => {}
    }
}

/// Claims what is due whenever there is room for it.
async fn fetch<S: Spool>(shared: &Shared<S>) {
    loop {
        match fetch_once(shared).await {
            Ok(Some(next)) => {
                tokio::select! {
                    () = sleep_until(next.min(Instant::now() + LOOK_AGAIN)) => {}
                    () = shared.poke.notified() => {}
                }
            }
            Ok(None) => shared.window.freed().await,
            Err(SpoolError::Closed) => return,
            Err(error) => {
                error!(%error, "the queue cannot be read; trying again");
                sleep_until(Instant::now() + AFTER_FAILURE).await;
            }
        }
    }
}

/// Fills the window. `Some`: everything due is here, look again then. `None`: the window is full.
async fn fetch_once<S: Spool>(shared: &Shared<S>) -> Result<Option<Instant>, SpoolError> {
    loop {
        let Some((messages, octets)) = shared.window.room() else {
            return Ok(None);
        };
        let now = shared.clock.now();
        let lanes = shared.spool.lanes(64).await?;
        let wants: Vec<_> =
            lanes.iter().filter(|waiting| waiting.due <= now).map(|waiting| Want { lane: waiting.lane.clone(), limit: messages }).collect();
        if wants.is_empty() {
            return Ok(Some(lanes.first().map_or_else(|| Instant::now() + LOOK_AGAIN, |waiting| shared.clock.instant_of(waiting.due))));
        }
        for stored in shared.spool.claim(now, &wants, octets).await?.into_iter().flat_map(|claimed| claimed.messages) {
            shared.window.admit(stored);
        }
    }
}

/// Renews this node's leases three times in their life, and takes over those of nodes that died.
async fn renew<S: Spool>(shared: &Shared<S>) {
    let lease = shared.settings.lease;
    loop {
        shared.pulse.kept();
        let now = shared.clock.now();
        match shared.spool.renew(now, now + lease).await {
            Ok(recovered) => {
                report(&recovered);
                if recovered.released > 0 {
                    shared.poke.notify_one();
                }
            }
            Err(SpoolError::Closed) => return,
            Err(error) => warn!(%error, "the leases of this node could not be renewed"),
        }
        sleep_until(Instant::now() + lease / 3).await;
    }
}

/// Logs what a restart, or another node's end, brought back.
pub fn report(recovered: &Recovered) {
    for reason in &recovered.set_aside {
        error!(reason, "a record of the spool was set aside");
    }
    if recovered.in_doubt > 0 {
        // Second copies may follow, which somebody may ask about.
        warn!(messages = recovered.released, in_doubt = recovered.in_doubt, "messages taken over");
    } else if recovered.released > 0 {
        info!(messages = recovered.released, in_doubt = recovered.in_doubt, "messages taken over");
    }
}
