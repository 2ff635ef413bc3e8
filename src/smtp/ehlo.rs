//! HELO and EHLO: the client introduces itself, the server says what it offers.

use tokio::io::{AsyncRead, AsyncWrite};

use super::reply::Reply;
use super::session::{Greeting, Session, State};
use crate::spool::Spool;

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    pub(super) fn helo(&mut self, name: String) -> Reply {
        self.state = State::Identified(Greeting { name: name.into(), extended: false });
        Reply::plain(250, self.front_end.settings.hostname.clone())
    }

    /// EHLO also ends an open transaction (RFC 5321 section 4.1.4).
    pub(super) fn ehlo(&mut self, name: String) -> Reply {
        self.state = State::Identified(Greeting { name: name.into(), extended: true });
        let settings = &self.front_end.settings;
        Reply::plain(
            250,
            format!("{}\nPIPELINING\nSIZE {}\n8BITMIME\nENHANCEDSTATUSCODES\nSMTPUTF8\nHELP", settings.hostname, settings.max_message_size),
        )
    }
}
