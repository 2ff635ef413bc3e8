//! Asks the candidates of a route in order, by the truth table of `contract::outcome`, and settles.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::{BoxFuture, join_all};
use postrider_providers::contract::{
    Attempt, Diagnostic, Failure, Message, Outcome, ProviderName, RecipientIndex, Report, ReversePath, Throttled,
};
use tokio::time::Instant;
use tower::{Service as _, ServiceExt as _};
use tracing::{error, info, warn};

use super::group::{Group, chosen, group, no_route};
use super::rate::{Paid, Pass};
use super::rules::Rules;
use super::suitable::Examined;
use super::transport::{Guarded, Ledger, Refusal, Try};
use super::{Dispatcher, doubt, rewrite, stand_in};
use crate::config::Route;
use crate::history;
use crate::queue::{Disposition, Lease, Plan, WaitReason};
use crate::spool::{Spool, SpoolError};

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

/// One message in the hands of dispatch.
struct Delivery<'d, S: Spool> {
    dispatcher: &'d Dispatcher<S>,
    /// What the dispatcher worked by when this began.
    rules: &'d Rules,
    lease: &'d Arc<Lease<S>>,
    /// The message as it is handed over, but for what a provider's own name asks.
    message: &'d Arc<Message>,
    examined: Examined<'d>,
    /// What this attempt has paid for.
    paid: Paid,
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
    /// Who was asked last.
    last: Option<ProviderName>,
}

/// Attempts a message, and ends its lease. Cannot fail: whatever happens is settled.
pub(super) async fn deliver<S: Spool>(dispatcher: &Dispatcher<S>, lease: Lease<S>) {
    let rules = dispatcher.rules();
    let (now, stored) = (dispatcher.queue.clock().now(), lease.stored());
    let (groups, unrouted) = group(dispatcher, &rules, stored, now, |index| stored.is_due(index, now));
    let unattempted: Vec<_> = unrouted.into_iter().map(|index| (index, Disposition::Deferred(no_route()))).collect();
    if let Some(route) = stored.handling.rerouted.as_ref().filter(|_| chosen(&rules, stored).is_none()) {
        warn!(message_id = %lease.message().id, %route, "the route that was chosen for it is gone; its addresses decide again");
    }
    if let Some(due) = lease.stored().next_due(now).filter(|_| groups.is_empty() && unattempted.is_empty() && !lease.is_to_be_settled()) {
        // Nobody's time has come.
        return lease.release(due).await;
    }
    // A notification has one recipient.
    let candidates = groups.first().map_or(&[][..], |group| &group.candidates);
    let message = stand_in::shown(dispatcher, &rules, lease.message(), candidates);
    let is_null_sent = lease.message().envelope.reverse_path == ReversePath::Null;
    let lease = Arc::new(lease);
    let examined = Examined::new(&message, is_null_sent);
    let delivery = Delivery { dispatcher, rules: &rules, lease: &lease, message: &message, examined, paid: Paid::default() };
    let results = join_all(groups.iter().map(|group| ask(&delivery, group))).await;

    #[expect(clippy::expect_used, reason = "the clones went with the tries, and each try has ended")]
    let mut lease = Arc::into_inner(lease).expect("no try is under way");

    let mut all = Fate { dispositions: unattempted, ..Fate::default() };
    let (mut waits, mut settled_any) = (Vec::new(), !all.dispositions.is_empty());
    for (group, result) in groups.iter().zip(results) {
        let plan = plan(dispatcher, &rules, lease.message(), group, &result);
        if plan != Plan::default() {
            group.recipients.iter().for_each(|&index| lease.plan(index, plan.clone()));
        }
        settled_any |= result.waits.is_none();
        waits.extend(result.waits);
        all.dispositions.extend(result.dispositions);
        all.asked |= result.asked;
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
        Some((reason, until)) if !settled_any && !lease.is_to_be_settled() => lease.park(reason, until).await,
        _ => lease.settle(all.dispositions, all.asked).await,
    }
}

/// How the waiting of a group's recipients is reckoned: whom they wait for decides, then their route.
fn plan<S: Spool>(dispatcher: &Dispatcher<S>, rules: &Rules, message: &Message, group: &Group, result: &Fate) -> Plan {
    let Group { route, candidates, in_doubt, .. } = group;
    let own = result.last.as_ref().and_then(|last| rules.retry.get(last));
    Plan {
        waits: own.cloned().or_else(|| route.retry.as_deref().map(Into::into)),
        expire_after: route.expire_after,
        not_before: result.retry_at,
        kept: dispatcher.holds.kept(message, route, candidates, in_doubt.is_some(), dispatcher.queue.clock().now()),
    }
}

/// Asks the candidates of one group, as far as the limits on the sender let it go, until every recipient
/// has a verdict or none is left to ask.
async fn ask<S: Spool>(delivery: &Delivery<'_, S>, group: &Group) -> Fate {
    let Delivery { dispatcher, rules, lease, .. } = delivery;
    let message = lease.message();
    let clock = dispatcher.queue.clock();
    if let Some((reason, until)) = dispatcher.holds.of_message(message, &group.route, clock.now()) {
        let mut stopped = Open::new(&group.recipients);
        stopped.note_wait(reason, clock.instant_of(until));
        return stopped.end(Fate::default(), dispatcher);
    }
    let (application, domain) = (message.origin.application.as_deref(), message.envelope.reverse_path.domain());
    let pass = Arc::new(rules.pass(&group.route.name, application, domain, Arc::clone(&delivery.paid)));
    let piece = pass.piece();
    let most = piece.map_or(usize::MAX, |piece| piece.recipients);
    if let Some(held) = held(delivery, group, most) {
        return held;
    }
    let mut in_turn = group.recipients.clone();
    if in_turn.len() > most {
        // Each attempt begins with others: those who are put off again and again must not keep the rest
        // from ever being asked for.
        let attempts = usize::try_from(lease.stored().attempts).unwrap_or_default();
        in_turn.rotate_left(attempts.wrapping_mul(most) % group.recipients.len());
    }
    let (now, later) = in_turn.split_at(most.min(in_turn.len()));
    let mut result = ask_now(delivery, group, now, &pass).await;
    if let Some(piece) = piece {
        let until = dispatcher.queue.clock().now() + piece.again_after;
        let why = Diagnostic::local(format!("a limit of its sender lets {} recipients go at once", piece.recipients));
        result.dispositions.extend(later.iter().map(|&index| (index, Disposition::Waiting(until, why.clone()))));
    }
    result
}

/// The end of a handover in doubt that waits for a person.
fn held<S: Spool>(delivery: &Delivery<'_, S>, group: &Group, most: usize) -> Option<Fate> {
    let Delivery { dispatcher, rules, lease, .. } = delivery;
    let (provider, why) = group.held(rules, lease.message().received, most, dispatcher.queue.clock().now())?;
    let hold = || doubt::disposition(provider, Diagnostic::local(why), &group.route, false);
    Some(Fate { dispositions: group.recipients.iter().map(|&index| (index, hold())).collect(), ..Fate::default() })
}

/// Asks for those who may go now.
async fn ask_now<S: Spool>(delivery: &Delivery<'_, S>, group: &Group, recipients: &[RecipientIndex], pass: &Arc<Pass>) -> Fate {
    let Delivery { dispatcher, rules, lease, examined, .. } = delivery;
    let mut open = Open::new(recipients);
    let mut result = Fate::default();
    let mut passed_over = Vec::new();
    // Whom its own limits keep back needs no candidate. What they cost is taken with the provider's.
    if let Err((reason, until)) = pass.look(recipients) {
        open.note_wait(reason, until);
        return open.end(result, dispatcher);
    }
    for name in &group.candidates {
        if open.recipients.is_empty() {
            break;
        }
        let Some(guarded) = rules.transports.get(name) else {
            open.note(Failure::Unavailable(Diagnostic::local(format!("the provider {name} is no longer configured"))));
            continue;
        };
        if let Some((reason, until)) = dispatcher.holds.of_provider(name, group.in_doubt.is_some(), dispatcher.queue.clock().now()) {
            open.note_wait(reason, dispatcher.queue.clock().instant_of(until));
            continue;
        }
        // Who may have the message already could carry it.
        if group.in_doubt.is_none()
            && let Err(failure) = examined.can_be_carried(&guarded.capabilities(), &group.route).await
        {
            passed_over.push((name, failure.diagnostic().clone()));
            open.note(failure);
            continue;
        }
        if !ask_one(delivery, (name, guarded), group, pass, &mut open, &mut result).await {
            break;
        }
    }
    // A message that only waits comes here again.
    if result.asked || open.wait.is_none() {
        for (provider, reason) in passed_over {
            let (id, route) = (lease.message().id, &group.route.name);
            info!(message_id = %id, %provider, %route, %reason, "the provider cannot carry this message");
        }
    }
    open.end(result, dispatcher)
}

/// Asks one candidate for everybody still open, in calls as large as it takes. Says whether the next
/// candidate may be asked for those who are open then.
async fn ask_one<S: Spool>(
    delivery: &Delivery<'_, S>,
    (name, guarded): (&ProviderName, &Guarded),
    group: &Group,
    pass: &Arc<Pass>,
    open: &mut Open,
    result: &mut Fate,
) -> bool {
    let Delivery { dispatcher, lease, .. } = delivery;
    // What is in doubt is repeated as it was.
    let per_call =
        if group.in_doubt.is_none() { guarded.room(&group.route.name) } else { guarded.max_recipients(&group.route.name) }.max(1);
    let mut may_go_on = true;
    let in_name = match rewrite::apply(delivery.message, guarded.rewrite.as_deref().or(group.route.rewrite.as_deref())).await {
        Ok(rewritten) => rewritten,
        Err(failure) => {
            open.note(failure);
            return true;
        }
    };
    let message = &in_name.message;
    let sender = &message.envelope.reverse_path;
    // Who may have the message already did not refuse its sender.
    if let Some((reason, until)) = guarded.senders.refusal(sender).filter(|_| group.in_doubt.is_none()) {
        open.note_wait(reason, dispatcher.queue.clock().instant_of(until));
        return true;
    }
    let mut asked = false;
    let mut lost = BTreeSet::new();
    let mut asked_for = std::mem::take(&mut open.recipients);
    // Always in this order, so that a call for the same recipients is the same call.
    asked_for.sort_unstable();
    let calls = asked_for.len().div_ceil(per_call);
    // What is repeated in other calls than before is not recognised.
    let is_as_before = group.is_repeated(asked_for.len(), per_call);
    let recognised = || is_as_before && doubt::is_recognised(&guarded.capabilities(), message.received, dispatcher.queue.clock().now());
    // It would have recognised this once, and that may have been said.
    let forgets = group.in_doubt.is_some() && guarded.capabilities().idempotency.is_some() && !recognised();
    let mut parts = asked_for.chunks(per_call);
    while let Some(part) = parts.next() {
        let attempt = Attempt {
            message: Arc::clone(message),
            recipients: part.into(),
            number: lease.stored().attempts + 1,
            deadline: Instant::now() + DEADLINE,
        };
        let request = Try { attempt, pass: Arc::clone(pass), ledger: Arc::<Lease<S>>::clone(lease) };
        // A clone of its own: a service belongs to one caller at a time.
        let mut transport = guarded.transport.clone();
        let start = Instant::now();
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
                        asked = true;
                        if let Failure::SenderRefused(diagnostic) = &failure {
                            guarded.senders.learn(sender, diagnostic);
                        }
                        tried(lease, name, &group.route, part, failure.name(), &failure.diagnostic().to_string(), start);
                        may_go_on &= failure.may_fail_over(group.route.spill);
                        open.note(failure);
                    }
                    Refusal::CircuitOpen { reason, until } => open.note_wait(reason, until),
                    Refusal::Limited { reason, until } => {
                        may_go_on &= group.route.spill;
                        open.note_wait(reason, until);
                        // What has no room for this part has none for the others.
                        open.recipients.extend(parts.by_ref().flatten());
                    }
                    Refusal::Spool(error) => {
                        may_go_on = false;
                        result.spool = Some(error);
                    }
                }
                continue;
            }
            // The provider broke its promise to answer by the deadline; nobody knows what it did.
            Err(_) => Report::uniform(part, &Outcome::InDoubt(Diagnostic::local("no answer by the deadline"))),
        };
        asked = true;
        if report.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Relayed(_))) {
            guarded.senders.forget(sender);
        }
        tried_all(lease, name, &group.route, &report, start);
        let mut told = part.to_vec();
        for (index, outcome) in report.outcomes {
            let Some(position) = told.iter().position(|open| *open == index) else {
                error!(message_id = %lease.message().id, provider = %name, recipient = index.0, "the provider reported a recipient that it was not asked about");
                continue;
            };
            told.swap_remove(position);
            let disposition = match outcome {
                Outcome::Relayed(receipt) => {
                    lost.extend(receipt.lost.iter().cloned());
                    Disposition::Relayed(name.clone(), receipt)
                }
                Outcome::Bounced(diagnostic) => Disposition::Bounced(diagnostic),
                Outcome::InDoubt(diagnostic) => {
                    guarded.vitals.count_doubt(&group.route.name);
                    doubt::disposition(name, diagnostic, &group.route, recognised())
                }
                Outcome::Deferred(diagnostic) => {
                    open.recipients.push(index);
                    open.last = Some(Failure::Unavailable(diagnostic));
                    continue;
                }
            };
            result.dispositions.push((index, disposition));
        }
        if let Some(Throttled { retry_after, diagnostic }) = report.throttled {
            may_go_on &= group.route.spill;
            open.note(Failure::Throttled { retry_after, diagnostic });
        }
        // Silence about a recipient is no proof that nothing was handed over.
        for index in told {
            guarded.vitals.count_doubt(&group.route.name);
            let diagnostic = Diagnostic::local("the provider gave no verdict");
            result.dispositions.push((index, doubt::disposition(name, diagnostic, &group.route, recognised())));
        }
    }
    result.asked |= asked;
    if asked {
        result.last = Some(name.clone());
        in_name.tell(name);
        if forgets {
            warn!(
                message_id = %message.id, provider = %name, recipients = asked_for.len(),
                "asked again after a handover in doubt that it does not recognise any more, which may send a second copy"
            );
        }
        if calls > 1 {
            info!(message_id = %message.id, provider = %name, recipients = asked_for.len(), at_most = per_call, "split into {calls} calls");
        }
    }
    if !lost.is_empty() {
        let what = lost.into_iter().collect::<Vec<_>>().join("; ");
        info!(message_id = %message.id, provider = %name, what, "not carried");
    }
    may_go_on
}

/// Keeps the answers of one call for the history: one event for those to whom the same was said.
fn tried_all<S: Spool>(lease: &Lease<S>, provider: &ProviderName, route: &Route, report: &Report, start: Instant) {
    let mut answers: Vec<(&'static str, String, Vec<RecipientIndex>)> = Vec::new();
    for (index, outcome) in &report.outcomes {
        let words = match outcome {
            Outcome::Relayed(receipt) => receipt.reply.clone(),
            Outcome::Bounced(why) | Outcome::Deferred(why) | Outcome::InDoubt(why) => why.to_string(),
        };
        match answers.iter_mut().find(|(verdict, said, _)| *verdict == outcome.name() && *said == words) {
            Some((.., recipients)) => recipients.push(*index),
            None => answers.push((outcome.name(), words, vec![*index])),
        }
    }
    for (verdict, words, recipients) in answers {
        tried(lease, provider, route, &recipients, verdict, &words, start);
    }
}

/// Keeps one answer for the history.
fn tried<S: Spool>(
    lease: &Lease<S>,
    provider: &ProviderName,
    route: &Route,
    recipients: &[RecipientIndex],
    verdict: &str,
    words: &str,
    start: Instant,
) {
    lease.tried(history::Event::Attempt {
        number: lease.stored().attempts + 1,
        provider: provider.to_string(),
        route: route.name.to_string(),
        recipients: recipients.iter().map(|index| index.0).collect(),
        verdict: verdict.to_owned(),
        words: history::event::words(words),
        elapsed_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
    });
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
