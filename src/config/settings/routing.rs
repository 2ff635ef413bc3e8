//! Which mail goes which way, in whose name, and how much of it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use postrider_providers::contract::{Address, Priority, ProviderName, ReversePath};
use postrider_providers::settings::Rate;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::super::domain::DomainPattern;
use super::door::SenderPattern;

/// `[[route]]`: which mail goes through which providers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// Whether providers that take fields instead of the message are passed over.
    pub raw_only: bool,
    /// Whether such providers get signed mail, too, whose signature they break.
    pub break_signatures: bool,
    /// In whose name mail is handed over, where the provider itself does not say.
    pub rewrite: Option<Arc<Rewrite>>,
    /// Whose turn its mail is among other mail that waits.
    pub priority: Priority,
    /// Waiting times between attempts, in place of the queue's; at least one, and the last repeats.
    pub retry: Option<Vec<Duration>>,
    /// When its mail is given up, in place of the queue's.
    pub expire_after: Option<Duration>,
    /// The share of its providers' quotas that no other route uses.
    pub reserve: Option<Share>,
}

/// A share of a whole, as in `"20%"`: more than nothing, and at most all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u8);

impl Share {
    /// `percent` of a hundred.
    #[must_use]
    pub fn percent(percent: u8) -> Option<Self> {
        (1..=100).contains(&percent).then_some(Self(percent))
    }

    /// This share of `whole`, rounded down.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        // At most `whole`, so nothing is cut off.
        u64::try_from(u128::from(whole) * u128::from(self.0) / 100).unwrap_or(whole)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
        number.and_then(Self::percent).ok_or_else(|| format!("\"{text}\" is no share; write it as \"20%\", from 1% to 100%"))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// `rewrite` of a provider or a route: in whose name mail is handed over. At least one of the two is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The address that From gets.
    pub from: Option<Address>,
    /// The envelope sender, unless that is null.
    pub envelope: Option<Address>,
    /// Senders that stay as they are.
    pub except: Vec<SenderPattern>,
}

impl Rewrite {
    /// Whether mail of `sender` goes out under its own name: it is excepted, or is that address.
    #[must_use]
    pub fn keeps(&self, sender: &Address, target: &Address) -> bool {
        let is_target = sender.local_part() == target.local_part() && sender.domain() == target.domain();
        let sender = ReversePath::Mailbox(sender.clone());
        is_target || self.except.iter().any(|pattern| pattern.matches(&sender))
    }
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
    /// The application that handed it in is one of these; empty: any, and mail of no application too.
    pub applications: Vec<Arc<str>>,
    /// The client that handed it in is in one of these networks; empty: any.
    pub clients: Vec<IpNet>,
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
