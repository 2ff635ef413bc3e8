//! The wall clock, as a value: production reads the system's, tests let it follow tokio's paused time.

use std::time::SystemTime;

use tokio::time::Instant;

/// Tells the time of day. Cheap to clone.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// `None`: the system's clock. Otherwise the wall time at a moment of tokio's clock.
    anchor: Option<(SystemTime, Instant)>,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self { anchor: None }
    }

    /// A clock that starts at `start` and then moves as tokio's clock does.
    #[must_use]
    pub fn following_tokio(start: SystemTime) -> Self {
        Self { anchor: Some((start, Instant::now())) }
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        match self.anchor {
            None => SystemTime::now(),
            Some((start, moment)) => start + moment.elapsed(),
        }
    }

    /// The moment of tokio's clock at which this clock will show `time`; now, if it has passed.
    #[must_use]
    pub fn instant_of(&self, time: SystemTime) -> Instant {
        Instant::now() + time.duration_since(self.now()).unwrap_or_default()
    }

    /// The time of day that this clock will show at `instant`; now, if it has passed.
    #[must_use]
    pub fn time_of(&self, instant: Instant) -> SystemTime {
        self.now() + instant.saturating_duration_since(Instant::now())
    }
}
