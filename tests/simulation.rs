//! Thousands of stories, each told by a seed: providers that refuse, throttle, hang, lie and lose their
//! answers, a gateway that dies in between, a disk that fills up, a config that changes, and a person who
//! acts. Hours pass in a moment, because time is paused.
//!
//! What must hold in each: every acknowledged message ends relayed, bounced, held or removed by a person;
//! nobody gets it twice unless a handover in doubt is on record, and never from two providers; nobody
//! outside the envelope is asked for; what a person holds or removes does not go; limits hold; attempts
//! follow the schedule.
//!
//! `SEEDS=10000 cargo test --release --test simulation -- --nocapture` tells more of them, and
//! `SEED=4711 cargo test --test simulation` one alone, as a failure says; `MESSAGE=id` with it prints what
//! happened to that message.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a simulation that cannot be set up has failed")]
#![allow(clippy::print_stdout, reason = "whoever looks for a fault reads it")]

#[path = "simulation/judge.rs"]
mod judge;
#[path = "simulation/operator.rs"]
mod operator;
#[path = "simulation/provider.rs"]
mod provider;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/story.rs"]
mod story;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use judge::{Tally, judge};
use parking_lot::Mutex;
use world::World;

/// How many seeds a run without further word tells.
const USUAL: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
}

/// A story takes well under a second. One that takes so long passes something to and fro without an end.
const ENDLESS: Duration = Duration::from_secs(120);

/// Tells one story to its end.
fn tell(seed: u64) -> Result<Tally, Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let told = panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut world = World::new(seed).await;
            story::live(&mut world).await;
            judge(&world).await
        })
    }));
    told.unwrap_or_else(|_| Err(vec!["it panicked".to_owned()]))
}

/// Ends everything with a story that does not end, for nothing else could.
fn watch(seed: u64, end: &mpsc::Receiver<()>) {
    if end.recv_timeout(ENDLESS) == Err(RecvTimeoutError::Timeout) {
        println!("seed {seed} does not end; again with: SEED={seed} cargo test --test simulation -- --nocapture");
        std::process::exit(1);
    }
}

#[test]
fn whatever_happens_no_mail_is_lost_doubled_or_misled() {
    let (first, count) = match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => (seed, 1),
        (None, count) => (0, count.unwrap_or(USUAL)),
    };
    // A provider that panics on purpose would fill the screen.
    panic::set_hook(Box::new(|_| {}));
    let (next, failures, total) = (AtomicU64::new(first), Mutex::new(Vec::new()), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let (told, end) = mpsc::channel::<()>();
                    scope.spawn(move || watch(seed, &end));
                    let end = tell(seed);
                    drop(told);
                    match end {
                        Ok(tally) => total.lock().add(&tally),
                        Err(complaints) => failures.lock().push((seed, complaints)),
                    }
                }
            });
        }
    });
    drop(panic::take_hook());
    let (mut failures, total) = (failures.into_inner(), total.into_inner());
    println!("{count} seeds: {total:?}");
    failures.sort();
    for (seed, complaints) in failures.iter().take(5) {
        println!("seed {seed}; again with: SEED={seed} cargo test --test simulation -- --nocapture");
        for complaint in complaints.iter().take(10) {
            println!("  {complaint}");
        }
    }
    assert!(failures.is_empty(), "{} of {count} seeds broke a promise; the first is {}", failures.len(), failures[0].0);
    if count >= USUAL {
        let seen = [total.relayed, total.bounced, total.held, total.removed, total.doubled, total.crashes, total.reloads, total.deeds];
        assert!(seen.iter().all(|seen| *seen > 0), "the stories are too tame to prove anything: {total:?}");
    }
}
