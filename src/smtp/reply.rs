//! What the server says: reply code, enhanced status, text. Every constant cites its source.

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, BytesMut};
use postrider_providers::contract::EnhancedStatus;

use crate::access::{Listed, Refusal, Submission};

/// The longest text made at run time: a line of 512 octets less code, enhanced status and CRLF.
const MAX_TEXT: usize = 490;

/// One reply (RFC 5321 section 4.2), of one or several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    status: Option<EnhancedStatus>,
    text: Cow<'static, str>,
}

impl Reply {
    /// A reply with an enhanced status (RFC 2034); `text` may hold several lines, parted by `\n`.
    #[must_use]
    pub const fn new(code: u16, status: (u8, u16, u16), text: &'static str) -> Self {
        Self { code, status: Some(EnhancedStatus(status.0, status.1, status.2)), text: Cow::Borrowed(text) }
    }

    /// A reply whose text is made at run time. What came from a peer can neither leave the line, nor
    /// make it longer than a client must be able to take, nor bring in what is not ASCII.
    //= https://www.rfc-editor.org/rfc/rfc6531#section-3.7.4.2
    //# SMTPUTF8-aware SMTP servers MUST NOT include non-ASCII characters in
    //# replies except in the limited cases specifically permitted in this
    //# section.
    //= https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.1.5
    //# The maximum total length of a reply line including the reply code and
    //# the <CRLF> is 512 octets.
    #[must_use]
    pub fn with_text(code: u16, status: (u8, u16, u16), text: impl Into<String>) -> Self {
        let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
        let text: String = text.into().chars().map(printable).take(MAX_TEXT).collect();
        Self { code, status: Some(EnhancedStatus(status.0, status.1, status.2)), text: text.into() }
    }

    /// A reply that has no enhanced status: the greeting, EHLO, 354 (RFC 2034 section 4).
    #[must_use]
    pub fn plain(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, status: None, text: text.into() }
    }

    /// The reply code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Whether this is a refusal, which counts towards the session's error limit.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.code >= 400
    }

    /// Writes the reply in wire form.
    pub fn write_to(&self, out: &mut BytesMut) {
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { '-' } else { ' ' };
            out.put_slice(format!("{}{separator}", self.code).as_bytes());
            if let Some(status) = self.status {
                out.put_slice(format!("{status} ").as_bytes());
            }
            out.put_slice(line.as_bytes());
            out.put_slice(b"\r\n");
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code)?;
        if let Some(status) = self.status {
            write!(f, "{status} ")?;
        }
        f.write_str(&self.text.replace('\n', " / "))
    }
}

/// RFC 5321 section 4.1.1.10.
pub const CLOSING: Reply = Reply::new(221, (2, 0, 0), "Bye");
/// RFC 5321 section 4.1.1.9, and 4.1.1.5 for RSET.
pub const OK: Reply = Reply::new(250, (2, 0, 0), "Ok");
/// RFC 3463: other address status, valid.
pub const SENDER_OK: Reply = Reply::new(250, (2, 1, 0), "Ok");
/// RFC 3463: destination address valid.
pub const RECIPIENT_OK: Reply = Reply::new(250, (2, 1, 5), "Ok");
/// RFC 5321 section 3.5.3: VRFY answers without saying anything about the mailbox.
pub const CANNOT_VERIFY: Reply = Reply::new(252, (2, 5, 0), "Cannot verify the mailbox; will accept mail and try to deliver it");
/// RFC 5321 section 4.1.1.8.
pub const HELP: Reply = Reply::new(
    214,
    (2, 0, 0),
    "Postrider takes mail for relay: EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT\nWhat you may use is in the answer to EHLO\nWho may relay is set in access.trusted_networks and in [app.NAME]",
);

/// RFC 3207 section 4: the handshake may begin.
pub const START_TLS: Reply = Reply::new(220, (2, 0, 0), "Ready to start TLS");

/// RFC 5321 section 3.8: the server shuts down.
pub const SHUTTING_DOWN: Reply = Reply::new(421, (4, 3, 2), "Shutting down, try again later");
/// RFC 5321 section 4.5.3.2: the client was silent for too long.
pub const TIMED_OUT: Reply = Reply::new(421, (4, 4, 2), "No command for too long, closing");
/// A command or a message that has begun, but hardly goes on.
pub const TOO_SLOW: Reply = Reply::new(421, (4, 4, 2), "Too slow, closing");
/// A client that may not relay, and has not logged in for too long.
pub const STRANGER: Reply = Reply::new(421, (4, 7, 0), "Connected for too long without the right to relay, closing");
/// Too many refusals in one session.
pub const TOO_MANY_ERRORS: Reply = Reply::new(421, (4, 7, 0), "Too many errors, closing");
/// The listener's limit on sessions.
pub const TOO_MANY_CONNECTIONS: Reply = Reply::new(421, (4, 3, 2), "Too many connections, try again later");
/// The listener's limit on sessions of one client.
pub const TOO_MANY_CONNECTIONS_FROM_CLIENT: Reply = Reply::new(421, (4, 7, 0), "Too many connections from your address, try again later");
/// `max_connections` of an application.
pub const TOO_MANY_CONNECTIONS_OF_APPLICATION: Reply =
    Reply::new(421, (4, 7, 0), "Too many connections of your application, try again later");

/// RFC 5321 section 4.5.3.1.10: the client sends the rest in another transaction.
pub const TOO_MANY_RECIPIENTS: Reply = Reply::new(452, (4, 5, 3), "Too many recipients, send the rest in another transaction");
/// RFC 5321 section 4.2.3, 452.
pub const STORAGE_FULL: Reply = Reply::new(452, (4, 3, 1), "Insufficient system storage, try again later");
/// RFC 5321 section 4.2.3, 451.
pub const STORAGE_UNAVAILABLE: Reply = Reply::new(451, (4, 3, 0), "The queue cannot be written, try again later");

/// RFC 5321 section 4.5.3.1.4: command lines have at most 512 octets, and some more for parameters.
pub const LINE_TOO_LONG: Reply = Reply::new(500, (5, 5, 6), "Command line too long");
/// RFC 5321 section 2.3.8: only CRLF ends a line.
pub const LINE_ENDING: Reply = Reply::new(500, (5, 5, 2), "Commands must end with CRLF; a bare CR or LF was received");
/// RFC 5321 section 4.2.4: not a command.
pub const UNKNOWN_COMMAND: Reply = Reply::new(500, (5, 5, 1), "Command not recognized");
/// RFC 5321 section 4.2.4: a known command that this server does not offer.
pub const NOT_IMPLEMENTED: Reply = Reply::new(502, (5, 5, 1), "Command not implemented");
/// RFC 5321 section 3.5.2: EXPN is optional.
pub const NO_LISTS: Reply = Reply::new(502, (5, 5, 1), "Not offered: this relay has no mailing lists to expand");
/// RFC 1985, and RFC 5321 appendix F.1: TURN cannot be used safely.
pub const NOTHING_TO_FETCH: Reply =
    Reply::new(502, (5, 5, 1), "Not offered: no mail is kept here to be fetched; it is delivered as its routes say");
/// RFC 5321 appendix F.6: obsolete.
pub const NO_TERMINALS: Reply = Reply::new(502, (5, 5, 1), "Not offered: mail goes to mailboxes, not to terminals; use MAIL");
/// RFC 3030 section 2: where the chunk would end is not known.
pub const BAD_CHUNK: Reply =
    Reply::new(501, (5, 5, 4), "Expected BDAT octets, or BDAT octets LAST; closing, because the chunk cannot be told from commands");
/// RFC 3030 section 2.
pub const DATA_AFTER_BDAT: Reply = Reply::new(503, (5, 5, 1), "The message has begun with BDAT; send the rest with BDAT, or RSET");
/// RFC 3030 section 3 allows BINARYMIME to those alone who can pass it on.
pub const NO_BINARY: Reply = Reply::new(
    501,
    (5, 5, 4),
    "BINARYMIME is not offered, because the next server may not take it; encode the content and use BODY=8BITMIME",
);
/// RFC 8689 section 4.2.
pub const NO_REQUIRETLS: Reply =
    Reply::new(555, (5, 7, 30), "REQUIRETLS is not offered: this relay cannot promise TLS on the whole way to the recipient");
/// XCLIENT at a listener without it, or from an address that is not in `access.trusted_proxies`.
pub const NOT_A_PROXY: Reply = Reply::new(550, (5, 7, 1), "XCLIENT is for trusted proxies, at listeners that have it");
/// XCLIENT begins a session anew, which cannot be done within a transaction.
pub const XCLIENT_IN_TRANSACTION: Reply = Reply::new(503, (5, 5, 1), "A transaction is open; RSET ends it");
/// XCLIENT after the EHLO of the client that an XCLIENT before has told about.
pub const XCLIENT_TOO_LATE: Reply = Reply::new(503, (5, 5, 1), "XCLIENT must come before the EHLO of the client that it tells about");
/// RFC 5321 section 4.1.4.
pub const SAY_HELLO_FIRST: Reply = Reply::new(503, (5, 5, 1), "Send EHLO or HELO first");
/// RFC 5321 section 3.3.
pub const NESTED_MAIL: Reply = Reply::new(503, (5, 5, 1), "A transaction is open already; RSET ends it");
/// RFC 5321 section 3.3.
pub const NEED_MAIL: Reply = Reply::new(503, (5, 5, 1), "Send MAIL first");
/// RFC 5321 section 3.3.
pub const NEED_RECIPIENTS: Reply = Reply::new(503, (5, 5, 1), "Send RCPT first; no recipient was accepted");
/// STARTTLS on a connection that is encrypted already.
pub const TLS_ACTIVE: Reply = Reply::new(503, (5, 5, 1), "TLS is active already");
/// RFC 3207 section 4: the listener takes nothing in clear text.
pub const MUST_STARTTLS: Reply = Reply::new(530, (5, 7, 0), "Must issue a STARTTLS command first");
/// Said in clear text to a client that does not begin with a handshake where one is wanted.
pub const SPEAK_TLS: Reply =
    Reply::new(554, (5, 7, 0), "This port speaks TLS from the first octet; switch on SSL/TLS in the client, or use another port");
/// RFC 1870 section 6.1 and 6.3.
pub const TOO_LARGE: Reply = Reply::new(552, (5, 3, 4), "Message exceeds the maximum size; see SIZE in the answer to EHLO");
/// A header block that no mail program makes.
pub const HEADER_TOO_LARGE: Reply = Reply::new(552, (5, 3, 4), "The message header is larger than 256 KiB");
/// RFC 5321 section 6.3.
pub const TOO_MANY_HOPS: Reply = Reply::new(554, (5, 4, 6), "Too many Received fields: the message runs in a loop");
/// RFC 5321 section 2.3.8; `bare_newline = "reject"`.
pub const BARE_NEWLINE: Reply = Reply::new(550, (5, 6, 11), "The message has a bare CR or LF; lines must end with CRLF");
/// RFC 5321 section 4.5.3.1.6; `tolerance.long_lines = "reject"`.
pub const LONG_LINE: Reply =
    Reply::new(554, (5, 6, 0), "The message has a line longer than 1000 octets; lines must be shorter, or encoded");
//= https://www.rfc-editor.org/rfc/rfc6531#section-3.5
//# When messages are rejected because the MAIL
//# command requires an ASCII address, the reply-code 550 is returned
//# with the meaning "mailbox unavailable".
/// The same of a sender.
pub const SENDER_NEEDS_SMTPUTF8: Reply = Reply::new(550, (5, 6, 7), "An address outside ASCII needs the SMTPUTF8 parameter of MAIL");
/// RFC 6531 section 3.5: an address outside ASCII without the SMTPUTF8 parameter.
pub const NEED_SMTPUTF8: Reply = Reply::new(553, (5, 6, 7), "An address outside ASCII needs the SMTPUTF8 parameter of MAIL");

/// RFC 4954 section 6.
pub const AUTHENTICATION_REQUIRED: Reply = Reply::new(530, (5, 7, 0), "Authentication required");
/// RFC 4954 section 6.
pub const AUTHENTICATED: Reply = Reply::new(235, (2, 7, 0), "Authentication successful");
/// RFC 4954 section 6: the same words whatever was wrong.
pub const CREDENTIALS_INVALID: Reply = Reply::new(535, (5, 7, 8), "Authentication credentials invalid");
/// RFC 4954 section 6: the passwords that wait to be verified are too many.
pub const AUTH_OVERLOADED: Reply = Reply::new(454, (4, 7, 0), "Temporary authentication failure, try again later");
/// RFC 4954 section 6: too many failures from the client's address.
pub const AUTH_BLOCKED: Reply = Reply::new(454, (4, 7, 0), "Too many failed logins from your address, try again later");
/// Too many failures in one session.
pub const AUTH_FAILED_TOO_OFTEN: Reply = Reply::new(421, (4, 7, 0), "Too many failed logins, closing");
/// RFC 4954 section 6.
pub const AUTH_NEEDS_ENCRYPTION: Reply = Reply::new(538, (5, 7, 11), "Encryption required for requested authentication mechanism");
/// RFC 4954 section 4.
pub const AUTH_MECHANISM: Reply = Reply::new(504, (5, 5, 4), "Unrecognized authentication mechanism; expected PLAIN or LOGIN");
/// RFC 4954 section 4: at most one success in a session.
pub const AUTH_AGAIN: Reply = Reply::new(503, (5, 5, 1), "Already authenticated");
/// RFC 4954 section 4.
pub const AUTH_IN_TRANSACTION: Reply = Reply::new(503, (5, 5, 1), "AUTH is not allowed in a transaction; RSET ends it");
/// RFC 4954 section 4: AUTH is an extension, and only EHLO tells of it.
pub const SAY_EHLO_FIRST: Reply = Reply::new(503, (5, 5, 1), "Send EHLO first");
/// RFC 4954 section 4: the client sent `*`.
pub const AUTH_CANCELLED: Reply = Reply::new(501, (5, 7, 0), "Authentication cancelled");
/// RFC 4954 section 4.
pub const AUTH_ENCODING: Reply = Reply::new(501, (5, 5, 2), "Cannot decode the response; expected base64");
/// RFC 4616 section 2: what PLAIN consists of.
pub const AUTH_MESSAGE: Reply = Reply::new(501, (5, 5, 2), "The response is not as the mechanism has it");
/// RFC 4954 section 4.
pub const AUTH_LINE_TOO_LONG: Reply = Reply::new(500, (5, 5, 6), "Authentication exchange line is too long");

/// What the client hears when a rule of `access` refuses it.
#[must_use]
pub fn refusal(refusal: &Refusal, submission: &Submission<'_>) -> Reply {
    match refusal {
        Refusal::TlsRequired => MUST_STARTTLS,
        Refusal::AuthenticationRequired => AUTHENTICATION_REQUIRED,
        Refusal::ApplicationDisabled(name) => Reply::with_text(550, (5, 7, 1), format!("Application {name} is disabled")),
        Refusal::SenderNotAllowed { application, allowed } => {
            // The line has to stay a line.
            let (some, more) = (Listed(&allowed[..allowed.len().min(3)]), if allowed.len() > 3 { " and others" } else { "" });
            let from = submission.from;
            Reply::with_text(553, (5, 7, 1), format!("{from}: sender not allowed for application {application}; it may use {some}{more}"))
        }
        Refusal::RelayDenied => {
            let to = submission.to.map_or_else(String::new, |address| format!("<{address}>: "));
            Reply::with_text(554, (5, 7, 1), format!("{to}relay access denied for [{}]", submission.client.address))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_several_lines_repeats_code_and_status() {
        let mut out = BytesMut::new();
        Reply::new(214, (2, 0, 0), "one\ntwo").write_to(&mut out);
        assert_eq!(&out[..], b"214-2.0.0 one\r\n214 2.0.0 two\r\n");
    }

    //= https://www.rfc-editor.org/rfc/rfc6531#section-3.7.4.2
    //= type=test
    //# SMTPUTF8-aware SMTP servers MUST NOT include non-ASCII characters in
    //# replies except in the limited cases specifically permitted in this
    //# section.
    #[test]
    fn a_reply_is_ascii_whatever_the_client_said() {
        let mut out = BytesMut::new();
        Reply::with_text(550, (5, 4, 4), "<\u{fc}@b>: no route").write_to(&mut out);
        assert_eq!(&out[..], b"550 5.4.4 <?@b>: no route\r\n");
    }

    #[test]
    fn text_from_a_peer_cannot_begin_another_line() {
        let mut out = BytesMut::new();
        Reply::with_text(550, (5, 1, 0), "<a\r\n250 b>").write_to(&mut out);
        assert_eq!(&out[..], b"550 5.1.0 <a??250 b>\r\n");
    }

    #[test]
    fn text_from_a_peer_is_ascii_and_fits_into_a_line() {
        let mut out = BytesMut::new();
        Reply::with_text(550, (5, 123, 123), format!("<\u{fc}>{}", "x".repeat(600))).write_to(&mut out);
        assert!(out.starts_with(b"550 5.123.123 <?>xx") && out.ends_with(b"x\r\n") && out.len() <= 512, "{}", out.len());
    }
}
