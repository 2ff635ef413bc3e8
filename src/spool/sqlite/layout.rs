//! Where things are in the data directory, and who may use it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use postrider_providers::contract::MessageId;

use super::error;
use crate::spool::SpoolError;

/// The paths of one data directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The database; SQLite puts its `-wal` and `-shm` beside it.
    pub(super) fn database(&self) -> PathBuf {
        self.root.join("spool.db")
    }

    /// Locked as long as a process has the spool open.
    fn lock_file(&self) -> PathBuf {
        self.root.join("spool.lock")
    }

    /// Space to be given up when the disk is full.
    pub(super) fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    /// Large bodies while they arrive. Nothing in here outlives a restart.
    pub(super) fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// Large bodies of stored messages.
    pub(super) fn bodies(&self) -> PathBuf {
        self.root.join("bodies")
    }

    /// Body files that no message names, for a person to look at.
    pub(super) fn set_aside(&self) -> PathBuf {
        self.root.join("set_aside")
    }

    /// The name of a body file under [`Self::bodies`].
    pub(super) fn body_name(id: MessageId) -> String {
        format!("{id}.eml")
    }

    /// Makes what is missing: directories and database for the owner's eyes only, since it is mail.
    pub(super) fn create(&self) -> Result<(), SpoolError> {
        for dir in [self.root.clone(), self.incoming(), self.bodies(), self.set_aside()] {
            private_dir_builder().create(&dir).map_err(|error| error::file(&error, "creating", &dir))?;
        }
        let database = self.database();
        // SQLite gives its other files the permissions of this one.
        private_options().create(true).open(&database).map_err(|error| error::file(&error, "opening", &database))?;
        sync_dir(&self.root).map_err(|error| error::file(&error, "syncing", &self.root))
    }

    /// Locks the directory against every other process, until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, SpoolError> {
        let path = self.lock_file();
        let file = private_options().create(true).open(&path).map_err(|error| error::file(&error, "opening", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(SpoolError::Unavailable(format!(
                "{} is in use by another process; stop it, or give each relay a server.data_dir of its own",
                self.root.display()
            ))),
            Err(TryLockError::Error(error)) => Err(error::file(&error, "locking", &path)),
        }
    }

    /// Removes what was arriving when the last process ended; nobody was promised any of it.
    pub(super) fn clear_incoming(&self) -> Result<(), SpoolError> {
        let dir = self.incoming();
        let clear = || -> io::Result<()> { fs::read_dir(&dir)?.try_for_each(|entry| fs::remove_file(entry?.path())) };
        clear().map_err(|error| error::file(&error, "clearing", &dir))
    }
}

/// Options to read and write a file that only its owner may read.
pub(super) fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn private_dir_builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Puts the names in a directory on stable storage.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened as a file, and renaming is durable by itself.
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}
