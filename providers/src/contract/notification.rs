//! What the client asked about notifications: the parameters of RFC 3461, as they travel with the
//! envelope.

use std::fmt;
use std::sync::Arc;

/// `RET=` of MAIL (RFC 3461 section 4.3): how much of the message a failure notification returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// `FULL`: the whole message.
    Full,
    /// `HDRS`: its header only.
    Headers,
}

impl Returned {
    /// The value as in MAIL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }
}

/// `NOTIFY=` of RCPT (RFC 3461 section 4.1): which events the sender hears about. `NEVER` is none of
/// them; a recipient without the parameter is notified about failure, and may be about delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notify {
    /// When the message was delivered, or relayed to where notifications end.
    pub success: bool,
    /// When it bounced or expired.
    pub failure: bool,
    /// When it is late.
    pub delay: bool,
}

impl Notify {
    /// `NOTIFY=NEVER`.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };
}

impl fmt::Display for Notify {
    /// The value as in RCPT: `NEVER`, or a list such as `SUCCESS,DELAY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let asked: Vec<&str> = events.into_iter().filter_map(|(asked, name)| asked.then_some(name)).collect();
        f.write_str(if asked.is_empty() { "NEVER".to_owned() } else { asked.join(",") }.as_str())
    }
}

/// `ORCPT=` of RCPT (RFC 3461 section 4.2): whom the sender had meant, before anybody rewrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalRecipient {
    /// The address type, as in `rfc822` or `utf-8`.
    pub address_type: Arc<str>,
    /// The address, decoded from its xtext.
    pub address: Arc<str>,
}
