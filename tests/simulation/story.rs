//! What happens in the world, as a seed has it.

use std::time::Duration;

use postrider::spool::SpoolError;
use tokio::time::sleep;

use super::provider::Mood;
use super::world::{EXPIRE, Terms, World};

/// Lives through one seed.
pub async fn live(world: &mut World) {
    for _ in 0..(10 + world.rng.below(30)) {
        match world.rng.below(14) {
            0..=4 => {
                for _ in 0..=world.rng.below(12) {
                    world.submit().await;
                }
            }
            5..=7 => {
                let mood = *world.rng.pick(&Mood::ALL);
                *world.rng.pick(&world.providers).mood.lock() = mood;
            }
            8 => world.crash().await,
            9 => {
                let terms = Terms { turned: world.rng.once_in(2), without_second: world.rng.once_in(3) };
                world.reload(terms).await;
            }
            10 => {
                // Giving up is settled durably, and nobody else is here who could make room on the disk meanwhile.
                world.spool.set_fault(None);
                world.act().await;
            }
            11 => world.command().await,
            12 if world.rng.once_in(3) => world.spool.set_fault(Some(SpoolError::Full("the disk is full".into()))),
            _ => {
                world.spool.set_fault(None);
                *world.rng.pick(&world.providers).mood.lock() = Mood::Well;
            }
        }
        let longest = *world.rng.pick(&[1000, 30_000, 900_000]);
        sleep(Duration::from_millis(world.rng.below(longest))).await;
    }
    // Everybody gets well, nothing is stopped any more, and what is not finished by then is given up in time.
    world.spool.set_fault(None);
    for provider in &world.providers {
        *provider.mood.lock() = Mood::Well;
    }
    world.reload(Terms::default()).await;
    world.end_stops().await;
    if world.rng.once_in(2) {
        world.release_all().await;
    }
    sleep(EXPIRE + Duration::from_secs(3600)).await;
}
