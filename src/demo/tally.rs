//! The count at the end of the demo: what was accepted against what the providers really received.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::sandbox::{SandboxSes, SandboxSmarthost};

/// Who received what.
#[derive(Debug)]
pub(super) struct Tally {
    accepted: usize,
    by_provider: Vec<(&'static str, usize)>,
    lost: usize,
    doubled: usize,
}

impl Tally {
    pub(super) fn new(accepted: &[String], office: &SandboxSmarthost, ses: &SandboxSes, captured: &Path) -> std::io::Result<Self> {
        let of =
            |received: Vec<crate::sandbox::Received>| received.iter().filter_map(crate::sandbox::Received::message_id).collect::<Vec<_>>();
        let mut in_files = Vec::new();
        for path in captured_files(captured) {
            in_files.extend(message_id(&std::fs::read_to_string(path)?));
        }
        let by_provider = [
            ("smarthost.office", of(office.recorder().received())),
            ("ses.backup", of(ses.recorder().received())),
            ("capture.staging", in_files),
        ];
        let mut copies: HashMap<&str, usize> = accepted.iter().map(|id| (id.as_str(), 0)).collect();
        for id in by_provider.iter().flat_map(|(_, ids)| ids) {
            *copies.entry(id).or_default() += 1;
        }
        Ok(Self {
            accepted: accepted.len(),
            lost: copies.values().filter(|copies| **copies == 0).count(),
            doubled: copies.values().filter(|copies| **copies > 1).count(),
            by_provider: by_provider.iter().map(|(name, ids)| (*name, ids.len())).collect(),
        })
    }

    pub(super) fn is_perfect(&self) -> bool {
        self.lost == 0 && self.doubled == 0
    }

    pub(super) fn summary(&self, still_queued: u64) -> String {
        let mut text = format!("\naccepted  {:>6}\n", self.accepted);
        for (name, count) in &self.by_provider {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "relayed   {count:>6}  by {name}");
        }
        if still_queued > 0 {
            let _ = writeln!(text, "queued    {still_queued:>6}");
        }
        let _ = write!(text, "lost      {:>6}\ndoubled   {:>6}", self.lost, self.doubled);
        text
    }
}

/// The messages in the capture folder.
pub(super) fn captured_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
        .collect()
}

fn message_id(text: &str) -> Option<String> {
    let line = text.lines().take_while(|line| !line.is_empty()).find(|line| line.to_ascii_lowercase().starts_with("message-id:"))?;
    Some(line["message-id:".len()..].trim().to_owned())
}
