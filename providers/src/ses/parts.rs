//! A message in several calls: what became of each, and what that is together.

use super::verdict;
use crate::contract::{Attempt, Delivery, Diagnostic, Failure, Outcome, RecipientIndex, Report};

/// What became of one call.
pub(super) enum Part {
    Answered(Vec<(RecipientIndex, Outcome)>),
    Failed(Failure),
}

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

/// One answer from those of all parts, and from the recipients that were not asked about any more.
pub(super) fn combine(parts: Vec<(Vec<RecipientIndex>, Part)>, unasked: &[RecipientIndex]) -> Delivery {
    let nothing_else = parts.iter().all(|(_, part)| matches!(part, Part::Failed(Failure::Rejected(_)))) || parts.len() == 1;
    if nothing_else && let Some((_, Part::Failed(failure))) = parts.first() {
        return Err(failure.clone());
    }
    let mut outcomes = Vec::new();
    let mut waiting = Diagnostic::local("another part of this message failed before");
    for (recipients, part) in parts {
        match part {
            Part::Answered(answered) => outcomes.extend(answered),
            // Something was said about other recipients, so this is told by recipient, too.
            Part::Failed(failure) => {
                let diagnostic = failure.diagnostic().clone();
                let outcome = match failure {
                    Failure::Rejected(diagnostic) => Outcome::Bounced(diagnostic),
                    _ => Outcome::Deferred(diagnostic.clone()),
                };
                waiting = diagnostic;
                outcomes.extend(recipients.iter().map(|&index| (index, outcome.clone())));
            }
        }
    }
    outcomes.extend(unasked.iter().map(|&index| (index, Outcome::Deferred(waiting.clone()))));
    Ok(Report { outcomes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Receipt;

    #[test]
    fn parts_are_told_apart_once_one_of_them_was_taken() {
        let [a, b, c] = [0, 1, 2].map(RecipientIndex);
        let taken = || Part::Answered(vec![(a, Outcome::Relayed(Receipt::default()))]);
        let down = || Part::Failed(Failure::Unavailable(Diagnostic::local("down")));
        let bad = || Part::Failed(Failure::Rejected(Diagnostic::local("bad")));
        let names = |delivery: Delivery| -> Vec<&str> { delivery.unwrap().outcomes.iter().map(|(_, outcome)| outcome.name()).collect() };

        assert_eq!(combine(vec![(vec![a], down())], &[b, c]), Err(Failure::Unavailable(Diagnostic::local("down"))));
        assert_eq!(combine(vec![(vec![a], bad()), (vec![b], bad())], &[]), Err(Failure::Rejected(Diagnostic::local("bad"))));
        assert_eq!(names(combine(vec![(vec![a], taken()), (vec![b], down())], &[c])), ["relayed", "deferred", "deferred"]);
        assert_eq!(names(combine(vec![(vec![a], taken()), (vec![b], bad())], &[])), ["relayed", "bounced"]);
        assert_eq!(names(combine(vec![(vec![b], bad()), (vec![a], taken())], &[])), ["bounced", "relayed"]);
        assert_eq!(names(combine(vec![(vec![a], bad()), (vec![b], down())], &[c])), ["bounced", "deferred", "deferred"]);
    }
}
