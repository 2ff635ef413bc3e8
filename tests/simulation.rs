//! Thousands of stories, each told by a seed: providers that refuse, throttle, hang, lie and lose their
//! answers, and a gateway that dies in between. Hours pass in a moment, because time is paused.
//!
//! What must hold in each: every acknowledged message ends relayed, bounced or held; nobody gets it twice
//! unless a handover in doubt is on record, and never from two providers; nobody outside the envelope is
//! asked for; limits hold; attempts follow the schedule.
//!
//! `SEEDS=10000 cargo test --release --test simulation -- --ignored --nocapture` tells more of them, and
//! `SEED=4711 cargo test --test simulation -- --ignored` one alone, as a failure says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a simulation that cannot be set up has failed")]

#[path = "simulation/judge.rs"]
mod judge;
#[path = "simulation/provider.rs"]
mod provider;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};

use judge::{Tally, judge};
use parking_lot::Mutex;
use world::World;

/// How many seeds a run without further word tells.
const USUAL: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
}

/// Tells one story to its end.
fn tell(seed: u64) -> Result<Tally, Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let told = panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut world = World::new(seed).await;
            world.live().await;
            judge(&world).await
        })
    }));
    told.unwrap_or_else(|_| Err(vec!["it panicked".to_owned()]))
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
                    match tell(seed) {
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
        println!("seed {seed}; again with: SEED={seed} cargo test --test simulation -- --ignored --nocapture");
        for complaint in complaints.iter().take(10) {
            println!("  {complaint}");
        }
    }
    assert!(failures.is_empty(), "{} of {count} seeds broke a promise; the first is {}", failures.len(), failures[0].0);
    if count >= USUAL {
        let seen = [total.relayed, total.bounced, total.held, total.doubled, total.crashes];
        assert!(seen.iter().all(|seen| *seen > 0), "the stories are too tame to prove anything: {total:?}");
    }
}
