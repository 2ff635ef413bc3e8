//! For what strangers can make happen as often as they like: one line now and then, with the number
//! of those that were left out.

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
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now < last + self.every) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
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
}
