//! What follows a handover in doubt: the same provider again, or a person.
//!
//! Some providers recognise a handover that they have taken already, by a key of the message and of the
//! recipients who are told in one call. Asking such a provider again cannot double anything, and so a
//! route that holds need not hold then. It takes the same recipients in the same calls as before: the
//! spool knows who was in a handover together.

use std::time::{Duration, SystemTime};

use postrider_providers::contract::{Capabilities, Diagnostic, ProviderName};

use crate::config::{InDoubt, Route};
use crate::queue::Disposition;

/// So much of the time for which a provider recognises something is left unused: its clock is another
/// one, and a call takes a while.
const MARGIN: Duration = Duration::from_secs(60);

/// Whether a provider that took the message already would recognise it now. Its time counts from the first
/// handover, which was not before the message came.
pub(super) fn is_recognised(capabilities: &Capabilities, received: SystemTime, now: SystemTime) -> bool {
    let age = now.duration_since(received).unwrap_or_default();
    capabilities.idempotency.is_some_and(|window| age < window.saturating_sub(MARGIN))
}

/// What becomes of a recipient whose handover to `provider` is in doubt.
pub(super) fn disposition(provider: &ProviderName, diagnostic: Diagnostic, route: &Route, recognised: bool) -> Disposition {
    let hold = route.in_doubt == InDoubt::Hold && !recognised;
    Disposition::InDoubt { provider: provider.clone(), diagnostic, hold, recognised }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_recognised_for_as_long_as_its_provider_says_and_a_little_less() {
        let received = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (window, age, expected) in
            [(None, 0, false), (Some(3600), 0, true), (Some(3600), 3539, true), (Some(3600), 3540, false), (Some(30), 0, false)]
        {
            let capabilities = Capabilities { idempotency: window.map(Duration::from_secs), ..Capabilities::EVERYTHING };
            assert_eq!(is_recognised(&capabilities, received, received + Duration::from_secs(age)), expected, "{window:?} {age}");
        }
    }
}
