//! When the connection is encrypted, and whom it then trusts.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::http;
use crate::registry::{Context, SettingsError};

/// `tls` of a smart host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Never encrypt.
    Off,
    /// STARTTLS must succeed, with a certificate that is valid for the host.
    Starttls,
    /// STARTTLS where the host offers it, whatever its certificate says (RFC 7435): better than clear
    /// text, and no protection against someone who sits in between.
    Opportunistic,
    /// TLS from the first octet (RFC 8314), with a certificate that is valid for the host.
    Implicit,
}

/// The TLS configuration for `tls`, which trusts the authorities in `ca_file` beside the system's.
pub(super) fn config(tls: Tls, ca_file: Option<&Path>, context: &Context) -> Result<Arc<ClientConfig>, SettingsError> {
    let unusable = |error: rustls::Error| SettingsError::new("tls", format!("TLS cannot be set up: {error}"));
    match (tls, ca_file) {
        (Tls::Opportunistic, _) => {
            let crypto = http::crypto();
            let verifier = Arc::new(AnyCertificate(crypto.clone()));
            let builder = http::builder(&crypto).map_err(unusable)?;
            Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
        }
        (_, None) => Ok(context.tls.clone()),
        (_, Some(path)) => {
            let shown = path.display();
            let found: Vec<_> = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect)
                .map_err(|error| SettingsError::new("ca_file", format!("cannot read {shown} as PEM certificates: {error}")))?;
            if found.is_empty() {
                return Err(SettingsError::new("ca_file", format!("{shown} holds no \"BEGIN CERTIFICATE\" block")));
            }
            let config = http::tls_config(found)
                .map_err(|error| SettingsError::new("ca_file", format!("{shown} holds no usable authority: {error}")))?;
            Ok(Arc::new(config))
        }
    }
}

/// Takes every certificate, and still checks that the peer holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
