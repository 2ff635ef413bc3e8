//! Every kind of provider passes the behaviour suite, and every HTTP API its error table.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod capture;
mod sendgrid;
#[cfg(feature = "ses")]
mod ses;
mod smarthost;
mod strict;

use std::sync::Arc;

use postrider_providers::Providers;
use postrider_providers::conformance::api::{Api, check_api};
use postrider_providers::conformance::{Subject, check};
use postrider_providers::contract::{DynProvider, ProviderName};
use postrider_providers::registry::{Context, Settings};

/// A provider of this kind with these settings.
fn connect(kind: &str, config: &impl Settings) -> Arc<dyn DynProvider> {
    let context = Context::new("relay.example").unwrap();
    config.connect(ProviderName::new(kind, "subject"), &context).unwrap().provider
}

/// One for each kind, in the order of the registry.
fn subjects() -> Vec<Box<dyn Subject>> {
    vec![
        Box::new(capture::Capture),
        Box::new(Api(sendgrid::SendGrid)),
        #[cfg(feature = "ses")]
        Box::new(ses::Ses),
        Box::new(smarthost::SmartHost),
    ]
}

#[test]
fn every_kind_of_provider_has_a_subject() {
    let kinds: Vec<&str> = subjects().iter().map(|subject| subject.kind()).collect();
    assert_eq!(kinds, Providers::KINDS);
}

#[tokio::test]
async fn every_provider_keeps_the_contract() {
    for subject in subjects() {
        check(&*subject).await;
    }
}

#[tokio::test]
async fn every_http_api_is_read_by_its_error_table() {
    check_api(sendgrid::SendGrid).await;
}
