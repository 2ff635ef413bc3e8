//! XCLIENT: a trusted proxy or filter tells who its client is, in the form that Postfix defined.
//!
//! It is offered to the addresses of `access.trusted_proxies` alone, and at listeners that say so: a
//! load balancer that only passes connections on would pass XCLIENT on, too. Whoever they name is treated as
//! if it had connected itself: a stranger stays a stranger behind a trusted proxy. That also holds where
//! the proxy passes on what its client says: once the client has been told and has introduced itself,
//! XCLIENT is refused, or the client could say that it is somebody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use postrider_providers::contract::xtext;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::{debug, info};

use super::command::CommandError;
use super::reply::{self, Reply};
use super::session::{Next, Session, Speaker, State};
use crate::spool::Spool;

/// The keyword of EHLO with what it can tell.
pub(super) const OFFER: &str = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";

/// What one command tells; `None`: nothing about this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct XClient {
    /// `ADDR`: the client's address.
    pub address: Option<Told<IpAddr>>,
    /// `LOGIN`: the application that the client has logged in as.
    pub login: Option<Told<Arc<str>>>,
    /// `NAME`: the client's host name. It is told in the log and decides nothing.
    pub name: Option<Told<Arc<str>>>,
}

/// A value, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told<V> {
    /// The value.
    Value(V),
    /// `[UNAVAILABLE]` or `[TEMPUNAVAIL]`.
    Unavailable,
}

impl<V> Told<V> {
    fn value(self) -> Option<V> {
        match self {
            Self::Value(value) => Some(value),
            Self::Unavailable => None,
        }
    }
}

impl XClient {
    /// Parses `ATTRIBUTE=value ...`, each value an xtext.
    ///
    /// # Errors
    /// 501, with what is wrong.
    pub fn parse(argument: &str) -> Result<Self, CommandError> {
        if argument.is_empty() {
            return Err(wrong("XCLIENT needs attributes, as in XCLIENT ADDR=192.0.2.1"));
        }
        let mut told = Self::default();
        for attribute in argument.split(' ').filter(|attribute| !attribute.is_empty()) {
            let Some((name, value)) = attribute.split_once('=') else {
                return Err(wrong(format!("{attribute:?} is no attribute; expected NAME=value")));
            };
            let Ok(value) = xtext::decode_octets(value) else {
                return Err(wrong(format!("the value of {name} is no xtext")));
            };
            let is_unavailable = ["[UNAVAILABLE]", "[TEMPUNAVAIL]"].iter().any(|word| value.eq_ignore_ascii_case(word));
            let text = || if is_unavailable { Told::Unavailable } else { Told::Value(Arc::from(value.as_str())) };
            match name.to_ascii_uppercase().as_str() {
                "ADDR" if is_unavailable => told.address = Some(Told::Unavailable),
                "ADDR" => {
                    let Some(address) = address(&value) else {
                        return Err(wrong(format!("{value:?} is no address; expected ADDR=192.0.2.1 or ADDR=IPV6:2001:db8::1")));
                    };
                    told.address = Some(Told::Value(address));
                }
                "LOGIN" => told.login = Some(text()),
                "NAME" => told.name = Some(text()),
                "PORT" | "DESTPORT" if !is_unavailable && value.parse::<u16>().is_err() => {
                    return Err(wrong(format!("{value:?} is no port")));
                }
                "PROTO" if !["SMTP", "ESMTP"].iter().any(|protocol| value.eq_ignore_ascii_case(protocol)) => {
                    return Err(wrong("expected PROTO=SMTP or PROTO=ESMTP"));
                }
                "DESTADDR" if !is_unavailable && address(&value).is_none() => return Err(wrong(format!("{value:?} is no address"))),
                // Nothing is decided by these: the client will say EHLO itself.
                "PORT" | "PROTO" | "HELO" | "DESTADDR" | "DESTPORT" => {}
                other => return Err(wrong(format!("the attribute {other} is not offered"))),
            }
        }
        Ok(told)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    /// Whether who speaks is believed about who the client is.
    pub(super) fn is_proxy(&self) -> bool {
        self.door.listener.xclient && self.speaker != Speaker::Client && self.front_end.access.trusts_proxy(self.peer)
    }

    /// Takes the proxy's word, and begins again where a client has just connected.
    pub(super) fn xclient(&mut self, told: XClient) -> Next {
        if self.speaker == Speaker::Client {
            info!(proxy = %self.peer, client = %self.client.address, "XCLIENT refused: a proxy has told who this client is");
            return Next::Reply(reply::XCLIENT_TOO_LATE);
        }
        if !self.is_proxy() {
            info!(client = %self.peer, "XCLIENT refused: the listener has no xclient = true, or the address is in none of access.trusted_proxies");
            return Next::Reply(reply::NOT_A_PROXY);
        }
        if matches!(self.state, State::Transaction(_) | State::Receiving(_)) {
            return Next::Reply(reply::XCLIENT_IN_TRANSACTION);
        }
        if let Some(Told::Value(login)) = &told.login
            && !self.front_end.access.has_application(login)
        {
            info!(proxy = %self.peer, %login, "XCLIENT refused: there is no such application");
            return Next::Reply(Reply::with_text(
                501,
                (5, 5, 4),
                format!("There is no application {login:?}; expected the name of an [app.NAME]"),
            ));
        }
        if let Some(address) = told.address {
            // Nobody's address is on nobody's network.
            self.client.address = address.value().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical();
        }
        if let Some(login) = told.login {
            self.told_login = login.value();
        }
        // Whatever the proxy has shown for itself is not its client's.
        self.client.login.clone_from(&self.told_login);
        if let Err(refusal) = self.is_of_client().and_then(|()| self.recognise()) {
            return Next::Close(refusal);
        }
        self.state = State::Connected;
        self.speaker = Speaker::Proxy;
        self.stranger_until = Instant::now() + self.front_end.settings.stranger_timeout;
        let name = told.name.and_then(Told::value);
        debug!(proxy = %self.peer, client = %self.client.address, name = name.as_deref(), login = self.client.login.as_deref(), "a proxy tells who the client is");
        Next::Reply(self.greeting())
    }
}

fn wrong(text: impl Into<String>) -> CommandError {
    CommandError(Reply::with_text(501, (5, 5, 4), text))
}

/// An address as Postfix writes it: IPv6 behind `IPV6:`.
fn address(text: &str) -> Option<IpAddr> {
    match text.split_at_checked(5) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("IPV6:") => rest.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_postfix_writes_them() {
        let told = XClient::parse("NAME=spike.example ADDR=168.100.189.2 PORT=25 PROTO=ESMTP HELO=+5B1.2.3.4+5D").unwrap();
        assert_eq!(told.name, Some(Told::Value("spike.example".into())));
        assert_eq!(told.address, Some(Told::Value("168.100.189.2".parse().unwrap())));
        assert_eq!(told.login, None);
        let told = XClient::parse("addr=IPV6:2001:db8::1  login=erp+40x NAME=[TEMPUNAVAIL] DESTADDR=IPv6:::1 DESTPORT=587").unwrap();
        assert_eq!(told.address, Some(Told::Value("2001:db8::1".parse().unwrap())));
        assert_eq!(told.login, Some(Told::Value("erp@x".into())));
        assert_eq!(told.name, Some(Told::Unavailable));
    }

    #[test]
    fn what_is_wrong_with_an_attribute_is_said() {
        for (argument, words) in [
            ("", "needs attributes"),
            ("ADDR", "no attribute"),
            ("ADDR=::1", "no address"),
            ("ADDR=1.2.3", "no address"),
            ("ADDR=IPV6:1.2.3.4", "no address"),
            ("PORT=70000", "no port"),
            ("PROTO=HTTP", "PROTO=SMTP"),
            ("NAME=a+0Ab", "no xtext"),
            ("NAME=a+", "no xtext"),
            ("COLOR=red", "COLOR is not offered"),
        ] {
            let error = XClient::parse(argument).unwrap_err().0;
            assert!(error.code() == 501 && error.to_string().contains(words), "{argument}: {error}");
        }
    }
}
