//! `[access]`: refuses what would be an open relay.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use postrider_providers::settings::{Size, Span};

use super::Checker;
use crate::config::document::{Step, setting};
use crate::config::problem::Problem;
use crate::config::settings::Access;
use crate::config::{MAX_PASSWORD_FILE, PasswordFile, Secrets, file};

/// Shorter prefixes that reach into public space are refused: as many strangers are an open relay.
const SHORTEST_PUBLIC: (u8, u8) = (8, 24);

/// Shorter ones than these are worth a second look.
const SHORTEST_USUAL: (u8, u8) = (16, 32);

/// The largest message anyone could want: providers stop at 150 MB, and most far below.
pub(super) const LARGEST_MESSAGE: u64 = 1 << 30;

/// RFC 5321 section 4.5.3.1.7: content of 64K octets at least must be taken.
pub(super) const SMALLEST_LIMIT: u64 = 64 << 10;

/// Shorter ones end sessions of clients that are only busy; longer ones keep those that are gone.
const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(3600);

/// RFC 5321 section 4.5.3.2.7.
const USUAL_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// What it means to be in a network that may relay.
pub(super) const RELAYS: &str = "who is in it may send mail as anyone, to anyone";

impl Checker<'_, '_> {
    pub(super) fn access(&mut self, access: &file::Access, secrets: Secrets) -> Access {
        let size = access.max_message_size.0;
        if !(SMALLEST_LIMIT..=LARGEST_MESSAGE).contains(&size) {
            let span = self.value(&setting!["access", "max_message_size"]);
            self.push(
                Problem::error(format!("`max_message_size` cannot be {}", access.max_message_size))
                    .at(span, "expected between \"64KiB\" and \"1GiB\"")
                    .help("\"35MiB\" fits what most providers take"),
            );
        }
        let section = "access";
        self.at_least_one(&setting![section, "max_recipients"], "max_recipients", access.max_recipients, "no mail could be accepted");
        self.at_least_one(&setting![section, "max_connections"], "max_connections", access.max_connections, "nobody could connect");
        let per_client = access.max_connections_per_client;
        self.at_least_one(
            &setting![section, "max_connections_per_client"],
            "max_connections_per_client",
            per_client,
            "nobody could connect",
        );
        if (1..100).contains(&access.max_recipients) {
            let span = self.value(&setting![section, "max_recipients"]);
            self.push(
                Problem::warning(format!("`max_recipients` is only {}", access.max_recipients))
                    .at(span, "clients may count on 100 (RFC 5321 section 4.5.3.1.8)")
                    .help("write 100 or more, unless every client copes with less"),
            );
        }
        self.idle_timeout(access.idle_timeout);
        self.at_least_one(
            &setting![section, "auth_failures"],
            "auth_failures",
            usize::try_from(access.auth_failures).unwrap_or(usize::MAX),
            "nobody could log in",
        );
        if access.auth_block.0.is_zero() {
            let span = self.value(&setting![section, "auth_block"]);
            self.push(
                Problem::error(format!("`auth_block` cannot be {}", access.auth_block))
                    .at(span, "whoever guesses passwords could go on at once")
                    .help("write auth_block = \"15m\", or remove the line; a larger auth_failures is kinder to those who mistype"),
            );
        }
        if let Some(path) = access.password_file.as_ref().filter(|_| secrets == Secrets::Read) {
            self.password_file(path);
        }
        Access {
            trusted_networks: self.networks(&setting![section, "trusted_networks"], RELAYS, &access.trusted_networks),
            trusted_proxies: self.networks(
                &setting![section, "trusted_proxies"],
                "who is in it may pretend to be any client",
                &access.trusted_proxies,
            ),
            password_file: access.password_file.clone(),
            auth_failures: access.auth_failures,
            auth_block: access.auth_block.0,
            max_message_size: size,
            max_recipients: access.max_recipients,
            max_connections: access.max_connections,
            max_connections_per_client: per_client,
            idle_timeout: access.idle_timeout.0,
            bare_newline: access.bare_newline,
        }
    }

    fn idle_timeout(&mut self, written: Span) {
        let span = self.value(&setting!["access", "idle_timeout"]);
        if !IDLE_TIMEOUT.contains(&written.0) {
            self.push(
                Problem::error(format!("`idle_timeout` cannot be {written}"))
                    .at(span, "expected between \"10s\" and \"1h\"")
                    .help("write idle_timeout = \"5m\", or remove the line"),
            );
        } else if written.0 < USUAL_IDLE_TIMEOUT {
            self.push(
                Problem::warning(format!("`idle_timeout` is only {written}"))
                    .at(span, "clients may count on 5 minutes (RFC 5321 section 4.5.3.2.7)")
                    .help("write \"5m\" or more, unless every client copes with less"),
            );
        }
    }

    /// Refuses listeners that would believe nobody.
    pub(super) fn proxies(&mut self, listeners: Option<&[Option<file::Listener>]>, access: &file::Access) {
        for (index, listener) in listeners.unwrap_or_default().iter().enumerate() {
            if access.trusted_proxies.is_empty() && listener.as_ref().is_some_and(|listener| listener.xclient) {
                let span = self.value(&setting!["listener", index, "xclient"]);
                self.push(
                    Problem::error("no proxy is trusted to say who the client is")
                        .at(span, "nobody could use it")
                        .help("add trusted_proxies = [\"192.0.2.10\"] to `[access]`, with the addresses of your proxies"),
                );
            }
            if access.trusted_proxies.is_empty() && listener.as_ref().is_some_and(|listener| listener.proxy_protocol) {
                let span = self.value(&setting!["listener", index, "proxy_protocol"]);
                self.push(
                    Problem::error("no load balancer is trusted to say who the client is")
                        .at(span, "nobody could connect")
                        .help("add trusted_proxies = [\"192.0.2.10\"] to `[access]`, with the addresses of your load balancers"),
                );
            }
        }
    }

    /// Reads the password file now, so that a line that cannot be taken is found now.
    fn password_file(&mut self, path: &Path) {
        let span = self.value(&setting!["access", "password_file"]);
        let label = "expected lines name:hash, as htpasswd writes them";
        let text = match std::fs::metadata(path) {
            Ok(metadata) if metadata.len() > MAX_PASSWORD_FILE => Err(format!("it is larger than {}", Size(MAX_PASSWORD_FILE))),
            _ => std::fs::read_to_string(path).map_err(|error| error.to_string()),
        };
        let errors = match text {
            Ok(text) => PasswordFile::parse(&text).err().unwrap_or_default(),
            Err(error) => {
                let problem = Problem::error(format!("the password file {} cannot be read: {error}", path.display()));
                self.push(problem.at(span, label).help("correct the path, or the file's owner and mode"));
                return;
            }
        };
        for error in errors {
            self.push(Problem::error(format!("{}: {error}", path.display())).at(span.clone(), "in this file"));
        }
    }

    /// Reads the networks of the list at `path`; `meaning` says what it is to be in one.
    pub(super) fn networks(&mut self, path: &[Step], meaning: &str, written: &[String]) -> Vec<IpNet> {
        let before = self.findings.problems.len();
        let mut networks = Vec::new();
        for (index, text) in written.iter().enumerate() {
            let entry: Vec<Step> = path.iter().cloned().chain([Step::from(index)]).collect();
            let span = self.value(&entry);
            match parse_network(text) {
                Ok(network) => {
                    if let Some(problem) = judge(text, network) {
                        self.push(problem.at(span, meaning));
                    }
                    networks.push(network);
                }
                Err(problem) => self.push(problem.at(span, "expected a network such as \"10.1.0.0/16\", or an address")),
            }
        }
        // Two halves are a whole: what is refused as one network is refused in pieces, too.
        if self.findings.problems[before..].iter().all(|problem| problem.is_warning)
            && let Some(problem) = IpNet::aggregate(&networks).into_iter().find_map(|network| judge(&network.to_string(), network))
            && !problem.is_warning
        {
            let span = self.value(path);
            self.push(problem.at(span, "together, these networks cover all of it"));
        }
        networks
    }
}

/// Reads a network or a single address; IPv4 in IPv6 clothes becomes IPv4.
pub(super) fn parse_network(text: &str) -> Result<IpNet, Box<Problem>> {
    let unclear = |help: &str| Box::new(Problem::error(format!("\"{text}\" is no network")).help(help));
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) if !text.contains('/') => {
            return Err(unclear("names are not looked up here; write the address, or the network as address/bits"));
        }
        Err(_) => text.parse::<IpNet>().map_err(|_| unclear("write it as address/bits"))?,
    };
    if network.addr() != network.network() {
        let (one, all) = (IpNet::from(network.addr()), network.trunc());
        let problem = Problem::error(format!("\"{text}\" is neither one address nor a network"));
        return Err(Box::new(problem.help(format!("write \"{all}\" for the whole network, or \"{one}\" for the one address"))));
    }
    Ok(unmapped(network))
}

/// ::ffff:0:0/96 is all of IPv4 (RFC 4291 section 2.5.5.2).
fn unmapped(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(bits) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(v4, bits)
    {
        return IpNet::V4(v4);
    }
    network
}

/// Refuses or doubts a network that lets strangers in.
fn judge(text: &str, network: IpNet) -> Option<Problem> {
    let (refused, doubted) = match network {
        IpNet::V4(v4) if is_private_v4(v4) => return None,
        IpNet::V4(v4) => (v4.prefix_len() < SHORTEST_PUBLIC.0, v4.prefix_len() < SHORTEST_USUAL.0),
        IpNet::V6(v6) if is_private_v6(v6) => return None,
        IpNet::V6(v6) => {
            let bits = v6.prefix_len();
            // Behind NAT64 (RFC 6052), and on a socket for both families (RFC 4291 section 2.5.5.2),
            // IPv4 as a whole is one /96.
            let all_of_v4 = [
                Ipv6Net::new_assert([0x64, 0xff9b, 0, 0, 0, 0, 0, 0].into(), 96),
                Ipv6Net::new_assert(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96),
            ];
            let reaches_v4 = |all: &Ipv6Net| v6.contains(all) || all.contains(&v6) && bits < 96 + SHORTEST_PUBLIC.0;
            (bits < SHORTEST_PUBLIC.1 || all_of_v4.iter().any(reaches_v4), bits < SHORTEST_USUAL.1)
        }
    };
    let help = "list the networks of your own machines, as in \"10.0.0.0/8\" or \"192.0.2.25\"";
    if refused {
        let problem = Problem::error(format!("trusting \"{text}\" would make this an open relay"));
        return Some(problem.note("an open relay is found within hours, and blocked by every provider soon after").help(help));
    }
    doubted.then(|| Problem::warning(format!("\"{text}\" trusts a large part of the public internet")).help(help))
}

/// Whether an address is on a network of one's own, which strangers cannot reach.
pub(super) fn is_private(address: IpAddr) -> bool {
    match IpNet::from(address) {
        IpNet::V4(v4) => is_private_v4(v4),
        IpNet::V6(v6) => is_private_v6(v6),
    }
}

fn is_private_v4(network: Ipv4Net) -> bool {
    let own = [
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(127, 0, 0, 0), 8),
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
    ];
    own.iter().any(|&(address, bits)| Ipv4Net::new_assert(address, bits).contains(&network))
}

fn is_private_v6(network: Ipv6Net) -> bool {
    // Unique local (RFC 4193), link-local (RFC 4291) and loopback.
    [("fc00::", 7), ("fe80::", 10), ("::1", 128)]
        .iter()
        .filter_map(|&(address, bits)| Ipv6Net::new(address.parse().ok()?, bits).ok())
        .any(|own| own.contains(&network))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> &'static str {
        match parse_network(text) {
            Err(_) => "unclear",
            Ok(network) => match judge(text, network) {
                None => "fine",
                Some(problem) if problem.is_warning => "doubted",
                Some(_) => "refused",
            },
        }
    }

    #[test]
    fn an_open_relay_is_refused_however_it_is_written() {
        for text in
            ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/7", "::/0", "2000::/3", "::ffff:0.0.0.0/96", "64:ff9b::/96", "::/64"]
        {
            assert_eq!(verdict(text), "refused", "{text}");
        }
    }

    #[test]
    fn networks_of_ones_own_are_fine() {
        for text in [
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "127.0.0.1",
            "::1",
            "fd00::/8",
            "192.0.2.0/24",
            "2001:db8::/32",
            "::ffff:10.0.0.0/104",
        ] {
            assert_eq!(verdict(text), "fine", "{text}");
        }
        assert_eq!(verdict("8.0.0.0/8"), "doubted");
    }

    #[test]
    fn host_bits_in_a_network_are_a_mistake() {
        for text in ["10.1.2.3/8", "2001:db8::1/32", "printer.example", "10.0.0.0/33", "10.0.0", ""] {
            assert_eq!(verdict(text), "unclear", "{text}");
        }
    }
}
