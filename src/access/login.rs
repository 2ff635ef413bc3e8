//! Logging in: the password is verified, failures are counted by address, and the answer to one comes
//! at its time, whatever was wrong.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::Access;
use super::credentials::{Credentials, Overloaded, Verdict};
use super::failures::{FIRST_DELAY, Failures};
use super::password_file::WatchedFile;
use crate::config;

/// Credentials, and the failures to show one. Shared by all sessions.
#[derive(Debug)]
pub(super) struct Logins {
    credentials: Credentials,
    failures: Arc<Mutex<Failures>>,
}

/// Why a login was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginError {
    /// Name and password do not fit together, or the application is disabled: which, nobody is told.
    Refused,
    /// There were too many failures from this address; it may try again after this time.
    Blocked(Duration),
    /// Too many passwords wait to be verified.
    Overloaded,
}

impl Logins {
    pub(super) fn new(settings: &config::Access, applications: &[Arc<config::Application>]) -> Self {
        let file = settings.password_file.clone().map(WatchedFile::new);
        Self {
            credentials: Credentials::new(applications, file),
            failures: Arc::new(Mutex::new(Failures::new(settings.auth_failures, settings.auth_block))),
        }
    }

    /// The same, with the failures of another.
    pub(super) fn counting_with(self, other: &Self) -> Self {
        Self { failures: Arc::clone(&other.failures), ..self }
    }

    /// Whether anybody at all could log in.
    pub(super) fn any(&self) -> bool {
        self.credentials.any()
    }
}

impl Access {
    /// Verifies what a client has shown with AUTH; gives the name that it has then. A failure is
    /// answered after one second, the next after two, and so on up to eight, counted from the question:
    /// so the time tells nothing about what was wrong.
    ///
    /// # Errors
    /// [`LoginError`] says what the client may hear.
    pub async fn log_in(&self, name: &str, password: &[u8], address: IpAddr) -> Result<Arc<str>, LoginError> {
        let asked = Instant::now();
        let logins = &self.logins;
        let client = address.to_canonical();
        // What is said to be a name may be anything, and go on for long.
        let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
        if let Some(rest) = logins.failures.lock().blocked(address, asked) {
            return Err(LoginError::Blocked(rest));
        }
        let verdict = logins.credentials.verify(name, password).await;
        // Many may have been asked at the same time. Those beyond the limit learn nothing, not even that
        // one of them was right.
        if let Some(rest) = logins.failures.lock().blocked(address, Instant::now()) {
            return Err(LoginError::Blocked(rest));
        }
        let reason = match verdict {
            Ok(Verdict::Right) => {
                logins.failures.lock().succeeded(address, name);
                return Ok(name.into());
            }
            Ok(Verdict::Disabled) => {
                // Nobody is guessing here, so it does not count against others behind the same address.
                info!(%client, name = %shown, reason = "the application is disabled", "login refused");
                sleep_until(asked + FIRST_DELAY).await;
                return Err(LoginError::Refused);
            }
            Ok(Verdict::WrongPassword) => "wrong password",
            Ok(Verdict::UnknownName) => "unknown name",
            Err(Overloaded) => {
                warn!(%client, name = %shown, "login not tried: too many passwords wait to be verified");
                return Err(LoginError::Overloaded);
            }
        };
        let consequence = logins.failures.lock().failed(address, name, Instant::now());
        info!(%client, name = %shown, reason, failures = consequence.count, "login refused");
        if consequence.blocks {
            let minutes = self.settings.auth_block.as_secs().div_ceil(60);
            warn!(%client, failures = consequence.count, minutes, "no more logins from this address for a time");
        }
        sleep_until(asked + consequence.delay).await;
        Err(LoginError::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Application, PasswordHash};

    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

    fn access(failures: u32, disabled: bool) -> Access {
        let settings = config::Access { auth_failures: failures, ..config::Access::default() };
        let passwords = vec![PasswordHash::parse(HASH).unwrap()];
        Access::new(settings, vec![Arc::new(Application { passwords, disabled, ..Application::named("erp".into()) })])
    }

    fn client() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_answered_later_and_later_in_the_same_way_and_then_not_at_all() {
        let access = access(3, false);
        let mut waits = Vec::new();
        for (name, password) in [("erp", "wrong"), ("nobody", "hunter2"), ("erp", "")] {
            let asked = Instant::now();
            assert_eq!(access.log_in(name, password.as_bytes(), client()).await, Err(LoginError::Refused));
            waits.push(asked.elapsed().as_secs());
        }
        assert_eq!(waits, [1, 2, 4]);
        let right = access.log_in("erp", b"hunter2", client()).await;
        assert!(matches!(right, Err(LoginError::Blocked(_))), "{right:?}");
        assert!(access.log_in("erp", b"hunter2", "192.0.2.2".parse().unwrap()).await.is_ok());
        tokio::time::advance(Duration::from_secs(15 * 60)).await;
        assert_eq!(access.log_in("erp", b"hunter2", client()).await.as_deref(), Ok("erp"));
        assert_eq!(access.log_in("erp", b"hunter3", client()).await, Err(LoginError::Refused));
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_at_the_same_time_are_no_more_than_guesses_one_by_one() {
        let access = access(3, false);
        let guess = |number: usize| {
            let access = access.clone();
            tokio::spawn(async move { access.log_in("erp", if number < 30 { b"wrong" } else { b"hunter2" }, client()).await })
        };
        let guesses: Vec<_> = (0..31).map(guess).collect();
        let mut outcomes = Vec::new();
        for guess in guesses {
            outcomes.push(guess.await.unwrap());
        }
        // As many as are verified at the same time may come too late to be stopped.
        let refused = outcomes.iter().filter(|outcome| **outcome == Err(LoginError::Refused)).count();
        assert!((3..=7).contains(&refused), "{refused}");
        assert!(matches!(outcomes[30], Err(LoginError::Blocked(_))), "{:?}", outcomes[30]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disabled_application_hears_what_everybody_hears() {
        assert_eq!(access(3, true).log_in("erp", b"hunter2", client()).await, Err(LoginError::Refused));
    }
}
