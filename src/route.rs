//! Which providers may take a message: the first route that matches decides. Pure.

mod carriage;
mod condition;

use std::sync::Arc;

use postrider_providers::contract::{Address, Capabilities, Connected, Envelope, Origin, ProviderName, ReversePath};

use crate::config::Route;

pub use carriage::{Carriage, Needs, Obstacle, Room, obstacle};
pub use condition::{Condition, Known};

use carriage::Carriers;

/// The routes in the order of the config, and the providers that they name.
#[derive(Debug, Clone, Default)]
pub struct Router {
    routes: Vec<Arc<Route>>,
    carriers: Carriers,
}

impl Router {
    /// A router over these routes; the first match wins. Of providers that it is not given, it takes
    /// for granted that they carry everything.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        Self { routes: routes.into_iter().map(Arc::new).collect(), carriers: Carriers::default() }
    }

    /// The same, able to ask the providers what they can carry.
    #[must_use]
    pub fn with_providers(mut self, connected: &[Connected]) -> Self {
        self.carriers = Carriers::new(connected);
        self
    }

    /// The route of mail from `from` to `to`, handed in by `origin`; `None` when none matches, which is
    /// refused at RCPT.
    #[must_use]
    pub fn route(&self, from: &ReversePath, to: &Address, origin: &Origin) -> Option<&Arc<Route>> {
        let known = Known::all(origin, from, to);
        self.routes.iter().find(|route| condition::verdict(&route.when, &known) == Some(true))
    }

    /// The routes that mail could take of which no more than this is known, in order.
    pub fn reachable<'r>(&'r self, known: &Known<'_>) -> impl Iterator<Item = &'r Arc<Route>> {
        let mut is_decided = false;
        self.routes.iter().filter(move |route| {
            let verdict = condition::verdict(&route.when, known);
            // The first match wins: behind a route that certainly matches, nothing is reached.
            let is_reachable = !is_decided && verdict != Some(false);
            is_decided |= verdict == Some(true);
            is_reachable
        })
    }

    /// The routes in front of the first that may match, each with the first of its conditions that does not hold.
    pub fn passed_over<'r>(&'r self, known: &'r Known<'_>) -> impl Iterator<Item = (&'r Arc<Route>, Condition)> {
        self.routes.iter().map_while(|route| Some((route, Condition::first_unmet(&route.when, known)?)))
    }

    /// What the candidates of a route can carry now.
    #[must_use]
    pub fn carriage(&self, route: &Route) -> Carriage {
        self.carriers.of(route)
    }

    /// What one provider can carry now; `None` if nobody has given it to this router.
    #[must_use]
    pub fn capabilities(&self, provider: &ProviderName) -> Option<Capabilities> {
        self.carriers.capabilities(provider)
    }

    /// What can be carried now of mail of which no more than this is known.
    #[must_use]
    pub fn carriage_for(&self, known: &Known<'_>) -> Carriage {
        self.reachable(known).map(|route| self.carriage(route)).collect()
    }

    /// How large the message may be, so that each recipient's route has a candidate for it; `None`:
    /// as large as it will.
    #[must_use]
    pub fn room(&self, envelope: &Envelope, origin: &Origin) -> Option<Room> {
        let needs = Needs::of(envelope);
        let mut seen: Vec<&Arc<Route>> = Vec::new();
        let mut least: Option<Room> = None;
        for recipient in &envelope.recipients {
            let Some(route) = self.route(&envelope.reverse_path, &recipient.address, origin) else { continue };
            if seen.iter().any(|known| Arc::ptr_eq(known, route)) {
                continue;
            }
            seen.push(route);
            if let Some(octets) = self.carriage(route).max_message_size_for(&needs)
                && least.as_ref().is_none_or(|least| octets < least.octets)
            {
                least = Some(Room { octets, route: Arc::clone(&route.name), recipient: recipient.address.clone() });
            }
        }
        least
    }

    /// All routes, in order.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }
}

#[cfg(test)]
mod tests;
