//! The settings of each part of the gateway, validated: what `smtp`, `queue` and `dispatch` are given.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use postrider_providers::contract::ProviderName;
use postrider_providers::settings::Rate;
use serde::Deserialize;

use super::domain::DomainPattern;

/// `[server]`: who this gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The name in EHLO, Received and notifications; ASCII.
    pub hostname: Arc<str>,
    /// Where the spool and all other state are.
    pub data_dir: PathBuf,
}

/// `[[listener]]`: one address that takes mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Address and port; port 0 lets the system choose.
    pub bind: SocketAddr,
}

/// `[access]`: who may relay, and how much at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Clients that may relay without AUTH.
    pub trusted_networks: Vec<IpNet>,
    /// The largest message taken, in octets.
    pub max_message_size: u64,
    /// The most recipients of one message.
    pub max_recipients: usize,
    /// The most connections at the same time, over all listeners.
    pub max_connections: usize,
    /// The most of them from one address.
    pub max_connections_per_client: usize,
    /// What happens to a bare CR or LF in content.
    pub bare_newline: BareNewline,
}

impl Access {
    /// Whether the client at `address` may relay without AUTH.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        // A socket for both families gives IPv4 clients as ::ffff:192.0.2.1.
        let address = address.to_canonical();
        self.trusted_networks.iter().any(|network| network.contains(&address))
    }
}

/// What happens to a CR or LF that stands alone in content (RFC 5321 section 2.3.8 forbids both).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BareNewline {
    /// It becomes CRLF. Data still ends at CRLF.CRLF only.
    #[default]
    Normalize,
    /// The message is refused.
    Reject,
}

/// `[[route]]`: which mail goes through which providers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name in logs and in `explain`.
    pub name: Arc<str>,
    /// Which mail takes it.
    pub when: When,
    /// Providers in order of preference; at least one, none twice.
    pub providers: Vec<ProviderName>,
    /// Whether a reached limit sends a message to the next provider instead of making it wait.
    pub spill: bool,
    /// What follows when nobody knows whether a message was taken.
    pub in_doubt: InDoubt,
    /// The limit of each sending domain on this route.
    pub per_sending_domain: Option<Rate>,
}

/// The conditions of a route; all that are given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    /// The reverse-path's domain matches one of these; empty: any, and the null reverse-path too.
    pub sender_domains: Vec<DomainPattern>,
    /// The recipient's domain matches one of these; empty: any.
    pub recipient_domains: Vec<DomainPattern>,
    /// The reverse-path is null (`true`) or is not (`false`).
    pub null_sender: Option<bool>,
}

impl When {
    /// Whether every message matches.
    #[must_use]
    pub fn is_always(&self) -> bool {
        *self == Self::default()
    }
}

/// What follows a handover without an answer. Another provider is never asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InDoubt {
    /// The same provider again, with the same Message-ID.
    #[default]
    Retry,
    /// A person decides.
    Hold,
}

/// `[limits.sending_domain]`: over all routes and providers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendingDomainLimits {
    /// By domain, in lower-case ASCII.
    pub domains: BTreeMap<String, Rate>,
    /// Each other domain's.
    pub default: Option<Rate>,
}

impl SendingDomainLimits {
    /// The limit of `domain`, which is in lower-case ASCII.
    #[must_use]
    pub fn get(&self, domain: &str) -> Option<Rate> {
        self.domains.get(domain).copied().or(self.default)
    }
}

/// `[queue]`: how long mail waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Waiting times between attempts; at least one, and the last repeats.
    pub retry: Vec<Duration>,
    /// When a message that nobody takes is given up, counted from its arrival.
    pub expire_after: Duration,
    /// How many messages are in memory at the same time; the rest stay in the store.
    pub window: usize,
    /// Bodies up to this many octets stand in the database; larger ones are files beside it.
    pub inline_max: u64,
}

impl Queue {
    /// The waiting time after attempt number `attempts` (the first is 1).
    #[must_use]
    pub fn retry_after(&self, attempts: u32) -> Duration {
        let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        self.retry.get(index).or(self.retry.last()).copied().unwrap_or(self.expire_after)
    }
}

/// `[failover]`: when a provider counts as down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failover {
    /// Provider faults in a row that open the circuit; at least 1.
    pub trip_after: u32,
    /// The time from there to the first probe; doubles with each probe that fails.
    pub probe_after: Duration,
    /// The longest time between probes.
    pub probe_max: Duration,
}

/// `[log]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Log {
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// What is worth a line.
    pub level: LogLevel,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The least important event that is still logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something is broken.
    Error,
    /// Something will break, or was refused.
    Warn,
    /// One line for each message event.
    #[default]
    Info,
    /// Why things happen: each try, each wait.
    Debug,
    /// What the libraries below have to say, too.
    Trace,
}

impl LogLevel {
    /// The name, as in the file and in a `tracing` filter.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_retry_repeats() {
        let seconds = Duration::from_secs;
        let queue = Queue { retry: vec![seconds(60), seconds(300)], expire_after: seconds(9000), window: 1, inline_max: 0 };
        assert_eq!([1, 2, 3, 99].map(|attempt| queue.retry_after(attempt).as_secs()), [60, 300, 300, 300]);
    }

    #[test]
    fn an_ipv4_client_on_an_ipv6_socket_is_the_same_client() {
        let access = Access {
            trusted_networks: vec!["10.0.0.0/8".parse().unwrap()],
            max_message_size: 1,
            max_recipients: 1,
            max_connections: 1,
            max_connections_per_client: 1,
            bare_newline: BareNewline::Normalize,
        };
        assert!(access.trusts("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!access.trusts("::ffff:11.1.2.3".parse().unwrap()));
        assert!(!access.trusts("::10.1.2.3".parse().unwrap()));
    }
}
