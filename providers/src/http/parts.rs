//! A message in several calls: what became of each, and what that is together.

use std::collections::VecDeque;

use super::api::Part;
use crate::contract::{Delivery, Diagnostic, Failure, Outcome, RecipientIndex, Report, Throttled};

/// How often one attempt halves calls. Of a thousand recipients, one who is refused is found by ten; with a
/// thousand who are, the rest waits for the next attempt instead of the message leaving thousands of times.
const MOST_HALVED: usize = 200;

/// Calls that are made one after the other, until one of them says that the next would fare no better.
#[derive(Debug)]
pub struct Turns<P> {
    waiting: VecDeque<(Vec<RecipientIndex>, P)>,
    done: Vec<(Vec<RecipientIndex>, Part)>,
    halved: usize,
    goes_on: bool,
}

impl<P> Turns<P> {
    /// A call for each of these.
    #[must_use]
    pub fn new(parts: Vec<(Vec<RecipientIndex>, P)>) -> Self {
        Self { waiting: parts.into(), done: Vec::new(), halved: 0, goes_on: true }
    }

    /// The next call to make, and for whom.
    pub fn next_call(&mut self) -> Option<(Vec<RecipientIndex>, P)> {
        if self.goes_on { self.waiting.pop_front() } else { None }
    }

    /// What became of it.
    pub fn done(&mut self, recipients: Vec<RecipientIndex>, part: Part) {
        self.goes_on = match &part {
            // This may be about one recipient of the part.
            Part::Failed(failure) => matches!(failure, Failure::Rejected(_) | Failure::Unsuitable(_)),
            Part::Unnamed(_) => true,
            Part::Answered(outcomes) => !outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::InDoubt(_))),
        };
        self.done.push((recipients, part));
    }

    /// Two calls in place of one that was refused for somebody in it, without saying for whom: so it is
    /// found out. Nobody got that one.
    pub fn halve(&mut self, mut recipients: Vec<RecipientIndex>, what: P)
    where
        P: Clone,
    {
        let second = recipients.split_off(recipients.len() / 2);
        self.waiting.push_front((second, what.clone()));
        self.waiting.push_front((recipients, what));
        self.halved += 1;
        self.goes_on = self.halved < MOST_HALVED;
    }

    /// These calls in place of the one that was made last, which nobody got.
    pub fn instead(&mut self, calls: Vec<(Vec<RecipientIndex>, P)>) {
        for call in calls.into_iter().rev() {
            self.waiting.push_front(call);
        }
        self.halved += 1;
        self.goes_on = self.halved < MOST_HALVED;
    }

    /// What all of that is together.
    pub fn end(self) -> Delivery {
        let unasked: Vec<RecipientIndex> = self.waiting.into_iter().flat_map(|(recipients, _)| recipients).collect();
        combine(self.done, &unasked)
    }
}

/// One answer from those of all parts, and from the recipients that were not asked about any more.
pub fn combine(parts: Vec<(Vec<RecipientIndex>, Part)>, unasked: &[RecipientIndex]) -> Delivery {
    let parts: Vec<_> = parts.into_iter().map(|(recipients, part)| (recipients, part.settled())).collect();
    // What all parts say of the message is said of the message.
    let all = |wanted: fn(&Failure) -> bool| parts.iter().all(|(_, part)| part.as_ref().is_err_and(wanted));
    let alike = all(|failure| matches!(failure, Failure::Rejected(_))) || all(|failure| matches!(failure, Failure::Unsuitable(_)));
    if (alike || parts.len() == 1)
        && let Some((_, Err(failure))) = parts.first()
        // Who was not asked about was not refused.
        && (unasked.is_empty() || !matches!(failure, Failure::Rejected(_) | Failure::Unsuitable(_)))
    {
        return Err(failure.clone());
    }
    let (mut outcomes, mut throttled) = (Vec::new(), None);
    let mut waiting = Diagnostic::local("another part of this message failed before");
    for (recipients, part) in parts {
        match part {
            Ok(answered) => outcomes.extend(answered),
            // Something was said about other recipients, so this is told by recipient, too.
            Err(failure) => {
                let diagnostic = failure.diagnostic().clone();
                if let Failure::Throttled { retry_after, diagnostic } = &failure {
                    throttled = Some(Throttled { retry_after: *retry_after, diagnostic: diagnostic.clone() });
                }
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
    Ok(Report { outcomes, throttled })
}

/// The same delivery, with what was `lost` on the way in the receipt of everyone to whom it was relayed.
pub fn with_lost(mut delivery: Delivery, lost: &[String]) -> Delivery {
    for (_, outcome) in delivery.iter_mut().flat_map(|report| &mut report.outcomes) {
        if let Outcome::Relayed(receipt) = outcome {
            receipt.lost.extend_from_slice(lost);
        }
    }
    delivery
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::contract::Receipt;

    #[test]
    fn parts_are_told_apart_once_one_of_them_was_taken() {
        let [a, b, c] = [0, 1, 2].map(RecipientIndex);
        let taken = || Part::Answered(vec![(a, Outcome::Relayed(Receipt::default()))]);
        let down = || Part::Failed(Failure::Unavailable(Diagnostic::local("down")));
        let bad = || Part::Failed(Failure::Rejected(Diagnostic::local("bad")));
        let large = || Part::Failed(Failure::Unsuitable(Diagnostic::local("large")));
        let names = |delivery: Delivery| -> Vec<&str> { delivery.unwrap().outcomes.iter().map(|(_, outcome)| outcome.name()).collect() };

        assert_eq!(combine(vec![(vec![a], down())], &[b, c]), Err(Failure::Unavailable(Diagnostic::local("down"))));
        assert_eq!(combine(vec![(vec![a], bad()), (vec![b], bad())], &[]), Err(Failure::Rejected(Diagnostic::local("bad"))));
        assert_eq!(combine(vec![(vec![a], large()), (vec![b], large())], &[]), Err(Failure::Unsuitable(Diagnostic::local("large"))));
        assert_eq!(names(combine(vec![(vec![a], taken()), (vec![b], down())], &[c])), ["relayed", "deferred", "deferred"]);
        assert_eq!(names(combine(vec![(vec![a], taken()), (vec![b], bad())], &[])), ["relayed", "bounced"]);
        assert_eq!(names(combine(vec![(vec![b], bad()), (vec![a], taken())], &[])), ["bounced", "relayed"]);
        assert_eq!(names(combine(vec![(vec![a], bad()), (vec![b], down())], &[c])), ["bounced", "deferred", "deferred"]);
        assert_eq!(combine(vec![(vec![a], taken()), (vec![b], down())], &[]).unwrap().throttled, None);

        let (retry_after, diagnostic) = (Some(Duration::from_secs(7)), Diagnostic::local("slow"));
        let slow = Part::Failed(Failure::Throttled { retry_after, diagnostic: diagnostic.clone() });
        let report = combine(vec![(vec![a], taken()), (vec![b], slow)], &[c]);
        assert_eq!(report.as_ref().unwrap().throttled, Some(Throttled { retry_after, diagnostic }));
        assert_eq!(names(report), ["relayed", "deferred", "deferred"]);
    }

    #[test]
    fn many_who_are_refused_are_found_out_in_several_attempts() {
        let mut open: Vec<RecipientIndex> = (0..1000).map(RecipientIndex).collect();
        let mut attempts = 0;
        while !open.is_empty() {
            let (mut turns, mut calls) = (Turns::new(vec![(open.clone(), ())]), 0);
            while let Some((recipients, ())) = turns.next_call() {
                calls += 1;
                match recipients.as_slice() {
                    [one] => turns.done(recipients.clone(), Part::Answered(vec![(*one, Outcome::Bounced(Diagnostic::local("bad")))])),
                    _ => turns.halve(recipients, ()),
                }
            }
            assert!(calls <= 2 * MOST_HALVED, "{calls}");
            let outcomes = turns.end().unwrap().outcomes;
            assert_eq!(outcomes.len(), open.len(), "each has one outcome");
            open = outcomes.into_iter().filter(|(_, outcome)| outcome.may_fail_over()).map(|(index, _)| index).collect();
            attempts += 1;
        }
        assert!((2..=8).contains(&attempts), "{attempts}");
    }

    #[test]
    fn who_was_not_asked_about_is_not_refused_with_the_others() {
        let [a, b] = [0, 1].map(RecipientIndex);
        let bad = || Part::Failed(Failure::Rejected(Diagnostic::local("bad")));
        let report = combine(vec![(vec![a], bad())], &[b]).unwrap();
        assert_eq!(report.outcomes.iter().map(|(_, outcome)| outcome.name()).collect::<Vec<_>>(), ["bounced", "deferred"]);
    }

    #[test]
    fn a_call_that_was_halved_is_made_in_two_in_the_same_order() {
        let [a, b, c] = [0, 1, 2].map(RecipientIndex);
        let mut turns = Turns::new(vec![(vec![a, b, c], "x")]);
        let (recipients, what) = turns.next_call().unwrap();
        turns.halve(recipients, what);
        assert_eq!(turns.next_call(), Some((vec![a], "x")));
        assert_eq!(turns.next_call(), Some((vec![b, c], "x")));
        assert_eq!(turns.next_call(), None);
    }
}
