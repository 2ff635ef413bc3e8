//! Every kind of provider passes the behaviour suite, and every HTTP API its error table.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod pages;
#[path = "subjects.rs"]
mod subjects;

use postrider_providers::Providers;
use postrider_providers::conformance::api::{ApiSubject as _, check_api};
use postrider_providers::conformance::check;
use subjects::{all, sendgrid};

#[test]
fn every_kind_of_provider_has_a_subject() {
    let kinds: Vec<&str> = all().iter().map(|subject| subject.kind()).collect();
    assert_eq!(kinds, Providers::KINDS);
}

#[tokio::test]
async fn every_provider_keeps_the_contract() {
    // Side by side: most of the time is spent on far sides that say nothing.
    futures_util::future::join_all(all().iter().map(|subject| check(&**subject))).await;
}

/// Holds each of these to its error table, and its page to what that has shown.
macro_rules! http_apis {
    ($($name:ident: $subject:expr),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                check_api($subject).await;
                pages::check_answers($subject.kind(), &pages::told(&$subject).await);
            }
        )+
    };
}

http_apis! {
    sendgrid_is_read_by_its_error_table: sendgrid::SendGrid,
}

#[test]
fn the_capabilities_in_the_documentation_are_those_of_the_code() {
    pages::check_capabilities();
}
