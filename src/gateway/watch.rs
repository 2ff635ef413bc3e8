//! Notices that the config file has changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the file is read.
const PERIOD: Duration = Duration::from_secs(2);

/// Looks at a file by its content, wherever links lead, and however it is replaced.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    /// What was taken up, or refused.
    known: Option<Vec<u8>>,
    /// What was found at the last look, and is other than that.
    found: Option<Vec<u8>>,
}

impl FileWatch {
    /// Watches the file at `path` from now on.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), known: std::fs::read(path).ok(), found: None }
    }

    /// Waits until the file is other than it was, and the same at two looks in a row: whoever writes it
    /// may need a moment. A file that is gone has not changed. May be dropped and called again.
    pub async fn changed(&mut self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            let path = self.path.clone();
            // Files may be on a network that hangs.
            let read = tokio::task::spawn_blocking(move || std::fs::read(path).ok()).await;
            if self.look(read.ok().flatten()) {
                return;
            }
        }
    }

    /// Takes the file for known as it is now, because somebody has just read it.
    pub fn know(&mut self) {
        *self = Self::new(&self.path);
    }

    fn look(&mut self, read: Option<Vec<u8>>) -> bool {
        let found = read.filter(|read| self.known.as_ref() != Some(read));
        let is_settled = found.is_some() && found == self.found;
        if is_settled {
            self.known.clone_from(&found);
            self.found = None;
        } else {
            self.found = found;
        }
        is_settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_it_is_the_same_at_two_looks_in_a_row() {
        let mut watch = FileWatch { path: PathBuf::new(), known: Some(b"one".to_vec()), found: None };
        let looks = [
            (Some("one"), false),
            (Some("tw"), false),
            (Some("two"), false),
            (None, false),
            (Some("two"), false),
            (Some("two"), true),
            (Some("two"), false),
            (Some("one"), false),
            (Some("two"), false),
            (Some("one"), false),
            (Some("one"), true),
        ];
        for (step, (read, expected)) in looks.into_iter().enumerate() {
            assert_eq!(watch.look(read.map(|text| text.as_bytes().to_vec())), expected, "look {step}");
        }
    }
}
