//! Keeps the window supplied from the store, and this node's leases alive.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::window::Fetch;
use super::{Shared, journal};
use crate::spool::{Claimed, Doubt, Recovered, Spool, SpoolError, Want};

/// How often the lanes are looked up anew, and the longest sleep: the wall clock may have been set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How often at most, while there are more lanes than are remembered: it costs as much as there are lanes.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(1);

/// The most lanes that are looked up at once.
const MOST_LOOKED_UP: usize = 32_768;

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
    let mut looks_up = Instant::now();
    loop {
        let fetched = match looks_up <= Instant::now() {
            true => {
                // Other nodes store mail, too.
                looks_up = Instant::now() + LOOK_AGAIN;
                look_up(shared).await
            }
            false => fetch_once(shared, &mut looks_up).await,
        };
        match fetched {
            Ok(()) => {}
            Err(SpoolError::Closed) => return,
            Err(error) => {
                error!(%error, "the queue cannot be read; trying again");
                sleep_until(Instant::now() + AFTER_FAILURE).await;
                looks_up = Instant::now();
            }
        }
    }
}

/// Finds out in which lanes mail waits.
async fn look_up<S: Spool>(shared: &Shared<S>) -> Result<(), SpoolError> {
    let found = shared.spool.lanes(MOST_LOOKED_UP).await?;
    shared.window.looked_up(&found, MOST_LOOKED_UP);
    Ok(())
}

/// Fetches as much as there is room for, or waits until there is something to fetch.
async fn fetch_once<S: Spool>(shared: &Shared<S>, looks_up: &mut Instant) -> Result<(), SpoolError> {
    let next = match shared.window.fetch() {
        Fetch::Claim(wants, octets) => return claim(shared, wants, octets).await,
        // All lanes are looked up when that time comes.
        Fetch::LookUp => {
            *looks_up = (*looks_up).min(Instant::now() + LOOK_UP_PAUSE);
            *looks_up
        }
        Fetch::Wait(Some(due)) => shared.clock.instant_of(due).min(*looks_up),
        Fetch::Wait(None) | Fetch::Full => *looks_up,
    };
    tokio::select! {
        () = sleep_until(next) => {}
        () = shared.window.changed() => {}
        () = shared.poke.notified() => *looks_up = Instant::now(),
    }
    Ok(())
}

async fn claim<S: Spool>(shared: &Shared<S>, wants: Vec<Want>, octets: u64) -> Result<(), SpoolError> {
    let now = shared.clock.now();
    let claimed = match shared.spool.claim(now, &wants, octets).await {
        Ok(claimed) => claimed,
        Err(error) => {
            for Want { lane, .. } in wants {
                shared.window.admit(&lane, Vec::new(), Some(now));
            }
            return Err(error);
        }
    };
    for Claimed { lane, messages, next_due } in claimed {
        // Routes may have changed since it was stored.
        let messages = messages.into_iter().map(|stored| (shared.lanes.of(&stored), stored)).map(|(lane, stored)| (stored, lane));
        shared.window.admit(&lane, messages.collect(), next_due);
    }
    Ok(())
}

/// Renews this node's leases three times in their life, and takes over those of nodes that died.
async fn renew<S: Spool>(shared: &Shared<S>) {
    let lease = shared.settings.load().lease;
    loop {
        shared.pulse.kept();
        let now = shared.clock.now();
        match shared.spool.renew(now, now + lease).await {
            Ok(recovered) => {
                self::recovered(shared, &recovered).await;
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

/// Logs what a restart, or another node's end, brought back, and tells the history what is in doubt.
pub(super) async fn recovered<S: Spool>(shared: &Shared<S>, recovered: &Recovered) {
    report(recovered);
    if !shared.settings.load().record {
        return;
    }
    if recovered.is_noted {
        return shared.journaled.notify_one();
    }
    // At once, so that they share commits; they are as many as there were handovers at the same time.
    let now = shared.clock.now();
    let noted = join_all(recovered.doubts.iter().map(|doubt| shared.spool.note(journal::doubt(doubt, now)))).await;
    for (doubt, noted) in recovered.doubts.iter().zip(noted) {
        if let Err(error) = noted {
            warn!(message_id = %doubt.id, %error, "the history is not told of a handover in doubt");
        }
    }
    shared.journaled.notify_one();
}

fn report(recovered: &Recovered) {
    for reason in &recovered.set_aside {
        error!(reason, "a record of the spool was set aside");
    }
    for Doubt { id, provider, recipients } in &recovered.doubts {
        warn!(message_id = %id, %provider, recipients = recipients.len(), "in doubt: the handover was cut off");
    }
    if recovered.in_doubt > 0 {
        // Second copies may follow, which somebody may ask about.
        warn!(messages = recovered.released, in_doubt = recovered.in_doubt, "messages taken over");
    } else if recovered.released > 0 {
        info!(messages = recovered.released, in_doubt = recovered.in_doubt, "messages taken over");
    }
}
