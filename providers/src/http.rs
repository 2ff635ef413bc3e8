//! The one TLS configuration, the one HTTP client, and the watch over a call's progress.
//!
//! Every provider that speaks HTTP uses the same client, so connections, proxies and trusted
//! authorities are the same everywhere. [`Progress`] answers the question on which failover rests:
//! had the whole request left when the call went wrong?

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::Instant;

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

/// How far a request got. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<watch::Sender<Sent>>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sent {
    /// Pieces of the body that were taken for sending.
    pieces: u64,
    /// Whether the last one was among them.
    all: bool,
}

/// How long a call may be silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Until the connection stands and the body begins to leave.
    pub(crate) connect: Duration,
    /// After that, between two signs of progress.
    pub(crate) answer: Duration,
    /// In any case.
    pub(crate) deadline: Option<Instant>,
}

/// Nothing moved for this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Silence(pub(crate) Duration);

/// A request body that reports to a [`Progress`], in pieces small enough to tell something.
pub(crate) struct TrackedBody<B> {
    inner: B,
    piece: Bytes,
    progress: Progress,
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
        Ok(Self { hostname: hostname.into(), tls: Arc::new(tls), http })
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
                return Ok(builder(&crypto)?.with_root_certificates(roots).with_no_client_auth());
            }
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crypto.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?
        }
    };
    Ok(builder(&crypto)?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
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

impl Progress {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Sent::default())))
    }

    /// Whether the whole body was taken for sending, so that the other side may have it.
    pub(crate) fn all_sent(&self) -> bool {
        self.0.borrow().all
    }

    /// Runs `call` as long as it makes progress.
    ///
    /// # Errors
    /// [`Silence`] when it makes none for too long; [`Progress::all_sent`] tells what that means.
    pub(crate) async fn watch<T>(&self, patience: Patience, call: impl Future<Output = T>) -> Result<T, Silence> {
        let mut changes = self.0.subscribe();
        let mut call = std::pin::pin!(call);
        let mut silence = patience.connect;
        loop {
            let limit = Instant::now() + silence;
            let until = patience.deadline.map_or(limit, |deadline| limit.min(deadline));
            tokio::select! {
                biased;
                done = &mut call => return Ok(done),
                // The sender is in `self`, so this never ends with an error.
                _ = changes.changed() => silence = patience.answer,
                () = tokio::time::sleep_until(until) => return Err(Silence(silence)),
            }
        }
    }
}

impl<B> TrackedBody<B> {
    /// How much is handed on at once: the finer, the better known is how far a request got.
    const PIECE: usize = 64 * 1024;

    pub(crate) fn new(inner: B, progress: Progress) -> Self {
        Self { inner, piece: Bytes::new(), progress }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for TrackedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        while this.piece.is_empty() {
            match std::task::ready!(Pin::new(&mut this.inner).poll_frame(poller)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.piece = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
            }
        }
        let piece = this.piece.split_to(this.piece.remaining().min(Self::PIECE));
        let all = this.piece.is_empty() && this.inner.is_end_stream();
        this.progress.0.send_modify(|sent| *sent = Sent { pieces: sent.pieces + 1, all });
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.piece.len() as u64;
        match self.inner.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(held + rest),
            None => SizeHint::default(),
        }
    }
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

    #[tokio::test(start_paused = true)]
    async fn silence_before_and_after_the_first_piece_has_its_own_limit() {
        let patience = Patience { connect: Duration::from_secs(5), answer: Duration::from_secs(60), deadline: None };
        let progress = Progress::new();
        let silent = progress.watch(patience, std::future::pending::<()>()).await;
        assert_eq!((silent, progress.all_sent()), (Err(Silence(Duration::from_secs(5))), false));

        let mut body = TrackedBody::new(reqwest::Body::from(vec![b'x'; 100 * 1024]), progress.clone());
        let begun = Instant::now();
        let call = async {
            let first = std::future::poll_fn(|poller| Pin::new(&mut body).poll_frame(poller)).await;
            assert!(!progress.all_sent(), "one piece of two");
            let second = std::future::poll_fn(|poller| Pin::new(&mut body).poll_frame(poller)).await;
            assert!(first.is_some() && second.is_some() && body.is_end_stream());
            std::future::pending::<()>().await;
        };
        assert_eq!(progress.watch(patience, call).await, Err(Silence(Duration::from_secs(60))));
        assert_eq!((begun.elapsed().as_secs(), progress.all_sent()), (60, true));
    }
}
