//! DATA: takes the content, and says 250 when it is on stable storage. From there on the message is
//! ours (RFC 5321 section 6.1). How a message begins and ends is shared with BDAT.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::BytesMut;
use postrider_providers::contract::{Envelope, Message, MessageId, Origin};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::{info, warn};

use super::carriage;
use super::content::{Content, storage_reply};
use super::decoder::Decoder;
use super::header::MissingFields;
use super::reply::{self, Reply};
use super::session::{Greeting, Next, Session, State, Transaction};
use super::stream::StreamError;
use super::trace::{Received, date};
use crate::spool::Spool;

/// A message while its content arrives.
pub struct Incoming<B> {
    id: MessageId,
    received: SystemTime,
    /// How the client had introduced itself.
    pub(super) greeting: Greeting,
    envelope: Envelope,
    pub(super) content: Content<B>,
}

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    /// Reads the content to its end whatever becomes of it, so that the client's next command is
    /// read as one; the reply says how it went.
    pub(super) async fn data(&mut self) -> Result<Next, StreamError> {
        let transaction = match self.begin_content() {
            Ok(transaction) => transaction,
            Err(refusal) => return Ok(Next::Reply(refusal)),
        };
        self.stream.reply(&Reply::plain(354, "End data with <CR><LF>.<CR><LF>"));
        let mut incoming = self.open(transaction).await;
        let mut decoder = Decoder::default();
        while !decoder.is_done() {
            let input = self.stream.data().await?;
            let mut decoded = BytesMut::with_capacity(input.len());
            let taken = decoder.decode(input, &mut decoded);
            self.stream.consume(taken);
            incoming.content.take(decoded, decoder.bare_newlines()).await;
        }
        Ok(Next::Reply(self.accept(incoming).await))
    }

    /// Ends the part of the transaction in which recipients are named, and gives it away: whatever
    /// becomes of the content, another message needs another MAIL.
    pub(super) fn begin_content(&mut self) -> Result<Transaction, Reply> {
        match std::mem::replace(&mut self.state, State::Connected) {
            State::Transaction(transaction) if !transaction.envelope.recipients.is_empty() => {
                self.state = State::Identified(transaction.greeting.clone());
                Ok(transaction)
            }
            other => {
                let refusal = match &other {
                    State::Transaction(_) => reply::NEED_RECIPIENTS,
                    //= https://www.rfc-editor.org/rfc/rfc3030#section-2
                    //# If a DATA statement is issued after a BDAT for the current transaction, a
                    //# 503 "Bad sequence of commands" MUST be issued.
                    State::Receiving(_) => reply::DATA_AFTER_BDAT,
                    State::Connected | State::Identified(_) => reply::NEED_MAIL,
                };
                self.state = other;
                Err(refusal)
            }
        }
    }

    /// Opens the way to the spool, with the trace field first.
    pub(super) async fn open(&mut self, transaction: Transaction) -> Incoming<S::Sink> {
        let Transaction { greeting, envelope, size } = transaction;
        let front_end = Arc::clone(&self.front_end);
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
        let missing = || MissingFields { date: date(received), message_id: format!("<{id}@{}>", front_end.settings.hostname) };
        let mut content = Content::new(front_end.queue.body(id), self.standing.tolerance, self.standing.max_message_size, missing);
        content.limit(front_end.router.room(&envelope, &self.origin()));
        content.expect(size.unwrap_or(0));
        content.store(trace.into()).await;
        Incoming { id, received, greeting, envelope, content }
    }

    /// Makes the message durable, and says so.
    pub(super) async fn accept(&mut self, incoming: Incoming<S::Sink>) -> Reply {
        let Incoming { id, received, greeting, envelope, content } = incoming;
        let front_end = Arc::clone(&self.front_end);
        let complete = Instant::now();
        let mut content = content.end().await;
        if let Some((signature, size)) = content.signature()
            && let Err(refusal) = carriage::keep(&front_end.router, &self.origin(), &envelope, size, signature)
        {
            content.refuse(refusal);
        }
        let may_set_priority = self.standing.application.as_ref().is_some_and(|application| application.may_set_priority);
        let origin = Origin {
            message_id: content.message_id().map(Into::into),
            priority: content.priority().filter(|_| may_set_priority),
            ..self.origin()
        };
        let finished = match content.finish().await {
            Ok(finished) => finished,
            Err(refusal) => {
                info!(client = %self.client.address, from = %envelope.reverse_path, reply = %refusal, "message refused");
                front_end.queue.metrics().refused(refusal.code());
                return refusal;
            }
        };
        let message = Arc::new(Message { id, received, origin, envelope, body: finished.body });
        match front_end.queue.submit(Arc::clone(&message)).await {
            Ok(()) => {
                self.errors = 0;
                front_end.queue.metrics().accepted(message.origin.application.as_ref(), finished.octets, complete.elapsed());
                self.put_up_with(&finished.oddities);
                let recipients = &message.envelope.recipients;
                info!(
                    message_id = %id,
                    client = %self.client.address,
                    application = message.origin.application.as_deref(),
                    helo = %greeting.name,
                    from = %message.envelope.reverse_path,
                    to = %recipients[0].address,
                    recipients = recipients.len(),
                    size = finished.octets,
                    tls = self.stream.encryption().map(|used| used.version),
                    "accepted"
                );
                Reply::with_text(250, (2, 0, 0), format!("Ok: queued as {id}"))
            }
            Err(error) => {
                warn!(client = %self.client.address, %error, "message not accepted: it could not be stored");
                storage_reply(&error)
            }
        }
    }
}
