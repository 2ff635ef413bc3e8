//! A provider whose mood changes, and the truth about what it took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_providers::contract::{
    Attempt, Capabilities, Delivery, Diagnostic, Failure, MessageId, Outcome, Probed, Provider, ProviderName, Receipt, RecipientIndex,
    Report, Throttled,
};
use tokio::time::{Instant, sleep};

use super::rng::Rng;

/// How a provider behaves at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Takes everything, within a second.
    Well,
    /// Takes everything, within some minutes.
    Slow,
    /// Cannot be reached.
    Down,
    /// Refuses our credential.
    Locked,
    /// Refuses the sender.
    Fussy,
    /// Wants to be left alone.
    Throttling,
    /// Does not answer before it is too late; took it or not.
    Hanging,
    /// Its answers get lost, whether it took the message or not.
    Deaf,
    /// Refuses some recipients for good, others for now.
    Picky,
    /// Takes some, then throttles.
    Halfway,
    /// Names recipients that nobody asked about, forgets some, says things twice.
    Confused,
    /// Ends the task that asks it.
    Broken,
}

impl Mood {
    pub const ALL: [Self; 12] = [
        Self::Well,
        Self::Slow,
        Self::Down,
        Self::Locked,
        Self::Fussy,
        Self::Throttling,
        Self::Hanging,
        Self::Deaf,
        Self::Picky,
        Self::Halfway,
        Self::Confused,
        Self::Broken,
    ];
}

/// One call that reached a provider.
#[derive(Debug, Clone)]
pub struct Call {
    pub at: Instant,
    pub provider: ProviderName,
    pub message: MessageId,
    pub number: u32,
    pub recipients: Vec<RecipientIndex>,
    /// Their addresses, as they stood in the envelope then.
    pub addresses: Vec<String>,
    /// Who really got it.
    pub took: Vec<RecipientIndex>,
    /// Whether the answer said so; otherwise nobody but the provider knows.
    pub answered: bool,
}

/// What really happened at the providers.
#[derive(Debug, Default)]
pub struct Truth {
    /// Calls that came to their end, in order.
    pub calls: Vec<Call>,
    /// When each provider was asked for what, those included that never came to an end.
    pub asked: Vec<(Instant, ProviderName, MessageId)>,
}

/// Counts the lives of the gateway: who was asked by one that is gone can give no answer any more.
pub type Life = Arc<AtomicU64>;

#[derive(Clone)]
pub struct Moody {
    pub name: ProviderName,
    pub mood: Arc<Mutex<Mood>>,
    rng: Arc<Mutex<Rng>>,
    truth: Arc<Mutex<Truth>>,
    life: Life,
    /// Messages that it would recognise, if it recognises any.
    known: Arc<Mutex<BTreeMap<Vec<u8>, Vec<RecipientIndex>>>>,
    recognises: bool,
}

impl Moody {
    pub fn new(name: &str, recognises: bool, rng: Rng, truth: Arc<Mutex<Truth>>, life: Life) -> Self {
        Self {
            name: name.into(),
            mood: Arc::new(Mutex::new(Mood::Well)),
            rng: Arc::new(Mutex::new(rng)),
            truth,
            life,
            known: Arc::default(),
            recognises,
        }
    }

    fn draw(&self, bound: u64) -> u64 {
        self.rng.lock().below(bound)
    }

    /// Puts the call on record, and really takes the message for `took`, unless it is recognised.
    fn took(&self, attempt: &Attempt, took: &[RecipientIndex], answered: bool) {
        let mut really = took.to_vec();
        if self.recognises && !took.is_empty() {
            let key = attempt.idempotency_key(&self.name, &attempt.recipients).to_vec();
            let mut known = self.known.lock();
            let before = known.entry(key).or_default();
            really.retain(|index| !before.contains(index));
            before.extend(&really);
        }
        self.truth.lock().calls.push(Call {
            at: Instant::now(),
            provider: self.name.clone(),
            message: attempt.message.id,
            number: attempt.number,
            recipients: attempt.recipients.to_vec(),
            addresses: attempt.recipients.iter().map(|index| address(attempt, *index)).collect(),
            took: really,
            answered,
        });
    }
}

fn address(attempt: &Attempt, index: RecipientIndex) -> String {
    let recipients = &attempt.message.envelope.recipients;
    recipients.get(index.0 as usize).map_or_else(|| format!("nobody: number {}", index.0), |recipient| recipient.address.to_string())
}

fn relayed() -> Outcome {
    Outcome::Relayed(Receipt { remote_id: Some("theirs".into()), reply: "250 2.0.0 taken".into(), ..Receipt::default() })
}

impl Provider for Moody {
    fn capabilities(&self) -> Capabilities {
        let idempotency = self.recognises.then(|| Duration::from_secs(86_400));
        Capabilities { max_recipients: Some(3), idempotency, ..Capabilities::EVERYTHING }
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        self.truth.lock().asked.push((Instant::now(), self.name.clone(), attempt.message.id));
        let life = self.life.load(Ordering::SeqCst);
        let mood = *self.mood.lock();
        let slow = if mood == Mood::Slow { 240_000 } else { 900 };
        sleep(Duration::from_millis(1 + self.draw(slow))).await;
        if self.life.load(Ordering::SeqCst) != life {
            // Its connection went with the process.
            std::future::pending::<()>().await;
        }
        let everybody = attempt.recipients.to_vec();
        let failed = |failure: Failure| {
            self.took(&attempt, &[], true);
            Err(failure)
        };
        match mood {
            Mood::Well | Mood::Slow => {
                self.took(&attempt, &everybody, true);
                Ok(Report::uniform(&attempt.recipients, &relayed()))
            }
            Mood::Down => failed(Failure::Unavailable(Diagnostic::local("connection refused"))),
            Mood::Locked => failed(Failure::Unauthorized(Diagnostic::reply("AUTH", 535, "5.7.8 no"))),
            Mood::Fussy => failed(Failure::SenderRefused(Diagnostic::reply("MAIL", 550, "5.7.60 not you"))),
            Mood::Throttling => {
                let retry_after = Some(Duration::from_secs(10 + self.draw(600)));
                failed(Failure::Throttled { retry_after, diagnostic: Diagnostic::reply("MAIL", 421, "4.7.0 slower") })
            }
            Mood::Hanging => {
                // Whether it takes it shows only after a while, when nobody may listen any more.
                let takes = self.draw(2) == 0;
                self.took(&attempt, if takes { &everybody } else { &[] }, false);
                sleep(Duration::from_secs(300)).await;
                Ok(Report::uniform(&attempt.recipients, &Outcome::InDoubt(Diagnostic::local("no answer in time"))))
            }
            Mood::Deaf => {
                let takes = self.draw(2) == 0;
                self.took(&attempt, if takes { &everybody } else { &[] }, false);
                Ok(Report::uniform(&attempt.recipients, &Outcome::InDoubt(Diagnostic::local("the connection was lost"))))
            }
            Mood::Picky => {
                let outcomes: Vec<(RecipientIndex, Outcome)> = everybody
                    .iter()
                    .map(|&index| {
                        let outcome = match self.draw(4) {
                            0 => Outcome::Bounced(Diagnostic::reply("RCPT", 550, "5.1.1 unknown")),
                            1 => Outcome::Deferred(Diagnostic::reply("RCPT", 450, "4.2.1 busy")),
                            _ => relayed(),
                        };
                        (index, outcome)
                    })
                    .collect();
                let took: Vec<_> =
                    outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Relayed(_))).map(|(index, _)| *index).collect();
                self.took(&attempt, &took, true);
                Ok(Report::new(outcomes))
            }
            Mood::Halfway => {
                let took = &everybody[..everybody.len() / 2];
                self.took(&attempt, took, true);
                let taken = |index: &RecipientIndex| took.contains(index);
                let outcome =
                    |index: &RecipientIndex| if taken(index) { relayed() } else { Outcome::Deferred(Diagnostic::local("not sent")) };
                let mut report = Report::new(everybody.iter().map(|index| (*index, outcome(index))).collect());
                report.throttled = Some(Throttled {
                    retry_after: Some(Duration::from_secs(30)),
                    diagnostic: Diagnostic::reply("MAIL", 452, "4.3.1 slower"),
                });
                Ok(report)
            }
            Mood::Confused => {
                // Whoever is forgotten may have got it all the same.
                self.took(&attempt, &everybody, false);
                let mut outcomes: Vec<_> = everybody.iter().skip(1).map(|index| (*index, relayed())).collect();
                outcomes.extend(outcomes.first().cloned());
                outcomes.push((RecipientIndex(999), relayed()));
                Ok(Report::new(outcomes))
            }
            Mood::Broken => {
                self.took(&attempt, &everybody, false);
                panic!("a defect in a provider, as the simulation wants it");
            }
        }
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        Ok(Probed::default())
    }
}
