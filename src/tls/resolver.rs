//! Which certificate a client gets: the one for the name that it asks for, else the first.

use std::fmt;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::store::Slot;
use crate::config::Certificate;

/// The certificates of one listener, in the order of the config; at least one.
pub(super) struct ByName(pub(super) Vec<Arc<Slot>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates: Vec<Arc<Certificate>> = self.0.iter().map(|slot| slot.current()).collect();
        choose(&certificates, hello.server_name(), hello.signature_schemes()).map(|certificate| Arc::clone(&certificate.key))
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|slot| slot.files())).finish()
    }
}

/// The very name goes before a wildcard, and a name before none. Of several with the same name, the
/// first whose kind of key the client knows is taken: so an RSA certificate can stand behind an ECDSA
/// one for old clients.
fn choose<'a>(certificates: &'a [Arc<Certificate>], host: Option<&str>, schemes: &[SignatureScheme]) -> Option<&'a Arc<Certificate>> {
    let exact = certificates.iter().filter(|certificate| host.is_some_and(|host| certificate.names(host)));
    let wildcard = certificates.iter().filter(|certificate| host.is_some_and(|host| certificate.matches(host)));
    let mut wanted = exact.chain(wildcard).chain(certificates);
    let first = wanted.clone().next();
    wanted.find(|certificate| certificate.key.key.choose_scheme(schemes).is_some()).or(first)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn certificate(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Arc<Certificate> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        let chain = vec![params.self_signed(&key).unwrap().der().clone()];
        Arc::new(Certificate::new(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap())
    }

    #[test]
    fn the_name_decides_then_the_kind_of_key_then_the_order() {
        let (ecdsa, ed25519) = (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519);
        let all = [
            certificate(&["first.example"], ecdsa),
            certificate(&["*.corp.example"], ecdsa),
            certificate(&["relay.corp.example"], ecdsa),
            certificate(&["relay.corp.example"], ed25519),
        ];
        let chosen = |host: Option<&str>, schemes: &[SignatureScheme]| {
            let chosen = choose(&all, host, schemes).unwrap();
            all.iter().position(|certificate| Arc::ptr_eq(certificate, chosen)).unwrap()
        };
        let (new, old) = (SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519);
        for (host, scheme, expected) in [
            (None, new, 0),
            (Some("other.example"), new, 0),
            (Some("a.corp.example"), new, 1),
            (Some("Relay.corp.example"), new, 2),
            (Some("relay.corp.example"), old, 3),
            // Better the wrong name than no certificate that the client can read.
            (Some("first.example"), old, 3),
            // It knows none of them; the handshake then says so.
            (Some("a.corp.example"), SignatureScheme::RSA_PSS_SHA256, 1),
        ] {
            assert_eq!(chosen(host, &[scheme]), expected, "{host:?} {scheme:?}");
        }
        assert!(choose(&[], None, &[new]).is_none());
    }
}
