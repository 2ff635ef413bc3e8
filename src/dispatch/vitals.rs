//! How one provider is doing, for people: what is under way, and what came of the last tries.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use postrider_providers::contract::{BreakerSignal, Diagnostic, Failure, Outcome, Report};

use super::control::ProviderError;
use super::transport::Refusal;
use crate::clock::Clock;

/// How many of the last errors are kept.
const ERRORS: usize = 10;

/// So many octets of a provider's words are kept.
const WORDS: usize = 500;

/// One provider's numbers since the start.
#[derive(Debug)]
pub(super) struct Vitals {
    /// The most handovers that may be under way.
    concurrency: AtomicUsize,
    clock: Clock,
    under_way: AtomicUsize,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    last_success: Option<SystemTime>,
    /// The latest first.
    errors: VecDeque<ProviderError>,
    /// Recipients whose handover ended in doubt, by route.
    in_doubt: BTreeMap<Arc<str>, u64>,
}

/// A try that is under way.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Vitals>);

impl Vitals {
    pub(super) fn new(concurrency: usize, clock: Clock) -> Self {
        Self { concurrency: AtomicUsize::new(concurrency), clock, under_way: AtomicUsize::new(0), seen: Mutex::default() }
    }

    /// Counts a try as under way until the value is dropped.
    pub(super) fn begin(this: &Arc<Self>) -> UnderWay {
        this.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(this))
    }

    /// The most handovers that may be under way.
    pub(super) fn concurrency(&self) -> usize {
        self.concurrency.load(Ordering::Relaxed)
    }

    /// Allows so many from now on.
    pub(super) fn change(&self, concurrency: usize) {
        self.concurrency.store(concurrency, Ordering::Relaxed);
    }

    /// Tries under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Counts a recipient of `route` whose handover ended in doubt.
    pub(super) fn count_doubt(&self, route: &Arc<str>) {
        *self.seen.lock().in_doubt.entry(Arc::clone(route)).or_default() += 1;
    }

    /// Recipients whose handover ended in doubt, by route.
    pub(super) fn in_doubt(&self) -> Vec<(Arc<str>, u64)> {
        self.seen.lock().in_doubt.iter().map(|(route, count)| (Arc::clone(route), *count)).collect()
    }

    /// When it took a message last, and the last errors.
    pub(super) fn last(&self) -> (Option<SystemTime>, Vec<ProviderError>) {
        let seen = self.seen.lock();
        (seen.last_success, seen.errors.iter().cloned().collect())
    }

    fn learn(&self, answer: &Result<Report, Refusal>) {
        let at = self.clock.now();
        let error = match answer {
            Ok(report) if report.breaker_signal() == BreakerSignal::Success => {
                self.seen.lock().last_success = Some(at);
                None
            }
            Ok(report) => report.outcomes.iter().find_map(|(_, outcome)| match outcome {
                Outcome::InDoubt(diagnostic) => Some((outcome.name(), diagnostic)),
                _ => None,
            }),
            // What is wrong with a message says nothing about the provider.
            Err(Refusal::Failed(Failure::Unsuitable(_) | Failure::Rejected(_))) => None,
            Err(Refusal::Failed(failure)) => Some((failure.name(), failure.diagnostic())),
            Err(_) => None,
        };
        if let Some((verdict, diagnostic)) = error {
            let mut seen = self.seen.lock();
            seen.errors.truncate(ERRORS - 1);
            seen.errors.push_front(ProviderError { at, verdict, words: words(diagnostic), advice: diagnostic.advice.map(Into::into) });
        }
    }
}

impl UnderWay {
    /// Ends it with what came of it.
    pub(super) fn end(self, answer: &Result<Report, Refusal>) {
        self.0.learn(answer);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The words of a refusal, as far as people need them.
pub(super) fn words(diagnostic: &Diagnostic) -> String {
    let mut words = diagnostic.to_string();
    if words.len() > WORDS {
        words.truncate(words.floor_char_boundary(WORDS));
        words.push('…');
    }
    words
}
