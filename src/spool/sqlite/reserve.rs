//! Space that is kept for bad days, so that a disk the queue has filled can be emptied by the queue.
//!
//! Without it, a full disk is a trap: handing a message over has to be recorded first, which takes
//! space that only handing messages over would free. The file is given up when a commit finds no
//! space. From then on only what empties the queue is written, until the reserve fits again.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::error;
use super::layout::private_options;
use crate::spool::SpoolError;

/// How often taking it back is tried: each try writes as much as there is room for.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// A file of a certain size, or the lack of it.
pub(super) struct Reserve {
    path: PathBuf,
    size: u64,
    whole: bool,
    /// When there was too little space for it last.
    tried: Option<Instant>,
    /// Whether somebody was told that no mail is accepted.
    given_up: bool,
}

impl Reserve {
    /// The reserve as the last process left it.
    pub(super) fn find(path: PathBuf, size: u64) -> Self {
        let whole = size == 0 || fs::metadata(&path).is_ok_and(|found| found.len() == size);
        Self { path, size, whole, tried: None, given_up: false }
    }

    /// Whether there is space for what makes the store grow.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Gives the space up; false when there was nothing to give.
    pub(super) fn release(&mut self) -> bool {
        if self.size == 0 || !self.whole {
            return false;
        }
        self.whole = false;
        self.given_up = true;
        match fs::remove_file(&self.path) {
            Ok(()) => {
                tracing::warn!("the disk is full: no mail is accepted until the queue or somebody has made space");
                true
            }
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the reserve could not be given up");
                false
            }
        }
    }

    /// Takes the space again if there is enough, and a quarter more: otherwise the next message
    /// would find the disk full again, and the two would alternate. `make_room` is called first, and
    /// nothing is tried more often than once in [`TRY_EVERY`].
    pub(super) fn restore(&mut self, make_room: impl FnOnce()) -> Result<(), SpoolError> {
        if self.whole {
            return Ok(());
        }
        if self.tried.is_some_and(|tried| tried.elapsed() < TRY_EVERY) {
            return Err(SpoolError::Full(format!("there is no room for {} yet", self.path.display())));
        }
        make_room();
        let filled = self.fill();
        self.tried = Some(Instant::now());
        if let Err(error) = filled {
            // The other way round it would be in the way of what empties the queue.
            drop(fs::remove_file(&self.path));
            return Err(error::file(&error, "reserving space in", &self.path));
        }
        self.whole = true;
        self.tried = None;
        if std::mem::take(&mut self.given_up) {
            tracing::info!("the disk has space: mail is accepted");
        }
        Ok(())
    }

    fn fill(&self) -> io::Result<()> {
        let mut file = private_options().create(true).truncate(true).open(&self.path)?;
        // Written, not only lengthened: a hole takes no space.
        let zeros = [0; 64 * 1024];
        let mut missing = self.size + self.size / 4;
        while missing > 0 {
            let piece = usize::try_from(missing).map_or(zeros.len(), |missing| missing.min(zeros.len()));
            file.write_all(&zeros[..piece])?;
            missing -= piece as u64;
        }
        // Some file systems find out only now that there is no space.
        file.sync_all()?;
        file.set_len(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_given_up_once_and_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let mut reserve = Reserve::find(path.clone(), 100_000);
        assert!(!reserve.is_whole());
        reserve.restore(|| {}).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 100_000);
        assert!(Reserve::find(path.clone(), 100_000).is_whole());
        assert!(!Reserve::find(path.clone(), 200_000).is_whole(), "the size was changed since");
        assert!(reserve.release());
        assert!(!path.exists() && !reserve.is_whole() && !reserve.release());
        assert!(Reserve::find(path, 0).is_whole(), "none is wanted");
    }
}
