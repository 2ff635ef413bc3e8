//! Applications on their way through the gateway: the route that is theirs, and the rate that holds them.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::path::Path;

use support::client::{message, send};
use support::{eventually, gateway, server};

/// The messages in a capture folder.
fn captured(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "eml")).count()
}

/// This host is the application `erp`; its mail takes a route of its own, and what else it sends goes
/// by the client's address.
fn config(directory: &Path, application: &str) -> String {
    for folder in ["erp", "here", "rest"] {
        std::fs::create_dir(directory.join(folder)).unwrap();
    }
    let provider = |name: &str| format!("[provider.capture.{name}]\ndirectory = {:?}\n", directory.join(name));
    let route = |name: &str, when: &str| format!("[[route]]\nname = \"{name}\"\n{when}\nproviders = [\"capture.{name}\"]\n");
    [
        server(&directory.join("data")),
        application.to_owned(),
        ["erp", "here", "rest"].map(provider).concat(),
        route("erp", "when = { app = \"erp\", recipient_domain = \"a.example\" }"),
        route("here", "when = { client = [\"10.0.0.0/8\", \"127.0.0.0/8\"], recipient_domain = \"b.example\" }"),
        route("rest", ""),
    ]
    .concat()
}

#[tokio::test]
async fn a_route_can_be_for_an_application_or_for_clients() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = gateway(&config(directory.path(), "[app.erp]\nnetworks = [\"127.0.0.1\"]\n")).await;
    send(gateway.addresses()[0], "x@corp.example", &["r@a.example", "r@b.example", "r@c.example"], &message("one")).await;
    let folder = |name: &str| captured(&directory.path().join(name));
    eventually("each recipient has left by a route of their own", async || (folder("erp"), folder("here"), folder("rest")) == (1, 1, 1))
        .await;
}

#[tokio::test]
async fn mail_over_an_applications_rate_is_accepted_and_waits() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = gateway(&config(directory.path(), "[app.erp]\nnetworks = [\"127.0.0.1\"]\nrate = \"1/hour\"\n")).await;
    for id in ["one", "two", "three"] {
        send(gateway.addresses()[0], "x@corp.example", &["r@a.example"], &message(id)).await;
    }
    eventually("the first has left", async || gateway.counts().await.unwrap().messages == 2).await;
    assert_eq!(captured(&directory.path().join("erp")), 1);
}
