//! The handshake with one client, and why it failed.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{AlertDescription, ProtocolVersion, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::{Offer, ServerTls};

/// What a connection is encrypted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encryption {
    /// As in `TLSv1.3`.
    pub version: &'static str,
    /// The name of the cipher suite that IANA has registered.
    pub cipher: &'static str,
}

/// A handshake that came to nothing.
#[derive(Debug)]
pub struct Failed<T> {
    /// Why.
    pub failure: Failure,
    /// What the client offered.
    pub offer: Offer,
    /// The connection, where nothing of TLS has been said on it.
    pub io: Option<T>,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The client said nothing at all in time.
    #[error("the client sent nothing")]
    Silent,
    /// The client closed the connection before it said anything.
    #[error("the client closed the connection before it began")]
    Left,
    /// The client speaks plain SMTP; the verb that it said.
    #[error("the client speaks plain SMTP, and said {0}")]
    PlainText(String),
    /// Neither TLS nor a command.
    #[error("the client does not speak TLS")]
    Garbage,
    /// Nothing newer than TLS 1.1.
    #[error("the client's TLS is too old")]
    TooOld,
    /// The version is fine, and nothing else fits.
    #[error("client and server have no way to encrypt in common ({0})")]
    NothingInCommon(String),
    /// The client has ended the handshake with an alert.
    #[error("the client refuses: {0:?}")]
    Refused(AlertDescription),
    /// The client began, and did not finish in time.
    #[error("the client did not finish in time")]
    Slow,
    /// The client went away in the middle.
    #[error("the client closed the connection in the middle")]
    BrokenOff,
    /// The connection broke, or the client does not keep to the protocol.
    #[error("{0}")]
    Other(io::Error),
}

impl Failure {
    /// What the administrator can do, where there is something.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::TooOld => Some(
                "TLS 1.2 is the least that is taken here; update the client, or let it send in clear text to a listener \
                 with tls = \"off\" or \"starttls\" in a network that you trust",
            ),
            Self::NothingInCommon(_) => Some(
                "cipher suites need ECDHE with AES-GCM or ChaCha20, and the client must know the certificate's kind of key; \
                 update the client, or add an RSA certificate",
            ),
            Self::Refused(AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::CertificateUnknown) => {
                Some("it does not trust the certificate, or expects another name in it; see whether the file has the whole chain")
            }
            Self::Refused(AlertDescription::CertificateExpired) => Some("renew the certificate, or look at the client's clock"),
            Self::Refused(AlertDescription::ProtocolVersion) => Some("the client does not want any version from TLS 1.2 on"),
            _ => None,
        }
    }

    fn of(error: io::Error, offer: &Offer) -> Self {
        let kind = error.kind();
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => Self::Refused(*alert),
            Some(_) if !offer.versions.is_empty() && !offer.is_recent() => Self::TooOld,
            Some(rustls::Error::PeerIncompatible(what)) => Self::NothingInCommon(format!("{what:?}")),
            Some(_) => Self::Other(error),
            None if matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                Self::BrokenOff
            }
            None => Self::Other(error),
        }
    }
}

impl Encryption {
    /// What `connection` has agreed on; `None` before the end of its handshake.
    #[must_use]
    pub fn of(connection: &ServerConnection) -> Option<Self> {
        let version = match connection.protocol_version()? {
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            other => other.as_str().unwrap_or("TLS"),
        };
        let cipher = connection.negotiated_cipher_suite()?.suite().as_str()?;
        // The library marks the suites of TLS 1.3 in its own way.
        let cipher = match cipher {
            "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
            "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
            "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
            other => other,
        };
        Some(Self { version, cipher })
    }
}

impl ServerTls {
    /// Does the handshake as a server, within `limit` in all.
    ///
    /// # Errors
    /// What went wrong, and what the client had offered.
    pub async fn accept<T: AsyncRead + AsyncWrite + Unpin>(&self, mut io: T, limit: Duration) -> Result<TlsStream<T>, Failed<T>> {
        let deadline = Instant::now() + limit;
        // What the client says first, kept to be told if it comes to nothing.
        let mut octets = Vec::with_capacity(4096);
        let accepted = match timeout_at(deadline, hello(&mut io, &mut octets)).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(failure)) => return Err(Failed { io: octets_are_clear(&octets).then_some(io), offer: Offer::read(&octets), failure }),
            Err(_) if octets.is_empty() => return Err(Failed { failure: Failure::Silent, offer: Offer::default(), io: Some(io) }),
            Err(_) => return Err(Failed { failure: Failure::Slow, offer: Offer::read(&octets), io: None }),
        };
        let start = StartHandshake::from_parts(accepted, io);
        let failure = match timeout_at(deadline, start.into_stream(self.config.clone())).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => Failure::of(error, &Offer::read(&octets)),
            Err(_) => Failure::Slow,
        };
        Err(Failed { failure, offer: Offer::read(&octets), io: None })
    }
}

/// Whether what came is no TLS, so that an answer in clear text can be understood.
fn octets_are_clear(octets: &[u8]) -> bool {
    octets.first().is_some_and(u8::is_ascii_alphabetic)
}

/// Reads the ClientHello.
async fn hello<T: AsyncRead + AsyncWrite + Unpin>(io: &mut T, octets: &mut Vec<u8>) -> Result<rustls::server::Accepted, Failure> {
    let mut acceptor = Acceptor::default();
    loop {
        let fed = octets.len();
        let read = io.read_buf(octets).await.map_err(|error| Failure::of(error, &Offer::default()))?;
        match read {
            0 if octets.is_empty() => return Err(Failure::Left),
            0 => return Err(Failure::BrokenOff),
            _ => {}
        }
        if octets_are_clear(octets) {
            // Only the verb: what follows may be a secret.
            let verb = octets.iter().take(12).take_while(|octet| octet.is_ascii_alphanumeric()).map(|&octet| char::from(octet)).collect();
            return Err(Failure::PlainText(verb));
        }
        let mut new = &octets[fed..];
        while !new.is_empty() {
            acceptor.read_tls(&mut new).map_err(Failure::Other)?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut answer = Vec::new();
                if alert.write_all(&mut answer).is_ok() {
                    // Whether the client still listens changes nothing.
                    let _ = io.write_all(&answer).await;
                    let _ = io.flush().await;
                }
                let offer = Offer::read(octets);
                return Err(match offer.versions.is_empty() {
                    true => Failure::Garbage,
                    false => Failure::of(io::Error::other(error), &offer),
                });
            }
        }
    }
}
