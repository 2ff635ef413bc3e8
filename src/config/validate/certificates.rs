//! The certificates of a listener: that they can be used, are for this host, and have not expired.

use std::time::SystemTime;

use super::Checker;
use crate::config::certificate::{Certificate, CertificateError, Validity, read_chain, read_key};
use crate::config::document::{Step, setting};
use crate::config::problem::Problem;
use crate::config::settings::{CertificateFiles, ListenerTls};
use crate::config::{Secrets, file};

impl Checker<'_, '_> {
    /// The certificates of the listener at `index`: none exactly if it does not encrypt, or if
    /// something is wrong with the first.
    pub(super) fn certificates(
        &mut self,
        index: usize,
        listener: &file::Listener,
        hostname: &str,
        secrets: Secrets,
    ) -> Vec<CertificateFiles> {
        let base = setting!["listener", index].to_vec();
        let first = self.first_certificate(&base, listener);
        if listener.tls == ListenerTls::Off {
            if first.is_some() {
                let span = self.value(&extended(&base, setting!["certificate"]));
                self.push(
                    Problem::warning("a certificate that is not used")
                        .at(span, "tls = \"off\" encrypts nothing")
                        .help("write tls = \"starttls\", \"required\" or \"implicit\", or remove the certificate and its key"),
                );
            }
            return Vec::new();
        }
        let mut all: Vec<(CertificateFiles, Vec<Step>)> = first.map(|files| (files, base.clone())).into_iter().collect();
        for (position, more) in listener.more_certificates.iter().enumerate() {
            let files = CertificateFiles { certificate: more.certificate.clone(), private_key: more.private_key.clone() };
            all.push((files, extended(&base, setting!["more_certificates", position])));
        }
        if secrets == Secrets::Read {
            let read: Vec<_> = all.iter().map(|(files, base)| self.certificate(files, base)).collect();
            // With one of them unknown, nobody knows which names are missing.
            if let Some(read) = read.into_iter().collect::<Option<Vec<_>>>()
                && !read.is_empty()
            {
                let span = self.value(&extended(&base, setting!["certificate"]));
                if let Some(problem) = for_other_hosts(&read, hostname) {
                    self.push(problem.at(span, "clients that check the name will refuse it"));
                }
            }
        }
        all.into_iter().map(|(files, _)| files).collect()
    }

    /// `certificate` and `private_key` as they stand in the listener.
    fn first_certificate(&mut self, base: &[Step], listener: &file::Listener) -> Option<CertificateFiles> {
        let certificate_at = self.value(&extended(base, setting!["certificate"]));
        let key_at = self.value(&extended(base, setting!["private_key"]));
        match (&listener.certificate, &listener.private_key) {
            (Some(certificate), Some(key)) => {
                return Some(CertificateFiles { certificate: certificate.clone(), private_key: key.clone() });
            }
            (Some(_), None) => self.push(
                Problem::error("a certificate without its private key")
                    .at(certificate_at, "needs `private_key` beside it")
                    .help("add private_key = \"/path/to/key.pem\""),
            ),
            (None, Some(_)) => self.push(
                Problem::error("a private key without its certificate")
                    .at(key_at, "needs `certificate` beside it")
                    .help("add certificate = \"/path/to/cert.pem\""),
            ),
            (None, None) if !listener.more_certificates.is_empty() => {
                let more_at = self.value(&extended(base, setting!["more_certificates"]));
                self.push(
                    Problem::error("more certificates, and not the first")
                        .at(more_at, "needs `certificate` and `private_key` beside it")
                        .help("the first is for clients that do not say which host they want"),
                );
            }
            // Where it is written, but is no text, that has been said.
            (None, None) if listener.tls != ListenerTls::Off && certificate_at == self.value(base) => {
                let tls_at = self.value(&extended(base, setting!["tls"]));
                self.push(
                    Problem::error("TLS needs a certificate")
                        .at(tls_at, "encrypts with the certificate of this host")
                        .help("add certificate = \"/path/to/cert.pem\" and private_key = \"/path/to/key.pem\", or write tls = \"off\""),
                );
            }
            (None, None) => {}
        }
        None
    }

    fn certificate(&mut self, files: &CertificateFiles, base: &[Step]) -> Option<Certificate> {
        let certificate_at = self.value(&extended(base, setting!["certificate"]));
        let key_at = self.value(&extended(base, setting!["private_key"]));
        let chain =
            read_chain(&files.certificate).map_err(|error| self.push(unreadable(&error).at(certificate_at.clone(), expected(&error))));
        let key = read_key(&files.private_key).map_err(|error| self.push(unreadable(&error).at(key_at.clone(), expected(&error))));
        let (Ok(chain), Ok(key)) = (chain, key) else { return None };
        match Certificate::new(chain, key) {
            Ok(certificate) => {
                if let Some(problem) = doubtful_term(&certificate, SystemTime::now()) {
                    self.push(problem.at(certificate_at, format!("for {}", certificate.named())));
                }
                Some(certificate)
            }
            Err(error) => {
                let problem = Problem::error(error.to_string());
                self.push(match error {
                    CertificateError::Mismatch => problem
                        .at(key_at, "this key has another public half")
                        .also(certificate_at, "than this certificate")
                        .help("the file must begin with the server's own certificate, and the key be the one that it was made for"),
                    _ => problem
                        .at(certificate_at, "in this file")
                        .also(key_at, "or in this one")
                        .help("expected an X.509 certificate with an RSA, ECDSA or Ed25519 key, both PEM"),
                });
                None
            }
        }
    }
}

fn extended<const N: usize>(base: &[Step], more: [Step; N]) -> Vec<Step> {
    base.iter().cloned().chain(more).collect()
}

fn unreadable(error: &CertificateError) -> Problem {
    Problem::error(error.to_string()).help(match error {
        CertificateError::NoCertificate(_) => "a file in DER form becomes PEM by `openssl x509 -inform der -in FILE`",
        CertificateError::NoKey(_) => "a key behind a pass phrase loses it by `openssl pkey -in FILE`",
        _ => "correct the path, or the file's owner and mode",
    })
}

fn expected(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::NoCertificate(_) => "expected a PEM file with `-----BEGIN CERTIFICATE-----`",
        CertificateError::NoKey(_) => "expected a PEM file with `-----BEGIN PRIVATE KEY-----`",
        _ => "expected a file that the service's user may read",
    }
}

/// What is wrong with the term of a certificate.
fn doubtful_term(certificate: &Certificate, now: SystemTime) -> Option<Problem> {
    let renew = "renew it; files that are replaced are taken into use without a restart";
    let problem = match certificate.validity(now) {
        Validity::Good => return None,
        Validity::NotYet => Problem::warning(format!("the certificate is not valid before {}", certificate.begins()))
            .help("clients refuse it until then; look at the clock of this machine, or use another certificate"),
        Validity::Ending(0) => Problem::warning(format!("the certificate expires within a day, on {}", certificate.expires())).help(renew),
        Validity::Ending(1) => Problem::warning(format!("the certificate expires in 1 day, on {}", certificate.expires())).help(renew),
        Validity::Ending(days) => {
            Problem::warning(format!("the certificate expires in {days} days, on {}", certificate.expires())).help(renew)
        }
        Validity::Expired => Problem::warning(format!("the certificate has expired on {}", certificate.expires()))
            .help(format!("clients that check it refuse to send; {renew}")),
    };
    Some(problem)
}

/// Says that no certificate is for the name by which this host calls itself.
fn for_other_hosts(certificates: &[Certificate], hostname: &str) -> Option<Problem> {
    if hostname.is_empty() || certificates.iter().any(|certificate| certificate.names(hostname) || certificate.matches(hostname)) {
        return None;
    }
    let named: Vec<String> = certificates.iter().map(Certificate::named).collect();
    let whose = if certificates.len() == 1 { "the certificate is not" } else { "no certificate of this listener is" };
    Some(
        Problem::warning(format!("{whose} for this host's name, {hostname}"))
            .note(format!("it is for {}", named.join("; ")))
            .help("use one that has the name which clients connect to, or correct `hostname` of `[server]`"),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn certificate(names: &[&str]) -> Certificate {
        let made = rcgen::generate_simple_self_signed(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        Certificate::new(vec![made.cert.der().clone()], PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap()).unwrap()
    }

    #[test]
    fn the_term_is_told_in_days() {
        let certificate = certificate(&["a.example"]);
        let day = Duration::from_secs(24 * 60 * 60);
        let said = |now: SystemTime| doubtful_term(&certificate, now).map(|problem| problem.title);
        assert_eq!(said(certificate.not_after - 22 * day), None);
        assert!(said(certificate.not_after - 20 * day).unwrap().starts_with("the certificate expires in 20 days, on 4"));
        assert!(said(certificate.not_after - 3 * day / 2).unwrap().contains("in 1 day,"));
        assert!(said(certificate.not_after - day / 2).unwrap().contains("within a day"));
        assert!(said(certificate.not_after + day).unwrap().contains("has expired on"));
        assert!(said(certificate.not_before - day).unwrap().contains("not valid before 1975-01-01"));
    }

    #[test]
    fn one_certificate_with_the_hosts_name_is_enough() {
        let all = [certificate(&["a.example"]), certificate(&["*.b.example", "b.example"])];
        for (hostname, expected) in [("a.example", true), ("relay.b.example", true), ("b.example", true), ("c.example", false)] {
            assert_eq!(for_other_hosts(&all, hostname).is_none(), expected, "{hostname}");
        }
        let problem = for_other_hosts(&all[..1], "c.example").unwrap();
        assert_eq!(problem.title, "the certificate is not for this host's name, c.example");
    }
}
