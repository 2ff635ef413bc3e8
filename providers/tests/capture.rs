//! Mail captured in a directory.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider_providers::capture;
use postrider_providers::conformance::{attempt, content};
use postrider_providers::contract::{Attempt, Body, DynProvider, Failure, Outcome, Probed, ProviderName, RecipientIndex};
use postrider_providers::registry::{Context, Settings};
use serde_json::{Value, json};

fn provider(directory: &Path) -> Arc<dyn DynProvider> {
    let config: capture::Config = serde_json::from_value(json!({ "directory": directory })).unwrap();
    config.connect(ProviderName::new("capture", "test"), &Context::new("relay.example").unwrap()).unwrap().provider
}

fn files(directory: &Path) -> BTreeSet<String> {
    std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

fn record(directory: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(directory.join(name)).unwrap()).unwrap()
}

#[tokio::test]
async fn every_handover_of_a_message_keeps_its_own_envelope() {
    let directory = tempfile::tempdir().unwrap();
    let provider = provider(directory.path());
    let first = attempt(&content(5000), Duration::from_secs(60));
    let later = Attempt { recipients: [RecipientIndex(1)].into(), number: 2, ..first.clone() };
    for attempt in [&first, &later] {
        let report = provider.deliver(attempt.clone()).await.unwrap();
        assert!(report.outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Relayed(_))));
    }
    let id = first.message.id.to_string();
    let expected = [format!("{id}.2.json"), format!("{id}.eml"), format!("{id}.json")];
    assert_eq!(files(directory.path()), BTreeSet::from(expected.clone()));
    assert_eq!(std::fs::read(directory.path().join(&expected[1])).unwrap(), content(5000));
    let one = record(directory.path(), &expected[2]);
    assert_eq!(one["recipients"], json!(["first@a.example", "refused@b.example", "Third+Tag@C.example"]));
    assert_eq!((&one["id"], &one["reverse_path"], &one["attempt"]), (&json!(id), &json!("sender@app.example"), &json!(1)));
    let two = record(directory.path(), &expected[0]);
    assert_eq!((&two["recipients"], &two["attempt"]), (&json!(["done@a.example"]), &json!(2)));
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_unavailable_and_nothing_half_written_stays() {
    let directory = tempfile::tempdir().unwrap();
    let message = attempt(&content(100), Duration::from_secs(60));
    // The message can be written under its scratch name, but its own name is taken.
    std::fs::create_dir(directory.path().join(format!("{}.eml", message.message.id))).unwrap();
    let failure = provider(directory.path()).deliver(message.clone()).await.unwrap_err();
    let shown = directory.path().display().to_string();
    assert!(matches!(&failure, Failure::Unavailable(diagnostic) if diagnostic.text.contains(&shown)), "{failure:?}");
    assert_eq!(files(directory.path()).len(), 1);
}

#[tokio::test]
async fn a_body_that_the_spool_does_not_give_is_no_fault_of_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let whole = attempt(b"", Duration::from_secs(60));
    let mut message = (*whole.message).clone();
    message.body = Body::File { path: directory.path().join("gone"), len: 1 };
    let report = provider(directory.path()).deliver(Attempt { message: Arc::new(message), ..whole }).await.unwrap();
    assert!(report.outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Deferred(_))), "{report:?}");
}

#[tokio::test]
async fn a_probe_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(provider(directory.path()).probe().await, Ok(Probed::default()));
    assert!(files(directory.path()).is_empty());
}
