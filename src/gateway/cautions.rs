//! What in a config works, and will surprise somebody all the same.

use postrider_providers::contract::{Connected, ContentForm, ProviderName};

use crate::config::{Config, When};

/// What works, and will surprise somebody all the same: a route whose notifications nobody takes.
#[must_use]
pub fn cautions(config: &Config, connected: &[Connected]) -> Vec<String> {
    let takes_notifications =
        |name: &ProviderName| connected.iter().any(|other| other.name == *name && other.provider.capabilities().null_sender);
    let mut cautions = Vec::new();
    for route in config.routes.iter().filter(|route| route.raw_only) {
        let takes_fields = |name: &&ProviderName| {
            connected.iter().any(|other| other.name == **name && other.provider.capabilities().content == ContentForm::Fields)
        };
        let skipped: Vec<&str> = route.providers.iter().filter(takes_fields).map(ProviderName::as_str).collect();
        if !skipped.is_empty() {
            cautions.push(format!(
                "route \"{}\" is raw_only and never asks {}, which cannot take messages as they are; name only others there",
                route.name,
                skipped.join(", ")
            ));
        }
    }
    for route in config.routes.iter().filter(|route| may_carry_notifications(&route.when)) {
        if config.bounce.sender.is_none() && !route.providers.iter().any(takes_notifications) {
            cautions.push(format!(
                "no provider of route \"{}\" takes mail with the null reverse-path, so senders are not told about mail on it that bounces; \
                 set sender in [bounce], add a smart host to it, or a route with when = {{ null_sender = true }} before it",
                route.name
            ));
        }
        if route.when.recipient_domains.is_empty() {
            // Every notification takes this one.
            break;
        }
    }
    cautions
}

/// Whether notifications of this gateway can match: they have no sender, no application and no client.
fn may_carry_notifications(when: &When) -> bool {
    when.sender_domains.is_empty() && when.null_sender != Some(false) && when.applications.is_empty() && when.clients.is_empty()
}
