//! For what strangers can make happen as often as they like: one line now and then, with the number
//! of those that were left out.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Says when the next line is due.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// One line in this time at most.
    #[must_use]
    pub fn every(every: Duration) -> Self {
        Self { every, state: Mutex::default() }
    }

    /// Whether this one is told; then, how many were left out since the last.
    pub fn tell(&self) -> Option<u64> {
        self.state.lock().tell(Instant::now(), self.every)
    }
}

impl State {
    fn tell(&mut self, now: Instant, every: Duration) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + every) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

/// The same for each of many, as for each client by itself: nobody's line is left out because of what
/// others do, unless there are too many to be told apart.
#[derive(Debug)]
pub struct SeldomEach<K> {
    every: Duration,
    max: usize,
    each: Mutex<HashMap<K, State>>,
    further: Seldom,
}

impl<K: Eq + Hash> SeldomEach<K> {
    /// One line in this time at most, for each of the `max` that are told apart and for all others
    /// together.
    #[must_use]
    pub fn every(every: Duration, max: usize) -> Self {
        Self { every, max, each: Mutex::default(), further: Seldom::every(every) }
    }

    /// Whether this one is told; then, how many of its kind were left out since the last.
    pub fn tell(&self, key: K) -> Option<u64> {
        let now = Instant::now();
        let mut each = self.each.lock();
        if !each.contains_key(&key) && each.len() >= self.max {
            each.retain(|_, state| state.last.is_some_and(|last| now < last + self.every));
            if each.len() >= self.max {
                drop(each);
                return self.further.tell();
            }
        }
        each.entry(key).or_default().tell(now, self.every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_is_told_at_a_time_and_the_others_are_counted() {
        let seldom = Seldom::every(Duration::from_secs(10));
        assert_eq!([seldom.tell(), seldom.tell(), seldom.tell()], [Some(0), None, None]);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!([seldom.tell(), seldom.tell()], [Some(2), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_told_by_itself_and_those_beyond_the_limit_together() {
        let seldom = SeldomEach::every(Duration::from_secs(10), 2);
        assert_eq!([1, 2, 1, 3, 4].map(|key| seldom.tell(key)), [Some(0), Some(0), None, Some(0), None]);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!([1, 2, 3, 4].map(|key| seldom.tell(key)), [Some(1), Some(0), Some(1), None]);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!([5, 6, 7].map(|key| seldom.tell(key)), [Some(0), Some(0), Some(1)], "who is quiet makes room");
    }
}
