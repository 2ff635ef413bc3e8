//! DATA: takes the content, and says 250 when it is on stable storage. From there on the message is
//! ours (RFC 5321 section 6.1).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use postrider_providers::contract::{Envelope, Message, MessageId};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{info, warn};

use super::carriage;
use super::decoder::Decoder;
use super::header::{HeaderFilter, HeaderTooLarge};
use super::reply::{self, Reply};
use super::session::{Greeting, Next, Session, State, Transaction};
use super::stream::StreamError;
use super::trace::{MAX_HOPS, Received};
use crate::config::BareNewline;
use crate::route::Room;
use crate::spool::{BodySink, Spool, SpoolError};

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    pub(super) async fn data(&mut self) -> Result<Next, StreamError> {
        let State::Transaction(Transaction { greeting, envelope, .. }) = &mut self.state else {
            return Ok(Next::Reply(reply::NEED_MAIL));
        };
        if envelope.recipients.is_empty() {
            return Ok(Next::Reply(reply::NEED_RECIPIENTS));
        }
        let greeting = greeting.clone();
        let envelope = Envelope { recipients: std::mem::take(&mut envelope.recipients), ..envelope.clone() };
        self.state = State::Identified(greeting.clone());
        self.stream.reply(&Reply::plain(354, "End data with <CR><LF>.<CR><LF>"));
        self.receive(greeting, envelope).await.map(Next::Reply)
    }

    /// Reads the content to its end whatever becomes of it, so that the client's next command is
    /// read as one; the reply says how it went.
    async fn receive(&mut self, greeting: Greeting, envelope: Envelope) -> Result<Reply, StreamError> {
        let front_end = Arc::clone(&self.front_end);
        let origin = self.origin();
        let id = MessageId::generate();
        let received = front_end.clock.now();
        let trace = Received {
            helo: &greeting.name,
            client: self.client.address,
            hostname: &front_end.settings.hostname,
            extended: greeting.extended,
            encryption: self.stream.encryption(),
            authenticated: self.client.login.is_some(),
            id,
            at: received,
        }
        .field(&envelope);

        let mut content = Content {
            sink: Some(front_end.queue.body(id)),
            filter: HeaderFilter::default(),
            octets: 0,
            max_octets: self.standing.max_message_size,
            stored: 0,
            room: front_end.router.room(&envelope, &origin),
            refused: None,
        };
        content.store(trace.into()).await;
        let mut decoder = Decoder::default();
        while !decoder.is_done() {
            let input = self.stream.data().await?;
            let mut decoded = BytesMut::with_capacity(input.len());
            let taken = decoder.decode(input, &mut decoded);
            self.stream.consume(taken);
            content.take(decoded).await;
        }
        if decoder.bare_newlines() > 0 {
            if self.standing.tolerance.bare_newline == BareNewline::Reject {
                content.refuse(reply::BARE_NEWLINE);
            } else {
                info!(message_id = %id, client = %self.client.address, count = decoder.bare_newlines(), "bare CR or LF in the message became CRLF");
            }
        }
        let (size, body) = match content.finish().await {
            Ok(finished) => finished,
            Err(refusal) => {
                info!(client = %self.client.address, from = %envelope.reverse_path, reply = %refusal, "message refused");
                return Ok(refusal);
            }
        };
        let message = Arc::new(Message { id, received, origin, envelope, body });
        match front_end.queue.submit(Arc::clone(&message)).await {
            Ok(()) => {
                self.errors = 0;
                let recipients = &message.envelope.recipients;
                info!(
                    message_id = %id,
                    client = %self.client.address,
                    helo = %greeting.name,
                    from = %message.envelope.reverse_path,
                    to = %recipients[0].address,
                    recipients = recipients.len(),
                    size,
                    tls = self.stream.encryption().map(|used| used.version),
                    "accepted"
                );
                Ok(Reply::with_text(250, (2, 0, 0), format!("Ok: queued as {id}")))
            }
            Err(error) => {
                warn!(client = %self.client.address, %error, "message not accepted: it could not be stored");
                Ok(storage_reply(&error))
            }
        }
    }
}

/// The content of one message on its way to the spool. Once refused, the rest is read and dropped.
struct Content<B> {
    sink: Option<B>,
    filter: HeaderFilter,
    octets: u64,
    max_octets: u64,
    /// Octets given to the sink, what this host adds included.
    stored: u64,
    /// The most that may become, for every recipient to have a provider.
    room: Option<Room>,
    refused: Option<Reply>,
}

impl<B: BodySink> Content<B> {
    async fn take(&mut self, decoded: BytesMut) {
        self.octets += decoded.len() as u64;
        if self.octets > self.max_octets {
            self.refuse(reply::TOO_LARGE);
        }
        if self.refused.is_some() {
            return;
        }
        match self.filter.pass(decoded) {
            Ok(bytes) => self.store(bytes).await,
            Err(HeaderTooLarge) => self.refuse(reply::HEADER_TOO_LARGE),
        }
        if self.filter.hops() >= MAX_HOPS {
            self.refuse(reply::TOO_MANY_HOPS);
        }
    }

    async fn store(&mut self, bytes: Bytes) {
        self.stored += bytes.len() as u64;
        if let Some(room) = self.room.take_if(|room| self.stored > room.octets) {
            self.refuse(carriage::too_large(&room));
        }
        if let (Some(sink), false) = (&mut self.sink, bytes.is_empty())
            && let Err(error) = sink.write(bytes).await
        {
            warn!(%error, "a message body could not be written");
            self.refuse(storage_reply(&error));
        }
    }

    /// The first refusal stands. The sink is dropped, so that nothing of the message stays behind.
    fn refuse(&mut self, reply: Reply) {
        self.refused.get_or_insert(reply);
        self.sink = None;
    }

    async fn finish(mut self) -> Result<(u64, postrider_providers::contract::Body), Reply> {
        let rest = self.filter.finish();
        self.store(rest).await;
        match (self.refused, self.sink) {
            (None, Some(sink)) => match sink.finish().await {
                Ok(body) => Ok((self.octets, body)),
                Err(error) => {
                    warn!(%error, "a message body could not be stored");
                    Err(storage_reply(&error))
                }
            },
            (refused, _) => Err(refused.unwrap_or(reply::STORAGE_UNAVAILABLE)),
        }
    }
}

/// Storage trouble is temporary for the client: it keeps the message and tries again.
fn storage_reply(error: &SpoolError) -> Reply {
    match error {
        SpoolError::Full(_) => reply::STORAGE_FULL,
        SpoolError::Closed => reply::SHUTTING_DOWN,
        SpoolError::Unavailable(_) | SpoolError::LeaseLost(_) => reply::STORAGE_UNAVAILABLE,
    }
}
