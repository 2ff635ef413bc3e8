//! What the host offered of late, so that the door need not take what it would not carry.
//!
//! When in doubt, the host can carry it: before it was first asked, and again when it has not been for a
//! while, because it may have been given other limits. Behind one name may be several hosts; of those met
//! of late, the most that any of them offered counts.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::client::Extensions;
use crate::contract::{Capabilities, SizeLimit};

/// How long an offer is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The offers of the last while.
#[derive(Debug, Default)]
pub(super) struct Offers(Mutex<Option<Offer>>);

#[derive(Debug, Clone, Copy)]
struct Offer {
    /// When the first of them was made.
    since: Instant,
    /// The largest message in octets; `None`: no limit.
    size: Option<u64>,
    smtputf8: bool,
}

/// A host of which nothing is known yet.
pub(crate) const UNKNOWN: Capabilities = Capabilities {
    // RFC 5321 section 4.5.3.1.8: every host takes 100 recipients; more than that may not.
    max_recipients: Some(100),
    ..Capabilities::EVERYTHING
};

impl Offers {
    /// Remembers what a host has offered on a connection that is in use.
    pub(super) fn learn(&self, extensions: &Extensions) {
        // RFC 1870 section 4: 0 is no fixed limit.
        let size = extensions.size.filter(|size| *size > 0);
        let new = Offer { since: Instant::now(), size, smtputf8: extensions.smtputf8 };
        let mut known = self.0.lock();
        *known = Some(known.filter(Offer::is_fresh).map_or(new, |old| Offer {
            since: old.since,
            size: old.size.zip(new.size).map(|(old, new)| old.max(new)),
            smtputf8: old.smtputf8 || new.smtputf8,
        }));
    }

    /// What can be handed over, as far as is known.
    pub(super) fn capabilities(&self) -> Capabilities {
        let known = (*self.0.lock()).filter(Offer::is_fresh);
        Capabilities {
            max_size: known.and_then(|offer| offer.size).map(SizeLimit::message),
            smtputf8: known.is_none_or(|offer| offer.smtputf8),
            ..UNKNOWN
        }
    }
}

impl Offer {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < REMEMBERED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offering(size: Option<u64>, smtputf8: bool) -> Extensions {
        Extensions { size, smtputf8, ..Extensions::default() }
    }

    fn known(offers: &Offers) -> (Option<u64>, bool) {
        let capabilities = offers.capabilities();
        (capabilities.max_message_size(), capabilities.smtputf8)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_host_offered_counts_for_a_while() {
        let offers = Offers::default();
        assert_eq!(known(&offers), (None, true), "nothing is known, and nothing is refused");
        offers.learn(&offering(Some(1000), false));
        assert_eq!(known(&offers), (Some(1000), false));
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(known(&offers), (None, true));
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_hosts_the_most_that_any_offers_counts() {
        let offers = Offers::default();
        offers.learn(&offering(Some(2000), false));
        offers.learn(&offering(Some(1000), true));
        assert_eq!(known(&offers), (Some(2000), true));
        for unlimited in [Some(0), None] {
            let offers = Offers::default();
            offers.learn(&offering(Some(2000), false));
            offers.learn(&offering(unlimited, false));
            offers.learn(&offering(Some(1000), false));
            assert_eq!(known(&offers), (None, false));
        }
        // What one of them no longer offers is forgotten in time, however busy it is.
        tokio::time::advance(REMEMBERED).await;
        offers.learn(&offering(Some(1000), false));
        assert_eq!(known(&offers), (Some(1000), false));
    }
}
