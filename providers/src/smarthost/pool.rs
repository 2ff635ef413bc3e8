//! Connections that stand idle between two messages.
//!
//! Invariant: a connection in the pool is in step (never [`State::Broken`]), and leaves it with QUIT
//! when it has been idle for too long.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::client::{Connection, State};

/// The idle connections of one smart host.
pub(super) struct Pool {
    idle_timeout: Duration,
    max_messages: Option<u32>,
    max_idle: usize,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    /// The longest idle first.
    idle: Vec<(Instant, Connection)>,
    /// Whether a task is waiting to clear it.
    swept: bool,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration, max_messages: Option<u32>, max_idle: usize) -> Arc<Self> {
        Arc::new(Self { idle_timeout, max_messages, max_idle, shelf: Mutex::default() })
    }

    /// The connection that was used last, if it still stands: the others may then grow old and go.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut shelf = self.shelf.lock();
        while let Some((since, mut connection)) = shelf.idle.pop() {
            if since.elapsed() < self.idle_timeout && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next message, if it is good for one.
    pub(super) fn put(self: &Arc<Self>, connection: Connection) {
        if connection.state == State::Broken {
            return;
        }
        let worn = self.max_messages.is_some_and(|max| connection.messages >= max);
        let mut shelf = self.shelf.lock();
        if worn || self.idle_timeout.is_zero() || shelf.idle.len() >= self.max_idle {
            drop(shelf);
            tokio::spawn(connection.quit());
            return;
        }
        shelf.idle.push((Instant::now(), connection));
        if !shelf.swept {
            shelf.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self), self.idle_timeout));
        }
    }

    /// Takes out what has been idle for too long, and says when to look again.
    fn expire(&self) -> (Vec<Connection>, Option<Instant>) {
        let mut shelf = self.shelf.lock();
        let expired = shelf.idle.partition_point(|(since, _)| since.elapsed() >= self.idle_timeout);
        let gone = shelf.idle.drain(..expired).map(|(_, connection)| connection).collect();
        let next = shelf.idle.first().map(|(since, _)| *since + self.idle_timeout);
        shelf.swept = next.is_some();
        (gone, next)
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
