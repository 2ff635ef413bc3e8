//! Spans of time, as sets. Pure.

use std::time::{Duration, SystemTime};

/// A set of moments: spans in order that neither touch nor overlap, each with its end left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::dispatch) struct Spans(Vec<(SystemTime, SystemTime)>);

impl Spans {
    /// The moments that are in any of these.
    pub(in crate::dispatch) fn any(spans: impl IntoIterator<Item = (SystemTime, SystemTime)>) -> Self {
        let mut all: Vec<_> = spans.into_iter().filter(|(from, to)| from < to).collect();
        all.sort_unstable();
        let mut merged: Vec<(SystemTime, SystemTime)> = Vec::with_capacity(all.len());
        for (from, to) in all {
            match merged.last_mut() {
                Some((_, end)) if from <= *end => *end = (*end).max(to),
                _ => merged.push((from, to)),
            }
        }
        Self(merged)
    }

    /// The moments that are in this set or in that.
    pub(in crate::dispatch) fn or(&self, other: &Self) -> Self {
        Self::any(self.0.iter().chain(&other.0).copied())
    }

    /// The moments that are in both.
    pub(in crate::dispatch) fn and(&self, other: &Self) -> Self {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(one), Some(another)) = (ours.peek(), theirs.peek()) {
            let (from, to) = (one.0.max(another.0), one.1.min(another.1));
            if from < to {
                both.push((from, to));
            }
            if one.1 <= another.1 {
                ours.next()
            } else {
                theirs.next()
            };
        }
        Self(both)
    }

    /// How much of the time from `from` to `to` it takes up.
    pub(in crate::dispatch) fn within(&self, from: SystemTime, to: SystemTime) -> Duration {
        self.0.iter().map(|&(begun, ended)| ended.min(to).duration_since(begun.max(from)).unwrap_or_default()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn spans(spans: &[(u64, u64)]) -> Spans {
        Spans::any(spans.iter().map(|&(from, to)| (at(from), at(to))))
    }

    #[test]
    fn what_touches_or_overlaps_is_one_span() {
        assert_eq!(spans(&[(5, 7), (1, 3), (3, 4), (6, 9), (9, 9)]), Spans(vec![(at(1), at(4)), (at(5), at(9))]));
    }

    #[test]
    fn sets_agree_with_looking_at_each_moment() {
        let sets: [&[(u64, u64)]; 6] =
            [&[], &[(0, 10)], &[(2, 4), (6, 8)], &[(1, 3), (3, 7), (9, 10)], &[(4, 6)], &[(0, 1), (2, 3), (5, 9)]];
        let has = |set: &[(u64, u64)], moment| set.iter().any(|&(from, to)| (from..to).contains(&moment));
        for one in sets {
            for other in sets {
                let both = (3..9).filter(|&moment| has(one, moment) && has(other, moment)).count() as u64;
                let either = (3..9).filter(|&moment| has(one, moment) || has(other, moment)).count() as u64;
                let seconds = |set: Spans| set.within(at(3), at(9)).as_secs();
                assert_eq!(seconds(spans(one).and(&spans(other))), both, "{one:?} and {other:?}");
                assert_eq!(seconds(spans(one).or(&spans(other))), either, "{one:?} or {other:?}");
            }
        }
    }

    #[test]
    fn a_time_that_ends_before_it_begins_has_nothing_in_it() {
        assert_eq!(spans(&[(0, 10)]).within(at(8), at(3)), Duration::ZERO);
    }
}
