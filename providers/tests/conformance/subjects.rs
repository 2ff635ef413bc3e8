//! One subject for each kind of provider: how its far side reads and answers.

pub mod capture;
pub mod sendgrid;
#[cfg(feature = "ses")]
pub mod ses;
pub mod smarthost;
mod strict;

use std::sync::Arc;

use postrider_providers::conformance::Subject;
use postrider_providers::conformance::api::Api;
use postrider_providers::contract::{DynProvider, ProviderName};
use postrider_providers::registry::{Context, Settings};

/// A provider of this kind with these settings.
fn connect(kind: &str, config: &impl Settings) -> Arc<dyn DynProvider> {
    let context = Context::new("relay.example").unwrap();
    config.connect(ProviderName::new(kind, "subject"), &context).unwrap().provider
}

/// All of them, in the order of the registry.
pub fn all() -> Vec<Box<dyn Subject>> {
    vec![
        Box::new(capture::Capture),
        Box::new(Api(sendgrid::SendGrid)),
        #[cfg(feature = "ses")]
        Box::new(ses::Ses),
        Box::new(smarthost::SmartHost),
    ]
}
