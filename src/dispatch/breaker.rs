//! The circuit breaker: a provider that fails is left alone, asked again by one message at a time, and then
//! given more and more mail until it has all of it.
//!
//! Words: **closed** = mail flows, **open** = refused until the probe is due, **half-open** = one
//! probe is under way, **recovering** = the probe succeeded, and more may go at a time as time passes.
//! What moves it is three-valued: success, fault, and neutral (a refusal that says nothing about the
//! provider's health).
//!
//! ```text
//!        trip_after faults in a row, trip_share of a minute's tries, or a refused credential
//!   closed ──────────────────────────────────────────────────────────────────> open
//!     ^                                                                       │  ^  ^
//!     │ well for recover_over                    probe is due: one may pass   │  │  │ fault: twice the
//!     │                     success                                           v  │  │ wait, up to
//!     └───── recovering <──────────────────────────────────────────── half-open ─┘  │ probe_max
//!                 └─────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The wait starts from the beginning only when the circuit has closed. So a provider that fails again as
//! soon as it gets mail is asked less and less often, rather than flapped to.

mod layer;
mod machine;
mod state;

pub use machine::CircuitState;
pub use state::Circuit;

pub(super) use layer::BreakerLayer;
pub(super) use state::NOTES;
