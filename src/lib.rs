//! Postrider: plain SMTP in, a durable queue, cloud mail providers out.
pub mod spool;
