//! Which providers may take a message: the first route that matches decides. Pure.

use std::sync::Arc;

use postrider_providers::contract::{Address, ReversePath};

use crate::config::{Route, When};

/// The routes in the order of the config.
#[derive(Debug, Clone, Default)]
pub struct Router {
    routes: Vec<Arc<Route>>,
}

impl Router {
    /// A router over these routes; the first match wins.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        Self { routes: routes.into_iter().map(Arc::new).collect() }
    }

    /// The route of mail from `from` to `to`; `None` when none matches, which is refused at RCPT.
    #[must_use]
    pub fn route(&self, from: &ReversePath, to: &Address) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| matches(&route.when, from, to))
    }

    /// All routes, in order.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }
}

/// All conditions given must hold; each list holds when one of its entries does.
fn matches(when: &When, from: &ReversePath, to: &Address) -> bool {
    let sender = when.sender_domains.is_empty()
        || from.domain().is_some_and(|domain| when.sender_domains.iter().any(|pattern| pattern.matches(domain)));
    let recipient = when.recipient_domains.is_empty() || when.recipient_domains.iter().any(|pattern| pattern.matches(to.domain()));
    let null_sender = when.null_sender.is_none_or(|wanted| wanted == (*from == ReversePath::Null));
    sender && recipient && null_sender
}
