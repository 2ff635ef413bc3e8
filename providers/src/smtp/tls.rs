//! When the connection is encrypted, and whom it then trusts.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

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

/// PEM files with which we show who we are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientCertificate<'a> {
    /// The certificate, and those between it and its authority.
    pub(crate) certificate: &'a Path,
    /// Its key.
    pub(crate) private_key: &'a Path,
}

/// The TLS configuration for `tls`, which trusts the authorities in `ca_file` beside the system's, and
/// shows `certificate` to a host that asks for one.
pub(super) fn config(
    tls: Tls,
    ca_file: Option<&Path>,
    certificate: Option<&ClientCertificate<'_>>,
    context: &Context,
) -> Result<Arc<ClientConfig>, SettingsError> {
    let unusable = |error: rustls::Error| SettingsError::new("tls", format!("TLS cannot be set up: {error}"));
    if tls == Tls::Opportunistic {
        let crypto = http::crypto();
        let verifier = Arc::new(AnyCertificate(crypto.clone()));
        let builder = http::builder(&crypto).map_err(unusable)?;
        return Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()));
    }
    if ca_file.is_none() && certificate.is_none() {
        return Ok(context.tls.clone());
    }
    let (authorities, shown) = match ca_file {
        None => (Vec::new(), "the system's store".to_owned()),
        Some(path) => (certificates("ca_file", path)?, path.display().to_string()),
    };
    let builder = http::tls_builder(authorities)
        .map_err(|error| SettingsError::new("ca_file", format!("{shown} holds no usable authority: {error}")))?;
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate { certificate, private_key }) => {
            let chain = certificates("certificate", certificate)?;
            let key = private_key_in(private_key)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                let text = format!("{} does not go with `certificate`: {error}", private_key.display());
                SettingsError::new("private_key", text)
            })?
        }
    };
    Ok(Arc::new(config))
}

fn private_key_in(path: &Path) -> Result<PrivateKeyDer<'static>, SettingsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let why = match error {
            pem::Error::Io(error) => error.to_string(),
            pem::Error::NoItemsFound => "it holds no private key".to_owned(),
            // The text of other errors may quote the file.
            _ => "it is no PEM file that can be read".to_owned(),
        };
        SettingsError::new("private_key", format!("cannot use {}: {why}", path.display()))
    })
}

/// Every certificate in a PEM file; at least one.
fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let shown = path.display();
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| SettingsError::new(key, format!("cannot read {shown} as PEM certificates: {error}")))?;
    if found.is_empty() {
        return Err(SettingsError::new(key, format!("{shown} holds no \"BEGIN CERTIFICATE\" block")));
    }
    Ok(found)
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
