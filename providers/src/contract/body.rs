//! The bytes of a message: header and content, CRLF line ends, not dot-stuffed.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use tokio::io::AsyncReadExt;

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
}

impl Body {
    /// The length in octets, as counted for the SIZE extension (RFC 1870).
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
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
        match self {
            Self::Inline(bytes) => Ok(BodyReader { inner: Source::Inline(bytes.clone()) }),
            Self::File { path, len } => {
                let file = tokio::fs::File::open(path).await?;
                let found = file.metadata().await?.len();
                if found != *len {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("the body file {} has {found} octets, {len} were stored", path.display()),
                    ));
                }
                Ok(BodyReader { inner: Source::File(file) })
            }
        }
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
        }
    }
}

/// Reads a body piece by piece.
#[derive(Debug)]
pub struct BodyReader {
    inner: Source,
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
        match &mut self.inner {
            Source::Inline(bytes) => Ok(Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty())),
            Source::File(file) => {
                let mut buffer = bytes::BytesMut::with_capacity(Self::CHUNK);
                let read = file.read_buf(&mut buffer).await?;
                Ok((read > 0).then(|| buffer.freeze()))
            }
        }
    }
}
