//! Certificate files: reads chain and key, sees that they belong together, and knows their names and term.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::{Date, OffsetDateTime};

use super::settings::CertificateFiles;

/// How long before its end a certificate is warned about. Certificates of 90 days are commonly renewed
/// 30 days before their end, so at 21 something has gone wrong.
const NOTICE: Duration = Duration::from_secs(21 * 24 * 60 * 60);

/// A certificate that can be used: with its chain and its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Chain and key, for the handshake.
    pub key: Arc<CertifiedKey>,
    /// The DNS names that it is for (subjectAltName), in lower case; `*.` stands for one label.
    pub names: Vec<String>,
    /// From when on it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// Where the time is in a certificate's term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Before it.
    NotYet,
    /// In it.
    Good,
    /// In its last three weeks; so many whole days are left.
    Ending(u64),
    /// After it.
    Expired,
}

/// Why files are no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("the {what} {path} cannot be read: {source}", path = path.display())]
    Unreadable {
        /// Which of the two files.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is there, and has no certificate in it.
    #[error("{path} holds no certificate", path = .0.display())]
    NoCertificate(PathBuf),
    /// The file is there, and has no key in it.
    #[error("{path} holds no private key", path = .0.display())]
    NoKey(PathBuf),
    /// The key is that of another certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// The library refuses them, or they are no X.509.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(String),
}

impl CertificateFiles {
    /// Reads both files.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn read(&self) -> Result<Certificate, CertificateError> {
        Certificate::new(read_chain(&self.certificate)?, read_key(&self.private_key)?)
    }
}

/// The certificates of a PEM file, at least one.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = read_pem(path, "certificate")?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(_) => Err(CertificateError::NoCertificate(path.to_owned())),
    }
}

/// The first private key of a PEM file.
pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let pem = read_pem(path, "private key")?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| CertificateError::NoKey(path.to_owned()))
}

fn read_pem(path: &Path, what: &'static str) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Unreadable { what, path: path.to_owned(), source })
}

impl Certificate {
    /// Until when the first certificate in this file is valid.
    ///
    /// # Errors
    /// When there is none, or it is no X.509.
    pub fn end_of(path: &Path) -> Result<SystemTime, CertificateError> {
        let chain = read_chain(path)?;
        let own = chain.first().ok_or_else(|| CertificateError::NoCertificate(path.to_owned()))?;
        term(own).map(|(_, end)| end.into()).map_err(|error| CertificateError::Unusable(format!("its term: {error}")))
    }

    /// Puts a chain, the server's own certificate first, and its key together.
    ///
    /// # Errors
    /// [`CertificateError::Mismatch`] or [`CertificateError::Unusable`].
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, CertificateError> {
        let key = CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch,
            error => CertificateError::Unusable(error.to_string()),
        })?;
        let own = key.end_entity_cert().map_err(|error| CertificateError::Unusable(error.to_string()))?;
        let parsed = webpki::EndEntityCert::try_from(own).map_err(|error| CertificateError::Unusable(error.to_string()))?;
        let names = parsed.valid_dns_names().map(str::to_ascii_lowercase).collect();
        let (not_before, not_after) = term(own).map_err(|error| CertificateError::Unusable(format!("its term: {error}")))?;
        Ok(Self { names, not_before: not_before.into(), not_after: not_after.into(), key: Arc::new(key) })
    }

    /// Whether it is for `host`, by that very name.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    /// Whether it is for `host` by a wildcard, which stands for exactly one label (RFC 9525 section 6.3).
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let parent = host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, parent)| parent);
        parent.is_some_and(|parent| {
            self.names.iter().filter_map(|name| name.strip_prefix("*.")).any(|below| below.eq_ignore_ascii_case(parent))
        })
    }

    /// Where `now` is in its term.
    #[must_use]
    pub fn validity(&self, now: SystemTime) -> Validity {
        match self.not_after.duration_since(now) {
            _ if now < self.not_before => Validity::NotYet,
            Ok(left) if left > NOTICE => Validity::Good,
            Ok(left) => Validity::Ending(left.as_secs() / (24 * 60 * 60)),
            Err(_) => Validity::Expired,
        }
    }

    /// Its names in words.
    #[must_use]
    pub fn named(&self) -> String {
        if self.names.is_empty() { "no DNS name".to_owned() } else { self.names.join(", ") }
    }

    /// The day on which it becomes valid, in UTC.
    #[must_use]
    pub fn begins(&self) -> Date {
        OffsetDateTime::from(self.not_before).date()
    }

    /// The day on which it expires, in UTC.
    #[must_use]
    pub fn expires(&self) -> Date {
        OffsetDateTime::from(self.not_after).date()
    }
}

/// The term of a certificate (RFC 5280 section 4.1.2.5).
fn term(certificate: &[u8]) -> Result<(OffsetDateTime, OffsetDateTime), yasna::ASN1Error> {
    let date = |reader: yasna::BERReader<'_, '_>| {
        if reader.lookahead_tag()? == yasna::tags::TAG_UTCTIME {
            Ok(*reader.read_utctime()?.datetime())
        } else {
            Ok(*reader.read_generalized_time()?.datetime())
        }
    };
    yasna::parse_der(certificate, |reader| {
        reader.read_sequence(|certificate| {
            let term = certificate.next().read_sequence(|signed| {
                signed.read_optional(|version| version.read_tagged(yasna::Tag::context(0), |version| version.read_der()))?;
                // Serial number, algorithm, issuer.
                for _ in 0..3 {
                    signed.next().read_der()?;
                }
                let term = signed.next().read_sequence(|term| Ok((date(term.next())?, date(term.next())?)))?;
                while signed.read_optional(|extension| extension.read_der())?.is_some() {}
                Ok(term)
            })?;
            // The signature and its algorithm.
            certificate.next().read_der()?;
            certificate.next().read_der()?;
            Ok(term)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str], change: impl FnOnce(&mut rcgen::CertificateParams)) -> Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        change(&mut params);
        let made = params.self_signed(&key).unwrap();
        Certificate::new(vec![made.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap()
    }

    #[test]
    fn the_term_is_read_from_both_forms_of_a_date() {
        // From 2050 on a certificate has a GeneralizedTime.
        let made = certificate(&["a.example"], |params| {
            params.not_before = rcgen::date_time_ymd(2026, 3, 1);
            params.not_after = rcgen::date_time_ymd(2051, 4, 2);
        });
        assert_eq!((made.begins().to_string(), made.expires().to_string()), ("2026-03-01".to_owned(), "2051-04-02".to_owned()));
        let day = Duration::from_secs(24 * 60 * 60);
        let at = |time| made.validity(time);
        assert_eq!(at(made.not_before - day), Validity::NotYet);
        assert_eq!(at(made.not_before), Validity::Good);
        assert_eq!(at(made.not_after - 21 * day), Validity::Ending(21));
        assert_eq!(at(made.not_after - day / 2), Validity::Ending(0));
        assert_eq!(at(made.not_after + day), Validity::Expired);
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let made = certificate(&["Relay.example", "*.mail.example"], |_| {});
        assert_eq!(made.named(), "relay.example, *.mail.example");
        assert!(made.names("relay.EXAMPLE") && !made.names("a.mail.example"));
        for (host, expected) in [("a.mail.example", true), ("A.MAIL.example", true), ("mail.example", false), ("a.b.mail.example", false)] {
            assert_eq!(made.matches(host), expected, "{host}");
        }
        assert!(!made.matches(".mail.example") && !made.matches("relay.example"));
    }

    #[test]
    fn an_old_certificate_that_only_has_a_common_name_has_no_names() {
        assert_eq!(certificate(&[], |_| {}).named(), "no DNS name");
    }
}
