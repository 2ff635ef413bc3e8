//! Asks the candidates of a route in order, by the truth table of `contract::outcome`, and settles.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use postrider_providers::contract::{
    Attempt, Capabilities, Diagnostic, EnhancedStatus, Failure, Message, Outcome, ProviderName, RecipientIndex,
};
use tokio::time::Instant;
use tower::{Service as _, ServiceExt as _};
use tracing::{error, info};

use super::Dispatcher;
use super::rate::KeyedLimits;
use super::transport::{Guarded, Ledger, Refusal, Try};
use crate::config::{InDoubt, Route};
use crate::queue::{Disposition, Lease, WaitReason};
use crate::route::{Needs, Obstacle, obstacle};
use crate::spool::{RecipientState, Spool, SpoolError};

/// By then a provider must have answered. Longer than RFC 5321's time-outs of one transaction; a
/// provider's own time-outs end an attempt long before.
const DEADLINE: Duration = Duration::from_secs(40 * 60);

/// When a throttling provider does not say how long.
const AFTER_THROTTLING: Duration = Duration::from_secs(60);

/// How soon a message is due again whose intent could not be recorded.
const AFTER_SPOOL_FAILURE: Duration = Duration::from_secs(5);

impl<S: Spool> Ledger for Lease<S> {
    fn begin<'a>(&'a self, provider: &'a ProviderName, recipients: &'a [RecipientIndex]) -> BoxFuture<'a, Result<(), SpoolError>> {
        Box::pin(Lease::begin(self, provider, recipients))
    }
}

/// Recipients that go the same way.
struct Group {
    route: Arc<Route>,
    /// Whom to ask, in order. One, when an earlier handover is in doubt.
    candidates: Vec<ProviderName>,
    recipients: Vec<RecipientIndex>,
}

/// What came of one group.
#[derive(Default)]
struct Fate {
    dispositions: Vec<(RecipientIndex, Disposition)>,
    /// Whether any provider was asked.
    asked: bool,
    /// Not before then, if a provider said so.
    retry_at: Option<SystemTime>,
    /// Set when nobody was asked because of this, for all recipients of the group.
    waits: Option<(WaitReason, Instant)>,
    /// The spool refused to record an intent.
    spool: Option<SpoolError>,
}

/// Attempts a message, and ends its lease. Cannot fail: whatever happens is settled.
pub(super) async fn deliver<S: Spool>(dispatcher: &Dispatcher<S>, lease: Lease<S>) {
    let (groups, unattempted) = group(dispatcher, &lease);
    let grants = Arc::new(Mutex::new(lease.grants().to_vec()));
    let lease = Arc::new(lease);
    let results = join_all(groups.iter().map(|group| ask(dispatcher, &lease, group, &grants))).await;

    #[expect(clippy::expect_used, reason = "the clones went with the tries, and each try has ended")]
    let mut lease = Arc::into_inner(lease).expect("no try is under way");
    lease.keep_grants(std::mem::take(&mut grants.lock()));

    let mut all = Fate { dispositions: unattempted, ..Fate::default() };
    let (mut waits, mut settled_any) = (Vec::new(), !all.dispositions.is_empty());
    for result in results {
        settled_any |= result.waits.is_none();
        waits.extend(result.waits);
        all.dispositions.extend(result.dispositions);
        all.asked |= result.asked;
        all.retry_at = all.retry_at.max(result.retry_at);
        all.spool = all.spool.or(result.spool);
    }
    let clock = dispatcher.queue.clock();
    let nothing_happened = all.dispositions.iter().all(|(_, disposition)| matches!(disposition, Disposition::Waiting(..)));
    if let Some(error) = all.spool.filter(|_| nothing_happened) {
        if let SpoolError::LeaseLost(_) = error {
            info!(message_id = %lease.message().id, %error, "another node has this message now");
        }
        return lease.release(clock.now() + AFTER_SPOOL_FAILURE).await;
    }
    let earliest = waits.into_iter().min_by_key(|(_, until)| *until);
    match earliest {
        // Nothing to write down: the message waits in memory, if it is not past its time.
        Some((reason, until)) if !settled_any && !dispatcher.queue.is_expired(lease.message().received) => lease.park(reason, until).await,
        _ => lease.settle(all.dispositions, all.asked, all.retry_at).await,
    }
}

/// Groups the open recipients by route and candidates.
fn group<S: Spool>(dispatcher: &Dispatcher<S>, lease: &Lease<S>) -> (Vec<Group>, Vec<(RecipientIndex, Disposition)>) {
    let (message, stored) = (lease.message(), lease.stored());
    let (mut groups, mut unattempted): (Vec<Group>, _) = (Vec::new(), Vec::new());
    for (position, (recipient, state)) in (0u32..).zip(message.envelope.recipients.iter().zip(&stored.recipients)) {
        let index = RecipientIndex(position);
        if !state.is_open() {
            continue;
        }
        let Some(route) = dispatcher.router.route(&message.envelope.reverse_path, &recipient.address, &message.origin) else {
            let diagnostic = Diagnostic {
                status: Some(EnhancedStatus(4, 4, 4)),
                ..Diagnostic::local("no route matches since the configuration was changed")
            };
            unattempted.push((index, Disposition::Deferred(diagnostic)));
            continue;
        };
        let candidates = match state {
            // A handover that was cut off, as by a crash: the route's answer to doubt holds here, too.
            RecipientState::InDoubt(provider) if route.in_doubt == InDoubt::Hold => {
                unattempted.push((index, in_doubt(provider, Diagnostic::local("the handover was cut off"), route)));
                continue;
            }
            RecipientState::InDoubt(provider) => vec![provider.clone()],
            _ => route.providers.clone(),
        };
        match groups.iter_mut().find(|group| Arc::ptr_eq(&group.route, route) && group.candidates == candidates) {
            Some(group) => group.recipients.push(index),
            None => groups.push(Group { route: Arc::clone(route), candidates, recipients: vec![index] }),
        }
    }
    (groups, unattempted)
}

/// Asks the candidates of one group, as far as the limits on the sender let it go, until every recipient
/// has a verdict or none is left to ask.
async fn ask<S: Spool>(dispatcher: &Dispatcher<S>, lease: &Arc<Lease<S>>, group: &Group, grants: &Arc<Mutex<Vec<WaitReason>>>) -> Fate {
    let message = lease.message();
    let limits = sender_limits(dispatcher, message, &group.route);
    let piece = limits.iter().filter_map(|(limits, key)| limits.piece(key)).min_by_key(|piece| piece.recipients);
    let most = piece.map_or(usize::MAX, |piece| piece.recipients);
    let mut in_turn = group.recipients.clone();
    if in_turn.len() > most {
        // Each attempt begins with others: those who are put off again and again must not keep the rest
        // from ever being asked for.
        let attempts = usize::try_from(lease.stored().attempts).unwrap_or_default();
        in_turn.rotate_left(attempts.wrapping_mul(most) % group.recipients.len());
    }
    let (now, later) = in_turn.split_at(most.min(in_turn.len()));
    let mut result = ask_now(dispatcher, lease, group, now, &limits, grants).await;
    if let Some(piece) = piece {
        let until = dispatcher.queue.clock().now() + piece.again_after;
        let why = Diagnostic::local(format!("a limit of its sender lets {} recipients go at once", piece.recipients));
        result.dispositions.extend(later.iter().map(|&index| (index, Disposition::Waiting(until, why.clone()))));
    }
    result
}

/// The limits on whoever sends this message by this route, each with the message's key.
fn sender_limits<'a, S: Spool>(dispatcher: &'a Dispatcher<S>, message: &'a Message, route: &Route) -> Vec<(&'a KeyedLimits, &'a str)> {
    let application = message.origin.application.as_deref().map(|name| (&dispatcher.sender_limits.applications, name));
    let domain = message.envelope.reverse_path.domain();
    let of_domain = dispatcher.route_limits.get(&route.name).into_iter().chain([&dispatcher.sender_limits.domains]);
    application.into_iter().chain(domain.into_iter().flat_map(|domain| of_domain.clone().map(move |limits| (limits, domain)))).collect()
}

/// Asks for those who may go now.
async fn ask_now<S: Spool>(
    dispatcher: &Dispatcher<S>,
    lease: &Arc<Lease<S>>,
    group: &Group,
    recipients: &[RecipientIndex],
    limits: &[(&KeyedLimits, &str)],
    grants: &Arc<Mutex<Vec<WaitReason>>>,
) -> Fate {
    let message = lease.message();
    let mut open = Open::new(recipients);
    let mut result = Fate::default();
    for (limit, key) in limits {
        let part = format!("by {} through {:?}", group.route.name, group.candidates);
        let taken = limit.take(key, recipients.len(), &part, &mut grants.lock());
        if let Err((reason, until)) = taken {
            open.note_wait(reason, until);
            return open.end(result, dispatcher);
        }
    }
    for name in &group.candidates {
        if open.recipients.is_empty() {
            break;
        }
        let Some(guarded) = dispatcher.transports.get(name) else {
            open.note(Failure::Unavailable(Diagnostic::local(format!("the provider {name} is no longer configured"))));
            continue;
        };
        if let Err(unsuitable) = can_carry(&guarded.capabilities(), message) {
            open.note(Failure::Unsuitable(unsuitable));
            continue;
        }
        let may_go_on = ask_one(name, guarded, lease, grants, group, &mut open, &mut result).await;
        if !may_go_on {
            break;
        }
    }
    open.end(result, dispatcher)
}

/// Asks one candidate for everybody still open, in calls as large as it takes. Says whether the next
/// candidate may be asked for those who are open then.
async fn ask_one<S: Spool>(
    name: &ProviderName,
    guarded: &Guarded,
    lease: &Arc<Lease<S>>,
    grants: &Arc<Mutex<Vec<WaitReason>>>,
    group: &Group,
    open: &mut Open,
    result: &mut Fate,
) -> bool {
    let per_call = guarded.max_recipients().max(1);
    let mut may_go_on = true;
    let asked_for = std::mem::take(&mut open.recipients);
    for part in asked_for.chunks(per_call) {
        let recipients: Arc<[RecipientIndex]> = part.into();
        let attempt = Attempt {
            message: Arc::clone(lease.message()),
            recipients: Arc::clone(&recipients),
            number: lease.stored().attempts + 1,
            deadline: Instant::now() + DEADLINE,
        };
        let request = Try { attempt, grants: Arc::clone(grants), ledger: Arc::clone(lease) as Arc<dyn Ledger> };
        // A clone of its own: a service belongs to one caller at a time.
        let mut transport = guarded.transport.clone();
        let answer = match transport.ready().await {
            Ok(ready) => tokio::time::timeout(DEADLINE, ready.call(request)).await,
            Err(refusal) => Ok(Err(refusal)),
        };
        let report = match answer {
            Ok(Ok(report)) => report,
            Ok(Err(refusal)) => {
                open.recipients.extend_from_slice(part);
                match refusal {
                    Refusal::Failed(failure) => {
                        result.asked = true;
                        may_go_on &= failure.may_fail_over(group.route.spill);
                        open.note(failure);
                    }
                    Refusal::CircuitOpen { reason, until } => open.note_wait(reason, until),
                    Refusal::Limited { reason, until } => {
                        may_go_on &= group.route.spill;
                        open.note_wait(reason, until);
                    }
                    Refusal::Spool(error) => {
                        may_go_on = false;
                        result.spool = Some(error);
                    }
                }
                continue;
            }
            // The provider broke its promise to answer by the deadline; nobody knows what it did.
            Err(_) => {
                postrider_providers::contract::Report::uniform(part, &Outcome::InDoubt(Diagnostic::local("no answer by the deadline")))
            }
        };
        result.asked = true;
        let mut told = part.to_vec();
        for (index, outcome) in report.outcomes {
            let Some(position) = told.iter().position(|open| *open == index) else {
                error!(message_id = %lease.message().id, provider = %name, recipient = index.0, "the provider reported a recipient that it was not asked about");
                continue;
            };
            told.swap_remove(position);
            let disposition = match outcome {
                Outcome::Relayed(receipt) => Disposition::Relayed(name.clone(), receipt),
                Outcome::Bounced(diagnostic) => Disposition::Bounced(diagnostic),
                Outcome::InDoubt(diagnostic) => in_doubt(name, diagnostic, &group.route),
                Outcome::Deferred(diagnostic) => {
                    open.recipients.push(index);
                    open.last = Some(Failure::Unavailable(diagnostic));
                    continue;
                }
            };
            result.dispositions.push((index, disposition));
        }
        // Silence about a recipient is no proof that nothing was handed over.
        for index in told {
            let diagnostic = Diagnostic::local("the provider gave no verdict");
            result.dispositions.push((index, in_doubt(name, diagnostic, &group.route)));
        }
    }
    may_go_on
}

fn in_doubt(provider: &ProviderName, diagnostic: Diagnostic, route: &Route) -> Disposition {
    Disposition::InDoubt { provider: provider.clone(), diagnostic, hold: route.in_doubt == InDoubt::Hold }
}

/// Whether the provider can carry the message, as far as that is known without asking.
fn can_carry(capabilities: &Capabilities, message: &Message) -> Result<(), Diagnostic> {
    let needs = Needs { size: message.body.len(), ..Needs::of(&message.envelope) };
    let (status, text) = match obstacle(capabilities, &needs) {
        None => return Ok(()),
        Some(Obstacle::Size { size, max }) => {
            (EnhancedStatus(5, 3, 4), format!("the message has {size} octets, this provider takes {max}"))
        }
        Some(Obstacle::Smtputf8) => (EnhancedStatus(5, 6, 7), "this provider does not carry SMTPUTF8".to_owned()),
        Some(Obstacle::NullSender | Obstacle::Combination) => {
            (EnhancedStatus(5, 1, 7), "this provider takes no message with the null reverse-path".to_owned())
        }
    };
    Err(Diagnostic { status: Some(status), ..Diagnostic::local(text) })
}

/// The recipients of a group that have no verdict yet, and why.
struct Open {
    recipients: Vec<RecipientIndex>,
    /// Whether every candidate so far could not carry the message at all.
    only_unsuitable: bool,
    last: Option<Failure>,
    /// The wait that ends first.
    wait: Option<(WaitReason, Instant)>,
}

impl Open {
    fn new(recipients: &[RecipientIndex]) -> Self {
        Self { recipients: recipients.to_vec(), only_unsuitable: true, last: None, wait: None }
    }

    fn note(&mut self, failure: Failure) {
        self.only_unsuitable &= matches!(failure, Failure::Unsuitable(_));
        // What can be told to a person best: a refusal by somebody beats "cannot carry".
        if self.last.is_none() || !matches!(failure, Failure::Unsuitable(_)) {
            self.last = Some(failure);
        }
    }

    fn note_wait(&mut self, reason: WaitReason, until: Instant) {
        self.only_unsuitable = false;
        if self.wait.as_ref().is_none_or(|(_, earlier)| until < *earlier) {
            self.wait = Some((reason, until));
        }
    }

    /// Gives every open recipient its disposition.
    fn end<S: Spool>(self, mut result: Fate, dispatcher: &Dispatcher<S>) -> Fate {
        let clock = dispatcher.queue.clock();
        if self.recipients.is_empty() {
            return result;
        }
        let disposition = match (self.last, self.wait) {
            (Some(Failure::Rejected(diagnostic)), _) => Disposition::Bounced(diagnostic),
            (Some(Failure::Unsuitable(diagnostic)), None) if self.only_unsuitable => Disposition::Bounced(diagnostic),
            (Some(Failure::Throttled { retry_after, diagnostic }), _) => {
                let until = clock.now() + retry_after.unwrap_or(AFTER_THROTTLING);
                result.retry_at = result.retry_at.max(Some(until));
                Disposition::Deferred(diagnostic)
            }
            // Somebody was asked and failed: the retry schedule decides, even if another one only waits.
            (Some(failure), _) if result.asked => Disposition::Deferred(failure.diagnostic().clone()),
            (_, Some((reason, until))) => {
                let disposition = Disposition::Waiting(clock.time_of(until), Diagnostic::local(format!("waits for {reason}")));
                if result.dispositions.is_empty() {
                    result.waits = Some((reason, until));
                }
                disposition
            }
            (Some(failure), None) => Disposition::Deferred(failure.diagnostic().clone()),
            (None, None) => Disposition::Waiting(clock.now() + AFTER_SPOOL_FAILURE, Diagnostic::local("waits for the spool")),
        };
        result.dispositions.extend(self.recipients.iter().map(|&index| (index, disposition.clone())));
        result
    }
}
