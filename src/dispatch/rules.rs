//! What a dispatcher works by, as a whole: an attempt keeps the rules that it began with, and a reload
//! replaces them for those that follow.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use postrider_providers::contract::{Connected, ProviderName};
use tracing::error;

use super::Endpoint;
use super::notebook::Notebook;
use super::rate::{KeyedLimits, Paid, Pass, ProviderLimits, SenderLimits, Turnstile};
use super::transport::{self, Guarded};
use crate::config::{Failover, Rewrite};
use crate::queue::Queue;
use crate::route::Router;
use crate::spool::Spool;

/// Routes, providers and limits that belong together.
#[derive(Debug)]
pub struct Rules {
    pub(super) router: Arc<Router>,
    pub(super) transports: HashMap<ProviderName, Arc<Guarded>>,
    /// The names of all applications.
    pub(super) applications: Arc<[Arc<str>]>,
    /// Limits on applications, over all routes.
    pub(super) application_limits: Arc<KeyedLimits>,
    /// Limits on sending domains, over all routes.
    pub(super) domain_limits: Arc<KeyedLimits>,
    /// Limits on sending domains of a route, by the route's name.
    pub(super) route_limits: HashMap<Arc<str>, Arc<KeyedLimits>>,
    /// Lets one message at a time pass its limits.
    turnstile: Turnstile,
    /// Waiting times between attempts, by the provider that was asked last.
    pub(super) retry: HashMap<ProviderName, Arc<[Duration]>>,
}

/// A provider of the rules that follow.
#[derive(Debug)]
pub struct Successor {
    /// The provider: the one of before, where nothing about it is different.
    pub connected: Connected,
    /// Its limits; `None`: those of before.
    pub limits: Option<ProviderLimits>,
    /// Handovers at the same time.
    pub concurrency: usize,
    /// In whose name mail is handed over to it.
    pub rewrite: Option<Arc<Rewrite>>,
}

impl Rules {
    /// The first ones.
    pub(super) fn new<S: Spool>(
        queue: &Queue<S>,
        notebook: &Notebook,
        router: Arc<Router>,
        endpoints: Vec<Endpoint>,
        failover: &Failover,
        sender_limits: SenderLimits,
    ) -> Self {
        let guard = |endpoint: Endpoint| (endpoint.connected.name.clone(), Arc::new(transport::guard(endpoint, failover, queue, notebook)));
        let SenderLimits { names, applications, domains } = sender_limits;
        Self {
            transports: endpoints.into_iter().map(guard).collect(),
            applications: names.into(),
            application_limits: Arc::new(applications),
            domain_limits: Arc::new(domains),
            route_limits: route_limits(&router).map(|(name, limits)| (name, Arc::new(limits))).collect(),
            turnstile: Turnstile::default(),
            retry: retry(failover),
            router,
        }
        .with_reserves()
    }

    /// The rules that follow on these. What is known about a provider stays known: its circuit, what was
    /// used of its limits, and how many handovers are under way.
    pub(super) fn next<S: Spool>(
        &self,
        queue: &Queue<S>,
        notebook: &Notebook,
        router: Arc<Router>,
        successors: Vec<Successor>,
        failover: &Failover,
        sender_limits: SenderLimits,
    ) -> Self {
        let transports = successors.into_iter().filter_map(|successor| {
            let name = successor.connected.name.clone();
            let guarded = match self.transports.get(&name) {
                Some(before) => {
                    before.circuit.adopt(failover.of(&name), successor.concurrency);
                    transport::guard_again(before, successor, queue)
                }
                None => {
                    let Successor { connected, limits, concurrency, rewrite } = successor;
                    let Some(limits) = limits else {
                        error!(provider = %name, "left out: it has no limits of before, and brings none");
                        return None;
                    };
                    Arc::new(transport::guard(Endpoint { connected, limits, concurrency, rewrite }, failover, queue, notebook))
                }
            };
            Some((name, guarded))
        });
        let transports = transports.collect();
        let SenderLimits { names, applications, domains } = sender_limits;
        let route_limits = route_limits(&router).map(|(name, limits)| match self.route_limits.get(&name) {
            Some(before) => (name, Arc::new(limits.after(before))),
            None => (name, Arc::new(limits)),
        });
        Self {
            transports,
            applications: names.into(),
            application_limits: Arc::new(applications.after(&self.application_limits)),
            domain_limits: Arc::new(domains.after(&self.domain_limits)),
            route_limits: route_limits.collect(),
            turnstile: self.turnstile.clone(),
            retry: retry(failover),
            router,
        }
        .with_reserves()
    }

    /// Tells each provider's limits which routes keep a share of them.
    fn with_reserves(self) -> Self {
        for guarded in self.transports.values() {
            guarded.limits.set_reserves(self.router.routes().iter().map(|route| &**route));
        }
        self
    }

    /// What whoever sends a message by `route` has to pass.
    pub(super) fn pass(&self, route: &Arc<str>, application: Option<&str>, domain: Option<&str>, paid: Paid) -> Pass {
        let application = application.map(|name| (Arc::clone(&self.application_limits), name.into()));
        let domain: Option<Arc<str>> = domain.map(Into::into);
        let of_domain = self.route_limits.get(route).into_iter().chain([&self.domain_limits]);
        let of_domain = domain.iter().flat_map(|domain| of_domain.clone().map(|limits| (Arc::clone(limits), Arc::clone(domain))));
        let limits: Vec<_> = application.into_iter().chain(of_domain).collect();
        Pass::new(self.turnstile.clone(), limits, paid, Arc::clone(route), domain)
    }

    /// A provider as it was built, if it is there.
    #[must_use]
    pub fn connected(&self, name: &ProviderName) -> Option<&Connected> {
        self.transports.get(name).map(|guarded| guarded.connected())
    }

    /// Its limits, with what was used of them.
    #[must_use]
    pub fn limits(&self, name: &ProviderName) -> Option<&ProviderLimits> {
        self.transports.get(name).map(|guarded| &*guarded.limits)
    }

    /// The routes.
    #[must_use]
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }
}

fn route_limits(router: &Router) -> impl Iterator<Item = (Arc<str>, KeyedLimits)> {
    router.routes().iter().filter_map(|route| Some((route.name.clone(), KeyedLimits::of_route(&route.name, route.per_sending_domain?))))
}

fn retry(failover: &Failover) -> HashMap<ProviderName, Arc<[Duration]>> {
    failover.providers.iter().filter_map(|(name, own)| Some((name.clone(), own.retry.as_deref()?.into()))).collect()
}
