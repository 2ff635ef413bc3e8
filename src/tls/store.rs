//! Every certificate once, and whether its files have changed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::resolver::ByName;
use super::{ServerTls, TlsError};
use crate::clock::Clock;
use crate::config::{Certificate, CertificateError, CertificateFiles, Validity};

/// How often the files are looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// How often an expiry is told.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificates of all listeners.
#[derive(Debug)]
pub struct CertificateStore {
    slots: Mutex<Vec<Arc<Slot>>>,
    clock: Clock,
}

/// One certificate, and how its files stand.
#[derive(Debug)]
pub(super) struct Slot {
    files: CertificateFiles,
    current: ArcSwap<Certificate>,
    watched: Mutex<Watched>,
}

/// What the last look at the files has shown.
#[derive(Debug)]
struct Watched {
    /// The files that the current certificate was read from.
    taken: Stamps,
    /// Other files that were found later, and are no good; and whether that was said.
    bad: Option<(Stamps, bool)>,
    /// When its expiry was told last.
    told: Option<SystemTime>,
}

/// Tells a file from another that takes its place, also where only a link to a folder changed, as with
/// the volumes of Kubernetes. `None`: it cannot be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, u64, i64, i64)>);

type Stamps = [Stamp; 2];

/// What a look at the files brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// Certificates that are new.
    pub taken: usize,
    /// Certificates that are as they were.
    pub unchanged: usize,
    /// Certificates whose files are no good; the old ones stay in use.
    pub bad: usize,
}

impl CertificateStore {
    /// A store without certificates. The clock tells whether one has expired.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { slots: Mutex::default(), clock }
    }

    /// Reads the certificates of a listener, and gives what it encrypts with. The first is for clients
    /// that name no host, or one that none is for.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn listener(&self, certificates: &[CertificateFiles]) -> Result<ServerTls, TlsError> {
        let mut slots = Vec::new();
        for files in certificates {
            let known = self.slots.lock().iter().find(|slot| slot.files == *files).map(Arc::clone);
            let slot = match known {
                Some(slot) => slot,
                None => {
                    let slot = Slot::read(files, self.clock.now())
                        .map_err(|source| TlsError::Certificate { certificate: files.certificate.clone(), source })?;
                    self.slots.lock().push(Arc::clone(&slot));
                    slot
                }
            };
            slots.push(slot);
        }
        Ok(ServerTls::new(ByName(slots))?)
    }

    /// Forgets what no listener uses that is listed here.
    pub fn keep<'c>(&self, used: impl IntoIterator<Item = &'c CertificateFiles>) {
        let used: Vec<&CertificateFiles> = used.into_iter().collect();
        self.slots.lock().retain(|slot| used.contains(&&slot.files));
    }

    /// Each certificate's file, and when it ends.
    #[must_use]
    pub fn ends(&self) -> Vec<(String, SystemTime)> {
        let end = |slot: &Arc<Slot>| (slot.files.certificate.display().to_string(), slot.current().not_after);
        self.slots.lock().iter().map(end).collect()
    }

    /// Looks at the files; takes what is new, and keeps the old one where the new one is no good, which
    /// the log then says once. With `asked`, a person wants to know: what is bad is said at once and
    /// again. Without, it is only said when it has not changed until the next look, because somebody may
    /// just be writing the second of two files.
    pub fn look(&self, asked: bool) -> Looked {
        let now = self.clock.now();
        let mut looked = Looked::default();
        let slots = self.slots.lock().clone();
        for slot in &slots {
            match slot.look(asked) {
                Some(true) => looked.taken += 1,
                Some(false) => looked.bad += 1,
                None => looked.unchanged += 1,
            }
            slot.tell_expiry(now);
        }
        looked
    }

    /// As [`CertificateStore::look`] when somebody asks for it, without holding up other tasks.
    pub async fn reload(self: &Arc<Self>) -> Looked {
        self.look_aside(true).await
    }

    /// Looks every ten seconds, until `stop`, and lets `looked` see what it has then.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken, looked: impl Fn(&Self)) {
        loop {
            looked(&self);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            self.look_aside(false).await;
        }
    }

    /// Files may be on a network that hangs.
    async fn look_aside(self: &Arc<Self>, asked: bool) -> Looked {
        let store = Arc::clone(self);
        tokio::task::spawn_blocking(move || store.look(asked)).await.unwrap_or_default()
    }
}

impl Slot {
    fn read(files: &CertificateFiles, now: SystemTime) -> Result<Arc<Self>, CertificateError> {
        // Looked at before they are read: a change in between is then found at the next look.
        let taken = stamps(files);
        let certificate = files.read()?;
        // What is wrong with it at the start, the check of the config has said.
        let watched = Watched { taken, bad: None, told: Some(now) };
        Ok(Arc::new(Self { files: files.clone(), current: ArcSwap::from_pointee(certificate), watched: Mutex::new(watched) }))
    }

    pub(super) fn files(&self) -> &CertificateFiles {
        &self.files
    }

    pub(super) fn current(&self) -> Arc<Certificate> {
        self.current.load_full()
    }

    /// Whether a new one was taken, or (`false`) refused; `None` if there is none.
    fn look(&self, asked: bool) -> Option<bool> {
        let mut watched = self.watched.lock();
        let found = stamps(&self.files);
        let before = watched.bad;
        match before {
            None if found == watched.taken => return None,
            Some((bad, true)) if found == bad && !asked => return Some(false),
            _ => {}
        }
        let certificate = match self.files.read() {
            Ok(certificate) => certificate,
            Err(error) => {
                let settled = before.is_some_and(|(bad, _)| bad == found);
                let said = asked || settled;
                watched.bad = Some((found, said));
                let file = self.files.certificate.display();
                if said {
                    error!(certificate = %file, %error, "the new certificate cannot be used, and the old one stays in use");
                } else {
                    debug!(certificate = %file, %error, "the certificate is being changed, or is no good");
                }
                return Some(false);
            }
        };
        watched.taken = found;
        watched.bad = None;
        let is_new = certificate.key.cert != self.current().key.cert;
        if !is_new && before.is_none() {
            return None;
        }
        info!(
            certificate = %self.files.certificate.display(),
            names = certificate.named(),
            expires = %certificate.expires(),
            "{}", if is_new { "a new certificate is in use" } else { "the certificate can be read again" }
        );
        if is_new {
            watched.told = None;
            self.current.store(Arc::new(certificate));
        }
        Some(true)
    }

    /// Says once a day that the certificate ends soon, or has ended.
    fn tell_expiry(&self, now: SystemTime) {
        let mut watched = self.watched.lock();
        if watched.told.is_some_and(|told| now.duration_since(told).is_ok_and(|since| since < DAY)) {
            return;
        }
        let current = self.current();
        let (file, names, expires) = (self.files.certificate.display(), current.named(), current.expires());
        match current.validity(now) {
            Validity::Good => return,
            Validity::NotYet => {
                warn!(certificate = %file, names, begins = %current.begins(), "the certificate is not valid yet, and clients that check it refuse to send");
            }
            Validity::Ending(days) => {
                warn!(certificate = %file, names, %expires, days, "the certificate expires soon: replace its files, which are then taken into use");
            }
            Validity::Expired => {
                error!(certificate = %file, names, %expires, "the certificate has expired, and clients that check it refuse to send: replace its files");
            }
        }
        watched.told = Some(now);
    }
}

fn stamps(files: &CertificateFiles) -> Stamps {
    [stamp(&files.certificate), stamp(&files.private_key)]
}

fn stamp(path: &Path) -> Stamp {
    // Follows links, so that it is the file behind them that is compared.
    Stamp(fs::metadata(path).ok().map(|found| (found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec())))
}

#[cfg(test)]
mod tests;
