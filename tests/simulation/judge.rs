//! Holds what happened against what was promised.

use std::collections::BTreeMap;
use std::time::Duration;

use postrider::history::{Event, Record};
use postrider::spool::Spool as _;
use postrider_providers::contract::{MessageId, ProviderName, RecipientIndex};
use tokio::time::Instant;

use super::provider::{Call, Truth};
use super::world::{LIMITED, RATE, RETRY, World};

/// How a recipient ended, by the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Relayed(String),
    Bounced,
    Expired,
    Held,
    Dead,
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
    pub doubled: usize,
    pub crashes: usize,
    pub calls: usize,
}

/// Every promise that was broken, in words; the tally otherwise.
pub async fn judge(world: &World) -> Result<Tally, Vec<String>> {
    let mut complaints = Vec::new();
    let told = told(world, &mut complaints).await;
    let truth = world.truth.lock();
    let mut tally = Tally { crashes: world.crashes.len(), calls: truth.calls.len(), ..Tally::default() };
    for message in &world.acknowledged {
        for (index, _) in (0u32..).map(RecipientIndex).zip(&message.envelope.recipients) {
            tally.recipients += 1;
            let fate = told.get(&(message.id, index.0)).and_then(|told| told.fate.clone()).unwrap_or(Fate::Open);
            let calls: Vec<&Call> = truth.calls.iter().filter(|call| call.message == message.id && call.took.contains(&index)).collect();
            let doubts = told.get(&(message.id, index.0)).map_or(0, |told| told.doubts);
            ended(message.id, index, &fate, &calls, doubts, &mut complaints);
            if calls.len() > 1 {
                tally.doubled += 1;
                doubled(message.id, index, &calls, doubts, world, &mut complaints);
            }
            schedule(message.id, index, &truth, &world.crashes, &mut complaints);
            match fate {
                Fate::Relayed(_) => tally.relayed += 1,
                Fate::Bounced | Fate::Expired => tally.bounced += 1,
                _ => tally.held += 1,
            }
        }
    }
    strangers(world, &truth, &mut complaints);
    limits(&truth, &world.crashes, &mut complaints);
    if complaints.is_empty() { Ok(tally) } else { Err(complaints) }
}

/// Reads the journal.
async fn told(world: &World, complaints: &mut Vec<String>) -> BTreeMap<(MessageId, u32), Told> {
    let mut all: BTreeMap<(MessageId, u32), Told> = BTreeMap::new();
    for (number, record) in world.spool.journal(0, usize::MAX).await.unwrap_or_default() {
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
                Event::Dead { recipients, .. } => (recipients, Some(Fate::Dead)),
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
        if first.provider != second.provider {
            complaints.push(format!("{id}, recipient {}: {} took it, and then {} as well", index.0, first.provider, second.provider));
        } else if first.answered && !crashed {
            complaints.push(format!("{id}, recipient {}: {} took it and said so, and was asked again", index.0, first.provider));
        } else if doubts == 0 && !crashed {
            complaints.push(format!("{id}, recipient {}: {} took it twice, and no doubt is on record", index.0, first.provider));
        }
    }
}

/// Nobody outside the envelope, and nobody who is finished.
fn strangers(world: &World, truth: &Truth, complaints: &mut Vec<String>) {
    let envelopes: BTreeMap<MessageId, usize> =
        world.acknowledged.iter().map(|message| (message.id, message.envelope.recipients.len())).collect();
    for call in &truth.calls {
        // What is not in the map is a notification.
        let most = envelopes.get(&call.message).copied().unwrap_or(1);
        if let Some(stranger) = call.recipients.iter().find(|index| index.0 as usize >= most) {
            complaints
                .push(format!("{}: {} was asked for recipient {}, who is not in the envelope", call.message, call.provider, stranger.0));
        }
    }
}

/// Between two attempts for a recipient lies what the schedule says, less the jitter.
fn schedule(id: MessageId, index: RecipientIndex, truth: &Truth, crashes: &[Instant], complaints: &mut Vec<String>) {
    let mut attempts: BTreeMap<u32, (Instant, Instant)> = BTreeMap::new();
    for call in truth.calls.iter().filter(|call| call.message == id && call.recipients.contains(&index)) {
        let span = attempts.entry(call.number).or_insert((call.at, call.at));
        *span = (span.0.min(call.at), span.1.max(call.at));
    }
    let attempts: Vec<_> = attempts.into_iter().collect();
    for pair in attempts.windows(2) {
        let ((number, (first, last)), (next, (start, _))) = (pair[0], pair[1]);
        let crashed = crashes.iter().any(|crash| *crash >= first && *crash <= start);
        let step = usize::try_from(number - 1).unwrap_or(usize::MAX).min(RETRY.len() - 1);
        let least = Duration::from_secs(RETRY[step]).mul_f64(0.89);
        let gap = start.saturating_duration_since(last);
        if gap < least && !crashed {
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
        truth.asked.iter().filter(|(_, provider)| *provider == ProviderName::from(LIMITED)).map(|(at, _)| *at).collect();
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
    }
}
