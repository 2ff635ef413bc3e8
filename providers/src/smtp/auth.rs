//! AUTH PLAIN (RFC 4616), AUTH LOGIN and AUTH XOAUTH2: which one, and what to say.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::contract::Failure;
use crate::oauth::{Token, Tokens};

/// Who we are, and the proof.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// A user name and its password.
    Password {
        /// The user name.
        username: String,
        /// Its password.
        password: String,
    },
    /// A mailbox and an access token for it.
    Token {
        /// The mailbox.
        username: String,
        /// The token.
        token: Token,
    },
}

/// A way to say them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// Both at once (RFC 4616).
    Plain,
    /// One after the other; never standardised, and all that some servers have.
    Login,
    /// An access token (<https://developers.google.com/workspace/gmail/imap/xoauth2-protocol>).
    Xoauth2,
}

impl Credentials {
    /// `text` of the host without the secret. Some hosts repeat the command that they refuse, and
    /// what they say goes into the log and into notifications.
    pub(super) fn mask(&self, text: &str) -> String {
        let mut masked = text.replace(&self.together(), "***");
        let secret = match self {
            Self::Password { password, .. } => password.as_str(),
            Self::Token { token, .. } => token.as_str(),
        };
        // A very short one would be found in any text.
        if !secret.is_empty() {
            masked = masked.replace(&STANDARD.encode(secret), "***");
        }
        if secret.len() >= 4 {
            masked = masked.replace(secret, "***");
        }
        masked
    }

    /// Whether `failure` is the host's refusal of this token, and another one may be had.
    pub(super) fn were_refused(&self, failure: &Failure, tokens: &Tokens) -> bool {
        let Failure::Unauthorized(diagnostic) = failure else { return false };
        let Self::Token { token, .. } = self else { return false };
        diagnostic.during == "AUTH" && diagnostic.code == Some(535) && tokens.refused(token)
    }

    /// The best mechanism for them of those that the server offers.
    pub(super) fn choose(&self, offered: &[String]) -> Option<Mechanism> {
        let offers = |name: &str| offered.iter().any(|mechanism| mechanism.eq_ignore_ascii_case(name));
        match self {
            Self::Token { .. } => offers("XOAUTH2").then_some(Mechanism::Xoauth2),
            Self::Password { .. } if offers("PLAIN") => Some(Mechanism::Plain),
            Self::Password { .. } => offers("LOGIN").then_some(Mechanism::Login),
        }
    }

    /// What they need, in words.
    pub(super) fn need(&self) -> &'static str {
        match self {
            Self::Password { .. } => "a user name and password need PLAIN or LOGIN",
            Self::Token { .. } => "an access token needs XOAUTH2",
        }
    }

    /// The response that holds them both.
    fn together(&self) -> String {
        STANDARD.encode(match self {
            Self::Password { username, password } => format!("\0{username}\0{password}"),
            Self::Token { username, token } => format!("user={username}\x01auth=Bearer {}\x01\x01", token.as_str()),
        })
    }
}

impl Mechanism {
    /// The AUTH command.
    pub(super) fn command(self, credentials: &Credentials) -> String {
        match self {
            Self::Plain => format!("AUTH PLAIN {}", credentials.together()),
            Self::Login => "AUTH LOGIN".to_owned(),
            // Tokens are long: together with the command they would not fit into the 512 octets that
            // every server takes (RFC 5321 section 4.5.3.1.4).
            Self::Xoauth2 => "AUTH XOAUTH2".to_owned(),
        }
    }

    /// The answer to the server's `nth` challenge, counted from 0; `None` when there is nothing left
    /// to say.
    pub(super) fn answer(self, nth: usize, credentials: &Credentials) -> Option<String> {
        match (self, credentials, nth) {
            // A server that did not take the initial response asks for it.
            (Self::Plain | Self::Xoauth2, _, 0) => Some(credentials.together()),
            // The second challenge explains the refusal, which comes when it was answered.
            (Self::Xoauth2, _, 1) => Some(String::new()),
            (Self::Login, Credentials::Password { username, .. }, 0) => Some(STANDARD.encode(username)),
            (Self::Login, Credentials::Password { password, .. }, 1) => Some(STANDARD.encode(password)),
            _ => None,
        }
    }

    /// What the server's `nth` challenge says about a refusal, if that is what it is for.
    pub(super) fn explanation(self, nth: usize, challenge: &str) -> Option<String> {
        /// More than any of them needs.
        const LONGEST: usize = 400;
        if self != Self::Xoauth2 || nth != 1 {
            return None;
        }
        let said = STANDARD.decode(challenge.trim()).ok()?;
        let said: String = String::from_utf8_lossy(&said).chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        (!said.is_empty()).then_some(said)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Password { username, .. } | Self::Token { username, .. }) = self;
        f.debug_struct("Credentials").field("username", username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(username: &str, password: &str) -> Credentials {
        Credentials::Password { username: username.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn a_password_that_the_host_repeats_is_masked_in_every_form() {
        let credentials = login("u", "hunter2secret");
        for secret in [credentials.together(), STANDARD.encode("hunter2secret"), "hunter2secret".to_owned()] {
            assert_eq!(credentials.mask(&format!("unknown command {secret}!")), "unknown command ***!");
        }
    }

    #[test]
    fn plain_is_preferred_and_login_is_enough() {
        let offer = |names: &[&str]| login("u", "p").choose(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(offer(&["LOGIN", "plain", "XOAUTH2"]), Some(Mechanism::Plain));
        assert_eq!(offer(&["XOAUTH2", "LOGIN"]), Some(Mechanism::Login));
        assert_eq!(offer(&["XOAUTH2", "CRAM-MD5"]), None);
    }

    #[test]
    fn the_password_is_sent_as_each_mechanism_has_it_and_never_shown() {
        let credentials = login("tim", "tanstaaftanstaaf");
        // The example of RFC 4616 section 4.
        assert_eq!(Mechanism::Plain.command(&credentials), "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm");
        assert_eq!(Mechanism::Login.answer(0, &credentials).as_deref(), Some("dGlt"));
        assert_eq!(Mechanism::Login.answer(1, &credentials).as_deref(), Some("dGFuc3RhYWZ0YW5zdGFhZg=="));
        assert_eq!(Mechanism::Login.answer(2, &credentials), None);
        assert!(!format!("{credentials:?}").contains("tanst"));
    }

    #[test]
    fn only_the_second_challenge_explains_a_token_s_refusal_and_only_its_text_is_kept() {
        let challenge = STANDARD.encode("{\"status\":\"400\",\r\n\"schemes\":\"Bearer\"}");
        assert_eq!(Mechanism::Xoauth2.explanation(1, &challenge).as_deref(), Some(r#"{"status":"400","schemes":"Bearer"}"#));
        assert_eq!(Mechanism::Xoauth2.explanation(0, &challenge), None);
        assert_eq!(Mechanism::Login.explanation(1, &challenge), None);
        for challenge in ["", "no base64", "===="] {
            assert_eq!(Mechanism::Xoauth2.explanation(1, challenge), None, "{challenge}");
        }
    }
}
