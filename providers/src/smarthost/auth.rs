//! AUTH PLAIN (RFC 4616) and AUTH LOGIN: which one, and what to say.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A user name and its password.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) password: String,
}

impl Credentials {
    /// `text` of the host without the password. Some hosts repeat the command that they refuse, and
    /// what they say goes into the log and into notifications.
    pub(super) fn mask(&self, text: &str) -> String {
        let mut masked = text.replace(&plain(self), "***").replace(&STANDARD.encode(&self.password), "***");
        // A very short one would be found in any text.
        if self.password.len() >= 4 {
            masked = masked.replace(&self.password, "***");
        }
        masked
    }
}

/// A way to say them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// Both at once (RFC 4616).
    Plain,
    /// One after the other; never standardised, and all that some servers have.
    Login,
}

impl Mechanism {
    /// The better one of those that the server offers.
    pub(super) fn choose(offered: &[String]) -> Option<Self> {
        let offers = |name: &str| offered.iter().any(|mechanism| mechanism.eq_ignore_ascii_case(name));
        if offers("PLAIN") {
            Some(Self::Plain)
        } else if offers("LOGIN") {
            Some(Self::Login)
        } else {
            None
        }
    }

    /// The AUTH command.
    pub(super) fn command(self, credentials: &Credentials) -> String {
        match self {
            Self::Plain => format!("AUTH PLAIN {}", plain(credentials)),
            Self::Login => "AUTH LOGIN".to_owned(),
        }
    }

    /// The answer to the server's `nth` challenge, counted from 0; `None` when there is nothing left
    /// to say.
    pub(super) fn answer(self, nth: usize, credentials: &Credentials) -> Option<String> {
        match (self, nth) {
            // A server that did not take the initial response asks for it.
            (Self::Plain, 0) => Some(plain(credentials)),
            (Self::Login, 0) => Some(STANDARD.encode(&credentials.username)),
            (Self::Login, 1) => Some(STANDARD.encode(&credentials.password)),
            _ => None,
        }
    }
}

fn plain(credentials: &Credentials) -> String {
    STANDARD.encode(format!("\0{}\0{}", credentials.username, credentials.password))
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_the_host_repeats_is_masked_in_every_form() {
        let credentials = Credentials { username: "u".to_owned(), password: "hunter2secret".to_owned() };
        for secret in [plain(&credentials), STANDARD.encode("hunter2secret"), "hunter2secret".to_owned()] {
            assert_eq!(credentials.mask(&format!("unknown command {secret}!")), "unknown command ***!");
        }
    }

    #[test]
    fn plain_is_preferred_and_login_is_enough() {
        let offer = |names: &[&str]| Mechanism::choose(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(offer(&["LOGIN", "plain", "XOAUTH2"]), Some(Mechanism::Plain));
        assert_eq!(offer(&["XOAUTH2", "LOGIN"]), Some(Mechanism::Login));
        assert_eq!(offer(&["XOAUTH2", "CRAM-MD5"]), None);
    }

    #[test]
    fn the_password_is_sent_as_each_mechanism_has_it_and_never_shown() {
        let credentials = Credentials { username: "tim".into(), password: "tanstaaftanstaaf".into() };
        // The example of RFC 4616 section 4.
        assert_eq!(Mechanism::Plain.command(&credentials), "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm");
        assert_eq!(Mechanism::Login.answer(0, &credentials).as_deref(), Some("dGlt"));
        assert_eq!(Mechanism::Login.answer(1, &credentials).as_deref(), Some("dGFuc3RhYWZ0YW5zdGFhZg=="));
        assert_eq!(Mechanism::Login.answer(2, &credentials), None);
        assert!(!format!("{credentials:?}").contains("tanst"));
    }
}
