//! Bodies while they arrive: small ones in memory, large ones in a file that is renamed when complete.
//!
//! All of them together keep to one bound of memory, however many arrive at once: a body that finds
//! none left goes to its file early, and in smaller pieces. What is in memory counts until it leaves
//! it: it has to be committed, and may then wait in the queue's window for a while.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use postrider_providers::contract::{Body, MessageId};
use tokio::sync::Semaphore;

use super::error;
use super::layout::{Layout, private_options, sync_dir};
use crate::spool::{BodySink, SpoolError};

/// How much is collected before it is written to a file.
const CHUNK: usize = 64 * 1024;

/// What each body may hold whatever the others do, so that small messages stay in memory: a file of
/// its own with its fsyncs costs a small message more than everything else does.
const SMALL: usize = 16 * 1024;

/// By how much a larger body grows in memory.
const STEP: usize = 64 * 1024;

/// How many files are written to at the same time. More would not be faster, and each takes a thread.
const WRITERS: usize = 32;

/// The memory that all bodies share which have arrived and not left it yet, and their turns at
/// writing to files.
#[derive(Debug)]
pub(super) struct Arriving {
    max: usize,
    used: AtomicUsize,
    turns: Semaphore,
}

/// One body's part of it.
#[derive(Debug)]
struct Part {
    arriving: Arc<Arriving>,
    octets: usize,
}

/// Takes the body of one message.
pub struct SqliteSink {
    id: MessageId,
    layout: Layout,
    inline_max: u64,
    part: Part,
    /// What has not been written to the file yet; everything, while there is no file.
    buffer: Vec<u8>,
    target: Target,
}

enum Target {
    Memory,
    File(PartFile),
    /// An earlier write failed, and this is why.
    Failed(SpoolError),
}

/// A file that is removed when dropped. It travels into the blocking calls and back, so that it is
/// removed as well when the session is cancelled while one of them runs.
struct PartFile {
    file: File,
    path: PathBuf,
    len: u64,
    keep: bool,
}

/// A body in memory with the room that it takes.
struct Counted {
    bytes: Bytes,
    _part: Part,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Arriving {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicUsize::new(0), turns: Semaphore::new(WRITERS) })
    }

    fn is_short(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.max
    }
}

impl Part {
    /// Takes what a buffer of `capacity` octets needs beyond [`SMALL`]. Whether that was there to be
    /// had; it is counted in any case, because the buffer exists.
    fn cover(&mut self, capacity: usize) -> bool {
        let wanted = capacity.saturating_sub(SMALL);
        if wanted <= self.octets {
            return true;
        }
        let more = wanted - self.octets;
        self.octets = wanted;
        self.arriving.used.fetch_add(more, Ordering::Relaxed) + more <= self.arriving.max
    }

    fn give_back(&mut self) {
        self.arriving.used.fetch_sub(std::mem::take(&mut self.octets), Ordering::Relaxed);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl SqliteSink {
    pub(super) fn new(id: MessageId, layout: Layout, inline_max: u64, arriving: Arc<Arriving>) -> Self {
        let part = Part { arriving, octets: 0 };
        Self { id, layout, inline_max, part, buffer: Vec::new(), target: Target::Memory }
    }

    /// Moves the buffer to the file, which is created the first time.
    async fn flush(&mut self) -> Result<(), SpoolError> {
        // Overwritten below, unless this future is dropped: then the body is beyond repair.
        let interrupted = Target::Failed(SpoolError::Unavailable("an earlier write of this body was cancelled".into()));
        let part = match std::mem::replace(&mut self.target, interrupted) {
            Target::Memory => None,
            Target::File(part) => Some(part),
            Target::Failed(error) => {
                self.target = Target::Failed(error.clone());
                return Err(error);
            }
        };
        let path = self.layout.incoming().join(format!("{}.tmp", self.id));
        let bytes = std::mem::take(&mut self.buffer);
        // It is never closed, so there always is a turn to wait for.
        let turn = self.part.arriving.turns.acquire().await.ok();
        let flushed = blocking(move || {
            let mut part = part.map_or_else(|| PartFile::create(path), Ok)?;
            part.append(&bytes)?;
            Ok(part)
        })
        .await;
        drop(turn);
        self.part.give_back();
        match flushed {
            Ok(part) => {
                self.target = Target::File(part);
                Ok(())
            }
            Err(error) => {
                self.target = Target::Failed(error.clone());
                Err(error)
            }
        }
    }
}

impl BodySink for SqliteSink {
    async fn write(&mut self, bytes: Bytes) -> Result<(), SpoolError> {
        let room = match &self.target {
            Target::Memory => self.inline_max,
            Target::File(_) => CHUNK as u64,
            Target::Failed(error) => return Err(error.clone()),
        };
        let needed = self.buffer.len() + bytes.len();
        if needed > SMALL && needed > self.buffer.capacity() {
            // In steps, because doubling would take up to twice of what is needed.
            let step = if self.part.arriving.is_short() { needed } else { needed.next_multiple_of(STEP) };
            self.buffer.reserve_exact(step - self.buffer.len());
        }
        self.buffer.extend_from_slice(&bytes);
        // It may take a while from here, and there may be many.
        drop(bytes);
        let covered = self.part.cover(self.buffer.capacity());
        if self.buffer.len() as u64 > room || !covered && self.buffer.len() >= SMALL { self.flush().await } else { Ok(()) }
    }

    async fn finish(mut self) -> Result<Body, SpoolError> {
        if matches!(self.target, Target::Memory) {
            let bytes = Bytes::from(self.buffer);
            // It takes the room with it, until its last holder lets go of it.
            let is_counted = self.part.octets > 0;
            return Ok(Body::Inline(if is_counted { Bytes::from_owner(Counted { bytes, _part: self.part }) } else { bytes }));
        }
        self.flush().await?;
        let Target::File(part) = self.target else {
            return Err(SpoolError::Unavailable("an earlier write of this body failed".into()));
        };
        let (dir, name) = (self.layout.bodies(), Layout::body_name(self.id));
        let mut part = blocking(move || part.publish(dir, &name)).await?;
        part.keep = true;
        Ok(Body::File { path: std::mem::take(&mut part.path), len: part.len })
    }
}

impl PartFile {
    fn create(path: PathBuf) -> Result<Self, SpoolError> {
        let file = private_options().create_new(true).open(&path).map_err(|error| error::file(&error, "creating", &path))?;
        Ok(Self { file, path, len: 0, keep: false })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.file.write_all(bytes).map_err(|error| error::file(&error, "writing", &self.path))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Gives the complete file its final name, with content and name on stable storage.
    fn publish(mut self, dir: PathBuf, name: &str) -> Result<Self, SpoolError> {
        let published = dir.join(name);
        // The order matters: a name must never be durable before what it names.
        self.file.sync_all().map_err(|error| error::file(&error, "syncing", &self.path))?;
        fs::rename(&self.path, &published).map_err(|error| error::file(&error, "renaming to", &published))?;
        self.path = published;
        sync_dir(&dir).map_err(|error| error::file(&error, "syncing", &dir))?;
        Ok(self)
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished body could not be removed");
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static) -> Result<T, SpoolError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(SpoolError::Unavailable(format!("writing a body: {}", io::Error::from(error)))),
    }
}
