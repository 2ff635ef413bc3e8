//! A refresh token that may be replaced with each use, kept across restarts.
//!
//! The newest is a file of its own in the state directory, if there is one: readable by this account alone,
//! written beside its place and renamed into it. It belongs to the token in the config that it came
//! from: whoever configures another one starts anew.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::digest;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::contract::ProviderName;

/// The version of the file's form.
const VERSION: u64 = 1;

pub(super) struct Kept {
    configured: String,
    /// Says from which configured token a file came, without telling it.
    fingerprint: String,
    path: Option<PathBuf>,
    newest: Mutex<Option<String>>,
    /// The newest is not in the file yet.
    is_unwritten: AtomicBool,
}

impl Kept {
    pub(super) fn new(name: &ProviderName, configured: String, state: Option<&Path>) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in [name.as_str(), "\0", &configured] {
            hash.update(part.as_bytes());
        }
        let fingerprint = hash.finish().as_ref().iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let harmless = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let file = name.as_str().chars().map(harmless).collect::<String>() + ".json";
        Self {
            configured,
            fingerprint,
            path: state.map(|state| state.join(file)),
            newest: Mutex::new(None),
            is_unwritten: AtomicBool::new(false),
        }
    }

    /// The token to use next.
    pub(super) async fn current(&self) -> String {
        if let Some(newest) = self.newest.lock().clone() {
            return newest;
        }
        let mut found = None;
        if let Some(path) = self.path.clone() {
            match in_background(move || std::fs::read(path)).await {
                Ok(bytes) => {
                    found = self.read(&bytes).unwrap_or_else(|()| {
                        tracing::warn!("the file with the newest refresh token is damaged; the one in the config is used");
                        None
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%error, "the newest refresh token cannot be read; the one in the config is used"),
            }
        }
        let current = found.unwrap_or_else(|| self.configured.clone());
        *self.newest.lock() = Some(current.clone());
        current
    }

    /// The token in a file; `None` where it came from another one than is configured.
    fn read(&self, bytes: &[u8]) -> Result<Option<String>, ()> {
        let file: Value = serde_json::from_slice(bytes).map_err(drop)?;
        let (Some(VERSION), Some(configured)) = (file["version"].as_u64(), file["configured"].as_str()) else { return Err(()) };
        if configured != self.fingerprint {
            return Ok(None);
        }
        file["refresh_token"].as_str().filter(|token| !token.is_empty()).map(|token| Some(token.to_owned())).ok_or(())
    }

    /// Keeps a token that came in place of the one that was used.
    pub(super) async fn keep(&self, token: &str) {
        let is_known = self.newest.lock().replace(token.to_owned()).as_deref() == Some(token);
        if is_known && !self.is_unwritten.load(Ordering::Relaxed) {
            return;
        }
        let Some(path) = self.path.clone() else { return };
        let content = json!({ "version": VERSION, "configured": self.fingerprint, "refresh_token": token }).to_string();
        let written = in_background(move || write(&path, content.as_bytes())).await;
        self.is_unwritten.store(written.is_err(), Ordering::Relaxed);
        if let Err(error) = written {
            tracing::warn!(%error, "the newest refresh token cannot be kept; after a restart an older one is used");
        }
    }
}

async fn in_background<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Replaces the file as a whole or not at all.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let is_new = !dir.exists();
    builder.create(dir)?;
    if is_new {
        give_to_owner_of(dir.parent(), dir);
    }
    let temporary = path.with_extension(format!("{}.new", uuid::Uuid::now_v7().as_simple()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = (|| {
        let mut file = options.open(&temporary)?;
        give_to_owner_of(Some(dir), &temporary);
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // Nothing to be done about one that stays.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    // So that the new name survives a power cut, too.
    if cfg!(unix) { std::fs::File::open(dir)?.sync_all() } else { Ok(()) }
}

/// What root makes, as by a command of an administrator, must not be out of reach of the gateway's account.
/// Others cannot give anything away, and need not.
fn give_to_owner_of(place: Option<&Path>, made: &Path) {
    #[cfg(unix)]
    if let Some(place) = place.and_then(|place| std::fs::metadata(place).ok()) {
        use std::os::unix::fs::MetadataExt as _;
        let _ = std::os::unix::fs::chown(made, Some(place.uid()), Some(place.gid()));
    }
    #[cfg(not(unix))]
    let _ = (place, made);
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, chown};

    use super::*;

    #[test]
    fn what_root_keeps_belongs_to_whoever_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        if chown(dir.path(), Some(1234), Some(1234)).is_err() {
            // Whoever is not root makes only what is its own.
            return;
        }
        let (state, file) = (dir.path().join("providers"), dir.path().join("providers/graph.main.json"));
        write(&file, b"{}").unwrap();
        for made in [state, file] {
            assert_eq!(std::fs::metadata(&made).map(|made| (made.uid(), made.gid())).unwrap(), (1234, 1234), "{made:?}");
        }
    }
}
