//! TLS for clients: certificates that reload while the gateway runs, the choice among them by name, and
//! the handshake.
//!
//! [`CertificateStore`] owns every certificate once, whoever uses it, and looks whether its files have
//! changed. A [`ServerTls`] is what one listener encrypts with.

mod handshake;
mod hello;
mod resolver;
mod store;

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;

use crate::config::CertificateError;

pub use handshake::{Encryption, Failed, Failure};
pub use hello::Offer;
pub use store::{CertificateStore, Looked};

/// What one listener encrypts with.
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
}

/// Why a listener cannot encrypt.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of its certificates cannot be used.
    #[error("{path}: {source}", path = certificate.display())]
    Certificate {
        /// The file that was named as certificate.
        certificate: std::path::PathBuf,
        /// What is wrong.
        source: CertificateError,
    },
    /// The TLS library refuses its own configuration.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

impl ServerTls {
    /// TLS 1.2 and 1.3 with these certificates. No client certificate is asked for: old clients stumble
    /// over the question.
    fn new(resolver: resolver::ByName) -> Result<Self, rustls::Error> {
        let crypto = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        // A client that submits often does not pay for a whole handshake each time.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(Self { config: Arc::new(config) })
    }
}
