//! One subject for each kind of provider: how its far side reads and answers.

pub mod brevo;
pub mod capture;
pub mod cloudflare;
pub mod mailersend;
pub mod mailgun;
pub mod mailjet;
pub mod sendgrid;
#[cfg(feature = "ses")]
pub mod ses;
pub mod smarthost;
pub mod sparkpost;
mod strict;

use std::sync::Arc;

use postrider_providers::conformance::Subject;
use postrider_providers::conformance::api::Api;
use postrider_providers::contract::{DynProvider, ProviderName};
use postrider_providers::registry::{Context, Settings};

/// Gives every HTTP API, as `kind: Subject`, to another macro.
macro_rules! every_http_api {
    ($do:ident) => {
        $do! {
            brevo: brevo::Brevo,
            cloudflare: cloudflare::Cloudflare,
            mailersend: mailersend::MailerSend,
            mailgun: mailgun::Mailgun,
            mailjet: mailjet::Mailjet,
            sendgrid: sendgrid::SendGrid,
            #[cfg(feature = "ses")]
            ses: ses::Ses,
            sparkpost: sparkpost::SparkPost,
        }
    };
}
pub(crate) use every_http_api;

/// A provider of this kind with these settings.
fn connect(kind: &str, config: &impl Settings) -> Arc<dyn DynProvider> {
    let context = Context::new("relay.example").unwrap();
    config.connect(ProviderName::new(kind, "subject"), &context).unwrap().provider
}

/// All of them, in the order of the registry.
pub fn all() -> Vec<Box<dyn Subject>> {
    let mut all: Vec<Box<dyn Subject>> = vec![Box::new(capture::Capture), Box::new(smarthost::SmartHost)];
    macro_rules! push {
        ($($(#[$attribute:meta])* $kind:ident: $subject:expr),+ $(,)?) => {
            $( $(#[$attribute])* all.push(Box::new(Api($subject))); )+
        };
    }
    every_http_api!(push);
    all.sort_by_key(|subject| subject.kind());
    all
}
