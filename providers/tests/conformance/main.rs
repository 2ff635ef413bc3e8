//! Every kind of provider passes the behaviour suite, and its error table is proved row by row.
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

#[test]
fn the_capabilities_in_the_documentation_are_those_of_the_code() {
    pages::check_capabilities();
}

/// Every provider keeps the contract, whatever its far side does.
mod contract {
    use postrider_providers::conformance::api::Api;
    use postrider_providers::conformance::check;

    use super::subjects::smtp::Smtp;
    use super::subjects::*;

    #[tokio::test]
    async fn capture() {
        check(&capture::Capture).await;
    }

    macro_rules! apis_keep_it {
        ($($(#[$attribute:meta])* $name:ident: $subject:expr),+ $(,)?) => {
            $(
                $(#[$attribute])*
                #[tokio::test]
                async fn $name() {
                    check(&Api($subject)).await;
                }
            )+
        };
    }
    every_http_api!(apis_keep_it);

    macro_rules! services_keep_it {
        ($($name:ident: $subject:expr),+ $(,)?) => {
            $(
                #[tokio::test]
                async fn $name() {
                    check(&Smtp($subject)).await;
                }
            )+
        };
    }
    every_smtp_service!(services_keep_it);
}

/// Every error table holds, and the provider's page says what that has shown.
mod error_tables {
    use postrider_providers::conformance::api::{ApiSubject as _, check_api};

    use super::pages;
    use super::subjects::smtp::{SmtpSubject as _, check_table};
    use super::subjects::*;

    macro_rules! apis_hold {
        ($($(#[$attribute:meta])* $name:ident: $subject:expr),+ $(,)?) => {
            $(
                $(#[$attribute])*
                #[tokio::test]
                async fn $name() {
                    check_api($subject).await;
                    pages::check_answers($subject.kind(), &pages::told(&$subject).await);
                }
            )+
        };
    }
    every_http_api!(apis_hold);

    macro_rules! services_hold {
        ($($name:ident: $subject:expr),+ $(,)?) => {
            $(
                #[tokio::test]
                async fn $name() {
                    check_table($subject).await;
                    let told: Vec<_> = super::subjects::$name::rows().into_iter().map(pages::Told::from).collect();
                    pages::check_answers($subject.kind(), &told);
                }
            )+
        };
    }
    every_smtp_service!(services_hold);
}
