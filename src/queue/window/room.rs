//! How much of the window is taken, and the messages that take it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use postrider_providers::contract::Body;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::WaitReason;
use super::turns::Ticket;
use crate::spool::Stored;
use crate::spool::view::Lane;

/// A part of the window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Amount {
    pub(super) messages: usize,
    pub(super) octets: u64,
}

/// What the window holds, including what is leased from it.
#[derive(Debug, Default)]
pub(super) struct Usage {
    messages: AtomicUsize,
    octets: AtomicU64,
    /// Something has left, or waits in the store.
    pub(super) changed: Notify,
}

/// One message's place in the window; gives it back when dropped.
#[derive(Debug)]
pub(in crate::queue) struct Room {
    usage: Arc<Usage>,
    pub(super) octets: u64,
}

/// A message in the window.
#[derive(Debug)]
pub(in crate::queue) struct Entry {
    pub(in crate::queue) stored: Stored,
    /// Whether the log says that it waits.
    pub(in crate::queue) announced: bool,
    pub(super) lane: Lane,
    /// What it waited for last, and the turn in which it was let go.
    pub(super) waited_for: Option<(WaitReason, Ticket)>,
    /// When its life ends, as it was known when it was parked.
    pub(super) ends: Instant,
    /// Given back when the entry is dropped.
    pub(super) room: Room,
}

impl Amount {
    pub(super) fn add(&mut self, octets: u64) {
        self.messages += 1;
        self.octets += octets;
    }

    pub(super) fn subtract(&mut self, octets: u64) {
        self.messages -= 1;
        self.octets -= octets;
    }
}

impl Usage {
    pub(super) fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    pub(super) fn octets(&self) -> u64 {
        self.octets.load(Ordering::Relaxed)
    }
}

impl Entry {
    pub(super) fn new(stored: Stored, lane: Lane, room: Room) -> Self {
        Self { stored, announced: false, lane, waited_for: None, ends: Instant::now(), room }
    }
}

impl Room {
    pub(super) fn take(usage: &Arc<Usage>, body: &Body) -> Self {
        let octets = match body {
            Body::Inline(bytes) => bytes.len() as u64,
            Body::File { .. } | Body::Spliced { .. } => 0,
        };
        usage.messages.fetch_add(1, Ordering::Relaxed);
        usage.octets.fetch_add(octets, Ordering::Relaxed);
        Self { usage: Arc::clone(usage), octets }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.usage.messages.fetch_sub(1, Ordering::Relaxed);
        self.usage.octets.fetch_sub(self.octets, Ordering::Relaxed);
        self.usage.changed.notify_one();
    }
}
