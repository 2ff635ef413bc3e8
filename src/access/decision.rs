//! What a client may do with one sender and one recipient, and the rule that says so.
//!
//! Whatever can be said at MAIL is said there: that TLS or AUTH is needed, that the application is
//! disabled, that the sender is not one of its own. Clients show the reply to MAIL, ask for a password
//! when it is 530, and have sent nothing yet. A stranger who cannot log in hears it at RCPT, as clients
//! and tests of open relays expect, with the recipient named.

use std::sync::Arc;

use postrider_providers::contract::{Address, ReversePath};

use super::{Access, Client, Standing};
use crate::config::{Listener, ListenerTls, SenderPattern};

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// Where it connected.
    pub listener: &'a Listener,
    /// What is known about it.
    pub client: &'a Client,
    /// Who it was recognised as.
    pub standing: &'a Standing,
    /// The reverse-path of MAIL.
    pub from: &'a ReversePath,
    /// The recipient; `None` while only MAIL was said.
    pub to: Option<&'a Address>,
}

/// Why it is refused. Each is one rule, and has one reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The listener takes no mail in clear text.
    TlsRequired,
    /// The application is refused for the time being.
    ApplicationDisabled(Arc<str>),
    /// It is a stranger, who could log in here.
    AuthenticationRequired,
    /// The application may not use this sender.
    SenderNotAllowed {
        /// Its name.
        application: Arc<str>,
        /// What it may use.
        allowed: Vec<SenderPattern>,
    },
    /// It is neither an application nor on a trusted network.
    RelayDenied,
}

impl Access {
    /// Decides; the first rule that refuses is the one that is named. The same question without and
    /// with a recipient, as MAIL and RCPT ask it, never becomes better by the recipient.
    ///
    /// # Errors
    /// The rule that refuses.
    pub fn decide(&self, submission: &Submission<'_>) -> Result<(), Refusal> {
        let Submission { listener, client, standing, .. } = *submission;
        if listener.tls == ListenerTls::Required && !client.encrypted {
            return Err(Refusal::TlsRequired);
        }
        if let Some(application) = standing.application.as_ref().filter(|application| application.disabled) {
            return Err(Refusal::ApplicationDisabled(Arc::clone(&application.name)));
        }
        if standing.recognised.is_none() {
            //= https://www.rfc-editor.org/rfc/rfc4954#section-6
            //# This response SHOULD be returned by any command other than AUTH, EHLO, HELO, NOOP, RSET, or
            //# QUIT when server policy requires authentication in order to perform the requested action
            //# and authentication is not currently in force.
            if self.has_auth(listener, client) {
                return Err(Refusal::AuthenticationRequired);
            }
            return if submission.to.is_some() { Err(Refusal::RelayDenied) } else { Ok(()) };
        }
        match &standing.application {
            Some(application) if !may_send_as(&application.senders, submission.from) => {
                Err(Refusal::SenderNotAllowed { application: Arc::clone(&application.name), allowed: application.senders.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Whether this client could log in here, if need be after STARTTLS.
    fn has_auth(&self, listener: &Listener, client: &Client) -> bool {
        self.logins.any() && (client.encrypted || listener.auth_without_tls || listener.tls != ListenerTls::Off)
    }

    /// Whether there is any credential at all.
    #[must_use]
    pub fn can_log_in(&self) -> bool {
        self.logins.any()
    }

    /// Whether AUTH is offered to this client as it is connected now.
    #[must_use]
    pub fn offers_auth(&self, listener: &Listener, client: &Client) -> bool {
        //= https://www.rfc-editor.org/rfc/rfc4954#section-6
        //# Modern implementations SHOULD NOT advertise mechanisms that are not permitted due to lack of
        //# encryption, unless an encryption layer of sufficient strength is currently being employed.
        let in_clear = listener.auth_without_tls && listener.tls != ListenerTls::Required;
        self.logins.any() && (client.encrypted || in_clear)
    }
}

/// No entries: any sender.
fn may_send_as(senders: &[SenderPattern], from: &ReversePath) -> bool {
    senders.is_empty() || senders.iter().any(|sender| sender.matches(from))
}

#[cfg(test)]
mod tests;
