//! The config file as it is written: one struct for each table, no meaning yet.
//!
//! Every struct refuses keys that it does not know. There is no `flatten`, `untagged` or `tag`: serde
//! then buffers whole tables and loses the place of an error.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use postrider_providers::contract::Priority;
use postrider_providers::settings::{Rate, Rewrite, Secret, Size, Span};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::settings::{self, BareNewline, InDoubt, ListenerTls, LogFormat, LogLevel, Notified, Share, ToleranceSettings};

/// `[server]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    /// The name in EHLO, Received and notifications; the system's if absent.
    pub(super) hostname: Option<String>,
    /// Where spool, history and state are.
    pub(super) data_dir: PathBuf,
    /// Whether a config file that has changed is taken up without being told.
    pub(super) watch_config: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self { hostname: None, data_dir: "/var/lib/postrider".into(), watch_config: true }
    }
}

/// `[[listener]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    /// Address and port.
    pub(super) bind: String,
    /// When clients encrypt.
    #[serde(default)]
    pub(super) tls: ListenerTls,
    /// The certificate chain, PEM.
    #[serde(default)]
    pub(super) certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(default)]
    pub(super) private_key: Option<PathBuf>,
    /// Certificates for other names.
    #[serde(default)]
    pub(super) more_certificates: Vec<CertificateFiles>,
    /// Whether a load balancer says who the client is.
    #[serde(default)]
    pub(super) proxy_protocol: bool,
    /// Whether a trusted proxy may say who its client is, by XCLIENT.
    #[serde(default)]
    pub(super) xclient: bool,
    /// Whether AUTH is offered on a connection in clear text.
    #[serde(default)]
    pub(super) auth_without_tls: bool,
    /// What is tolerated here.
    #[serde(default)]
    pub(super) tolerance: ToleranceSettings,
}

/// `[app.NAME]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Application {
    /// Hashes, as `postrider password` prints them.
    pub(super) password: Option<Texts>,
    /// Where it is recognised without AUTH.
    pub(super) networks: Texts,
    /// Envelope senders that it may use; any if absent.
    pub(super) senders: Option<Texts>,
    /// How much of its mail goes out.
    pub(super) rate: Option<Rate>,
    /// Who hears about its mail that bounces.
    pub(super) owner: Option<String>,
    /// Whether its messages may say how urgent they are.
    pub(super) may_set_priority: bool,
    /// The largest message.
    pub(super) max_message_size: Option<Size>,
    /// The most recipients of one message.
    pub(super) max_recipients: Option<usize>,
    /// The most connections at the same time.
    pub(super) max_connections: Option<usize>,
    /// Whether it is refused.
    pub(super) disabled: bool,
    /// What is tolerated of it.
    pub(super) tolerance: ToleranceSettings,
}

/// One of `more_certificates`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CertificateFiles {
    /// The certificate chain, PEM.
    pub(super) certificate: PathBuf,
    /// Its key, PEM.
    pub(super) private_key: PathBuf,
}

/// `[access]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Access {
    /// Who may relay without AUTH.
    pub(super) trusted_networks: Vec<String>,
    /// Who is believed about who the client is.
    pub(super) trusted_proxies: Vec<String>,
    /// Names and hashes in the form of htpasswd.
    pub(super) password_file: Option<PathBuf>,
    /// Failed logins from one address until it is refused.
    pub(super) auth_failures: u32,
    /// For how long.
    pub(super) auth_block: Span,
    /// The largest message taken.
    pub(super) max_message_size: Size,
    /// The most recipients of one message.
    pub(super) max_recipients: usize,
    /// The most connections at the same time.
    pub(super) max_connections: usize,
    /// The most of them from one address.
    pub(super) max_connections_per_client: usize,
    /// How long a client may be silent.
    pub(super) idle_timeout: Span,
    /// What happens to a bare CR or LF in content.
    pub(super) bare_newline: BareNewline,
}

impl Default for Access {
    fn default() -> Self {
        let settings::Access {
            trusted_networks,
            auth_failures,
            auth_block,
            max_message_size,
            max_recipients,
            max_connections,
            max_connections_per_client,
            idle_timeout,
            bare_newline,
            ..
        } = settings::Access::default();
        Self {
            trusted_networks: trusted_networks.iter().map(ToString::to_string).collect(),
            trusted_proxies: Vec::new(),
            password_file: None,
            auth_failures,
            auth_block: Span(auth_block),
            max_message_size: Size(max_message_size),
            max_recipients,
            max_connections,
            max_connections_per_client,
            idle_timeout: Span(idle_timeout),
            bare_newline,
        }
    }
}

/// `[[route]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// Its name in logs and in `explain`.
    pub(super) name: String,
    /// Which mail takes it; all if absent.
    #[serde(default)]
    pub(super) when: When,
    /// Providers in order of preference.
    pub(super) providers: Vec<String>,
    /// Whether a reached limit goes to the next provider.
    #[serde(default)]
    pub(super) spill: bool,
    /// What follows when nobody knows whether a message was taken.
    #[serde(default)]
    pub(super) in_doubt: InDoubt,
    /// Limits of this route.
    #[serde(default)]
    pub(super) limits: RouteLimits,
    /// Whether providers that take fields are passed over.
    #[serde(default)]
    pub(super) raw_only: bool,
    /// Whether signed mail goes to providers that break its signature.
    #[serde(default)]
    pub(super) break_signatures: bool,
    /// In whose name mail is handed over.
    #[serde(default)]
    pub(super) rewrite: Option<Rewrite>,
    /// Whose turn its mail is among other mail that waits.
    #[serde(default)]
    pub(super) priority: Priority,
    /// Waiting times between attempts, in place of the queue's.
    #[serde(default)]
    pub(super) retry: Option<Vec<Span>>,
    /// When its mail is given up, in place of the queue's.
    #[serde(default)]
    pub(super) expire_after: Option<Span>,
}

/// `when` of a route.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct When {
    /// The reverse-path's domain is one of these.
    pub(super) sender_domain: Option<Texts>,
    /// The recipient's domain is one of these.
    pub(super) recipient_domain: Option<Texts>,
    /// The reverse-path is null, or is not.
    pub(super) null_sender: Option<bool>,
    /// The application that hands it in is one of these.
    pub(super) app: Option<Texts>,
    /// The client that hands it in is in one of these networks.
    pub(super) client: Option<Texts>,
}

/// One text, or a list of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Texts(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextsVisitor;

        impl<'de> Visitor<'de> for TextsVisitor {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes, or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = sequence.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }

        deserializer.deserialize_any(TextsVisitor)
    }
}

/// `[route.limits]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RouteLimits {
    /// For each sending domain on this route.
    pub(super) per_sending_domain: Option<Rate>,
    /// The share of its providers' quotas that is kept for this route.
    pub(super) reserve: Option<Share>,
}

/// `[limits]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    /// By domain, or `default` for every other.
    pub(super) sending_domain: BTreeMap<String, Rate>,
}

/// `[queue]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Queue {
    /// Waiting times between attempts; the last repeats.
    pub(super) retry: Vec<Span>,
    /// When a message that nobody takes is given up.
    pub(super) expire_after: Span,
    /// When the sender is told that a message still waits; "0s" for never.
    pub(super) delay_warning_after: Span,
    /// Which store.
    pub(super) store: Store,
    /// How many messages are in memory at the same time.
    pub(super) window: usize,
    /// Bodies up to this size stand in the database itself.
    pub(super) inline_max: Size,
}

/// `store` of the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Store {
    /// In `data_dir`.
    #[default]
    Sqlite,
    /// Shared by several gateways.
    Postgres,
}

impl Default for Queue {
    fn default() -> Self {
        let minutes = |minutes: u64| Span(Duration::from_secs(minutes * 60));
        Self {
            retry: [1, 5, 15, 30, 60].map(minutes).to_vec(),
            expire_after: minutes(2 * 24 * 60),
            delay_warning_after: minutes(4 * 60),
            store: Store::Sqlite,
            window: 4000,
            inline_max: Size(256 << 10),
        }
    }
}

/// `[failover]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Failover {
    /// Provider faults in a row that open the circuit.
    pub(super) trip_after: Option<u32>,
    /// The share of faults that opens it as well.
    pub(super) trip_share: Option<Share>,
    /// The time to the first probe.
    pub(super) probe_after: Option<Span>,
    /// The longest time between probes.
    pub(super) probe_max: Option<Span>,
    /// How long a provider that is back is given more and more mail, until it gets all of it.
    pub(super) recover_over: Option<Span>,
    /// The same for single providers, by name.
    pub(super) provider: BTreeMap<String, ProviderFailover>,
}

/// `[failover.provider."ses.eu"]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ProviderFailover {
    /// Provider faults in a row that open the circuit.
    pub(super) trip_after: Option<u32>,
    /// The share of faults that opens it as well.
    pub(super) trip_share: Option<Share>,
    /// The time to the first probe.
    pub(super) probe_after: Option<Span>,
    /// The longest time between probes.
    pub(super) probe_max: Option<Span>,
    /// How long it is given more and more mail when it is back.
    pub(super) recover_over: Option<Span>,
    /// Waiting times after attempts at which this provider was the last that was asked.
    pub(super) retry: Option<Vec<Span>>,
}

/// `[history]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct History {
    /// How long what happened to a message is kept after its end; "0s" for no history.
    pub(super) keep: Span,
    /// How large the history may become; the oldest goes first.
    pub(super) max_size: Size,
}

impl Default for History {
    fn default() -> Self {
        Self { keep: Span(Duration::from_secs(30 * 86_400)), max_size: Size(1 << 30) }
    }
}

/// `[bounce]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Bounce {
    /// Who is told about mail that could not be delivered.
    pub(super) notify: Option<Vec<Notified>>,
    /// The operator's address.
    pub(super) operator: Option<String>,
    /// The envelope sender of notifications, where the null reverse-path is not taken.
    pub(super) sender: Option<String>,
    /// How many notifications owner and operator each get in `digest_every`, before the rest come as one.
    pub(super) digest_after: Option<u32>,
    /// The time over which they are counted and put together.
    pub(super) digest_every: Option<Span>,
    /// How long mail is kept that could be neither delivered nor told of.
    pub(super) keep_dead_letters: Option<Span>,
}

/// `[admin]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    /// Address and port.
    pub(super) bind: String,
    /// What clients show as `Authorization: Bearer …`.
    #[serde(default)]
    pub(super) token: Option<Secret>,
}

/// `[log]`
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    /// Text for people or JSON for machines.
    pub(super) format: LogFormat,
    /// What is worth a line.
    pub(super) level: LogLevel,
}
