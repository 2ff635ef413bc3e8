//! Who may do what at the door. What a client is, and what it may do, are pure functions of the config
//! and of what is known about the client; only logging in has a memory and takes time.
//!
//! [`Access::recognise`] says who a client is, once it has connected and again when it has logged in.
//! [`Access::decide`] says what it may do with one sender and one recipient, and by which rule: the
//! session asks it, and `postrider explain` prints it. [`Access::log_in`] verifies a credential.

mod credentials;
mod decision;
mod failures;
mod login;
mod password_file;
mod standing;
mod words;

use std::net::IpAddr;
use std::sync::Arc;

use crate::config;

pub use decision::{Refusal, Submission};
pub use login::LoginError;
pub use standing::{Recognised, Standing, Tolerance};
pub use words::Listed;

/// The rules of the door.
#[derive(Debug, Clone)]
pub struct Access {
    settings: config::Access,
    applications: Vec<Arc<config::Application>>,
    /// Shared by all clones: failures are counted once.
    logins: Arc<login::Logins>,
}

/// What is known about a client.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address, as a trusted proxy told it where there is one. IPv4 is never written as IPv6.
    pub address: IpAddr,
    /// The other end of the TCP connection: the client itself, or a proxy.
    pub peer: IpAddr,
    /// Whether its connection is encrypted.
    pub encrypted: bool,
    /// The application whose credential it has shown.
    pub login: Option<Arc<str>>,
}

impl Client {
    /// A client that has just connected in clear text.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, peer: address, encrypted: false, login: None }
    }

    /// The client for which the proxy at `peer` speaks.
    #[must_use]
    pub fn behind(peer: IpAddr, address: IpAddr) -> Self {
        Self { peer: peer.to_canonical(), ..Self::at(address) }
    }
}

impl Access {
    /// The rules that a config sets.
    #[must_use]
    pub fn new(settings: config::Access, applications: Vec<Arc<config::Application>>) -> Self {
        let logins = Arc::new(login::Logins::new(&settings, &applications));
        Self { settings, applications, logins }
    }

    /// The rules that another config sets. Who has failed to log in too often is not forgotten, unless it
    /// counts otherwise now.
    #[must_use]
    pub fn next(&self, settings: config::Access, applications: Vec<Arc<config::Application>>) -> Self {
        let counts = |settings: &config::Access| (settings.auth_failures, settings.auth_block);
        let next = login::Logins::new(&settings, &applications);
        let logins = Arc::new(if counts(&settings) == counts(&self.settings) { next.counting_with(&self.logins) } else { next });
        Self { settings, applications, logins }
    }

    /// Whether the host at `peer` is believed about who its clients are (PROXY, XCLIENT).
    #[must_use]
    pub fn trusts_proxy(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.settings.trusted_proxies.iter().any(|network| network.contains(&peer))
    }

    /// Whether there is an application of this name.
    #[must_use]
    pub fn has_application(&self, name: &str) -> bool {
        self.applications.iter().any(|application| &*application.name == name)
    }
}
