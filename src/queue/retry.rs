//! When to try again, and when to give up. Pure.

use std::time::{Duration, SystemTime};

/// The retry schedule of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySchedule {
    /// The waits after the first, second, … attempt; the last repeats. Never empty.
    pub waits: Vec<Duration>,
    /// The age at which a message is given up.
    pub expire_after: Duration,
}

impl Default for RetrySchedule {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self { waits: vec![minutes(1), minutes(5), minutes(15), minutes(30), minutes(60)], expire_after: Duration::from_secs(2 * 86_400) }
    }
}

impl RetrySchedule {
    /// When to try again after `attempts` attempts, the last of them at `now`. The last attempt comes
    /// at the very end of the message's life, so `None` means that its time is over.
    #[must_use]
    pub fn next(&self, received: SystemTime, attempts: u32, now: SystemTime) -> Option<SystemTime> {
        let expires = received + self.expire_after;
        if now >= expires {
            return None;
        }
        let step = (attempts.max(1) as usize - 1).min(self.waits.len().saturating_sub(1));
        let wait = self.waits.get(step).copied().unwrap_or(Duration::from_secs(60));
        Some((now + wait).min(expires))
    }

    /// Whether a message received then is past its time.
    #[must_use]
    pub fn is_expired(&self, received: SystemTime, now: SystemTime) -> bool {
        now >= received + self.expire_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_the_schedule_and_the_last_repeats() {
        let schedule =
            RetrySchedule { waits: vec![Duration::from_secs(60), Duration::from_secs(300)], expire_after: Duration::from_secs(1000) };
        let start = SystemTime::UNIX_EPOCH;
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(schedule.next(start, 1, at(0)), Some(at(60)));
        assert_eq!(schedule.next(start, 2, at(60)), Some(at(360)));
        assert_eq!(schedule.next(start, 3, at(360)), Some(at(660)));
        assert_eq!(schedule.next(start, 9, at(800)), Some(at(1000)), "the last attempt is at the end of its life");
        assert_eq!(schedule.next(start, 9, at(1000)), None);
    }
}
