//! Who a client is: an application, a host on a trusted network, or a stranger.

use std::sync::Arc;

use ipnet::IpNet;

use super::{Access, Client};
use crate::config::{Application, BareNewline, Listener, LongLines, MissingFields, OddCommands};

/// What a client has been recognised as.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The application that it is.
    pub application: Option<Arc<Application>>,
    /// What it was recognised by; `None` for a stranger, who may not relay.
    pub recognised: Option<Recognised>,
    /// The largest message in octets that it may send.
    pub max_message_size: u64,
    /// The most recipients of one message.
    pub max_recipients: usize,
    /// What is tolerated of it.
    pub tolerance: Tolerance,
}

/// What a client was recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognised {
    /// A credential of an application.
    Credential,
    /// A network of an application.
    ApplicationNetwork(IpNet),
    /// One of `access.trusted_networks`.
    TrustedNetwork(IpNet),
}

/// Which oddities are put up with: every setting has been decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// A bare CR or LF in content.
    pub bare_newline: BareNewline,
    /// A text line longer than 1000 octets.
    pub long_lines: LongLines,
    /// Oddly written commands.
    pub commands: OddCommands,
    /// A message without Date or Message-ID.
    pub missing_fields: MissingFields,
}

impl Access {
    /// Says who the client is at this listener.
    #[must_use]
    pub fn recognise(&self, _listener: &Listener, client: &Client) -> Standing {
        let trusted = self.settings.trusted_networks.iter().find(|network| network.contains(&client.address));
        Standing {
            application: None,
            recognised: trusted.copied().map(Recognised::TrustedNetwork),
            max_message_size: self.settings.max_message_size,
            max_recipients: self.settings.max_recipients,
            tolerance: Tolerance {
                bare_newline: self.settings.bare_newline,
                long_lines: LongLines::Keep,
                commands: OddCommands::Accept,
                missing_fields: MissingFields::Keep,
            },
        }
    }
}
