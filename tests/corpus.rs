//! The fuzz targets' properties, on every seed and on what earlier runs found worth keeping.
//!
//! `make fuzz` looks for new inputs, with a nightly toolchain; this runs the known ones on any.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

#[path = "../fuzz/src/lib.rs"]
mod properties;

use std::path::Path;

/// Runs `check` on the seeds and the corpus of one target, and says which file it failed on.
fn replay(target: &str, check: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let folders = ["seeds", "corpus"].map(|folder| root.join(folder).join(target));
    let mut files: Vec<_> =
        folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let input = std::fs::read(&file).unwrap();
        if std::panic::catch_unwind(|| check(&input)).is_err() {
            panic!("the property of `{target}` does not hold on {}", file.display());
        }
    }
}

#[test]
fn every_known_command_line_keeps_the_property_of_commands() {
    replay("command", properties::command::check);
}

#[test]
fn every_known_message_keeps_the_property_of_data() {
    replay("data", properties::data::check);
}

#[test]
fn every_known_dialogue_keeps_the_property_of_sessions() {
    replay("session", properties::session::check);
}
