//! MAIL: begins a transaction.

use postrider_providers::contract::{Address, Envelope, ReversePath};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::info;

use super::command::MailCommand;
use super::reply::{self, Reply};
use super::session::{Session, State, Transaction};
use crate::access::Submission;
use crate::spool::Spool;

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    pub(super) fn mail(&mut self, mail: MailCommand) -> Reply {
        let greeting = match &self.state {
            State::Connected => return reply::SAY_HELLO_FIRST,
            State::Transaction(_) | State::Receiving(_) => return reply::NESTED_MAIL,
            State::Identified(greeting) => greeting.clone(),
        };
        if let Err(refusal) = self.may_send(&mail.reverse_path, None) {
            return refusal;
        }
        //= https://www.rfc-editor.org/rfc/rfc1870#section-6.1
        //# If the indicated size is larger than the server's fixed maximum
        //# message size, the server responds with code "552 message size
        //# exceeds fixed maximium message size".
        if mail.size.is_some_and(|size| size > self.standing.max_message_size) {
            return reply::TOO_LARGE;
        }
        // A stranger hears at RCPT that it may not relay, and of routes nothing at all.
        if self.standing.recognised.is_some()
            && let Err(refusal) = self.can_begin(&mail)
        {
            return refusal;
        }
        let envelope = Envelope {
            reverse_path: mail.reverse_path,
            recipients: Vec::new(),
            body_type: mail.body_type,
            smtputf8: mail.smtputf8,
            returned: mail.returned,
            envelope_id: mail.envelope_id,
        };
        self.state = State::Transaction(Transaction { greeting, envelope, size: mail.size });
        reply::SENDER_OK
    }

    /// Asks the rules about this sender, and this recipient if one was named.
    pub(super) fn may_send(&self, from: &ReversePath, to: Option<&Address>) -> Result<(), Reply> {
        let submission = Submission { listener: &self.door.listener, client: &self.client, standing: &self.standing, from, to };
        self.front_end.access.decide(&submission).map_err(|refusal| {
            info!(client = %self.client.address, %from, to = to.map(tracing::field::display), rule = %refusal, "refused");
            reply::refusal(&refusal, &submission)
        })
    }
}
