//! Postrider: plain SMTP in, a durable queue, cloud mail providers out.

pub mod bounce;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod dispatch;
pub mod gateway;
pub mod queue;
pub mod route;
pub mod sandbox;
pub mod smtp;
pub mod spool;
pub mod telemetry;
