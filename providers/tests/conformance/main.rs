//! Every kind of provider passes the behaviour suite, and every HTTP API its error table.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod pages;
#[path = "subjects.rs"]
mod subjects;

use postrider_providers::Providers;
use subjects::all;

#[test]
fn every_kind_of_provider_has_a_subject() {
    let kinds: Vec<&str> = all().iter().map(|subject| subject.kind()).collect();
    let mut known = Providers::KINDS.to_vec();
    known.sort_unstable();
    assert_eq!(kinds, known);
}

/// Every provider keeps the contract, whatever its far side does.
mod contract {
    use postrider_providers::conformance::api::Api;
    use postrider_providers::conformance::check;

    use super::subjects::*;

    #[tokio::test]
    async fn capture() {
        check(&capture::Capture).await;
    }

    macro_rules! keeps {
        ($($(#[$attribute:meta])* $kind:ident: $subject:expr),+ $(,)?) => {
            $(
                $(#[$attribute])*
                #[tokio::test]
                async fn $kind() {
                    check(&Api($subject)).await;
                }
            )+
        };
    }
    every_http_api!(keeps);

    #[tokio::test]
    async fn smarthost() {
        check(&smarthost::SmartHost).await;
    }
}

/// Every HTTP API is held to its error table, and its page to what that has shown.
mod error_tables {
    use postrider_providers::conformance::api::{ApiSubject as _, check_api};

    use super::pages;
    use super::subjects::*;

    macro_rules! check {
        ($($(#[$attribute:meta])* $kind:ident: $subject:expr),+ $(,)?) => {
            $(
                $(#[$attribute])*
                #[tokio::test]
                async fn $kind() {
                    check_api($subject).await;
                    pages::check_answers($subject.kind(), &pages::told(&$subject).await);
                }
            )+
        };
    }
    every_http_api!(check);
}

#[test]
fn the_capabilities_in_the_documentation_are_those_of_the_code() {
    pages::check_capabilities();
}
