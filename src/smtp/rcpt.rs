//! RCPT: names a recipient. Relaying is refused here, and so is what no route would take.

use postrider_providers::contract::{Address, Notify, Recipient};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::info;

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
        let State::Transaction(Transaction { envelope, .. }) = &mut self.state else {
            return reply::NEED_MAIL;
        };
        if !envelope.smtputf8 && !address.is_ascii() {
            return reply::NEED_SMTPUTF8;
        }
        if self.front_end.router.route(&envelope.reverse_path, &address).is_none() {
            info!(client = %self.client.address, from = %envelope.reverse_path, to = %address, "recipient refused: no route matches");
            return Reply::with_text(550, (5, 4, 4), format!("<{address}>: no route matches this sender and recipient"));
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
