//! Providers that need no account: they speak the real protocols over real loopback sockets, fail
//! on command, and remember what they received. `postrider demo` and the tests run against them.
//!
//! They are strict where real servers are lenient: whatever a client does against its protocol is
//! refused and kept as a [violation](Recorder::violations). They stop when their handle is dropped.

mod port;
mod ses;
mod session;
mod smarthost;
mod switch;

use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

pub use ses::{SandboxSes, SesMode, SesSettings};
pub use smarthost::{SandboxSmarthost, SmarthostMode, SmarthostSettings};

/// How much of a header section is kept.
const MAX_HEAD: usize = 64 << 10;

/// One message that a sandbox provider took.
#[derive(Debug, Clone)]
pub struct Received {
    /// The provider's own id of it, as in its answer.
    pub id: String,
    /// The reverse-path without its brackets; empty when it is the null one.
    pub reverse_path: String,
    /// The recipients it was taken for, in the order in which they were named.
    pub recipients: Vec<String>,
    /// What was asked about notifications, as it came: the parameters of MAIL (RET, ENVID), then those
    /// of each recipient (NOTIFY, ORCPT). Empty where they are not offered.
    pub dsn: Vec<String>,
    /// The header section as received, up to the empty line.
    pub head: Bytes,
    /// Size of the content.
    pub octets: u64,
    /// A digest of the content: equal for equal bytes, within this build.
    pub digest: u64,
    /// When it was taken.
    pub at: Instant,
    /// The content, if the provider was told to keep it.
    pub body: Option<Bytes>,
}

impl Received {
    /// The value of the first header field called `name`, unfolded and trimmed.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head);
        let mut lines = head.split("\r\n");
        let first = lines.by_ref().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.trim_end().eq_ignore_ascii_case(name).then(|| value.to_owned())
        })?;
        let folded = lines.take_while(|line| line.starts_with([' ', '\t']));
        Some(folded.fold(first, |value, line| value + line).trim().to_owned())
    }

    /// The value of the Message-ID field.
    #[must_use]
    pub fn message_id(&self) -> Option<String> {
        self.header("Message-ID")
    }
}

/// What a provider received, and what its clients did wrong. Clones share it.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    keep_bodies: bool,
    received: Mutex<Vec<Received>>,
    violations: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
}

impl Recorder {
    fn new(keep_bodies: bool) -> Self {
        let (count, _) = watch::channel(0);
        Self(Arc::new(Shared { keep_bodies, received: Mutex::default(), violations: Mutex::default(), count }))
    }

    /// Everything received so far, in its order.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.0.received.lock().clone()
    }

    /// How many messages were received so far.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.0.count.borrow()
    }

    /// The count, to be watched while it grows.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.0.count.subscribe()
    }

    /// Waits until at least `count` messages were received.
    pub async fn reached(&self, count: usize) {
        // The sender lives in `self`, so the channel cannot close meanwhile.
        let _ = self.watch().wait_for(|&received| received >= count).await;
    }

    /// What clients did against the protocol, in words. Empty is what a test wants to see.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.0.violations.lock().clone()
    }

    /// Takes a message, and gives it an id.
    fn record(&self, reverse_path: String, recipients: Vec<String>, dsn: Vec<String>, content: Vec<u8>) -> String {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(&content);
        let mut received = self.0.received.lock();
        let id = format!("sandbox-{:06}", received.len() + 1);
        received.push(Received {
            id: id.clone(),
            reverse_path,
            recipients,
            dsn,
            head: Bytes::copy_from_slice(head(&content)),
            octets: content.len() as u64,
            digest: hasher.finish(),
            at: Instant::now(),
            body: self.0.keep_bodies.then(|| content.into()),
        });
        self.0.count.send_replace(received.len());
        id
    }

    fn violation(&self, what: impl Into<String>) {
        self.0.violations.lock().push(what.into());
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("count", &self.count()).finish_non_exhaustive()
    }
}

/// The header section: everything before the first empty line.
fn head(content: &[u8]) -> &[u8] {
    if content.starts_with(b"\r\n") {
        return &[];
    }
    let bounded = &content[..content.len().min(MAX_HEAD)];
    let end = memchr::memmem::find(bounded, b"\r\n\r\n").map_or(bounded.len(), |at| at + 2);
    &bounded[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_recorder_remembers_what_it_was_given() {
        let recorder = Recorder::new(true);
        let content = b"Subject: a\r\n folded one\r\nMESSAGE-ID : <1@x>\r\n\r\nMessage-ID: <2@x>\r\n".to_vec();
        recorder.record("a@x".into(), vec!["b@x".into(), "c@x".into()], Vec::new(), content.clone());
        recorder.reached(1).await;
        let received = recorder.received();
        assert_eq!(received[0].message_id().as_deref(), Some("<1@x>"));
        assert_eq!(received[0].header("subject").as_deref(), Some("a folded one"));
        assert_eq!(received[0].header("Received"), None);
        assert_eq!(received[0].body.as_deref(), Some(content.as_slice()));
        assert_eq!((received[0].octets, received.len()), (content.len() as u64, 1));
    }

    #[test]
    fn equal_contents_have_equal_digests() {
        let recorder = Recorder::new(false);
        for content in ["\r\nbody: x\r\n", "\r\nbody: x\r\n", "\r\nbody: y\r\n"] {
            recorder.record(String::new(), Vec::new(), Vec::new(), content.into());
        }
        let received = recorder.received();
        assert_eq!(received[0].digest, received[1].digest);
        assert_ne!(received[0].digest, received[2].digest);
        assert_eq!((received[0].header("body"), received[0].body.is_none()), (None, true));
    }
}
