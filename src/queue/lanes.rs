//! Which lane a message waits in: its route and its sender tell.

use std::sync::Arc;

use arc_swap::ArcSwap;
use postrider_providers::contract::Message;

use crate::route::Router;
use crate::spool::view::Lane;
use crate::spool::{Handling, Stored};

/// The routes, as far as the queue asks for them. They may be swapped.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    router: ArcSwap<Router>,
}

impl Lanes {
    /// These routes from now on.
    pub(super) fn swap(&self, router: Arc<Router>) {
        self.router.store(router);
    }

    /// The lane of a message that is stored already.
    pub(super) fn of(&self, stored: &Stored) -> Lane {
        self.of_message(&stored.message, &stored.handling)
    }

    /// The lane of a message that was just made.
    pub(super) fn of_fresh(&self, message: &Message) -> Lane {
        self.of_message(message, &Handling::default())
    }

    /// The route is that of the first recipient, or the one that a person has chosen. It says how urgent
    /// the message is, if nobody else has.
    fn of_message(&self, message: &Message, handling: &Handling) -> Lane {
        let (router, envelope) = (self.router.load(), &message.envelope);
        let route = match (&handling.rerouted, envelope.recipients.first()) {
            (Some(name), _) => router.routes().iter().find(|route| route.name == *name),
            (None, Some(first)) => router.route(&envelope.reverse_path, &first.address, &message.origin),
            (None, None) => None,
        };
        Lane {
            priority: message.origin.priority.or_else(|| route.map(|route| route.priority)).unwrap_or_default(),
            route: route.map(|route| Arc::clone(&route.name)).unwrap_or_default(),
            domain: envelope.reverse_path.domain().map(|domain| domain.to_lowercase().into()).unwrap_or_default(),
        }
    }
}
