//! Who is asked first, and when, by what stands in the way now. Pure: the time is an argument.

use std::time::SystemTime;

use postrider_providers::contract::ProviderName;

use super::{Candidate, Cannot, Cause, Wait};
use crate::queue::WaitReason;

/// When some recipients are looked at next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// Now.
    Now,
    /// When it is their turn: they are due, and wait in the store.
    Turn,
    /// When they are fetched from the store.
    Stored(SystemTime),
    /// When their message is let go in memory.
    Parked(WaitReason, SystemTime),
    /// When their own time comes.
    Scheduled(SystemTime),
}

/// How it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// A provider is asked.
    Asked,
    /// It waits, and nothing tells until when.
    Waits,
    /// No candidate can carry it.
    Bounces(String),
    /// Nobody can be asked.
    Nobody(String),
}

/// What is foreseen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Foreseen<'w> {
    /// When that is.
    pub(super) at: SystemTime,
    pub(super) end: End,
    /// Who is asked.
    pub(super) provider: Option<&'w ProviderName>,
    /// What was waited for last, or lasts.
    pub(super) waited: Option<&'w Wait>,
}

impl Start {
    /// The same for recipients who have a time of their own, at which a message in memory comes back for them.
    pub(super) fn with(&self, later: Option<SystemTime>) -> Self {
        match (self, later) {
            (Self::Stored(at), Some(later)) if *at > later => self.clone(),
            (_, Some(later)) => Self::Scheduled(later),
            (_, None) => self.clone(),
        }
    }

    /// When that is, seen from `now`. What is in memory comes back when its life `ends`, too.
    pub(super) fn at(&self, now: SystemTime, ends: SystemTime) -> SystemTime {
        match self {
            Self::Now | Self::Turn => now,
            Self::Parked(_, at) => now.max(ends.min(*at)),
            Self::Stored(at) | Self::Scheduled(at) => now.max(*at),
        }
    }
}

impl Wait {
    fn lasts(&self, at: SystemTime) -> bool {
        self.until.is_none_or(|until| until > at)
    }

    /// When it is looked at again: what ends with others' handovers soon, what a person has stopped when
    /// nothing else is left.
    fn ends(&self) -> (u8, Option<SystemTime>) {
        match (self.cause, self.until) {
            (Cause::Stopped, _) => (2, None),
            (_, None) => (0, None),
            (_, until) => (1, until),
        }
    }
}

/// Goes from one look to the next as an attempt would, from `start` on, until somebody is asked. `whole` keeps
/// from all candidates.
pub(super) fn foresee<'w>(start: SystemTime, whole: &'w [Wait], candidates: &'w [Candidate], spill: bool) -> Foreseen<'w> {
    let (mut at, mut waited) = (start, None);
    loop {
        let wait = match look(at, whole, candidates, spill) {
            Look::Asks(provider) => return Foreseen { at, end: End::Asked, provider: Some(provider), waited },
            Look::Nobody(end) => return Foreseen { at, end, provider: None, waited },
            Look::Waits(wait) => wait,
        };
        waited = Some(wait);
        match wait.until {
            // Each look is later than the one before, and there are no more of them than waits.
            Some(until) if until > at => at = until,
            _ => return Foreseen { at, end: End::Waits, provider: None, waited },
        }
    }
}

/// What one look finds.
enum Look<'w> {
    Asks(&'w ProviderName),
    Waits(&'w Wait),
    Nobody(End),
}

fn look<'w>(at: SystemTime, whole: &'w [Wait], candidates: &'w [Candidate], spill: bool) -> Look<'w> {
    if let Some(wait) = whole.iter().find(|wait| wait.lasts(at)) {
        return Look::Waits(wait);
    }
    let mut waits: Vec<&Wait> = Vec::new();
    for candidate in candidates.iter().filter(|candidate| candidate.cannot.is_none()) {
        let Some(wait) = candidate.waits.iter().find(|wait| wait.lasts(at)) else { return Look::Asks(&candidate.name) };
        waits.push(wait);
        if !spill && matches!(wait.cause, Cause::Limit | Cause::Concurrency) {
            break;
        }
    }
    waits.into_iter().min_by_key(|wait| wait.ends()).map_or_else(|| Look::Nobody(nobody(candidates)), Look::Waits)
}

/// What becomes of recipients for whom nobody can be asked.
fn nobody(candidates: &[Candidate]) -> End {
    let cannot = || candidates.iter().filter_map(|candidate| Some((&candidate.name, candidate.cannot.as_ref()?)));
    let words = |(name, cannot): (&ProviderName, &Cannot)| format!("{name}: {}", cannot.words());
    // What can be told best, as the bounce does: the first that cannot carry it, or the last that is not there.
    match cannot().rfind(|(_, cannot)| !matches!(cannot, Cannot::Carry(_))) {
        Some(other) => End::Nobody(words(other)),
        None => cannot().next().map_or_else(|| End::Nobody("the route has no provider".to_owned()), |first| End::Bounces(words(first))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn wait(cause: Cause, until: Option<u64>) -> Wait {
        Wait { cause, reason: WaitReason::new(format!("{} {until:?}", cause.name())), until: until.map(at) }
    }

    fn candidate(name: &str, waits: &[Wait]) -> Candidate {
        Candidate { name: name.into(), cannot: None, waits: waits.to_vec(), limits: Vec::new(), per_call: None }
    }

    fn told(whole: &[Wait], candidates: &[Candidate], spill: bool) -> (u64, Option<String>, Option<String>) {
        let Foreseen { at, end, provider, waited } = foresee(at(100), whole, candidates, spill);
        assert_eq!(end == End::Asked, provider.is_some());
        let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        (seconds, provider.map(ToString::to_string), waited.map(|wait| wait.reason.to_string()))
    }

    #[test]
    fn the_first_candidate_that_nothing_keeps_away_is_asked_at_the_first_look_at_which_that_is_so() {
        use Cause::{Circuit, Concurrency, Limit, SenderRefused, Stopped};
        let yes = |seconds: u64, name: &str, reason: &str| {
            (seconds, Some(name.to_owned()), Some(reason.to_owned()).filter(|reason| !reason.is_empty()))
        };
        let no = |seconds: u64, reason: &str| (seconds, None, Some(reason.to_owned()));
        let (open, limited) = (|| wait(Circuit, Some(160)), || wait(Limit, Some(130)));
        for (whole, a, b, spill, expected) in [
            (&[][..], &[][..], &[][..], false, yes(100, "a", "")),
            // An open circuit leaves the next one, a limit does not, unless the route spills.
            (&[], &[open()], &[], false, yes(100, "b", "")),
            (&[], &[limited()], &[], false, yes(130, "a", "limit Some(130)")),
            (&[], &[limited()], &[], true, yes(100, "b", "")),
            (&[], &[wait(Concurrency, None)], &[], false, no(100, "concurrency None")),
            // What ends first is looked at first; the circuit hides the limit behind it.
            (&[], &[open(), wait(Limit, Some(200))], &[wait(SenderRefused, Some(170))], false, yes(200, "a", "limit Some(200)")),
            (&[], &[open(), wait(Limit, Some(120))], &[wait(SenderRefused, Some(170))], false, yes(160, "a", "circuit Some(160)")),
            (&[], &[wait(Circuit, Some(50))], &[], false, yes(100, "a", "")),
            // What a person has stopped has no end, and hides none.
            (&[], &[wait(Stopped, None)], &[open()], false, yes(160, "b", "circuit Some(160)")),
            (&[], &[wait(Stopped, None)], &[wait(Stopped, None)], false, no(100, "stopped None")),
            (&[], &[wait(Circuit, None)], &[limited()], false, no(100, "circuit None")),
            // What keeps from all comes first.
            (&[wait(Limit, Some(110))], &[limited()], &[], false, yes(130, "a", "limit Some(130)")),
            (&[wait(Stopped, None), wait(Limit, Some(110))], &[], &[], true, no(100, "stopped None")),
        ] {
            assert_eq!(told(whole, &[candidate("a", a), candidate("b", b)], spill), expected, "{whole:?} {a:?} {b:?}");
        }
    }

    #[test]
    fn where_nobody_can_be_asked_it_bounces_only_if_all_cannot_carry_it() {
        let cannot = |name: &str, cannot: Cannot| Candidate { cannot: Some(cannot), ..candidate(name, &[]) };
        let carry = |words: &str| Cannot::Carry(postrider_providers::contract::Diagnostic::local(words));
        let end = |candidates: &[Candidate]| foresee(at(100), &[], candidates, false).end;
        assert_eq!(end(&[cannot("a", carry("too large")), cannot("b", carry("no SMTPUTF8"))]), End::Bounces("a: too large".to_owned()));
        let gone = cannot("b", Cannot::NotConfigured);
        assert_eq!(end(&[cannot("a", carry("too large")), gone]), End::Nobody("b: it is no longer configured".to_owned()));
        assert_eq!(end(&[cannot("a", carry("too large")), candidate("b", &[])]), End::Asked);
    }

    #[test]
    fn recipients_with_a_time_of_their_own_are_looked_at_when_both_have_come() {
        let reason = WaitReason::new("rate");
        for (start, later, expected) in [
            (Start::Now, Some(50), Start::Scheduled(at(50))),
            (Start::Stored(at(40)), Some(50), Start::Scheduled(at(50))),
            (Start::Stored(at(60)), Some(50), Start::Stored(at(60))),
            (Start::Parked(reason.clone(), at(60)), Some(50), Start::Scheduled(at(50))),
            (Start::Parked(reason.clone(), at(60)), None, Start::Parked(reason, at(60))),
            (Start::Turn, None, Start::Turn),
        ] {
            assert_eq!(start.with(later.map(at)), expected);
        }
    }
}
