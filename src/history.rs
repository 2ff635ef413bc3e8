//! What happened to every message and recipient, kept for a time and found again.
//!
//! What happens is written to the spool's journal in the very transaction that makes it so. From there it
//! moves to a database of its own, which has the indexes for searching and is pruned beside the queue:
//! the writer of the queue never waits for it.

pub mod event;

pub use event::{Event, Record};
