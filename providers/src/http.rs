//! The one TLS configuration and the one HTTP client, and what all HTTP APIs have in common.
//!
//! Every provider that speaks HTTP uses the same client, so connections, proxies and trusted
//! authorities are the same everywhere.

pub mod api;
pub mod credential;
pub mod dry_run;
pub mod multipart;
pub mod parts;
pub mod progress;
pub mod raw;
pub mod retry_after;
pub mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

use crate::registry::Context;

/// Why the TLS configuration or the HTTP client could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The TLS library refuses its own configuration.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be set up: {0}")]
    Http(#[from] reqwest::Error),
}

impl Context {
    /// What every provider shares, for a gateway called `hostname`.
    ///
    /// # Errors
    /// [`ContextError`], when TLS or the HTTP client cannot be set up at all. A system without
    /// certificate authorities is no error here: connections that need one fail, and say so.
    pub fn new(hostname: &str) -> Result<Self, ContextError> {
        let tls = tls_config(Vec::new())?;
        let mut http_tls = tls.clone();
        // reqwest leaves ALPN alone when it is given a configuration of ours.
        http_tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(http_tls)
            .user_agent(concat!("postrider/", env!("CARGO_PKG_VERSION")))
            // Only the queue retries: a retry in here could deliver twice behind its back.
            .retry(reqwest::retry::never())
            // A redirected POST would carry mail to a place that nobody configured.
            .redirect(reqwest::redirect::Policy::none())
            // Shorter than the idle limits of the services, so that a request does not meet a
            // connection that is just being closed, which would leave it in doubt.
            .pool_idle_timeout(Duration::from_secs(20))
            .tcp_nodelay(true)
            .build()?;
        Ok(Self { hostname: hostname.into(), tls: Arc::new(tls), http, state: None })
    }

    /// The same, with a directory for what must survive a restart.
    #[must_use]
    pub fn with_state(self, directory: impl Into<PathBuf>) -> Self {
        Self { state: Some(directory.into()), ..self }
    }
}

/// The crypto provider of the whole process.
pub(crate) fn crypto() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A TLS client configuration that trusts the system's authorities and `extra` ones.
///
/// # Errors
/// When an extra authority is no usable certificate.
pub(crate) fn tls_config(extra: Vec<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
    Ok(tls_builder(extra)?.with_no_client_auth())
}

/// The same, up to the question of a certificate of our own.
///
/// # Errors
/// When an extra authority is no usable certificate.
pub(crate) fn tls_builder(
    extra: Vec<CertificateDer<'static>>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, rustls::Error> {
    let crypto = crypto();
    let verifier: Arc<dyn ServerCertVerifier> = match platform_verifier(extra.clone(), crypto.clone()) {
        Ok(verifier) => verifier,
        // A bare container has no authorities. A relay that only speaks to a local smart host must
        // start there all the same; whatever needs an authority is refused at its handshake.
        Err(error) => {
            tracing::warn!(%error, "the system's certificate authorities cannot be used");
            let mut roots = RootCertStore::empty();
            for certificate in extra {
                roots.add(certificate)?;
            }
            if roots.is_empty() {
                return Ok(builder(&crypto)?.with_root_certificates(roots));
            }
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crypto.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?
        }
    };
    Ok(builder(&crypto)?.dangerous().with_custom_certificate_verifier(verifier))
}

/// The start of every client configuration: this provider, TLS 1.2 and 1.3.
pub(crate) fn builder(crypto: &Arc<CryptoProvider>) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(crypto.clone()).with_safe_default_protocol_versions()
}

fn platform_verifier(
    extra: Vec<CertificateDer<'static>>,
    crypto: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    Ok(Arc::new(rustls_platform_verifier::Verifier::new_with_extra_roots(extra, crypto)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_needs_no_process_wide_crypto_provider() {
        let context = Context::new("relay.example").unwrap();
        assert_eq!(&*context.hostname, "relay.example");
        assert!(context.tls.alpn_protocols.is_empty(), "SMTP speaks no ALPN");
    }
}
