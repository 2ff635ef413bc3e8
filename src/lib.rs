//! Postrider: plain SMTP in, a durable queue, cloud mail providers out.
//!
//! This page is the map. The commands are in [`cli`]; whoever embeds the gateway starts with
//! [`gateway::Gateway`]. What a provider is stands in [`postrider_providers::contract`], which this
//! package builds on. Every file has its sentence in `docs/ARCHITECTURE.md`, and why things are as they
//! are stands in `docs/decisions`.
//!
//! # The picture
//!
//! ```text
//! client ── SMTP ──> smtp ──> queue ──> spool                           250 after the commit
//!                              │ lease
//!                              v
//!                          dispatch ── route ── failover ── [guards] ── provider
//!                              │ settle, recipient by recipient
//!                              v
//!                            queue ──> due again at … | notification | done
//! ```
//!
//! [`smtp`] and [`dispatch`] never see each other: they meet in the [`queue`]. So a slow provider cannot
//! hold the door, and whatever waits, waits where a crash cannot lose it.
//!
//! # The way of one message
//!
//! 1. [`smtp::serve`] accepts a connection, and a session reads commands: [`smtp::command::Command::parse`]
//!    turns a line into a command or a reply, without any I/O.
//! 2. MAIL and RCPT build the envelope. [`access::Access`] says whether this client may relay,
//!    [`route::Router`] whether anything would carry it. The envelope is the only truth about who
//!    receives; headers have no say.
//! 3. DATA streams the content through [`smtp::decoder`] and a header filter into a
//!    [`spool::BodySink`], a file when it is large.
//! 4. [`queue::Queue::submit`] returns when [`spool::Spool::store`] has the message on stable storage.
//!    **Then the client gets its 250, and the message is ours.**
//! 5. [`queue::Queue::lease`] lends it to a task of [`dispatch::Dispatcher`], which groups the recipients
//!    by route and asks each route's providers in order.
//! 6. Each provider stands behind guards: observe, breaker, concurrency, rate, and the intent, which
//!    commits that the provider is about to be asked. A guard never sleeps: it answers, or says when to
//!    come back.
//! 7. The provider's answer decides. `Err` is *not handed over*, and the next candidate is asked. `Ok` has
//!    an outcome for each recipient; *in doubt* is one of them, and never goes to another provider.
//! 8. [`queue::Lease::settle`] writes down in one transaction what became of everyone, when the rest is due
//!    again, and the notification ([`bounce`]) for what never will arrive.
//!
//! # The modules
//!
//! | module | what it is | knows of |
//! |---|---|---|
//! | [`cli`] | commands, arguments, exit codes | the gateway, the demo |
//! | [`gateway`] | the composition root: builds every part, owns every task, drains | all parts below |
//! | [`config`] | the file, checked, with every mistake drawn at its line | nothing |
//! | [`smtp`] | the door | TLS, the queue, the routes, the rules of access |
//! | [`tls`] | TLS for clients: certificates that reload, handshakes | the config's types |
//! | [`access`] | who may do what at the door; pure | the config's types, the routes |
//! | [`queue`] | what is due, what is parked, who has a lease | the spool |
//! | [`spool`] | the durable store: [`spool::sqlite`], and [`spool::memory`] for tests | nothing |
//! | [`history`] | what happened to every message, kept and found again | the spool's journal |
//! | [`route`] | which providers a message has; pure | the config's types |
//! | [`dispatch`] | attempts, failover, guards; the only place with `tower` | the queue, the routes |
//! | [`bounce`] | composes notifications | nothing |
//! | [`demo`] | the gateway at work, for people to watch | the gateway, the sandbox |
//! | [`sandbox`] | providers that speak the real protocols on loopback and fail on command | nothing |
//! | [`clock`], [`telemetry`] | time that a test can move; logging | nothing |
//!
//! `tests/architecture.rs` holds the imports to the table in `docs/ARCHITECTURE.md`.
//!
//! # What holds everywhere
//!
//! - Nothing is acknowledged before it is durable, and nothing that was acknowledged disappears.
//! - Waiting is the queue's business alone: no sleeping middleware, no retry in a provider.
//! - A verdict that nobody classified is *in doubt* once the body has left, and *unavailable* before.
//! - Time is [`tokio::time::Instant`] and [`clock::Clock`], so that a test can stop it.
//!
//! # Embedding
//!
//! [`gateway::Gateway::start`] runs what a [`config::Config`] describes.
//! [`gateway::Gateway::start_with`] takes a spool and providers that the caller made;
//! `examples/custom_provider.rs` does so with [`spool::memory::MemorySpool`] and a provider of its own.

pub mod access;
pub mod admin;
pub mod bounce;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod dispatch;
pub mod gateway;
pub mod history;
pub mod queue;
pub mod route;
pub mod sandbox;
pub mod smtp;
pub mod spool;
pub mod telemetry;
pub mod tls;
