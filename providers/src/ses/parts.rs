//! The recipients at fault, where SES lists them.

use super::verdict;
use crate::contract::{Attempt, Diagnostic, Outcome, RecipientIndex};

/// In the sandbox, SES refuses a message for recipients that are not verified. Those are refused for
/// good, and the others wait, to be sent without them. `None` when it is about the sender.
pub(super) fn unverified_recipients(
    attempt: &Attempt,
    part: &[(RecipientIndex, &str)],
    diagnostic: &Diagnostic,
) -> Option<Vec<(RecipientIndex, Outcome)>> {
    let listed = verdict::unverified(&diagnostic.text);
    let sender = attempt.message.envelope.reverse_path.as_str();
    let is_recipient = |identity: &&str| part.iter().any(|(_, address)| address.eq_ignore_ascii_case(identity));
    if listed.is_empty() || !listed.iter().all(|identity| is_recipient(identity) && !identity.eq_ignore_ascii_case(sender)) {
        return None;
    }
    let refused = |address: &str| listed.iter().any(|identity| identity.eq_ignore_ascii_case(address));
    let outcome = |address: &str| match refused(address) {
        true => Outcome::Bounced(diagnostic.clone()),
        false => Outcome::Deferred(diagnostic.clone()),
    };
    Some(part.iter().map(|(index, address)| (*index, outcome(address))).collect())
}
