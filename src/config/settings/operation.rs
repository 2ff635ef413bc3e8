//! How the gateway works and is operated: waiting, circuits, notifications, history, the admin API, logs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use postrider_providers::contract::{Address, ProviderName};
use postrider_providers::settings::Secret;
use serde::Deserialize;

use super::routing::Share;

/// `[queue]`: how long mail waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Waiting times between attempts; at least one, and the last repeats.
    pub retry: Vec<Duration>,
    /// When a message that nobody takes is given up, counted from its arrival.
    pub expire_after: Duration,
    /// The age at which the sender is told that a message still waits; `None`: never.
    pub delay_warning_after: Option<Duration>,
    /// How many messages are in memory at the same time; the rest stay in the store.
    pub window: usize,
    /// Bodies up to this many octets stand in the database; larger ones are files beside it.
    pub inline_max: u64,
}

/// `[failover]`: when a provider counts as down, and how it comes back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failover {
    /// What holds for every provider.
    pub usual: CircuitSettings,
    /// What holds for those that have a table of their own, by name.
    pub providers: BTreeMap<ProviderName, ProviderFailover>,
}

impl Failover {
    /// What holds for one provider.
    #[must_use]
    pub fn of(&self, provider: &ProviderName) -> CircuitSettings {
        self.providers.get(provider).map_or(self.usual, |own| own.circuit)
    }

    /// The provider's own waiting times between attempts.
    #[must_use]
    pub fn retry_of(&self, provider: &ProviderName) -> Option<&[Duration]> {
        self.providers.get(provider)?.retry.as_deref()
    }
}

/// `[failover.provider."ses.eu"]`, with what it leaves open filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderFailover {
    /// Its circuit.
    pub circuit: CircuitSettings,
    /// Waiting times between attempts, where this provider was the last that was asked.
    pub retry: Option<Vec<Duration>>,
}

/// When a circuit opens and closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitSettings {
    /// Provider faults in a row that open the circuit; at least 1.
    pub trip_after: u32,
    /// The share of faults among the tries of the last minute that opens it, too; `None`: no share does.
    pub trip_share: Option<Share>,
    /// The time from there to the first probe; doubles with each probe that fails.
    pub probe_after: Duration,
    /// The longest time between probes.
    pub probe_max: Duration,
    /// How long a provider that is back is given more and more mail, until it gets all of it.
    pub recover_over: Duration,
}

impl Default for CircuitSettings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { trip_after: 5, trip_share: None, probe_after: seconds(30), probe_max: seconds(600), recover_over: seconds(30) }
    }
}

/// `[history]`: what is kept of what happened to messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// For how long after a message's end; `None`: there is no history.
    pub keep: Option<Duration>,
    /// The most octets on disk; the oldest goes first.
    pub max_size: u64,
}

impl Default for History {
    fn default() -> Self {
        Self { keep: Some(Duration::from_secs(30 * 86_400)), max_size: 1 << 30 }
    }
}

/// `[bounce]`: who is told about mail that could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounce {
    /// Who; nobody if empty.
    pub notify: Vec<Notified>,
    /// The operator's address; there if `notify` has the operator.
    pub operator: Option<Address>,
    /// The envelope sender of notifications in place of the null reverse-path, for providers that do not
    /// take that. Mail to it is not answered by another notification.
    pub sender: Option<Address>,
    /// How many notifications owner and operator each get within `digest_every`, before the rest come as
    /// one; at least 1.
    pub digest_after: u32,
    /// The time over which they are counted and put together.
    pub digest_every: Duration,
    /// How long mail is kept that could be neither delivered nor told of, counted from its arrival.
    pub keep_dead_letters: Duration,
}

impl Default for Bounce {
    fn default() -> Self {
        let (sender, owner) = (Notified::Sender, Notified::Owner);
        let (hour, month) = (Duration::from_secs(3600), Duration::from_secs(30 * 86_400));
        let notify = vec![sender, owner];
        Self { notify, operator: None, sender: None, digest_after: 20, digest_every: hour, keep_dead_letters: month }
    }
}

/// One who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Notified {
    /// The envelope sender, as RFC 3461 says.
    Sender,
    /// The owner of the application that handed the message in.
    Owner,
    /// The operator of this gateway.
    Operator,
}

/// `[admin]`: where the gateway is looked at and operated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Address and port; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// What clients have to show; always there unless `bind` is loopback.
    pub token: Option<Secret>,
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
