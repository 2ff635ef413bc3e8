//! Connections that stand idle between two messages, each for the login that it was opened with.
//!
//! Invariant: a connection in the pool is in step (never [`State::Broken`]), leaves it with QUIT when it
//! has been idle for too long, and is given to nobody but the login that it belongs to.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::client::{Connection, State};

/// How connections are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// For how long without a message; zero keeps none.
    pub(crate) idle_timeout: Duration,
    /// How many messages one carries.
    pub(crate) max_messages: Option<u32>,
    /// How many stand idle, at most.
    pub(crate) max_idle: usize,
    /// How many a login may have at the same time, where the host has a limit.
    pub(crate) per_login: Option<usize>,
}

/// The connections of one host.
pub(super) struct Pool {
    keep: Keep,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    /// The longest idle first.
    idle: Vec<Idle>,
    /// How many handovers a login has under way; none is left out.
    busy: HashMap<Arc<str>, usize>,
    /// Whether a task is waiting to clear it.
    swept: bool,
}

struct Idle {
    since: Instant,
    login: Arc<str>,
    connection: Connection,
}

/// The right to one connection of a login, until it is dropped.
pub(super) struct Place {
    pool: Arc<Pool>,
    login: Arc<str>,
}

impl Pool {
    pub(super) fn new(keep: Keep) -> Arc<Self> {
        Arc::new(Self { keep, shelf: Mutex::default() })
    }

    /// A place for one more connection of `login`; `None` where it has as many as it may. An idle one is
    /// taken before another is opened, so those in use are all that count.
    pub(super) fn place(self: &Arc<Self>, login: &Arc<str>) -> Option<Place> {
        let mut shelf = self.shelf.lock();
        let busy = shelf.busy.entry(Arc::clone(login)).or_default();
        if self.keep.per_login.is_some_and(|most| *busy >= most) {
            return None;
        }
        *busy += 1;
        Some(Place { pool: Arc::clone(self), login: Arc::clone(login) })
    }

    /// The connection of `login` that was used last, if it still stands: the others may then grow old
    /// and go.
    pub(super) fn take(&self, login: &str) -> Option<Connection> {
        let mut shelf = self.shelf.lock();
        while let Some(at) = shelf.idle.iter().rposition(|idle| &*idle.login == login) {
            let Idle { since, mut connection, .. } = shelf.idle.remove(at);
            if since.elapsed() < self.keep.idle_timeout && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection of `login` for the next message, if it is good for one.
    pub(super) fn put(self: &Arc<Self>, login: &Arc<str>, connection: Connection) {
        if connection.state == State::Broken {
            return;
        }
        let worn = self.keep.max_messages.is_some_and(|max| connection.messages >= max);
        if worn || self.keep.idle_timeout.is_zero() || self.keep.max_idle == 0 {
            tokio::spawn(connection.quit());
            return;
        }
        let mut shelf = self.shelf.lock();
        if shelf.idle.len() >= self.keep.max_idle {
            // Perhaps of a login that sends no more.
            tokio::spawn(shelf.idle.remove(0).connection.quit());
        }
        shelf.idle.push(Idle { since: Instant::now(), login: Arc::clone(login), connection });
        if !shelf.swept {
            shelf.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self), self.keep.idle_timeout));
        }
    }

    /// Takes out what has been idle for too long, and says when to look again.
    fn expire(&self) -> (Vec<Connection>, Option<Instant>) {
        let mut shelf = self.shelf.lock();
        let expired = shelf.idle.partition_point(|idle| idle.since.elapsed() >= self.keep.idle_timeout);
        let gone = shelf.idle.drain(..expired).map(|idle| idle.connection).collect();
        let next = shelf.idle.first().map(|idle| idle.since + self.keep.idle_timeout);
        shelf.swept = next.is_some();
        (gone, next)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shelf = self.pool.shelf.lock();
        if let Some(busy) = shelf.busy.get_mut(&self.login) {
            *busy -= 1;
            if *busy == 0 {
                shelf.busy.remove(&self.login);
            }
        }
    }
}

/// Ends idle connections until there are none, or no pool. It holds the pool only while it looks,
/// so that a provider which is dropped takes its connections with it.
async fn sweep(pool: Weak<Pool>, idle_timeout: Duration) {
    let mut next = Instant::now() + idle_timeout;
    loop {
        tokio::time::sleep_until(next).await;
        let Some((gone, later)) = pool.upgrade().map(|pool| pool.expire()) else { return };
        for connection in gone {
            connection.quit().await;
        }
        match later {
            Some(later) => next = later,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_has_no_more_places_than_it_may_and_each_login_its_own() {
        let keep = Keep { idle_timeout: Duration::ZERO, max_messages: None, max_idle: 0, per_login: Some(2) };
        let pool = Pool::new(keep);
        let (one, other): (Arc<str>, Arc<str>) = ("one@a.example".into(), "other@a.example".into());
        let first = pool.place(&one);
        let second = pool.place(&one);
        assert!(first.is_some() && second.is_some() && pool.place(&one).is_none());
        assert!(pool.place(&other).is_some());
        drop(first);
        assert!(pool.place(&one).is_some());
        drop(second);
        assert!(pool.shelf.lock().busy.is_empty(), "nothing is left behind");
    }
}
