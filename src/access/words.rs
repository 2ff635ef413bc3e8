//! Who a client is and why it is refused, in words for the administrator, with the setting that decides.

use std::fmt;

use super::{Recognised, Refusal, Standing};
use crate::config::SenderPattern;

impl fmt::Display for Recognised {
    /// In words, with the setting that decides, to follow the application's name if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential => f.write_str("by its credential (AUTH)"),
            Self::ApplicationNetwork(network) => {
                write!(f, "by its address, in the network {network} of the application (app.NAME.networks)")
            }
            Self::TrustedNetwork(network) => write!(f, "by its address, in the network {network} (access.trusted_networks)"),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.application, &self.recognised) {
            (Some(application), Some(Recognised::ApplicationNetwork(network))) => {
                write!(f, "application {0}, by its address in the network {network} (app.{0}.networks)", application.name)
            }
            (Some(application), Some(recognised)) => write!(f, "application {}, {recognised}", application.name),
            (_, Some(recognised)) => write!(f, "a trusted host, {recognised}"),
            (_, None) => f.write_str("a stranger"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TlsRequired => f.write_str("the listener takes mail with TLS only (tls = \"required\" of its [[listener]])"),
            Self::ApplicationDisabled(name) => write!(f, "the application is disabled (app.{name}.disabled)"),
            Self::AuthenticationRequired => f.write_str(
                "it has not logged in, and its address is neither in access.trusted_networks nor in the networks of an application",
            ),
            Self::SenderNotAllowed { application, allowed } => {
                write!(f, "the application may not use this sender, only {} (app.{application}.senders)", Listed(allowed))
            }
            Self::RelayDenied => f.write_str("its address is neither in access.trusted_networks nor in the networks of an application"),
        }
    }
}

/// Entries of `senders`, parted by commas.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a>(pub &'a [SenderPattern]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, sender) in self.0.iter().enumerate() {
            write!(f, "{}{sender}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
