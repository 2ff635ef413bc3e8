//! What a notification returns of the message: all of it, or its header.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use postrider_providers::contract::{self, Body, BodyType, Message};

use super::Extent;

/// The largest message that is returned whole, in octets.
const MAX_WHOLE: u64 = 1024 * 1024;

/// How much of a header is returned.
const MAX_HEADER: usize = 64 * 1024;

/// The third part of a notification.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) content_type: &'static str,
    pub(super) encoding: Encoding,
    /// The header, in its encoding; empty when the whole message is returned.
    pub(super) header: Vec<u8>,
    /// The message, still to be encoded.
    pub(super) whole: Option<(Body, Encoding)>,
    /// Why the sender gets less than was asked for.
    pub(super) shortened: Option<&'static str>,
    /// As what the part is to be declared in MAIL.
    pub(super) body_type: BodyType,
}

/// The Content-Transfer-Encoding of the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    SevenBit,
    EightBit,
    Base64,
}

impl Encoding {
    /// Its name, where it has to be said.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::SevenBit => None,
            Self::EightBit => Some("8bit"),
            Self::Base64 => Some("base64"),
        }
    }
}

impl Returned {
    /// What is returned of `message`. `failure`: somebody will not get it; `utf8`: the way back
    /// carries SMTPUTF8.
    pub(super) async fn choose(message: &Message, failure: bool, utf8: bool, extent: Extent) -> Self {
        //= https://www.rfc-editor.org/rfc/rfc3461#section-4.3
        //# If a DSN contains no
        //# indications of delivery failure, only the headers of the message
        //# should be returned.
        let asked = failure && message.envelope.returned == Some(contract::Returned::Full);
        let shortened = match extent {
            _ if !asked => None,
            Extent::Header => None,
            Extent::HeaderOnly => Some("there was no room for more"),
            //= https://www.rfc-editor.org/rfc/rfc3461#section-6.2
            //# (However, if the length of the message is greater
            //# than some implementation-specified length, the MTA MAY return only
            //# the headers even if the RET parameter specified FULL.)
            Extent::AsAsked if message.body.len() > MAX_WHOLE => Some("the message is larger than 1 MiB"),
            Extent::AsAsked => match message.body.is_ascii().await {
                Ok(ascii) => return Self::whole(message, ascii, utf8),
                Err(_) => Some("the message can no longer be read"),
            },
        };
        Self { shortened, ..Self::header(message, utf8).await }
    }

    fn whole(message: &Message, ascii: bool, utf8: bool) -> Self {
        let global = message.envelope.smtputf8 && !ascii;
        let encoding = encoding(ascii, global, utf8);
        Self {
            content_type: if global { "message/global" } else { "message/rfc822" },
            encoding,
            header: Vec::new(),
            whole: Some((message.body.clone(), encoding)),
            shortened: None,
            body_type: body_type(encoding, message),
        }
    }

    async fn header(message: &Message, utf8: bool) -> Self {
        let header = read_header(&message.body).await;
        let global = message.envelope.smtputf8 && !header.is_ascii();
        let encoding = encoding(header.is_ascii(), global, utf8);
        let header = if encoding == Encoding::Base64 {
            let mut base64 = Base64Lines::default();
            [base64.encode(&header), base64.finish()].concat()
        } else {
            header
        };
        Self {
            content_type: if global { "message/global-headers" } else { "text/rfc822-headers" },
            encoding,
            header,
            whole: None,
            shortened: None,
            body_type: body_type(encoding, message),
        }
    }
}

fn encoding(ascii: bool, global: bool, utf8: bool) -> Encoding {
    match (ascii, global) {
        (true, _) => Encoding::SevenBit,
        //= https://www.rfc-editor.org/rfc/rfc6533#section-4.5
        //# If the return-path SMTP server does not support SMTPUTF8, then the
        //# undeliverable body part and headers MUST be encoded using a 7-bit
        //# Content-Transfer-Encoding such as "base64" or "quoted-printable"
        //# [RFC2045], as detailed in Section 4.
        (false, true) if !utf8 => Encoding::Base64,
        (false, _) => Encoding::EightBit,
    }
}

/// 8-bit content is declared if it was so when it came. Otherwise it goes back as it came, because a
/// host without 8BITMIME would not take what is declared.
fn body_type(encoding: Encoding, message: &Message) -> BodyType {
    if encoding == Encoding::EightBit { message.envelope.body_type } else { BodyType::SevenBit }
}

/// The header of the message; empty when it can no longer be read.
async fn read_header(body: &Body) -> Vec<u8> {
    let Ok(mut reader) = body.open().await else { return Vec::new() };
    let mut start = Vec::new();
    while start.len() < MAX_HEADER {
        match reader.chunk().await {
            Ok(Some(chunk)) => start.extend_from_slice(&chunk[..chunk.len().min(MAX_HEADER)]),
            Ok(None) | Err(_) => break,
        }
    }
    start.truncate(MAX_HEADER);
    let header: usize = start.split_inclusive(|&byte| byte == b'\n').take_while(|line| is_header_line(line)).map(<[u8]>::len).sum();
    start.truncate(header);
    start
}

/// Whether a line belongs to a header. A message need not have an empty line, and what comes after the
/// fields is not for the notification. A line that is not complete was cut off.
fn is_header_line(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    let is_field = name.len() < line.len() && !name.is_empty() && name.trim_ascii_end().iter().all(u8::is_ascii_graphic);
    let is_continuation = line.starts_with(b" ") || line.starts_with(b"\t");
    line.ends_with(b"\r\n") && (is_field || is_continuation)
}

/// Base64 in lines (RFC 2045 section 6.8), for what comes in pieces of any length.
#[derive(Debug, Default)]
pub(super) struct Base64Lines {
    /// Less than a line.
    rest: Vec<u8>,
}

impl Base64Lines {
    /// Octets in a line of 76 characters.
    const LINE: usize = 57;

    /// The lines that are complete with `bytes`.
    pub(super) fn encode(&mut self, bytes: &[u8]) -> Bytes {
        self.rest.extend_from_slice(bytes);
        let complete = self.rest.len() / Self::LINE * Self::LINE;
        let lines = Self::lines(&self.rest[..complete]);
        self.rest.drain(..complete);
        lines.into()
    }

    /// The last line.
    pub(super) fn finish(self) -> Bytes {
        Self::lines(&self.rest).into()
    }

    fn lines(bytes: &[u8]) -> String {
        bytes.chunks(Self::LINE).map(|line| STANDARD.encode(line) + "\r\n").collect()
    }
}
