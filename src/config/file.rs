//! The config file as it is written: one struct for each table, no meaning yet.
//!
//! Every struct refuses keys that it does not know. There is no `flatten`, `untagged` or `tag`: serde
//! then buffers whole tables and loses the place of an error.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use postrider_providers::settings::{Rate, Rewrite, Size, Span};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::settings::{self, BareNewline, InDoubt, ListenerTls, LogFormat, LogLevel, ToleranceSettings};

/// `[server]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    /// The name in EHLO, Received and notifications; the system's if absent.
    pub(super) hostname: Option<String>,
    /// Where spool, history and state are.
    pub(super) data_dir: PathBuf,
}

impl Default for Server {
    fn default() -> Self {
        Self { hostname: None, data_dir: "/var/lib/postrider".into() }
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
            store: Store::Sqlite,
            window: 4000,
            inline_max: Size(256 << 10),
        }
    }
}

/// `[failover]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Failover {
    /// Provider faults in a row that open the circuit.
    pub(super) trip_after: u32,
    /// The time to the first probe.
    pub(super) probe_after: Span,
    /// The longest time between probes.
    pub(super) probe_max: Span,
}

impl Default for Failover {
    fn default() -> Self {
        Self { trip_after: 5, probe_after: Span(Duration::from_secs(30)), probe_max: Span(Duration::from_secs(600)) }
    }
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
