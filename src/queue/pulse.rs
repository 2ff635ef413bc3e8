//! Whether the queue's tasks are at work, for whoever asks if the gateway is alive.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::SetOnce;
use tokio::time::Instant;

/// When the tasks of the queue were last seen at work.
#[derive(Debug)]
pub(super) struct Pulse {
    start: Instant,
    /// Milliseconds after the start.
    kept: AtomicU64,
    lent: AtomicU64,
    /// Why nothing goes on any more, once that is so.
    failure: SetOnce<String>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), kept: AtomicU64::new(0), lent: AtomicU64::new(0), failure: SetOnce::new() }
    }

    fn beat(&self, heart: &AtomicU64) {
        heart.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn since(&self, heart: &AtomicU64) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(heart.load(Ordering::Relaxed)))
    }

    /// The housekeeping came round.
    pub(super) fn kept(&self) {
        self.beat(&self.kept);
    }

    /// A message was lent.
    pub(super) fn lent(&self) {
        self.beat(&self.lent);
    }

    /// Nothing goes on any more. The first reason is the one that counts.
    pub(super) fn fail(&self, why: String) {
        let _ = self.failure.set(why);
    }

    /// Waits until nothing goes on any more, and says why.
    pub(super) async fn failed(&self) -> &str {
        self.failure.wait().await
    }

    /// Why nothing goes on any more, if that is so.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// What stands still, in words. `every`: how often the housekeeping comes round; `ready`: messages that
    /// wait for nothing but to be taken.
    pub(super) fn stands_still(&self, every: Duration, ready: usize) -> Option<String> {
        if let Some(why) = self.failure() {
            return Some(why.to_owned());
        }
        let (kept, lent) = (self.since(&self.kept), self.since(&self.lent));
        if kept > every * 3 {
            return Some(format!(
                "the queue's housekeeping has not come round for {} s; it does so every {} s",
                kept.as_secs(),
                every.as_secs()
            ));
        }
        if ready > 0 && lent > STUCK {
            return Some(format!("{ready} messages are ready, and none was taken up for {} s", lent.as_secs()));
        }
        None
    }
}

/// Messages that are ready are taken up at once, unless all of dispatch's hands are full.
const STUCK: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_stands_still_is_said_and_what_only_has_nothing_to_do_is_not() {
        let (pulse, every) = (Pulse::new(), Duration::from_secs(20));
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(pulse.stands_still(every, 5), None);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(pulse.stands_still(every, 0).unwrap().contains("housekeeping has not come round for 150 s"));
        pulse.kept();
        assert_eq!(pulse.stands_still(every, 0), None);
        assert!(pulse.stands_still(every, 5).unwrap().contains("5 messages are ready"));
        pulse.lent();
        assert_eq!(pulse.stands_still(every, 5), None);
        pulse.fail("it fell".to_owned());
        pulse.fail("what fell after it".to_owned());
        assert_eq!(pulse.stands_still(every, 0).as_deref(), Some("it fell"));
    }
}
