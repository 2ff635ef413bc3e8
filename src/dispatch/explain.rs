//! What would become of a message now, and why: every step of an attempt is looked at, and none is made.
//!
//! Looking takes no permit, moves no circuit and asks no provider. What stands in the way is found as `failover`
//! finds it, in its order; `foresee` works out from that who is asked first, and when. That holds as long as
//! nothing else happens: what others send, what providers answer and what people decide may change it.

mod foresee;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use postrider_providers::contract::{
    Body, Diagnostic, Envelope, Failure, Message, MessageId, Origin, ProviderName, RecipientIndex, ReversePath,
};
use postrider_providers::mime::signature::Signature;
use tokio::time::Instant;

use super::control::Pin;
use super::group::{Group, chosen, group, no_route};
use super::rate::{LimitStatus, Paid, Pass, Piece, Turnstile};
use super::rules::Rules;
use super::suitable::{Examined, unsuitable};
use super::{Dispatcher, Guarded, rewrite, stand_in};
use crate::config::Route;
use crate::queue::{Found, Plan, WaitReason};
use crate::route::{Condition, Known, Needs, obstacle};
use crate::spool::view::QueueState;
use crate::spool::{RecipientState, Spool, SpoolError, Stored};
use foresee::{End, Start, foresee};

/// A message that somebody would hand in.
#[derive(Debug, Clone)]
pub struct Imagined {
    /// Its envelope.
    pub envelope: Envelope,
    /// The application that hands it in.
    pub application: Option<Arc<str>>,
    /// The client that hands it in.
    pub client: Option<IpAddr>,
    /// Its octets; 0 if no size is to be judged.
    pub size: u64,
    /// What is signed about it.
    pub signature: Option<Signature>,
}

/// What would become of the recipients of one message.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The message.
    pub message: Arc<Message>,
    /// How many attempts asked a provider.
    pub attempts: u32,
    /// Its recipients, by what would become of them: each is in one part.
    pub parts: Vec<Part>,
}

/// Recipients of whom the same is to be said.
#[derive(Debug, Clone)]
pub struct Part {
    /// Who.
    pub recipients: Vec<RecipientIndex>,
    /// Which way they would go; `None` if nobody is to be asked for them, or there is no route.
    pub way: Option<Way>,
    /// What that comes to.
    pub conclusion: Conclusion,
}

/// The way of some recipients, with all that stands in it.
#[derive(Debug, Clone)]
pub struct Way {
    /// The route.
    pub route: Arc<Route>,
    /// Whether a person has chosen it; otherwise it is the first that matches.
    pub rerouted: bool,
    /// Routes that do not match the first of them, up to the one that does: name, condition, what it asks for.
    pub passed_over: Vec<(Arc<str>, Condition, String)>,
    /// The provider that alone may be asked again, because a handover to it is in doubt.
    pub in_doubt: Option<ProviderName>,
    /// What lets the route ask one provider only.
    pub pinned: Option<Pin>,
    /// What keeps them from going at all: a pause, or a limit of whoever sends this.
    pub waits: Vec<Wait>,
    /// The limits of whoever sends this.
    pub limits: Vec<LimitStatus>,
    /// How many recipients go at once at most, if that is not all of them, and when as many may follow.
    pub piece: Option<Piece>,
    /// Whom there is to ask, in order.
    pub candidates: Vec<Candidate>,
    /// When they are given up, as things stand.
    pub expires: SystemTime,
}

/// A provider, and what stands between it and the message.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its name.
    pub name: ProviderName,
    /// Why it cannot be asked at all for this message.
    pub cannot: Option<Cannot>,
    /// What there is to wait for, in the order in which it is met: the first that lasts decides. Nothing: it
    /// would be asked.
    pub waits: Vec<Wait>,
    /// Its limits.
    pub limits: Vec<LimitStatus>,
    /// How many recipients it gets in one call at most, if that is not all of them.
    pub per_call: Option<usize>,
}

/// Why a provider cannot be asked for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cannot {
    /// There is none of that name.
    NotConfigured,
    /// It cannot carry it.
    Carry(Diagnostic),
    /// The message cannot be read.
    Read(Diagnostic),
}

/// Something that has to end first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// What kind of thing.
    pub cause: Cause,
    /// What, in words.
    pub reason: WaitReason,
    /// When it ends, if that is known: not what a person has stopped, nor what ends with others' handovers.
    pub until: Option<SystemTime>,
}

/// What kind of thing a message waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A person has stopped it.
    Stopped,
    /// The provider has refused its sender.
    SenderRefused,
    /// The circuit is not closed.
    Circuit,
    /// All hands are full.
    Concurrency,
    /// A limit.
    Limit,
}

/// What becomes of some recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conclusion {
    /// In one word.
    pub verdict: Verdict,
    /// When; `None`: now, or that is not known.
    pub at: Option<SystemTime>,
    /// Who is asked then.
    pub provider: Option<ProviderName>,
    /// Why, in words; empty if there is nothing to say.
    pub reason: String,
    /// How many other messages wait for the same: some of them go first, and take from it what they need.
    pub others: usize,
}

/// What becomes of some recipients, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A provider is asked now.
    Now,
    /// Something has to end first.
    Waits,
    /// Its time comes by the retry schedule.
    Retry,
    /// An attempt has it in hand.
    UnderWay,
    /// A person holds the message, since `at`.
    Held,
    /// A handover is in doubt, and a person decides.
    InDoubt,
    /// A dead letter, which waits for a person.
    Dead,
    /// No candidate can carry it: it is given up.
    Bounces,
    /// Nobody can be asked; the retry schedule decides when that is looked at again.
    Deferred,
    /// It is given up at `at`: what it waits for lasts longer.
    Expires,
    /// The door does not take it.
    Refused,
    /// Nothing is left to do.
    Ended,
}

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

impl Cause {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::SenderRefused => "sender_refused",
            Self::Circuit => "circuit",
            Self::Concurrency => "concurrency",
            Self::Limit => "limit",
        }
    }
}

impl Verdict {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Waits => "waits",
            Self::Retry => "retry",
            Self::UnderWay => "under_way",
            Self::Held => "held",
            Self::InDoubt => "in_doubt",
            Self::Dead => "dead",
            Self::Bounces => "bounces",
            Self::Deferred => "deferred",
            Self::Expires => "expires",
            Self::Refused => "refused",
            Self::Ended => "ended",
        }
    }
}

impl Cannot {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::Carry(_) => "cannot_carry",
            Self::Read(_) => "unreadable",
        }
    }

    /// In words.
    #[must_use]
    pub fn words(&self) -> Cow<'static, str> {
        match self {
            Self::NotConfigured => "it is no longer configured".into(),
            Self::Carry(why) | Self::Read(why) => why.to_string().into(),
        }
    }
}

impl From<Failure> for Cannot {
    fn from(failure: Failure) -> Self {
        let why = failure.diagnostic().clone();
        if let Failure::Unsuitable(_) = failure { Self::Carry(why) } else { Self::Read(why) }
    }
}

impl Conclusion {
    fn new(verdict: Verdict, at: Option<SystemTime>, reason: impl Into<String>) -> Self {
        Self { verdict, at, provider: None, reason: reason.into(), others: 0 }
    }
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
            let unmet = rules.router.routes().iter().map_while(|route| Some((route, Condition::first_unmet(&route.when, &known)?)));
            unmet.map(|(route, unmet)| (Arc::clone(&route.name), unmet, unmet.written(&route.when))).collect()
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
