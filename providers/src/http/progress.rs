//! How far an HTTP request got, and for how long it may stand still.
//!
//! This answers the question on which failover rests: had the whole request left when the call went
//! wrong? If not, nothing was handed over; if so, the message is in doubt.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::Instant;

/// How far a request got. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress(Arc<watch::Sender<Sent>>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sent {
    /// Pieces of the body that were taken for sending.
    pieces: u64,
    /// Whether the last one was among them.
    all: bool,
}

/// How long a call may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until the connection stands and the body begins to leave.
    pub connect: Duration,
    /// After that, between two signs of progress.
    pub answer: Duration,
    /// In any case.
    pub deadline: Option<Instant>,
}

/// Nothing moved for this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence(
    /// How long it was.
    pub Duration,
);

/// A request body that reports to a [`Progress`], in pieces small enough to tell something.
#[derive(Debug)]
pub struct TrackedBody<B> {
    inner: B,
    piece: Bytes,
    progress: Progress,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Nothing has left.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Sent::default())))
    }

    /// Whether the whole body was taken for sending, so that the other side may have it.
    #[must_use]
    pub fn all_sent(&self) -> bool {
        self.0.borrow().all
    }

    /// Runs `call` as long as it makes progress.
    ///
    /// # Errors
    /// [`Silence`] when it makes none for too long; [`Progress::all_sent`] tells what that means.
    pub async fn watch<T>(&self, patience: Patience, call: impl Future<Output = T>) -> Result<T, Silence> {
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

    /// `inner`, reporting to `progress`.
    pub fn new(inner: B, progress: Progress) -> Self {
        Self { inner, piece: Bytes::new(), progress }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for TrackedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        while this.piece.is_empty() {
            match std::task::ready!(Pin::new(&mut this.inner).poll_frame(context)) {
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
