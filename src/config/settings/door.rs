//! Who may come in, and how: the gateway's name, listeners, applications and access.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use postrider_providers::contract::Address;
use postrider_providers::settings::Rate;
use serde::Deserialize;

use super::super::domain::DomainPattern;
use super::super::password::PasswordHash;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_on_an_ipv6_socket_is_the_same_client() {
        let access = Access { trusted_networks: vec!["10.0.0.0/8".parse().unwrap()], ..Access::default() };
        assert!(access.trusts("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!access.trusts("::ffff:11.1.2.3".parse().unwrap()));
        assert!(!access.trusts("::10.1.2.3".parse().unwrap()));
    }
}
