//! `[[listener]]`: addresses, and the certificates that go with them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Checker;
use crate::config::document::setting;
use crate::config::file;
use crate::config::problem::Problem;
use crate::config::settings::{Listener, ListenerTls};

/// Where mail is taken if the file does not say: this machine only, and no root rights needed.
const DEFAULT_BIND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2525);

impl Checker<'_, '_> {
    pub(super) fn listeners(&mut self, listeners: Option<&[Option<file::Listener>]>) -> Vec<Listener> {
        let Some(listeners) = listeners else { return vec![Listener::plain(DEFAULT_BIND)] };
        let mut bound: Vec<(usize, SocketAddr)> = Vec::new();
        for (index, listener) in listeners.iter().enumerate() {
            let Some(listener) = listener else { continue };
            self.later_settings(index, listener);
            self.certificate(index, listener);
            let span = self.value(&setting!["listener", index, "bind"]);
            let Ok(bind) = listener.bind.parse::<SocketAddr>() else {
                self.push(bad_bind(&listener.bind).at(span, "expected an IP address and a port, as in \"0.0.0.0:25\""));
                continue;
            };
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
        }
        if listeners.is_empty() {
            let span = self.value(&setting!["listener"]);
            self.push(
                Problem::error("there is no listener")
                    .at(span, "expected at least one")
                    .help("remove the line for the default, 127.0.0.1:2525"),
            );
        }
        let proxied = |index: usize| listeners[index].as_ref().is_some_and(|listener| listener.proxy_protocol);
        bound.into_iter().map(|(index, bind)| Listener { proxy_protocol: proxied(index), ..Listener::plain(bind) }).collect()
    }

    /// Refuses what the file may ask for, but this version cannot give.
    fn later_settings(&mut self, index: usize, listener: &file::Listener) {
        let help = "mail is taken in clear text for now; keep to networks that you trust";
        if listener.tls != ListenerTls::Off {
            let span = self.value(&setting!["listener", index, "tls"]);
            self.push(
                Problem::error("this version does not speak TLS to clients yet")
                    .at(span, "expected \"off\"")
                    .help(format!("write tls = \"off\"; {help}")),
            );
        }
        if listener.auth_without_tls {
            let span = self.value(&setting!["listener", index, "auth_without_tls"]);
            self.push(
                Problem::error("this version does not offer AUTH to clients yet")
                    .at(span, "expected false")
                    .help("list the clients in `trusted_networks` of `[access]`; they may relay without AUTH"),
            );
        }
    }

    fn certificate(&mut self, index: usize, listener: &file::Listener) {
        let certificate_at = self.value(&setting!["listener", index, "certificate"]);
        let key_at = self.value(&setting!["listener", index, "private_key"]);
        let (certificate, key) = match (&listener.certificate, &listener.private_key) {
            (None, None) => return,
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(_), None) => {
                self.push(
                    Problem::error("a certificate without its private key")
                        .at(certificate_at, "needs `private_key` beside it")
                        .help("add private_key = \"/path/to/key.pem\""),
                );
                return;
            }
            (None, Some(_)) => {
                self.push(
                    Problem::error("a private key without its certificate")
                        .at(key_at, "needs `certificate` beside it")
                        .help("add certificate = \"/path/to/cert.pem\""),
                );
                return;
            }
        };
        let chain = self.read_chain(certificate, certificate_at.clone());
        let read_key = self.read_key(key, key_at.clone());
        let (Some(chain), Some(read_key)) = (chain, read_key) else { return };
        match CertifiedKey::from_der(chain, read_key, &rustls::crypto::aws_lc_rs::default_provider()) {
            Ok(_) => {}
            Err(rustls::Error::InconsistentKeys(_)) => self.push(
                Problem::error("the private key does not belong to the certificate")
                    .at(key_at, "this key has another public half")
                    .also(certificate_at, "than this certificate")
                    .help("the file must begin with the server's own certificate, and the key be the one that it was made for"),
            ),
            Err(error) => self.push(
                Problem::error(format!("the certificate and its key cannot be used: {error}"))
                    .at(certificate_at, "in this file")
                    .also(key_at, "or in this one")
                    .help("expected an X.509 certificate with an RSA, ECDSA or Ed25519 key, both PEM"),
            ),
        }
    }

    fn read_chain(&mut self, path: &Path, span: Range<usize>) -> Option<Vec<CertificateDer<'static>>> {
        let pem = self.read_pem(path, "certificate", span.clone())?;
        match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
            Ok(chain) if !chain.is_empty() => Some(chain),
            Ok(_) | Err(_) => {
                self.push(
                    Problem::error(format!("{} holds no certificate", path.display()))
                        .at(span, "expected a PEM file with `-----BEGIN CERTIFICATE-----`")
                        .help("a file in DER form becomes PEM by `openssl x509 -inform der -in FILE`"),
                );
                None
            }
        }
    }

    fn read_key(&mut self, path: &Path, span: Range<usize>) -> Option<PrivateKeyDer<'static>> {
        let pem = self.read_pem(path, "private key", span.clone())?;
        match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(key) => Some(key),
            Err(_) => {
                self.push(
                    Problem::error(format!("{} holds no private key", path.display()))
                        .at(span, "expected a PEM file with `-----BEGIN PRIVATE KEY-----`")
                        .help("a key behind a pass phrase loses it by `openssl pkey -in FILE`"),
                );
                None
            }
        }
    }

    fn read_pem(&mut self, path: &Path, what: &str, span: Range<usize>) -> Option<Vec<u8>> {
        match std::fs::read(path) {
            Ok(pem) => Some(pem),
            Err(error) => {
                let problem = Problem::error(format!("the {what} {} cannot be read: {error}", path.display()));
                self.push(
                    problem
                        .at(span, "expected a file that the service's user may read")
                        .help("correct the path, or the file's owner and mode"),
                );
                None
            }
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
