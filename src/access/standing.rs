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
    /// Says who the client is at this listener. A credential counts more than an address; of the
    /// networks that the address is in, the smallest; of two of the same size, the application's. A
    /// disabled application is still the one that it is: it must not pass as a host that is trusted.
    #[must_use]
    pub fn recognise(&self, listener: &Listener, client: &Client) -> Standing {
        let address = client.address.to_canonical();
        let smallest = |networks: &[IpNet]| {
            networks.iter().copied().filter(|network| network.contains(&address)).max_by_key(|network| network.prefix_len())
        };
        let trusted = smallest(&self.settings.trusted_networks);
        let by_network = self
            .applications
            .iter()
            .filter_map(|application| Some((application, smallest(&application.networks)?)))
            .max_by_key(|(_, network)| network.prefix_len())
            .filter(|(_, own)| trusted.is_none_or(|trusted| own.prefix_len() >= trusted.prefix_len()));

        let (application, recognised) = match (&client.login, by_network, trusted) {
            (Some(name), _, _) => (Some(self.application(name)), Some(Recognised::Credential)),
            (None, Some((application, network)), _) => (Some(Arc::clone(application)), Some(Recognised::ApplicationNetwork(network))),
            (None, None, Some(network)) => (None, Some(Recognised::TrustedNetwork(network))),
            (None, None, None) => (None, None),
        };
        // A device that logs in from inside is as old as one that need not.
        let is_inside = trusted.is_some() || by_network.is_some();
        let tolerance = self.tolerance(listener, application.as_deref(), recognised, is_inside);
        let limit = |own: fn(&Application) -> Option<u64>, all: u64| application.as_deref().and_then(own).unwrap_or(all);
        let max_recipients = application.as_deref().and_then(|application| application.max_recipients);
        Standing {
            max_message_size: limit(|application| application.max_message_size, self.settings.max_message_size),
            max_recipients: max_recipients.unwrap_or(self.settings.max_recipients),
            application,
            recognised,
            tolerance,
        }
    }

    /// The application of that name. A name of the password file that no table has is one of its own.
    fn application(&self, name: &Arc<str>) -> Arc<Application> {
        let known = self.applications.iter().find(|application| application.name == *name);
        known.map_or_else(|| Arc::new(Application::named(Arc::clone(name))), Arc::clone)
    }

    fn tolerance(
        &self,
        listener: &Listener,
        application: Option<&Application>,
        recognised: Option<Recognised>,
        is_inside: bool,
    ) -> Tolerance {
        let by_side = if is_inside {
            Tolerance {
                bare_newline: self.settings.bare_newline,
                long_lines: LongLines::Fold,
                commands: OddCommands::Accept,
                missing_fields: MissingFields::Add,
            }
        } else {
            Tolerance {
                bare_newline: BareNewline::Reject,
                long_lines: LongLines::Reject,
                commands: OddCommands::Reject,
                missing_fields: if recognised.is_some() { MissingFields::Add } else { MissingFields::Keep },
            }
        };
        let own = application.map(|application| application.tolerance).unwrap_or_default();
        let here = listener.tolerance;
        Tolerance {
            bare_newline: own.bare_newline.or(here.bare_newline).unwrap_or(by_side.bare_newline),
            long_lines: own.long_lines.or(here.long_lines).unwrap_or(by_side.long_lines),
            commands: own.commands.or(here.commands).unwrap_or(by_side.commands),
            missing_fields: own.missing_fields.or(here.missing_fields).unwrap_or(by_side.missing_fields),
        }
    }
}

#[cfg(test)]
mod tests;
