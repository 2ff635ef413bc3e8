//! Holds what happened against what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postrider::history::{Event, Record};
use postrider::spool::action::Action;
use postrider::spool::filter::Filter;
use postrider::spool::view::QueueState;
use postrider::spool::{RecipientState, Spool as _};
use postrider_providers::contract::{MessageId, ProviderName, RecipientIndex};
use tokio::time::Instant;

use super::provider::{Call, Truth};
use super::world::{LIMITED, RATE, RETRY, SENDERS, World};

/// How a recipient ended, by the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Relayed(String),
    Bounced,
    Expired,
    /// A person has to decide about it.
    Held,
    /// A person has removed it.
    Removed,
    /// It never came to an end.
    Open,
}

/// What the journal says of one recipient.
#[derive(Debug, Default)]
struct Told {
    fate: Option<Fate>,
    /// How often a handover was put on record as in doubt.
    doubts: usize,
}

/// What one seed came to, in numbers.
#[derive(Debug, Default)]
pub struct Tally {
    pub recipients: usize,
    pub relayed: usize,
    pub bounced: usize,
    pub held: usize,
    pub removed: usize,
    pub doubled: usize,
    pub crashes: usize,
    pub calls: usize,
    pub reloads: usize,
    pub deeds: usize,
}

/// Every promise that was broken, in words; the tally otherwise.
pub async fn judge(world: &World) -> Result<Tally, Vec<String>> {
    let mut complaints = Vec::new();
    let told = told(world, &mut complaints).await;
    let left = left(world, &mut complaints).await;
    let truth = world.truth.lock();
    let removed: BTreeSet<MessageId> = world.deeds.iter().filter(|deed| deed.action == Action::Remove).map(|deed| deed.message).collect();
    let mut tally = Tally {
        crashes: world.crashes.len(),
        calls: truth.calls.len(),
        reloads: world.reloads,
        deeds: world.deeds.len(),
        ..Tally::default()
    };
    for message in &world.acknowledged {
        for (index, _) in (0u32..).map(RecipientIndex).zip(&message.envelope.recipients) {
            tally.recipients += 1;
            let fate = match told.get(&(message.id, index.0)).and_then(|told| told.fate.clone()) {
                Some(fate @ (Fate::Relayed(_) | Fate::Bounced | Fate::Expired)) => fate,
                _ if removed.contains(&message.id) => Fate::Removed,
                // What the store has is true.
                _ if left.contains(&(message.id, index.0)) => Fate::Held,
                _ => Fate::Open,
            };
            let calls: Vec<&Call> = truth.calls.iter().filter(|call| call.message == message.id && call.took.contains(&index)).collect();
            let doubts = told.get(&(message.id, index.0)).map_or(0, |told| told.doubts);
            ended(message.id, index, &fate, &calls, doubts, &mut complaints);
            if calls.len() > 1 {
                tally.doubled += 1;
                doubled(message.id, index, &calls, doubts, world, &mut complaints);
            }
            schedule(message.id, index, &truth, world, &mut complaints);
            match fate {
                Fate::Relayed(_) => tally.relayed += 1,
                Fate::Bounced | Fate::Expired => tally.bounced += 1,
                Fate::Removed => tally.removed += 1,
                _ => tally.held += 1,
            }
        }
    }
    if let Ok(which) = std::env::var("MESSAGE") {
        retell(world, &truth, &which);
    }
    strangers(world, &truth, &mut complaints);
    stopped(world, &truth, &mut complaints);
    limits(&truth, &world.crashes, &mut complaints);
    if complaints.is_empty() { Ok(tally) } else { Err(complaints) }
}

/// Prints what really happened to one message, for whoever looks for a fault.
fn retell(world: &World, truth: &Truth, which: &str) {
    for (at, provider, _) in truth.asked.iter().filter(|(.., message)| message.to_string() == which) {
        println!("{at:?}: {provider} was asked");
    }
    for call in truth.calls.iter().filter(|call| call.message.to_string() == which) {
        println!("{call:?}");
    }
    for deed in world.deeds.iter().filter(|deed| deed.message.to_string() == which) {
        println!("{:?}: a person did: {:?}", deed.at, deed.action);
    }
    println!("crashes: {:?}", world.crashes);
}

/// Reads the journal.
async fn told(world: &World, complaints: &mut Vec<String>) -> BTreeMap<(MessageId, u32), Told> {
    let mut all: BTreeMap<(MessageId, u32), Told> = BTreeMap::new();
    for (number, record) in world.spool.journal(0, usize::MAX).await.unwrap_or_default() {
        if std::env::var("MESSAGE").is_ok_and(|which| record.contains(&which)) {
            println!("{record}");
        }
        let record: Record = match serde_json::from_str(&record) {
            Ok(record) => record,
            Err(error) => {
                complaints.push(format!("record {number} of the journal cannot be read: {error}"));
                continue;
            }
        };
        let Ok(message) = record.message.parse::<MessageId>() else { continue };
        for event in record.events {
            let (recipients, fate) = match event {
                Event::Relayed { recipients, provider, .. } => (recipients, Some(Fate::Relayed(provider))),
                Event::Bounced { recipients, .. } => (recipients, Some(Fate::Bounced)),
                Event::Expired { recipients, .. } => (recipients, Some(Fate::Expired)),
                Event::Dead { recipients, .. } => (recipients, Some(Fate::Held)),
                Event::InDoubt { recipients, held, .. } => {
                    for recipient in &recipients {
                        all.entry((message, *recipient)).or_default().doubts += 1;
                    }
                    (recipients, held.then_some(Fate::Held))
                }
                Event::Deferred { recipients, .. } => (recipients, None),
                Event::Attempt { .. } | Event::Notified { .. } | Event::Action { .. } => continue,
            };
            for recipient in recipients {
                let told = all.entry((message, recipient)).or_default();
                if let Some(before @ (Fate::Relayed(_) | Fate::Bounced | Fate::Expired)) = &told.fate {
                    complaints.push(format!("{message}, recipient {recipient}: ended as {before:?}, and then again as {fate:?}"));
                }
                told.fate = fate.clone();
            }
        }
    }
    all
}

/// An end, and one that is true.
fn ended(id: MessageId, index: RecipientIndex, fate: &Fate, calls: &[&Call], doubts: usize, complaints: &mut Vec<String>) {
    match fate {
        Fate::Open => complaints.push(format!("{id}, recipient {}: acknowledged, and never relayed, bounced or held", index.0)),
        Fate::Relayed(provider) if !calls.iter().any(|call| call.provider.as_str() == provider) => {
            complaints.push(format!("{id}, recipient {}: told as relayed by {provider}, which did not take it", index.0));
        }
        Fate::Bounced if !calls.is_empty() && doubts == 0 => {
            complaints.push(format!("{id}, recipient {}: bounced, and yet {} took it", index.0, calls[0].provider));
        }
        _ => {}
    }
}

/// Twice is once too often, unless nobody could know better: and then at the same provider.
fn doubled(id: MessageId, index: RecipientIndex, calls: &[&Call], doubts: usize, world: &World, complaints: &mut Vec<String>) {
    for pair in calls.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        let crashed = world.crashes.iter().any(|crash| *crash >= first.at && *crash <= second.at);
        if lives(world, id, second.at) > lives(world, id, first.at) && doubts > 0 {
            // A person has sent it again, who could know of the doubt.
            continue;
        }
        if first.provider != second.provider {
            complaints.push(format!("{id}, recipient {}: {} took it, and then {} as well", index.0, first.provider, second.provider));
        } else if first.answered && !crashed {
            complaints.push(format!("{id}, recipient {}: {} took it and said so, and was asked again", index.0, first.provider));
        } else if doubts == 0 {
            complaints.push(format!("{id}, recipient {}: {} took it twice, and no doubt is on record", index.0, first.provider));
        }
    }
}

/// Who is in the queue at the end, and there by a person's will or for a person's decision.
async fn left(world: &World, complaints: &mut Vec<String>) -> BTreeSet<(MessageId, u32)> {
    let mut left = BTreeSet::new();
    for message in world.queue.list(&Filter::default(), None, usize::MAX).await.unwrap_or_default() {
        let by_a_person = message.held_at.is_some();
        if !by_a_person && !matches!(message.state, QueueState::Held | QueueState::Dead) {
            complaints.push(format!("{} is in the queue at the end as {:?}", message.id, message.state));
        }
        for (position, recipient) in (0..).zip(&message.recipients) {
            let waits = matches!(recipient.state, RecipientState::Held(_) | RecipientState::Dead);
            if waits || by_a_person && recipient.state.is_open() {
                left.insert((message.id, position));
            }
        }
    }
    left
}

/// Nobody outside the envelope.
fn strangers(world: &World, truth: &Truth, complaints: &mut Vec<String>) {
    let envelopes: BTreeMap<MessageId, BTreeSet<&str>> = world
        .acknowledged
        .iter()
        .map(|message| {
            let own = message.envelope.recipients.iter().map(|recipient| recipient.address.as_str());
            let instead = world.readdressed.get(&message.id).into_iter().flatten().map(String::as_str);
            (message.id, own.chain(instead).collect())
        })
        .collect();
    // What is not in the map is a notification.
    let senders: BTreeSet<&str> = SENDERS.into_iter().collect();
    for call in &truth.calls {
        let may = envelopes.get(&call.message).unwrap_or(&senders);
        if let Some(stranger) = call.addresses.iter().find(|address| !may.contains(address.as_str())) {
            complaints.push(format!("{}: {} was asked for {stranger}, who is not in the envelope", call.message, call.provider));
        }
    }
}

/// What a person holds does not go until it is released, and what a person removes never.
fn stopped(world: &World, truth: &Truth, complaints: &mut Vec<String>) {
    for (position, deed) in world.deeds.iter().enumerate().filter(|(_, deed)| matches!(deed.action, Action::Hold | Action::Remove)) {
        let ends = |other: &&super::operator::Deed| other.message == deed.message && matches!(other.action, Action::Release);
        let until = world.deeds[position..].iter().find(ends).map(|release| release.at);
        let asked =
            truth.asked.iter().find(|(at, _, message)| *message == deed.message && *at > deed.at && until.is_none_or(|until| *at < until));
        if let Some((_, provider, message)) = asked {
            complaints.push(format!("{message}: {provider} was asked although a person had decided: {}", deed.action.name()));
        }
    }
}

/// How often a person has let a message go by then: a dead letter begins its life anew.
fn lives(world: &World, id: MessageId, by: Instant) -> usize {
    world.deeds.iter().filter(|deed| deed.message == id && deed.action == Action::Release && deed.at <= by).count()
}

/// Between two attempts for a recipient lies what the schedule says, less the jitter.
fn schedule(id: MessageId, index: RecipientIndex, truth: &Truth, world: &World, complaints: &mut Vec<String>) {
    let mut attempts: BTreeMap<(usize, u32), (Instant, Instant)> = BTreeMap::new();
    for call in truth.calls.iter().filter(|call| call.message == id && call.recipients.contains(&index)) {
        let span = attempts.entry((lives(world, id, call.at), call.number)).or_insert((call.at, call.at));
        *span = (span.0.min(call.at), span.1.max(call.at));
    }
    let attempts: Vec<_> = attempts.into_iter().collect();
    for pair in attempts.windows(2) {
        let (((_, number), (first, last)), ((_, next), (start, _))) = (pair[0], pair[1]);
        let crashed = world.crashes.iter().any(|crash| *crash >= first && *crash <= start);
        // A person may bring it forward.
        let hurried = world.deeds.iter().any(|deed| deed.message == id && deed.at >= first && deed.at <= start);
        let step = usize::try_from(number - 1).unwrap_or(usize::MAX).min(RETRY.len() - 1);
        let least = Duration::from_secs(RETRY[step]).mul_f64(0.89);
        let gap = start.saturating_duration_since(last);
        if gap < least && !crashed && !hurried {
            let who = index.0;
            complaints.push(format!(
                "{id}, recipient {who}: attempt {next} came {gap:?} after attempt {number}, before the {least:?} of the schedule"
            ));
        }
    }
}

/// No window of the rate's time holds more than its burst and the rate. A rate, other than a quota, begins
/// anew with the process.
fn limits(truth: &Truth, crashes: &[Instant], complaints: &mut Vec<String>) {
    let (rate, period) = RATE;
    let asked: Vec<Instant> =
        truth.asked.iter().filter(|(_, provider, _)| *provider == ProviderName::from(LIMITED)).map(|(at, ..)| *at).collect();
    for (first, start) in asked.iter().enumerate() {
        let within = asked[first..].iter().take_while(|at| **at < *start + period).count();
        let restarts = crashes.iter().filter(|crash| **crash >= *start && **crash < *start + period).count();
        // The burst of this rate is one message.
        if within > rate + 1 + restarts {
            complaints.push(format!("{within} messages within {period:?} at {LIMITED}, which takes {rate}"));
            break;
        }
    }
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.recipients += other.recipients;
        self.relayed += other.relayed;
        self.bounced += other.bounced;
        self.held += other.held;
        self.doubled += other.doubled;
        self.crashes += other.crashes;
        self.calls += other.calls;
        self.removed += other.removed;
        self.reloads += other.reloads;
        self.deeds += other.deeds;
    }
}
