//! The password file while the gateway runs: read again when it changes, and kept when the new one is
//! no good.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::{MAX_PASSWORD_FILE, PasswordFile};

/// How old what is known of the file may be.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A password file that is being watched.
#[derive(Debug)]
pub(super) struct WatchedFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    looked: Option<Instant>,
    /// What was there when it was last looked at, good or bad.
    seen: Option<Result<Stamp, String>>,
    current: Arc<PasswordFile>,
}

/// Tells one version of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

impl WatchedFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::default() }
    }

    /// What the file says, or said when it was last good.
    pub(super) async fn current(&self) -> Arc<PasswordFile> {
        let mut state = self.state.lock().await;
        if state.looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN) {
            state.looked = Some(Instant::now());
            self.look(&mut state).await;
        }
        Arc::clone(&state.current)
    }

    async fn look(&self, state: &mut State) {
        let stamp = match tokio::fs::metadata(&self.path).await {
            Ok(metadata) => Ok(Stamp { modified: metadata.modified().ok(), length: metadata.len() }),
            Err(error) => Err(error.to_string()),
        };
        if state.seen.as_ref() == Some(&stamp) {
            return;
        }
        let is_first = state.seen.is_none();
        let path = self.path.display();
        // Each complaint is made once, as it is remembered with what caused it.
        match self.read(&stamp).await {
            Ok(file) => {
                if !is_first {
                    info!(%path, names = file.hashes.len(), "the password file has changed");
                }
                state.current = Arc::new(file);
            }
            Err(error) => warn!(%path, %error, "the password file cannot be used; what it said before still holds"),
        }
        state.seen = Some(stamp);
    }

    async fn read(&self, stamp: &Result<Stamp, String>) -> Result<PasswordFile, String> {
        let stamp = stamp.as_ref().map_err(Clone::clone)?;
        if stamp.length > MAX_PASSWORD_FILE {
            return Err("it is too large".to_owned());
        }
        let text = tokio::fs::read_to_string(&self.path).await.map_err(|error| error.to_string())?;
        PasswordFile::parse(&text).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

    async fn names(file: &WatchedFile) -> String {
        tokio::time::advance(LOOK_AGAIN).await;
        file.current().await.hashes.keys().map(|name| &**name).collect::<Vec<_>>().join(" ")
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_noticed_and_a_bad_one_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwords");
        let file = WatchedFile::new(path.clone());
        assert_eq!(names(&file).await, "");
        std::fs::write(&path, format!("a:{HASH}\n")).unwrap();
        assert_eq!(file.current().await.hashes.len(), 0, "it is not looked at each time");
        assert_eq!(names(&file).await, "a");
        std::fs::write(&path, format!("a:{HASH}\nbb:{HASH}\n")).unwrap();
        assert_eq!(names(&file).await, "a bb");
        std::fs::write(&path, "a:plain").unwrap();
        assert_eq!(names(&file).await, "a bb");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(names(&file).await, "a bb");
        std::fs::write(&path, format!("ccc:{HASH}\n")).unwrap();
        assert_eq!(names(&file).await, "ccc");
    }
}
