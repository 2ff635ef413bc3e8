//! The bytes of a message: header and content, CRLF line ends, not dot-stuffed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Where the bytes of a message are. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Body {
    /// In memory.
    Inline(Bytes),
    /// In a file of the spool, which stays as long as the message does.
    File {
        /// The file's path.
        path: PathBuf,
        /// The file's length in octets.
        len: u64,
    },
    /// Another beginning in front of what follows in `rest`: a message whose header was changed. It is
    /// made for one handover, and never stored.
    Spliced {
        /// The new beginning.
        head: Bytes,
        /// The message that it is made of.
        rest: Arc<Body>,
        /// How many octets of `rest` the new beginning stands for; not more than it has.
        skip: u64,
    },
}

impl Body {
    /// The length in octets, as counted for the SIZE extension (RFC 1870).
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
            Self::Spliced { head, rest, skip } => head.len() as u64 + rest.len().saturating_sub(*skip),
        }
    }

    /// Whether there is nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Opens the body for reading from its start.
    ///
    /// # Errors
    /// When the spool's file cannot be opened.
    pub async fn open(&self) -> io::Result<BodyReader> {
        let (mut head, mut body, mut skip) = (Vec::new(), self, 0);
        // What one splice skips may be part of the beginning that another one has set.
        while let Self::Spliced { head: new, rest, skip: old } = body {
            let cut = usize::try_from(skip).unwrap_or(usize::MAX).min(new.len());
            head.push(new.slice(cut..));
            skip = *old + (skip - cut as u64);
            body = rest;
        }
        head.reverse();
        let source = match body {
            Self::Inline(bytes) => {
                let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
                Source::Inline(bytes.slice(skip..))
            }
            Self::File { path, len } => {
                let mut file = tokio::fs::File::open(path).await?;
                let found = file.metadata().await?.len();
                if found != *len {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("the body file {} has {found} octets, {len} were stored", path.display()),
                    ));
                }
                if skip > 0 {
                    file.seek(io::SeekFrom::Start(skip)).await?;
                }
                Source::File(file)
            }
            // The loop above ends at another one.
            Self::Spliced { .. } => Source::Inline(Bytes::new()),
        };
        Ok(BodyReader { head, source })
    }

    /// Whether no octet is outside ASCII. A file is read for it, up to the first that is.
    ///
    /// # Errors
    /// When the spool's file cannot be read.
    pub async fn is_ascii(&self) -> io::Result<bool> {
        let mut reader = self.open().await?;
        while let Some(chunk) = reader.chunk().await? {
            if !chunk.is_ascii() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The whole body in memory, for APIs that take it in one piece.
    ///
    /// # Errors
    /// When the spool's file cannot be read.
    pub async fn bytes(&self) -> io::Result<Bytes> {
        match self {
            Self::Inline(bytes) => Ok(bytes.clone()),
            Self::File { path, .. } => {
                self.open().await?;
                Ok(tokio::fs::read(path).await?.into())
            }
            Self::Spliced { .. } => {
                let mut whole = BytesMut::with_capacity(usize::try_from(self.len()).unwrap_or_default());
                let mut reader = self.open().await?;
                while let Some(chunk) = reader.chunk().await? {
                    whole.extend_from_slice(&chunk);
                }
                Ok(whole.freeze())
            }
        }
    }

    /// The first `most` octets, or all if there are not so many.
    ///
    /// # Errors
    /// When the spool's file cannot be read.
    pub async fn start(&self, most: usize) -> io::Result<Bytes> {
        let (mut start, mut reader) = (BytesMut::new(), self.open().await?);
        while start.len() < most
            && let Some(chunk) = reader.chunk().await?
        {
            if start.is_empty() && chunk.len() >= most {
                return Ok(chunk.slice(..most));
            }
            start.extend_from_slice(&chunk[..chunk.len().min(most - start.len())]);
        }
        Ok(start.freeze())
    }
}

/// Reads a body piece by piece.
#[derive(Debug)]
pub struct BodyReader {
    /// What comes before the source, last piece first.
    head: Vec<Bytes>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Inline(Bytes),
    File(tokio::fs::File),
}

impl BodyReader {
    /// How much of a file is read at once.
    const CHUNK: usize = 64 * 1024;

    /// The next piece, or `None` at the end. A body in memory comes as one piece, uncopied.
    ///
    /// # Errors
    /// When the spool's file cannot be read.
    pub async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(head) = self.head.pop() {
            if !head.is_empty() {
                return Ok(Some(head));
            }
        }
        match &mut self.source {
            Source::Inline(bytes) => Ok(Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty())),
            Source::File(file) => {
                let mut buffer = BytesMut::with_capacity(Self::CHUNK);
                let read = file.read_buf(&mut buffer).await?;
                Ok((read > 0).then(|| buffer.freeze()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(head: &'static str, rest: Body, skip: u64) -> Body {
        Body::Spliced { head: head.into(), rest: Arc::new(rest), skip }
    }

    #[tokio::test]
    async fn a_new_beginning_stands_in_front_of_what_follows_in_memory_and_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("body");
        let old = "Old: x\r\n\r\ntext";
        std::fs::write(&path, old).unwrap();
        for body in [Body::Inline(old.into()), Body::File { path, len: old.len() as u64 }] {
            for (changed, expected) in [
                (spliced("New: y\r\n", body.clone(), 8), "New: y\r\n\r\ntext"),
                (spliced("", body.clone(), 0), old),
                (spliced("all of it", body.clone(), old.len() as u64), "all of it"),
                (spliced("N", spliced("New: y\r\n", body.clone(), 8), 3), "N: y\r\n\r\ntext"),
                (spliced("N", spliced("Ne", body.clone(), 8), 4), "Ntext"),
            ] {
                assert_eq!(changed.bytes().await.unwrap(), expected, "{changed:?}");
                assert_eq!(changed.len(), expected.len() as u64, "{changed:?}");
                assert!(changed.is_ascii().await.unwrap());
                assert_eq!(changed.start(4).await.unwrap(), expected[..4]);
                assert_eq!(changed.start(1000).await.unwrap(), expected);
            }
        }
        assert!(!spliced("\u{fc}", Body::Inline("x".into()), 0).is_ascii().await.unwrap());
    }
}
