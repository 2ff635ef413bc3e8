//! The folder, on a disk of its own.

use std::path::PathBuf;

use postrider_providers::capture;
use postrider_providers::conformance::{Arranged, Arranging, Behaviour, Seen, SeenContent, Subject};
use serde_json::json;

use super::connect;

/// The folder.
pub struct Capture;

impl Subject for Capture {
    fn kind(&self) -> &'static str {
        "capture"
    }

    fn arrange(&self, behaviour: Behaviour) -> Arranging<'_> {
        Box::pin(async move {
            let scratch = tempfile::tempdir().unwrap();
            let directory: PathBuf = match behaviour {
                Behaviour::Accepts => scratch.path().join("mail"),
                Behaviour::RefusesConnections => {
                    std::fs::write(scratch.path().join("file"), "").unwrap();
                    scratch.path().join("file/mail")
                }
                _ => return None,
            };
            let config: capture::Config = serde_json::from_value(json!({ "directory": directory })).unwrap();
            let taken = move || {
                // Moved in here, so that the directory lives as long as the provider.
                let _scratch = &scratch;
                let Ok(files) = std::fs::read_dir(&directory) else { return Vec::new() };
                let records = files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
                let taken = |path: PathBuf| {
                    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                    let recipients = record["recipients"].as_array().unwrap();
                    Seen {
                        recipients: recipients.iter().map(|address| address.as_str().unwrap().to_owned()).collect(),
                        content: SeenContent::Raw(std::fs::read(path.with_extension("eml")).unwrap()),
                    }
                };
                records.map(taken).collect()
            };
            Some(Arranged { provider: connect("capture", &config), taken: Box::new(taken) })
        })
    }
}
