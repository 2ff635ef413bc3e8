//! RCPT: names a recipient. Relaying is refused here, and so is what no route would take.

use postrider_providers::contract::{Address, Notify, Recipient};
use tokio::io::{AsyncRead, AsyncWrite};

use super::carriage;
use super::command::{ForwardPath, RcptCommand};
use super::reply::{self, Reply};
use super::session::{Session, State, Transaction};
use crate::spool::Spool;

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    pub(super) fn rcpt(&mut self, rcpt: RcptCommand) -> Reply {
        if !matches!(self.state, State::Transaction(_)) {
            return reply::NEED_MAIL;
        }
        let address = match rcpt.path {
            ForwardPath::Mailbox(address) => address,
            ForwardPath::Postmaster => match Address::parse(&format!("postmaster@{}", self.front_end.settings.hostname)) {
                Ok(address) => address,
                Err(_) => return Reply::new(550, (5, 1, 1), "This host has no name to address its postmaster by; use <postmaster@domain>"),
            },
        };
        if let State::Transaction(Transaction { envelope, .. }) = &self.state
            && let Err(refusal) = self.may_send(&envelope.reverse_path, Some(&address))
        {
            return refusal;
        }
        let origin = self.origin();
        let State::Transaction(Transaction { envelope, size, .. }) = &mut self.state else {
            return reply::NEED_MAIL;
        };
        if let Err(refusal) = carriage::admit(&self.front_end.router, &origin, envelope, *size, &address) {
            return refusal;
        }
        if !envelope.smtputf8 && !address.is_ascii() {
            return reply::NEED_SMTPUTF8;
        }
        if let Some(known) = envelope.recipients.iter_mut().find(|known| same_mailbox(&known.address, &address)) {
            // Naming a recipient twice must not send them two copies. Both requests were accepted, so
            // both are kept.
            known.notify = Notify::merge(known.notify, rcpt.notify);
            known.original = known.original.take().or(rcpt.original);
            return reply::RECIPIENT_OK;
        }
        if envelope.recipients.len() >= self.standing.max_recipients {
            return reply::TOO_MANY_RECIPIENTS;
        }
        envelope.recipients.push(Recipient { address, notify: rcpt.notify, original: rcpt.original });
        reply::RECIPIENT_OK
    }
}

/// The local part belongs to its host and may be case sensitive; the domain is not (RFC 5321 section 2.4).
fn same_mailbox(one: &Address, other: &Address) -> bool {
    one.local_part() == other.local_part() && one.domain() == other.domain()
}
