//! Which recipients of a message go the same way, and whom there is to ask for them.

use std::sync::Arc;
use std::time::SystemTime;

use postrider_providers::contract::{Diagnostic, EnhancedStatus, ProviderName, RecipientIndex};

use super::rules::Rules;
use super::transport::Guarded;
use super::{Dispatcher, doubt};
use crate::config::{InDoubt, Route};
use crate::spool::{RecipientState, Spool, Stored};

/// Recipients that go the same way.
pub(super) struct Group {
    pub(super) route: Arc<Route>,
    /// Whom to ask, in order. One, when an earlier handover is in doubt.
    pub(super) candidates: Vec<ProviderName>,
    /// Set if the last handover is in doubt, and then repeated as it was.
    pub(super) in_doubt: Option<Doubt>,
    /// Their own time, if it has not come yet.
    pub(super) later: Option<SystemTime>,
    pub(super) recipients: Vec<RecipientIndex>,
}

/// A handover in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubt {
    /// Its number; `None` if it is not known who was in it.
    handover: Option<u64>,
}

impl Group {
    /// Whether calls for so many, each for at most `most`, are the one call of before.
    pub(super) fn is_repeated(&self, recipients: usize, most: usize) -> bool {
        let is_whole = |doubt: Doubt| doubt.handover.is_some() && recipients == self.recipients.len() && recipients <= most;
        self.in_doubt.is_none_or(is_whole)
    }

    /// The provider whose handover is in doubt and why that waits for a person, if it does: the route holds,
    /// and the provider would not recognise it, or not all of it can be repeated in one call now.
    pub(super) fn held(&self, rules: &Rules, received: SystemTime, most: usize, now: SystemTime) -> Option<(&ProviderName, &'static str)> {
        self.in_doubt.filter(|_| self.route.in_doubt == InDoubt::Hold)?;
        let provider = self.candidates.first()?;
        let guarded = rules.transports.get(provider);
        let is_recognised = guarded.is_some_and(|guarded| {
            self.is_repeated(self.recipients.len(), most.min(guarded.max_recipients(&self.route.name)))
                && doubt::is_recognised(&guarded.capabilities(), received, now)
        });
        let recognises = |guarded: &Arc<Guarded>| guarded.capabilities().idempotency.is_some();
        let why = match guarded.is_some_and(recognises) {
            true => "the handover is in doubt, and the provider would not recognise it any more",
            false => "the handover was cut off",
        };
        (!is_recognised).then_some((provider, why))
    }
}

/// Groups those recipients who are open and meant, by route, candidates and time. Says for whom there is no
/// route.
pub(super) fn group<S: Spool>(
    dispatcher: &Dispatcher<S>,
    rules: &Rules,
    stored: &Stored,
    now: SystemTime,
    is_meant: impl Fn(RecipientIndex) -> bool,
) -> (Vec<Group>, Vec<RecipientIndex>) {
    let message = &stored.message;
    let (mut groups, mut unrouted): (Vec<Group>, _) = (Vec::new(), Vec::new());
    let chosen = chosen(rules, stored);
    let states = stored.recipients.iter().zip(stored.handovers.iter().zip(&stored.not_before));
    for (position, (recipient, (state, (handover, not_before)))) in (0u32..).zip(message.envelope.recipients.iter().zip(states)) {
        let index = RecipientIndex(position);
        if !state.is_open() || !is_meant(index) {
            continue;
        }
        let by_address = || rules.router.route(&message.envelope.reverse_path, &recipient.address, &message.origin);
        let Some(route) = chosen.or_else(by_address) else {
            unrouted.push(index);
            continue;
        };
        let (candidates, in_doubt) = match state {
            RecipientState::InDoubt(provider) => (vec![provider.clone()], Some(Doubt { handover: *handover })),
            _ => (dispatcher.holds.pinned(route).map_or_else(|| route.providers.clone(), |pinned| vec![pinned]), None),
        };
        let later = not_before.filter(|at| *at > now);
        let is_in = |group: &&mut Group| {
            Arc::ptr_eq(&group.route, route) && (&group.candidates, group.in_doubt, group.later) == (&candidates, in_doubt, later)
        };
        match groups.iter_mut().find(is_in) {
            Some(group) => group.recipients.push(index),
            None => groups.push(Group { route: Arc::clone(route), candidates, in_doubt, later, recipients: vec![index] }),
        }
    }
    (groups, unrouted)
}

/// The route that a person has chosen for the message, as long as it exists.
pub(super) fn chosen<'r>(rules: &'r Rules, stored: &Stored) -> Option<&'r Arc<Route>> {
    let name = stored.handling.rerouted.as_ref()?;
    rules.router.routes().iter().find(|route| route.name == *name)
}

/// What is said of recipients for whom there is none.
pub(super) fn no_route() -> Diagnostic {
    Diagnostic { status: Some(EnhancedStatus(4, 4, 4)), ..Diagnostic::local("no route matches since the configuration was changed") }
}
