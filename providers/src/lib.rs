//! The provider contract of Postrider, and every provider that it can hand mail to.
//!
//! A provider is one file (or folder) here and one line in the registry below.

pub mod capture;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod contract;
pub mod http;
pub mod registry;
#[cfg(feature = "ses")]
pub mod ses;
pub mod settings;
pub mod smarthost;

// Every provider this build can speak to.
registry::registry! {
    capture,
    #[cfg(feature = "ses")]
    ses,
    smarthost,
}
