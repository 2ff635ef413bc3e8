//! When to try again, and when to give up. Pure.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postrider_providers::contract::MessageId;

use super::Settings;
use crate::spool::Stored;

/// The retry schedule of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySchedule {
    /// The waits after the first, second, … attempt; the last repeats. Never empty.
    pub waits: Vec<Duration>,
    /// The age at which a message is given up.
    pub expire_after: Duration,
}

/// How the waiting of one recipient is reckoned, where that is not as the queue does it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The waits between attempts: of the provider that was asked last, or of the route.
    pub waits: Option<Arc<[Duration]>>,
    /// The age at which its route gives it up.
    pub expire_after: Option<Duration>,
    /// What a provider asked for: not again before then.
    pub not_before: Option<SystemTime>,
    /// How long people kept it from going by what they have stopped. The time does not age it.
    pub kept: Duration,
}

impl Plan {
    /// When a recipient of this message is given up.
    #[must_use]
    pub fn expires(&self, usual: &RetrySchedule, stored: &Stored) -> SystemTime {
        stored.message.received + stored.handling.idle + self.kept + self.expire_after.unwrap_or(usual.expire_after)
    }

    /// When to try again after `attempts` attempts, the last of them at `now`; `None`: its time is over.
    #[must_use]
    pub fn next(&self, settings: &Settings, stored: &Stored, attempts: u32, now: SystemTime) -> Option<SystemTime> {
        let usual = &settings.retry;
        let expires = self.expires(usual, stored);
        let waits = self.waits.as_deref().unwrap_or(&usual.waits);
        let next = now + jitter(wait(waits, attempts), settings.jitter, stored.message.id, attempts);
        (now < expires).then(|| next.min(expires).max(self.not_before.unwrap_or(now)))
    }
}

/// The wait after so many attempts.
fn wait(waits: &[Duration], attempts: u32) -> Duration {
    let step = (attempts.max(1) as usize - 1).min(waits.len().saturating_sub(1));
    waits.get(step).copied().unwrap_or(Duration::from_secs(60))
}

/// `wait`, longer or shorter by up to `percent` of a hundred parts. The same message gets the same wait at
/// the same attempt, also after a crash.
fn jitter(wait: Duration, percent: u32, id: MessageId, attempts: u32) -> Duration {
    const STEPS: u64 = 1000;
    // Any function would do that scatters ids that are close to each other.
    let mut mixed = u64::from(attempts);
    for octet in id.to_string().bytes() {
        mixed = (mixed ^ u64::from(octet)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 29;
    }
    let share = u32::try_from(mixed % (2 * STEPS + 1)).unwrap_or(0);
    let (most, steps) = (wait * percent / 100, u32::try_from(STEPS).unwrap_or(1));
    wait - most + most / steps * share
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
        Some((now + wait(&self.waits, attempts)).min(expires))
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
    #[test]
    fn each_message_waits_a_little_longer_or_shorter_in_its_own_way_and_always_the_same() {
        let wait = Duration::from_secs(1000);
        let ids: Vec<_> = (0..200).map(|_| MessageId::generate()).collect();
        let waits: Vec<_> = ids.iter().map(|id| jitter(wait, 10, *id, 1)).collect();
        assert!(waits.iter().all(|wait| (900..=1100).contains(&wait.as_secs())), "{waits:?}");
        // Spread over all of it.
        for tenth in 0..10 {
            let (from, to) = (900 + tenth * 20, 920 + tenth * 20);
            assert!(waits.iter().any(|wait| (from..=to).contains(&wait.as_secs())), "none between {from} and {to}");
        }
        assert_eq!(waits, ids.iter().map(|id| jitter(wait, 10, *id, 1)).collect::<Vec<_>>());
        assert_ne!(waits, ids.iter().map(|id| jitter(wait, 10, *id, 2)).collect::<Vec<_>>(), "nor do they stay together");
        assert!(ids.iter().all(|id| jitter(wait, 0, *id, 1) == wait));
    }

    #[test]
    fn time_in_which_people_kept_it_from_going_does_not_age_a_message() {
        let message = crate::spool::suite::message_for(0, &["a@example.org"], postrider_providers::contract::Body::Inline("x".into()));
        let mut stored = Stored::fresh(message);
        stored.handling.idle = Duration::from_secs(10);
        let settings = Settings::default();
        let received = stored.message.received;
        let at = |seconds| received + Duration::from_secs(seconds);
        let plan = Plan { expire_after: Some(Duration::from_secs(1000)), kept: Duration::from_secs(100), ..Plan::default() };
        assert_eq!(plan.expires(&settings.retry, &stored), at(1110));
        assert_eq!(plan.next(&settings, &stored, 1, at(1000)), Some(at(1060)));
        assert_eq!(plan.next(&settings, &stored, 1, at(1100)), Some(at(1110)), "the last attempt is at the end of its life");
        assert_eq!(plan.next(&settings, &stored, 1, at(1110)), None);
    }
}
