//! One subject for each kind of provider: how its far side reads and answers.

pub mod azure;
pub mod brevo;
pub mod capture;
pub mod cloudflare;
pub mod gmail;
pub mod graph;
pub mod http;
pub mod mailersend;
pub mod mailgun;
pub mod mailjet;
pub mod office365;
pub mod office365_connector;
pub mod postmark;
pub mod resend;
pub mod scaleway;
pub mod sendgrid;
#[cfg(feature = "ses")]
pub mod ses;
pub mod smarthost;
pub mod smtp;
pub mod sparkpost;
mod strict;
pub mod workspace;

use std::sync::Arc;

use postrider_providers::conformance::Subject;
use postrider_providers::conformance::api::Api;
use postrider_providers::contract::{DynProvider, ProviderName};
use postrider_providers::registry::{Context, Settings};
use smtp::Smtp;

/// Gives every HTTP API, as `name: Subject`, to another macro.
macro_rules! every_http_api {
    ($do:ident) => {
        $do! {
            azure: azure::Azure::default(),
            brevo: brevo::Brevo,
            cloudflare: cloudflare::Cloudflare,
            gmail: gmail::Gmail,
            graph: graph::Graph,
            http: http::Generic::Template,
            mailersend: mailersend::MailerSend,
            mailgun: mailgun::Mailgun,
            mailjet: mailjet::Mailjet,
            postmark: postmark::Postmark,
            resend: resend::Resend,
            scaleway: scaleway::Scaleway,
            sendgrid: sendgrid::SendGrid,
            #[cfg(feature = "ses")]
            ses: ses::Ses,
            sparkpost: sparkpost::SparkPost,
        }
    };
}
pub(crate) use every_http_api;

/// Gives every service that is reached by SMTP, as `name: Subject`, to another macro.
macro_rules! every_smtp_service {
    ($do:ident) => {
        $do! {
            office365: office365::Office365,
            office365_connector: office365_connector::Connector,
            smarthost: smarthost::SmartHost,
            workspace: workspace::Workspace,
        }
    };
}
pub(crate) use every_smtp_service;

/// A provider of this kind with these settings.
fn connect(kind: &str, config: &impl Settings) -> Arc<dyn DynProvider> {
    let context = Context::new("relay.example").unwrap();
    config.connect(ProviderName::new(kind, "subject"), &context).unwrap().provider
}

/// All of them, by kind.
pub fn all() -> Vec<Box<dyn Subject>> {
    let mut all: Vec<Box<dyn Subject>> = vec![Box::new(capture::Capture)];
    macro_rules! push_apis {
        ($($(#[$attribute:meta])* $name:ident: $subject:expr),+ $(,)?) => {
            $( $(#[$attribute])* all.push(Box::new(Api($subject))); )+
        };
    }
    macro_rules! push_services {
        ($($name:ident: $subject:expr),+ $(,)?) => {
            $( all.push(Box::new(Smtp($subject))); )+
        };
    }
    every_http_api!(push_apis);
    every_smtp_service!(push_services);
    all.sort_by_key(|subject| subject.kind());
    all
}
