//! MAIL: begins a transaction.

use postrider_providers::contract::Envelope;
use tokio::io::{AsyncRead, AsyncWrite};

use super::command::MailCommand;
use super::reply::{self, Reply};
use super::session::{Session, State};
use crate::spool::Spool;

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    pub(super) fn mail(&mut self, mail: MailCommand) -> Reply {
        let greeting = match &self.state {
            State::Connected => return reply::SAY_HELLO_FIRST,
            State::Transaction(..) => return reply::NESTED_MAIL,
            State::Identified(greeting) => greeting.clone(),
        };
        if mail.size.is_some_and(|size| size > self.front_end.settings.max_message_size) {
            return reply::TOO_LARGE;
        }
        let envelope =
            Envelope { reverse_path: mail.reverse_path, recipients: Vec::new(), body_type: mail.body_type, smtputf8: mail.smtputf8 };
        self.state = State::Transaction(greeting, envelope);
        reply::SENDER_OK
    }
}
