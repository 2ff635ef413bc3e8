//! HELO and EHLO: the client introduces itself, the server says what it offers.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::reply::Reply;
use super::session::{Greeting, Session, Speaker, State};
use super::xclient;
use crate::config::OddCommands;
use crate::spool::Spool;

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    pub(super) fn helo(&mut self, name: String) -> Reply {
        self.hand_over();
        self.state = State::Identified(Greeting { name: self.name(name), extended: false });
        Reply::plain(250, self.front_end.settings.hostname.clone())
    }

    /// EHLO also ends an open transaction (RFC 5321 section 4.1.4).
    pub(super) fn ehlo(&mut self, name: String) -> Reply {
        self.hand_over();
        self.state = State::Identified(Greeting { name: self.name(name), extended: true });
        let mut lines = vec![self.front_end.settings.hostname.clone()];
        lines.extend(self.offers());
        Reply::plain(250, lines.join("\n"))
    }

    /// From the introduction on that follows XCLIENT, it is the client that speaks.
    fn hand_over(&mut self) {
        if self.speaker == Speaker::Proxy {
            self.speaker = Speaker::Client;
        }
    }

    /// The name that the client gave, or its address as a literal (RFC 5321 section 4.1.4).
    fn name(&self, name: String) -> Arc<str> {
        match self.client.address {
            _ if !name.is_empty() => name.into(),
            IpAddr::V4(address) => format!("[{address}]").into(),
            IpAddr::V6(address) => format!("[IPv6:{address}]").into(),
        }
    }

    /// The extensions that this client is offered, one a line (RFC 5321 section 4.1.1.1).
    fn offers(&self) -> Vec<String> {
        let carriage = self.carriage();
        let own = self.standing.max_message_size;
        let size = carriage.max_message_size().map_or(own, |carried| carried.min(own));
        let mut offers = vec!["PIPELINING".to_owned(), format!("SIZE {size}")];
        // Nothing on the way makes 7-bit content of it (RFC 6152 section 3).
        offers.extend(carriage.eight_bit().then(|| "8BITMIME".to_owned()));
        offers.push("ENHANCEDSTATUSCODES".to_owned());
        // Only if somebody can pass it on: such mail cannot be made ASCII on its way. It needs 8BITMIME,
        // too (RFC 6531 section 3.1).
        offers.extend((carriage.smtputf8() && carriage.eight_bit()).then(|| "SMTPUTF8".to_owned()));
        offers.extend(["DSN", "CHUNKING", "HELP"].map(str::to_owned));
        offers.extend(self.offers_starttls().then(|| "STARTTLS".to_owned()));
        if self.front_end.access.offers_auth(&self.door.listener, &self.client) {
            //= https://www.rfc-editor.org/rfc/rfc4954#section-3
            //# The AUTH EHLO keyword contains as a parameter a space-separated list of the names of
            //# available [SASL] mechanisms.
            offers.push("AUTH PLAIN LOGIN".to_owned());
            // As servers wrote it before RFC 2554, and as some clients still look for it.
            if self.standing.tolerance.commands == OddCommands::Accept {
                offers.push("AUTH=PLAIN LOGIN".to_owned());
            }
        }
        offers.extend(self.is_proxy().then(|| xclient::OFFER.to_owned()));
        offers
    }
}
