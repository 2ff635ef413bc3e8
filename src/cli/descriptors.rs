//! File descriptors: enough of them for `access.max_connections`, or a word about it at the start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// What everything but the clients may need: the spool, providers, refusals, listeners.
const OTHERS: u64 = 512;

/// Raises the soft limit as far as `connections` need it: systems start programs with 1024, for the
/// sake of old ones that know no more.
pub(super) fn provide_for(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = wanted(connections);
    let Rlimit { current: Some(current), maximum } = limit else { return };
    if current >= wanted {
        return;
    }
    let possible = maximum.map_or(wanted, |maximum| wanted.min(maximum));
    let given = match setrlimit(Resource::Nofile, Rlimit { current: Some(possible), maximum }) {
        Ok(()) => possible,
        Err(error) => {
            warn!(%error, "the limit on open files could not be raised");
            current
        }
    };
    if given < wanted {
        warn!(
            limit = given,
            wanted,
            "the limit on open files is too low for access.max_connections = {connections}: some clients will be refused sooner; \
             raise it (LimitNOFILE= in systemd, ulimit -n in a shell)"
        );
    } else {
        debug!(limit = given, "the limit on open files was raised");
    }
}

/// Each client may have a file besides its socket, for the body that it sends.
fn wanted(connections: usize) -> u64 {
    (connections as u64).saturating_mul(2).saturating_add(OTHERS)
}
