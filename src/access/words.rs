//! Who a client is and why it is refused, in words for the administrator, with the setting that decides.

use std::fmt;

use super::{Recognised, Refusal, Standing};

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(application) = &self.application {
            write!(f, "application {}, ", application.name)?;
        }
        match (&self.recognised, &self.application) {
            (Some(Recognised::Credential), _) => f.write_str("by its credential (AUTH)"),
            (Some(Recognised::ApplicationNetwork(network)), Some(application)) => {
                write!(f, "by its address in the network {network} (app.{}.networks)", application.name)
            }
            (Some(Recognised::ApplicationNetwork(network)), None) => write!(f, "by its address in the network {network}"),
            (Some(Recognised::TrustedNetwork(network)), _) => {
                write!(f, "a trusted host, by its address, in the network {network} (access.trusted_networks)")
            }
            (None, _) => f.write_str("a stranger"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RelayDenied => f.write_str("its address is neither in access.trusted_networks nor in the networks of an application"),
        }
    }
}
