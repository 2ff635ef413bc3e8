//! The settings of each part of the gateway, validated: what `smtp`, `queue` and `dispatch` are given.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use postrider_providers::contract::{Address, Priority, ProviderName, ReversePath};
use postrider_providers::settings::{Rate, Secret};
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::domain::DomainPattern;
use super::password::PasswordHash;

/// `[server]`: who this gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The name in EHLO, Received and notifications; ASCII.
    pub hostname: Arc<str>,
    /// Where the spool and all other state are.
    pub data_dir: PathBuf,
    /// Whether a config file that has changed is taken up without being told.
    pub watch_config: bool,
}

/// `[[listener]]`: one address that takes mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Address and port; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// When clients encrypt.
    pub tls: ListenerTls,
    /// The certificates, by the names in them; the first is for clients that name no host (SNI, RFC
    /// 6066) or another one. Empty exactly if `tls` is off.
    pub certificates: Vec<CertificateFiles>,
    /// Whether each connection begins with a PROXY header, which tells the client's address. Taken
    /// from `trusted_proxies` alone; everybody else is refused.
    pub proxy_protocol: bool,
    /// Whether `trusted_proxies` may say by XCLIENT who their client is.
    pub xclient: bool,
    /// Whether AUTH is offered in clear text.
    pub auth_without_tls: bool,
    /// What is tolerated here; what it leaves open follows from who the client is.
    pub tolerance: ToleranceSettings,
}

impl Listener {
    /// A listener in clear text, with every other setting as it is by default.
    #[must_use]
    pub fn plain(bind: SocketAddr) -> Self {
        Self {
            bind,
            tls: ListenerTls::Off,
            certificates: Vec::new(),
            proxy_protocol: false,
            xclient: false,
            auth_without_tls: false,
            tolerance: ToleranceSettings::default(),
        }
    }
}

/// `tls` of a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerTls {
    /// Never.
    #[default]
    Off,
    /// If the client asks (RFC 3207).
    StartTls,
    /// With STARTTLS, or no mail is taken.
    Required,
    /// From the first octet (RFC 8314).
    Implicit,
}

/// One certificate of a listener, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, PEM, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub private_key: PathBuf,
}

/// `[listener.tolerance]` and `[app.NAME.tolerance]`: which oddities of old clients are put up with.
/// What is `None` is decided by the next in line: the application, the listener, and then whether the
/// client is on a trusted network (tolerant) or not (strict).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToleranceSettings {
    /// A bare CR or LF in content.
    pub bare_newline: Option<BareNewline>,
    /// A text line longer than 1000 octets (RFC 5321 section 4.5.3.1.6).
    pub long_lines: Option<LongLines>,
    /// Oddly written commands: a space after `FROM:`, no angle brackets, HELO without a name.
    pub commands: Option<OddCommands>,
    /// A message without Date or Message-ID (RFC 6409 section 8).
    pub missing_fields: Option<MissingFields>,
}

/// What happens to a text line longer than 1000 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LongLines {
    /// It is broken in two, at white space where there is some.
    Fold,
    /// It passes as it is.
    Keep,
    /// The message is refused.
    Reject,
}

/// What happens to a command that is not written as RFC 5321 says, but can mean one thing only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OddCommands {
    /// It is taken for what it means.
    Accept,
    /// It is refused.
    Reject,
}

/// What happens to a message that lacks Date or Message-ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingFields {
    /// They are added.
    Add,
    /// It passes as it is.
    Keep,
}

/// `[app.NAME]`: an application, who it is and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Its name: the table's, and what AUTH calls it.
    pub name: Arc<str>,
    /// Hashes of its passwords, any of which will do: two during a rotation. Empty: it cannot log in,
    /// unless the password file has it.
    pub passwords: Vec<PasswordHash>,
    /// Where it is recognised without AUTH.
    pub networks: Vec<IpNet>,
    /// Envelope senders that it may use; empty: any.
    pub senders: Vec<SenderPattern>,
    /// How much of its mail goes out; more waits in the queue.
    pub rate: Option<Rate>,
    /// Who hears about its mail that bounces.
    pub owner: Option<Address>,
    /// Whether its messages may say how urgent they are, in a field of their header.
    pub may_set_priority: bool,
    /// Its largest message in octets, in place of everybody's.
    pub max_message_size: Option<u64>,
    /// Its most recipients of one message, in place of everybody's.
    pub max_recipients: Option<usize>,
    /// Its most connections at the same time.
    pub max_connections: Option<usize>,
    /// Whether it is refused for the time being.
    pub disabled: bool,
    /// What is tolerated of it.
    pub tolerance: ToleranceSettings,
}

impl Application {
    /// An application without rules of its own: what a name of the password file stands for.
    #[must_use]
    pub fn named(name: Arc<str>) -> Self {
        Self {
            name,
            passwords: Vec::new(),
            networks: Vec::new(),
            senders: Vec::new(),
            rate: None,
            owner: None,
            may_set_priority: false,
            max_message_size: None,
            max_recipients: None,
            max_connections: None,
            disabled: false,
            tolerance: ToleranceSettings::default(),
        }
    }
}

/// One entry of `senders`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderPattern {
    /// This very address; the domain in any case of letters.
    Address(Address),
    /// `@domain` or `@*.domain`: every address there.
    Domain(DomainPattern),
    /// `<>`: the null reverse-path.
    Null,
}

/// `[access]`: who may relay, and how much at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Clients that may relay without AUTH.
    pub trusted_networks: Vec<IpNet>,
    /// Load balancers and filters that are believed about who the client is (PROXY, XCLIENT).
    pub trusted_proxies: Vec<IpNet>,
    /// Names and password hashes beside those of the applications, in the form of htpasswd.
    pub password_file: Option<PathBuf>,
    /// Failed logins from one address after which it may not try again for a while; at least 1.
    pub auth_failures: u32,
    /// For how long.
    pub auth_block: Duration,
    /// The largest message taken, in octets.
    pub max_message_size: u64,
    /// The most recipients of one message.
    pub max_recipients: usize,
    /// The most connections at the same time, over all listeners.
    pub max_connections: usize,
    /// The most of them from one address.
    pub max_connections_per_client: usize,
    /// How long a client may be silent.
    pub idle_timeout: Duration,
    /// What happens to a bare CR or LF in content.
    pub bare_newline: BareNewline,
}

impl Default for Access {
    /// What holds when the file has no `[access]`.
    fn default() -> Self {
        Self {
            trusted_networks: vec![
                IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
                IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
            ],
            trusted_proxies: Vec::new(),
            password_file: None,
            auth_failures: 10,
            auth_block: Duration::from_secs(15 * 60),
            max_message_size: 35 << 20,
            max_recipients: 1000,
            max_connections: 1000,
            max_connections_per_client: 100,
            idle_timeout: Duration::from_secs(300),
            bare_newline: BareNewline::default(),
        }
    }
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

impl Queue {
    /// The waiting time after attempt number `attempts` (the first is 1).
    #[must_use]
    pub fn retry_after(&self, attempts: u32) -> Duration {
        let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        self.retry.get(index).or(self.retry.last()).copied().unwrap_or(self.expire_after)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_retry_repeats() {
        let seconds = Duration::from_secs;
        let queue = Queue {
            retry: vec![seconds(60), seconds(300)],
            expire_after: seconds(9000),
            delay_warning_after: None,
            window: 1,
            inline_max: 0,
        };
        assert_eq!([1, 2, 3, 99].map(|attempt| queue.retry_after(attempt).as_secs()), [60, 300, 300, 300]);
    }

    #[test]
    fn an_ipv4_client_on_an_ipv6_socket_is_the_same_client() {
        let access = Access { trusted_networks: vec!["10.0.0.0/8".parse().unwrap()], ..Access::default() };
        assert!(access.trusts("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!access.trusts("::ffff:11.1.2.3".parse().unwrap()));
        assert!(!access.trusts("::10.1.2.3".parse().unwrap()));
    }
}
