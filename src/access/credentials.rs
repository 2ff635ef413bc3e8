//! Verifies passwords: off the async threads, a few at a time, and with a memory for those that were
//! right a moment ago.
//!
//! A verification takes tens of milliseconds of one core and some 20 MiB by intent. So a few run at the
//! same time, some wait, and what is more is told to come again. A client that sends one message a
//! connection is recognised by a keyed digest of the password that it has just shown; the key is random
//! and dies with the process.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::error;

use super::password_file::WatchedFile;
use crate::config::{Application, PasswordHash};

/// How many verifications may wait for their turn.
const MAX_WAITING: usize = 64;

/// How long one may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long a password that was right need not be verified again.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);

/// How many are remembered.
const MAX_REMEMBERED: usize = 1024;

/// Who can log in, and with what.
#[derive(Debug)]
pub(super) struct Credentials {
    own: HashMap<Arc<str>, Own>,
    file: Option<WatchedFile>,
    /// The most hashes that a name has.
    most_hashes: usize,
    remembered: Mutex<Remembered>,
    /// Verifications that run or wait, and those that run.
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

/// What an application's own table says.
#[derive(Debug)]
struct Own {
    hashes: Vec<PasswordHash>,
    disabled: bool,
}

/// What has become of a name and a password.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are right.
    Right,
    /// They are right, but the application is disabled.
    Disabled,
    /// The password is none of this name's.
    WrongPassword,
    /// Nobody has this name.
    UnknownName,
}

/// Too many verifications are waiting.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overloaded;

impl Credentials {
    pub(super) fn new(applications: &[Arc<Application>], file: Option<WatchedFile>) -> Self {
        let own: HashMap<_, _> = applications
            .iter()
            .map(|application| {
                let own = Own { hashes: application.passwords.clone(), disabled: application.disabled };
                (Arc::clone(&application.name), own)
            })
            .collect();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let running = cores.div_ceil(2).min(4);
        Self {
            most_hashes: own.values().map(|own| own.hashes.len()).max().unwrap_or(0).max(1),
            own,
            file,
            remembered: Mutex::new(Remembered::new()),
            admitted: Arc::new(Semaphore::new(running + MAX_WAITING)),
            running: Arc::new(Semaphore::new(running)),
        }
    }

    /// Whether anybody at all could log in. A password file counts even while it is empty.
    pub(super) fn any(&self) -> bool {
        self.file.is_some() || self.own.values().any(|own| !own.hashes.is_empty())
    }

    /// Verifies a password. An unknown name takes as long as a known one.
    pub(super) async fn verify(&self, name: &str, password: &[u8]) -> Result<Verdict, Overloaded> {
        let file = match &self.file {
            Some(file) => Some(file.current().await),
            None => None,
        };
        let own = self.own.get(name);
        let in_file = file.as_ref().and_then(|file| file.hashes.get(name));
        let hashes: Vec<PasswordHash> = own.iter().flat_map(|own| &own.hashes).chain(in_file).cloned().collect();
        let is_known = !hashes.is_empty();
        // Of a disabled application nothing is remembered, so that nothing is left to use.
        let is_disabled = own.is_some_and(|own| own.disabled);
        if !is_disabled && hashes.iter().any(|hash| self.remembered.lock().has(name, hash, password, Instant::now())) {
            return Ok(Verdict::Right);
        }

        let any_hash = hashes.first().or_else(|| self.own.values().find_map(|own| own.hashes.first()));
        let decoy = any_hash.or_else(|| file.as_ref()?.hashes.values().next()).map(PasswordHash::decoy);
        let missing = self.most_hashes.saturating_sub(hashes.len());
        let decoys = decoy.into_iter().flat_map(|decoy| std::iter::repeat_n(decoy, missing));
        let all = hashes.into_iter().chain(decoys).collect();
        Ok(match self.find(all, password.to_vec()).await? {
            Some(hash) => {
                if !is_disabled {
                    self.remembered.lock().keep(name, hash, password, Instant::now());
                }
                if is_disabled { Verdict::Disabled } else { Verdict::Right }
            }
            None if is_known => Verdict::WrongPassword,
            None => Verdict::UnknownName,
        })
    }

    /// The hash of this password among several, on a thread where nobody waits for anything else.
    async fn find(&self, hashes: Vec<PasswordHash>, password: Vec<u8>) -> Result<Option<PasswordHash>, Overloaded> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| Overloaded)?;
        let turn = timeout(LONGEST_WAIT, Arc::clone(&self.running).acquire_owned()).await;
        let turn = turn.map_err(|_| Overloaded)?.map_err(|_| Overloaded)?;
        let search = move || {
            // The places are given back when the work is done, not when its client has gone.
            let _places = (admitted, turn);
            hashes.into_iter().find(|hash| hash.verify(&password))
        };
        tokio::task::spawn_blocking(search).await.map_err(|error| {
            error!(%error, "a verification ended badly");
            Overloaded
        })
    }
}

/// Passwords that were right a moment ago, as keyed digests.
struct Remembered {
    /// `None` if the system has no random numbers; then nothing is remembered.
    key: Option<hmac::Key>,
    /// By name and hash: where either is another one, nothing is known.
    entries: HashMap<(Box<str>, PasswordHash), Entry>,
}

struct Entry {
    digest: hmac::Tag,
    until: Instant,
}

impl Remembered {
    fn new() -> Self {
        Self { key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(), entries: HashMap::new() }
    }

    fn has(&self, name: &str, hash: &PasswordHash, password: &[u8], now: Instant) -> bool {
        let Some(key) = &self.key else { return false };
        let entry = self.entries.get(&(name.into(), hash.clone())).filter(|entry| now < entry.until);
        // Compares in constant time.
        entry.is_some_and(|entry| hmac::verify(key, password, entry.digest.as_ref()).is_ok())
    }

    /// Only what was verified comes here.
    fn keep(&mut self, name: &str, hash: PasswordHash, password: &[u8], now: Instant) {
        let Some(key) = &self.key else { return };
        if self.entries.len() >= MAX_REMEMBERED {
            self.entries.retain(|_, entry| now < entry.until);
        }
        if self.entries.len() >= MAX_REMEMBERED
            && let Some(oldest) = self.entries.iter().min_by_key(|(_, entry)| entry.until).map(|(known, _)| known.clone())
        {
            self.entries.remove(&oldest);
        }
        self.entries.insert((name.into(), hash), Entry { digest: hmac::sign(key, password), until: now + REMEMBERED });
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remembered({})", self.entries.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `hunter2`; bcrypt's least cost, to be quick.
    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

    fn application(name: &str, hashes: &[&str]) -> Application {
        let passwords = hashes.iter().map(|hash| PasswordHash::parse(hash).unwrap()).collect();
        Application { passwords, ..Application::named(name.into()) }
    }

    fn credentials(application: Application) -> Credentials {
        Credentials::new(&[Arc::new(application)], None)
    }

    #[tokio::test]
    async fn a_name_and_its_password_are_right_together_only() {
        let credentials = credentials(application("erp", &[HASH]));
        assert!(credentials.any());
        assert_eq!(credentials.verify("erp", b"hunter2").await, Ok(Verdict::Right));
        assert_eq!(credentials.verify("erp", b"hunter3").await, Ok(Verdict::WrongPassword));
        assert_eq!(credentials.verify("ERP", b"hunter2").await, Ok(Verdict::UnknownName));
        assert_eq!(credentials.verify("", b"").await, Ok(Verdict::UnknownName));
    }

    #[tokio::test]
    async fn during_a_change_both_passwords_are_right() {
        let new = PasswordHash::make("hunter3").unwrap();
        let credentials = credentials(application("erp", &[HASH, new.as_str()]));
        for (password, verdict) in
            [("hunter2", Verdict::Right), ("hunter3", Verdict::Right), ("hunter3", Verdict::Right), ("hunter4", Verdict::WrongPassword)]
        {
            assert_eq!(credentials.verify("erp", password.as_bytes()).await, Ok(verdict));
        }
    }

    #[tokio::test]
    async fn an_application_without_a_password_cannot_log_in() {
        let credentials = credentials(application("printer", &[]));
        assert!(!credentials.any());
        assert_eq!(credentials.verify("printer", b"").await, Ok(Verdict::UnknownName));
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_was_right_is_remembered_and_only_for_a_while() {
        let hash = PasswordHash::parse(HASH).unwrap();
        let mut remembered = Remembered::new();
        remembered.keep("erp", hash.clone(), b"hunter2", Instant::now());
        assert!(remembered.has("erp", &hash, b"hunter2", Instant::now()));
        assert!(!remembered.has("erp", &hash, b"hunter3", Instant::now()));
        assert!(!remembered.has("shop", &hash, b"hunter2", Instant::now()));
        let changed = hash.decoy();
        assert!(!remembered.has("erp", &changed, b"hunter2", Instant::now()), "the hash is another one");
        tokio::time::advance(REMEMBERED).await;
        assert!(!remembered.has("erp", &hash, b"hunter2", Instant::now()));
    }

    #[tokio::test]
    async fn a_failure_leaves_nothing_behind_and_memory_is_bounded() {
        let credentials = credentials(application("erp", &[HASH]));
        credentials.verify("erp", b"wrong").await.unwrap();
        assert!(credentials.remembered.lock().entries.is_empty());
        credentials.verify("erp", b"hunter2").await.unwrap();
        assert_eq!(credentials.remembered.lock().entries.len(), 1);
        let mut remembered = credentials.remembered.lock();
        for number in 0..MAX_REMEMBERED + 10 {
            remembered.keep(&number.to_string(), PasswordHash::parse(HASH).unwrap(), b"x", Instant::now());
        }
        assert_eq!(remembered.entries.len(), MAX_REMEMBERED);
        assert_eq!(format!("{remembered:?}"), "Remembered(1024)");
    }

    #[tokio::test]
    async fn a_disabled_application_is_told_apart_and_never_remembered() {
        let credentials = credentials(Application { disabled: true, ..application("erp", &[HASH]) });
        for _ in 0..2 {
            assert_eq!(credentials.verify("erp", b"hunter2").await, Ok(Verdict::Disabled));
        }
        assert_eq!(credentials.verify("erp", b"wrong").await, Ok(Verdict::WrongPassword));
        assert!(credentials.remembered.lock().entries.is_empty());
    }

    #[tokio::test]
    async fn past_the_places_that_may_wait_there_is_overload_but_not_for_those_who_are_remembered() {
        let credentials = credentials(application("erp", &[HASH]));
        credentials.verify("erp", b"hunter2").await.unwrap();
        let all = u32::try_from(credentials.admitted.available_permits()).unwrap();
        let _places = credentials.admitted.acquire_many(all).await.unwrap();
        assert_eq!(credentials.verify("erp", b"hunter3").await, Err(Overloaded));
        assert_eq!(credentials.verify("erp", b"hunter2").await, Ok(Verdict::Right));
    }

    #[tokio::test]
    async fn names_of_the_file_log_in_too_and_add_to_an_application_of_that_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwords");
        std::fs::write(&path, format!("scanner:{HASH}\nerp:{HASH}\n")).unwrap();
        let new = PasswordHash::make("hunter3").unwrap();
        let credentials = Credentials::new(&[Arc::new(application("erp", &[new.as_str()]))], Some(WatchedFile::new(path)));
        for (name, password) in [("scanner", "hunter2"), ("erp", "hunter2"), ("erp", "hunter3")] {
            assert_eq!(credentials.verify(name, password.as_bytes()).await, Ok(Verdict::Right), "{name}");
        }
        assert_eq!(credentials.verify("scanner", b"hunter3").await, Ok(Verdict::WrongPassword));
    }
}
