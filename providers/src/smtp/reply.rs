//! An SMTP reply, and reading one from the bytes that have arrived.
//!
//! The parser is pure and total: it takes what is there and says what it is, or that more is needed.

use std::fmt;

use crate::contract::{Diagnostic, EnhancedStatus, Receipt};

/// More than any reply needs; a peer that sends more without an end is no SMTP server.
const MAX_REPLY: usize = 64 * 1024;

/// One reply (RFC 5321 section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    /// The three digits.
    pub(super) code: u16,
    /// The texts after them, one for each line.
    pub(super) lines: Vec<String>,
}

/// What arrived is no SMTP reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Garbage(pub(super) String);

impl Reply {
    /// Reads one reply from the start of `bytes`: the reply and its length, or `None` when its end
    /// has not arrived.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Garbage> {
        let mut reply: Option<Self> = None;
        let mut at = 0;
        while let Some(end) = memchr::memchr(b'\n', &bytes[at..]) {
            let line = &bytes[at..at + end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            at += end + 1;
            let (code, last, text) = parse_line(line).ok_or_else(|| garbage(line))?;
            let reply = reply.get_or_insert_with(|| Self { code, lines: Vec::new() });
            // RFC 5321 section 4.2.1: the code is the same on every line. The last one decides
            // where a server is at odds with itself, as most clients have it.
            reply.code = code;
            reply.lines.push(text);
            if last {
                return Ok(Some((reply.clone(), at)));
            }
        }
        match bytes.len() {
            // Whatever begins with no digit will not become a reply by waiting.
            1.. if !bytes[0].is_ascii_digit() => Err(garbage(&bytes[..bytes.len().min(80)])),
            MAX_REPLY.. => Err(Garbage(format!("a reply of more than {MAX_REPLY} octets"))),
            _ => Ok(None),
        }
    }

    /// 2yz: done.
    pub(super) fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 4yz: not now.
    pub(super) fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// The enhanced status, if the text begins with one of the reply's own class (RFC 2034
    /// section 4).
    pub(super) fn status(&self) -> Option<EnhancedStatus> {
        self.lines.first().and_then(|line| EnhancedStatus::parse_prefix(line)).filter(|status| u16::from(status.0) == self.code / 100)
    }

    /// The texts in one line, each enhanced status but the first left out.
    pub(super) fn text(&self) -> String {
        let status = self.status().map(|status| status.to_string());
        let mut text = self.lines.first().cloned().unwrap_or_default();
        for line in self.lines.iter().skip(1) {
            let line = status.as_deref().and_then(|status| line.strip_prefix(status)).unwrap_or(line).trim();
            if !line.is_empty() {
                text.push(' ');
                text.push_str(line);
            }
        }
        text
    }

    /// The reply in the words of a log line or a notification.
    pub(super) fn diagnostic(&self, during: &'static str) -> Diagnostic {
        Diagnostic { status: self.status(), ..Diagnostic::reply(during, self.code, self.text()) }
    }

    /// The reply as the provider's receipt.
    pub(super) fn receipt(&self) -> Receipt {
        let text = self.text();
        Receipt { remote_id: remote_id(&text).map(str::to_owned), reply: format!("{} {text}", self.code), ..Receipt::default() }
    }
}

/// Code, whether this is the last line, and the text.
fn parse_line(line: &[u8]) -> Option<(u16, bool, String)> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !matches!(digits, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9']) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let (last, text) = match rest {
        [] => (true, rest),
        [b' ', text @ ..] => (true, text),
        [b'-', text @ ..] => (false, text),
        _ => return None,
    };
    Some((code, last, String::from_utf8_lossy(text).trim_end().to_owned()))
}

fn garbage(line: &[u8]) -> Garbage {
    let shown = &line[..line.len().min(80)];
    Garbage(format!("\"{}\" is no SMTP reply; is this port really an SMTP server's?", shown.escape_ascii()))
}

/// The id that the next hop gave the message. There is no standard for it: Postfix and Exchange say
/// "queued as", Exim "id=", Amazon SES "Ok" and a long token.
fn remote_id(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let token = |at: usize| {
        let word = text[at..].split_ascii_whitespace().next()?;
        let word = word.trim_matches(|c: char| ",;.<>[]()\"'".contains(c));
        (!word.is_empty()).then_some(word)
    };
    for marker in ["queued as ", "queued with id ", "queued mail for delivery: ", " id=", "message-id: "] {
        if let Some(at) = lower.find(marker) {
            return token(at + marker.len());
        }
    }
    let mut words = text.split_ascii_whitespace().skip_while(|word| EnhancedStatus::parse_prefix(word).is_some());
    let ok = words.next().is_some_and(|word| word.trim_end_matches(':').eq_ignore_ascii_case("ok"));
    let word = words.next().filter(|_| ok)?;
    let long = word.len() >= 16 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    long.then_some(word)
}

impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_when_its_last_line_is_there() {
        let wire = b"250-5.1.1 hello\r\n250-5.1.1 PIPELINING\r\n250 SIZE 10\r\n354 go\r\n";
        for cut in 0..wire.len() - 8 {
            assert_eq!(Reply::parse(&wire[..cut]), Ok(None), "{cut}");
        }
        let (reply, length) = Reply::parse(wire).unwrap().unwrap();
        assert_eq!((reply.code, reply.lines.len(), &wire[length..]), (250, 3, &b"354 go\r\n"[..]));
        assert_eq!(reply.status(), None, "a status of another class is none");
        assert_eq!(Reply::parse(b"250\n").unwrap().unwrap().0.lines, [""]);
    }

    #[test]
    fn what_is_no_reply_is_refused_at_once() {
        for wire in ["HTTP/1.1 400 Bad Request\r\n", "25 x\r\n", "250_x\r\n", "199 x\r\n", "650 x\r\n", "\r\n", "\x16\x03\x01"] {
            assert!(Reply::parse(wire.as_bytes()).is_err(), "{wire:?}");
        }
        assert!(Reply::parse(&"250-x\r\n".repeat(10_000).into_bytes()).is_err());
    }

    #[test]
    fn the_text_of_several_lines_is_one_line_with_one_status() {
        let wire = b"550-5.1.1 No such user.\r\n550-5.1.1 Try again\r\n550 5.1.1  elsewhere\r\n";
        let diagnostic = Reply::parse(wire).unwrap().unwrap().0.diagnostic("RCPT");
        assert_eq!(diagnostic.text, "5.1.1 No such user. Try again elsewhere");
        assert_eq!((diagnostic.code, diagnostic.status), (Some(550), Some(EnhancedStatus(5, 1, 1))));
    }

    #[test]
    fn the_next_hops_id_is_found_where_it_usually_stands() {
        for (text, expected) in [
            ("2.0.0 Ok: queued as 4Xq2Fz1B7nz", Some("4Xq2Fz1B7nz")),
            ("2.0.0 from MTA(smtp:[::1]:10026): 250 2.0.0 Ok: queued as ABC123.", Some("ABC123")),
            ("OK id=1tDh2X-0004Ab-2c", Some("1tDh2X-0004Ab-2c")),
            ("Ok 0102018f2b7a4d3e-1a2b3c4d-5e6f-000000", Some("0102018f2b7a4d3e-1a2b3c4d-5e6f-000000")),
            ("2.6.0 <a@b> [InternalId=1, Hostname=x] Queued mail for delivery", None),
            ("2.0.0 Ok", None),
            ("Ok thanks", None),
            ("", None),
        ] {
            assert_eq!(remote_id(text), expected, "{text}");
        }
    }
}
