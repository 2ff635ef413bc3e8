//! What would become of a message now, and why: every step of an attempt is looked at, and none is made.
//!
//! Looking takes no permit, moves no circuit and asks no provider. What stands in the way is found as `failover`
//! finds it, in its order; `foresee` works out from that who is asked first, and when. That holds as long as
//! nothing else happens: what others send, what providers answer and what people decide may change it.

mod answer;
mod foresee;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use postrider_providers::contract::{Body, Failure, Message, MessageId, Origin, ProviderName, RecipientIndex, ReversePath};
use tokio::time::Instant;

pub use answer::{Candidate, Cannot, Cause, Conclusion, Explanation, Imagined, Part, Verdict, Wait, Way};

use super::group::{Group, chosen, group, no_route};
use super::rate::{Paid, Pass, Turnstile};
use super::rules::Rules;
use super::suitable::{Examined, unsuitable};
use super::{Dispatcher, Guarded, rewrite, stand_in};
use crate::config::Route;
use crate::queue::{Found, Plan, WaitReason};
use crate::route::{Known, Needs, obstacle};
use crate::spool::view::QueueState;
use crate::spool::{RecipientState, Spool, SpoolError, Stored};
use foresee::{End, Start, foresee};

/// Where a message is.
struct Whereabouts {
    held_at: Option<SystemTime>,
    start: Start,
    /// Whether an attempt has it.
    in_hand: bool,
}

/// What is known of the content of a message.
enum Content<'a> {
    Stored(Examined<'a>),
    Imagined(Needs),
}

impl Content<'_> {
    async fn can_be_carried(&self, guarded: &Guarded, route: &Route) -> Result<(), Failure> {
        match self {
            Self::Stored(examined) => examined.can_be_carried(&guarded.capabilities(), route).await,
            Self::Imagined(needs) => {
                obstacle(&guarded.capabilities(), &needs.on(route)).map_or(Ok(()), |obstacle| Err(unsuitable(&obstacle)))
            }
        }
    }
}

impl<S: Spool> Dispatcher<S> {
    /// What would become of a message of the queue; `None` if it is not there.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub async fn explain(&self, id: MessageId) -> Result<Option<(Found, Explanation)>, SpoolError> {
        let Some(found) = self.queue.find(id).await? else { return Ok(None) };
        let (clock, listed) = (self.queue.clock(), &found.listed);
        let (now, parked) = (clock.now(), self.queue.waiting_for(id));
        let is_leased = listed.state == QueueState::Active;
        let start = match (parked, listed.due) {
            (Some((reason, until)), _) => Start::Parked(reason, clock.time_of(until)),
            (None, Some(due)) if !is_leased && due > now => Start::Stored(due),
            (None, Some(_)) if !is_leased => Start::Turn,
            _ => Start::Now,
        };
        let in_hand = is_leased && matches!(start, Start::Now);
        let whereabouts = Whereabouts { held_at: listed.held_at, start, in_hand };
        let explanation = self.explained(&found.stored, &whereabouts, None).await;
        Ok(Some((found, explanation)))
    }

    /// What would become of a message that was handed in now.
    pub async fn explain_imagined(&self, imagined: Imagined) -> Explanation {
        let Imagined { envelope, application, client, size, signature } = imagined;
        let needs = Needs { size, signature, ..Needs::of(&envelope) };
        let origin = Origin { application, client, ..Origin::default() };
        let (id, received, body) = (MessageId::generate(), self.queue.clock().now(), Body::Inline(Bytes::new()));
        let stored = Stored::fresh(Arc::new(Message { id, received, origin, envelope, body }));
        let whereabouts = Whereabouts { held_at: None, start: Start::Now, in_hand: false };
        self.explained(&stored, &whereabouts, Some(needs)).await
    }

    /// `imagined`: what is needed by a message that is not there to be looked at.
    async fn explained(&self, stored: &Stored, whereabouts: &Whereabouts, imagined: Option<Needs>) -> Explanation {
        let (rules, now) = (self.rules(), self.queue.clock().now());
        let (groups, unrouted) = group(self, &rules, stored, now, |_| true);
        let mut parts = closed(stored);
        for group in groups {
            let way = self.way(&rules, stored, &group, imagined).await;
            let conclusion = self.conclude(&rules, stored, &group, &way, whereabouts);
            parts.push(Part { recipients: group.recipients, way: Some(way), conclusion });
        }
        if let Some(first) = unrouted.first() {
            let later = stored.not_before.get(first.0 as usize).copied().flatten().filter(|at| *at > now);
            let at = Some(whereabouts.start.with(later).at(now, now)).filter(|at| *at > now);
            let conclusion = match imagined {
                Some(_) => Conclusion::new(Verdict::Refused, None, "no route matches"),
                None => held(whereabouts).unwrap_or_else(|| Conclusion::new(Verdict::Deferred, at, no_route().text)),
            };
            parts.push(Part { recipients: unrouted, way: None, conclusion });
        }
        parts.sort_by_key(|part| part.recipients.first().copied());
        Explanation { message: Arc::clone(&stored.message), attempts: stored.attempts, parts }
    }

    /// What there is in the way of one group.
    async fn way(&self, rules: &Rules, stored: &Stored, group: &Group, imagined: Option<Needs>) -> Way {
        let (message, route, now) = (&stored.message, &group.route, self.queue.clock().now());
        let shown = stand_in::shown(self, rules, message, &group.candidates);
        let is_null_sent = message.envelope.reverse_path == ReversePath::Null;
        let content = imagined.map_or_else(|| Content::Stored(Examined::new(&shown, is_null_sent)), Content::Imagined);
        let origin = &message.origin;
        let (application, domain) = (origin.application.as_deref(), message.envelope.reverse_path.domain());
        let pass = rules.pass(&route.name, application, domain, Paid::default());
        let piece = pass.piece().filter(|piece| piece.recipients < group.recipients.len());
        let at_once = &group.recipients[..piece.map_or(group.recipients.len(), |piece| piece.recipients)];
        let paused = self.holds.of_message(message, route, now).map(|(reason, _)| Wait { cause: Cause::Stopped, reason, until: None });
        let limited = pass.look(at_once).err().map(|limit| self.limited(limit));
        // What a provider waits for by itself, whoever sends this.
        let alone = Pass::new(Turnstile::default(), [], Paid::default(), Arc::clone(&route.name), pass.domain.clone());
        let mut candidates = Vec::with_capacity(group.candidates.len());
        for name in &group.candidates {
            candidates.push(self.candidate(rules, name, group, &shown, (&alone, at_once), &content).await);
        }
        let plan = Plan {
            expire_after: route.expire_after,
            kept: self.holds.kept(message, route, &group.candidates, group.in_doubt.is_some(), now),
            ..Plan::default()
        };
        let rerouted = chosen(rules, stored).is_some();
        let first = group.recipients.first().and_then(|index| message.envelope.recipients.get(index.0 as usize));
        let passed_over = first.filter(|_| !rerouted).map(|first| {
            let known = Known::all(origin, &message.envelope.reverse_path, &first.address);
            let passed_over = rules.router.passed_over(&known);
            passed_over.map(|(route, unmet)| (Arc::clone(&route.name), unmet, unmet.written(&route.when))).collect()
        });
        Way {
            rerouted,
            passed_over: passed_over.unwrap_or_default(),
            in_doubt: group.in_doubt.and(group.candidates.first().cloned()),
            pinned: self.holds.pin_of(route).filter(|_| group.in_doubt.is_none()),
            waits: paused.into_iter().chain(limited).collect(),
            limits: pass.status(),
            piece,
            candidates,
            expires: self.queue.gives_up(stored, &plan),
            route: Arc::clone(route),
        }
    }

    /// What stands between one group and one of its candidates, in the order of `failover` and of the guards.
    async fn candidate(
        &self,
        rules: &Rules,
        name: &ProviderName,
        group: &Group,
        shown: &Arc<Message>,
        (alone, at_once): (&Pass, &[RecipientIndex]),
        content: &Content<'_>,
    ) -> Candidate {
        let clock = self.queue.clock();
        let mut candidate = Candidate { name: name.clone(), cannot: None, waits: Vec::new(), limits: Vec::new(), per_call: None };
        let Some(guarded) = rules.transports.get(name) else {
            return Candidate { cannot: Some(Cannot::NotConfigured), ..candidate };
        };
        let (is_new, route) = (group.in_doubt.is_none(), &group.route);
        if is_new {
            candidate.cannot = content.can_be_carried(guarded, route).await.err().map(Cannot::from);
        }
        let sender = match rewrite::apply(shown, guarded.rewrite.as_deref().or(route.rewrite.as_deref())).await {
            Ok(in_name) => in_name.message.envelope.reverse_path.clone(),
            Err(failure) => {
                candidate.cannot = candidate.cannot.or(Some(failure.into()));
                shown.envelope.reverse_path.clone()
            }
        };
        let per_call = if is_new { guarded.room(&route.name) } else { guarded.max_recipients(&route.name) }.max(1);
        let call = &at_once[..per_call.min(at_once.len())];
        let mut wait = |cause, reason, until| candidate.waits.push(Wait { cause, reason, until });
        if let Some((reason, _)) = self.holds.of_provider(name, !is_new, clock.now()) {
            wait(Cause::Stopped, reason, None);
        }
        if let Some((reason, until)) = guarded.senders.refusal(&sender).filter(|_| is_new) {
            wait(Cause::SenderRefused, reason, Some(until));
        }
        if let Some((reason, until)) = guarded.circuit.look() {
            wait(Cause::Circuit, reason, until.map(|until| clock.time_of(until)));
        }
        if let Some(reason) = guarded.is_full() {
            wait(Cause::Concurrency, reason, None);
        }
        candidate.waits.extend(guarded.limits.look(alone, call).map(|limit| self.limited(limit)));
        candidate.limits = guarded.limits.status_for(alone.domain.as_ref());
        candidate.per_call = (call.len() < at_once.len()).then_some(per_call);
        candidate
    }

    fn limited(&self, (reason, until): (WaitReason, Instant)) -> Wait {
        Wait { cause: Cause::Limit, reason, until: Some(self.queue.clock().time_of(until)) }
    }

    /// What all that comes to.
    fn conclude(&self, rules: &Rules, stored: &Stored, group: &Group, way: &Way, whereabouts: &Whereabouts) -> Conclusion {
        if let Some(held) = held(whereabouts) {
            return held;
        }
        let now = self.queue.clock().now();
        let start = whereabouts.start.with(group.later);
        if whereabouts.in_hand && group.later.is_none() {
            return Conclusion::new(Verdict::UnderWay, None, "");
        }
        let most = way.piece.map_or(usize::MAX, |piece| piece.recipients);
        let begins = start.at(now, way.expires);
        let in_doubt = group.held(rules, stored.message.received, most, begins);
        if let Some((provider, why)) = in_doubt.filter(|_| !way.waits.iter().any(|wait| wait.cause == Cause::Stopped)) {
            let conclusion = Conclusion::new(Verdict::InDoubt, Some(begins).filter(|at| *at > now), why);
            return Conclusion { provider: Some(provider.clone()), ..conclusion };
        }
        let foreseen = foresee(begins, &way.waits, &way.candidates, way.route.spill);
        let at = Some(foreseen.at).filter(|at| *at > now);
        let conclusion = match (foreseen.end, foreseen.waited) {
            (End::Bounces(why), _) => Conclusion::new(Verdict::Bounces, at, why),
            (End::Nobody(why), _) => Conclusion::new(Verdict::Deferred, at, why),
            (End::Waits, Some(wait)) => self.waits(&wait.reason, None, &whereabouts.start),
            (_, Some(wait)) => self.waits(&wait.reason, at, &whereabouts.start),
            (_, None) => match start {
                Start::Now => Conclusion::new(Verdict::Now, None, ""),
                Start::Turn => Conclusion::new(Verdict::Waits, None, "its turn among the mail of its lane"),
                Start::Stored(_) => Conclusion::new(Verdict::Waits, at, "its time to be fetched from the store"),
                Start::Parked(reason, _) => self.waits(&reason, at, &whereabouts.start),
                Start::Scheduled(_) => Conclusion::new(Verdict::Retry, at, ""),
            },
        };
        if conclusion.verdict == Verdict::Waits && conclusion.at.is_some_and(|at| at > way.expires.max(begins)) {
            return Conclusion { verdict: Verdict::Expires, at: Some(way.expires.max(begins)), ..conclusion };
        }
        Conclusion { provider: foreseen.provider.cloned(), ..conclusion }
    }

    /// That it waits for this, with how many others.
    fn waits(&self, reason: &WaitReason, at: Option<SystemTime>, start: &Start) -> Conclusion {
        let is_among_them = matches!(start, Start::Parked(parked_for, _) if parked_for == reason);
        let others = self.queue.parked_for(reason).saturating_sub(usize::from(is_among_them));
        Conclusion { others, ..Conclusion::new(Verdict::Waits, at, reason.as_str()) }
    }
}

fn held(whereabouts: &Whereabouts) -> Option<Conclusion> {
    whereabouts.held_at.map(|since| Conclusion::new(Verdict::Held, Some(since), ""))
}

/// Those of whom nothing is to be asked: finished, or for a person to decide. One part for each state.
fn closed(stored: &Stored) -> Vec<Part> {
    let mut parts: Vec<(&RecipientState, Vec<RecipientIndex>)> = Vec::new();
    for (index, state) in (0..).map(RecipientIndex).zip(&stored.recipients).filter(|(_, state)| !state.is_open()) {
        match parts.iter_mut().find(|(known, _)| *known == state) {
            Some((_, recipients)) => recipients.push(index),
            None => parts.push((state, vec![index])),
        }
    }
    let part = |(state, recipients): (&RecipientState, _)| {
        let conclusion = match state {
            RecipientState::Held(provider) => {
                let why = Conclusion::new(Verdict::InDoubt, None, "the handover is in doubt, and its route holds");
                Conclusion { provider: Some(provider.clone()), ..why }
            }
            RecipientState::Dead => Conclusion::new(Verdict::Dead, None, ""),
            RecipientState::Relayed => Conclusion::new(Verdict::Ended, None, "relayed"),
            RecipientState::Bounced => Conclusion::new(Verdict::Ended, None, "bounced"),
            RecipientState::Expired => Conclusion::new(Verdict::Ended, None, "expired"),
            RecipientState::Pending | RecipientState::InDoubt(_) => Conclusion::new(Verdict::Now, None, ""),
        };
        Part { recipients, way: None, conclusion }
    };
    parts.into_iter().map(part).collect()
}
