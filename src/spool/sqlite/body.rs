//! Bodies while they arrive: small ones in memory, large ones in a file that is renamed when complete.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use postrider_providers::contract::{Body, MessageId};

use super::error;
use super::layout::{Layout, private_options, sync_dir};
use crate::spool::{BodySink, SpoolError};

/// How much is collected before it is written to a file.
const CHUNK: usize = 256 * 1024;

/// Takes the body of one message.
pub struct SqliteSink {
    id: MessageId,
    layout: Layout,
    inline_max: u64,
    /// What has not been written to the file yet; everything, while there is no file.
    buffer: BytesMut,
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

impl SqliteSink {
    pub(super) fn new(id: MessageId, layout: Layout, inline_max: u64) -> Self {
        Self { id, layout, inline_max, buffer: BytesMut::new(), target: Target::Memory }
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
        let flushed = blocking(move || {
            let mut part = part.map_or_else(|| PartFile::create(path), Ok)?;
            part.append(&bytes)?;
            Ok(part)
        })
        .await;
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
        self.buffer.extend_from_slice(&bytes);
        if self.buffer.len() as u64 > room { self.flush().await } else { Ok(()) }
    }

    async fn finish(mut self) -> Result<Body, SpoolError> {
        if matches!(self.target, Target::Memory) {
            return Ok(Body::Inline(self.buffer.freeze()));
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
