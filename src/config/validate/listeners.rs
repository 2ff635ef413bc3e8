//! `[[listener]]`: addresses that overlap.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Checker;
use super::access::is_private;
use crate::config::Secrets;
use crate::config::document::setting;
use crate::config::file;
use crate::config::problem::Problem;
use crate::config::settings::Listener;

/// Where mail is taken if the file does not say: this machine only, and no root rights needed.
const DEFAULT_BIND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2525);

impl Checker<'_, '_> {
    pub(super) fn listeners(&mut self, listeners: Option<&[Option<file::Listener>]>, hostname: &str, secrets: Secrets) -> Vec<Listener> {
        let Some(listeners) = listeners else { return vec![Listener::plain(DEFAULT_BIND)] };
        let mut bound: Vec<(usize, SocketAddr)> = Vec::new();
        let mut checked = Vec::new();
        for (index, listener) in listeners.iter().enumerate() {
            let Some(listener) = listener else { continue };
            let certificates = self.certificates(index, listener, hostname, secrets);
            let span = self.value(&setting!["listener", index, "bind"]);
            let Ok(bind) = listener.bind.parse::<SocketAddr>() else {
                self.push(bad_bind(&listener.bind).at(span, "expected an IP address and a port, as in \"0.0.0.0:25\""));
                continue;
            };
            self.auth_in_clear(index, listener, bind);
            if let Some(&(other, taken)) = bound.iter().find(|(_, taken)| overlap(*taken, bind)) {
                let also = self.value(&setting!["listener", other, "bind"]);
                let problem = if taken == bind {
                    Problem::error(format!("two listeners on {bind}")).at(span, "the same address again")
                } else {
                    Problem::error(format!("{taken} and {bind} cannot both be listened on")).at(span, "one of them takes in the other")
                };
                self.push(problem.also(also, "already listened on here").help("remove one of the two, or give it another port"));
            }
            bound.push((index, bind));
            checked.push(Listener {
                tls: listener.tls,
                certificates,
                proxy_protocol: listener.proxy_protocol,
                xclient: listener.xclient,
                auth_without_tls: listener.auth_without_tls,
                tolerance: listener.tolerance,
                bind,
            });
        }
        if listeners.is_empty() {
            let span = self.value(&setting!["listener"]);
            self.push(
                Problem::error("there is no listener")
                    .at(span, "expected at least one")
                    .help("remove the line for the default, 127.0.0.1:2525"),
            );
        }
        checked
    }

    /// Doubts AUTH in clear text where it may cross a network that others can listen to.
    fn auth_in_clear(&mut self, index: usize, listener: &file::Listener, bind: SocketAddr) {
        let address = bind.ip().to_canonical();
        if listener.auth_without_tls && !address.is_loopback() && !is_private(address) {
            let span = self.value(&setting!["listener", index, "auth_without_tls"]);
            let also = self.value(&setting!["listener", index, "bind"]);
            self.push(
                Problem::warning("passwords may cross the network in clear text")
                    .at(span, "AUTH is offered without TLS")
                    .also(also, "on an address that is not only on a network of your own")
                    .help("bind this listener to this machine's address on the inner network, for the devices that cannot do TLS"),
            );
        }
    }
}

/// Whether the system refuses to listen on both.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // [::] takes IPv4 as well, unless the system was told otherwise.
    let takes_in = |wide: SocketAddr, narrow: SocketAddr| wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
    one.port() == other.port() && one.port() != 0 && (one.ip() == other.ip() || takes_in(one, other) || takes_in(other, one))
}

fn bad_bind(written: &str) -> Problem {
    let problem = Problem::error(format!("`bind` cannot be \"{written}\""));
    let port = written.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let host = written.rsplit_once(':').map(|(host, _)| host);
    match (host, port) {
        (Some("localhost"), Some(port)) => problem.help(format!("write bind = \"127.0.0.1:{port}\"")),
        (None | Some("" | "*"), Some(port)) => problem
            .help(format!("write bind = \"0.0.0.0:{port}\" for every address of this machine, or \"127.0.0.1:{port}\" for itself alone")),
        _ if written.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4()) => {
            problem.help(format!("add the port: bind = \"{written}:25\""))
        }
        _ if written.parse::<IpAddr>().is_ok() => problem.help(format!("add the port: bind = \"[{written}]:25\"")),
        _ => problem.help("names are not looked up here; an IPv6 address stands in brackets, as in \"[::]:25\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_as_sockets_do() {
        let overlaps = |one: &str, other: &str| overlap(one.parse().unwrap(), other.parse().unwrap());
        assert!(overlaps("127.0.0.1:25", "127.0.0.1:25"));
        assert!(overlaps("0.0.0.0:25", "127.0.0.1:25"));
        assert!(overlaps("127.0.0.1:25", "[::]:25"));
        assert!(!overlaps("0.0.0.0:25", "[::1]:25"));
        assert!(!overlaps("127.0.0.1:25", "127.0.0.2:25"));
        assert!(!overlaps("127.0.0.1:0", "127.0.0.1:0"), "the system chooses two ports");
    }
}
