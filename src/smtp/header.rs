//! The header of a message while it passes the door: hops are counted, a signature, the Message-ID and the
//! priority are noticed, Bcc fields are removed, Date and Message-ID are added if asked for.
//!
//! Bcc would tell every recipient who else got the message (RFC 5322 section 3.6.3). Everything else
//! passes unchanged, octet for octet; what is added comes behind the last field. A line of the header is
//! held back until it is clear what it is, at most [`MAX_NAME`] octets of it; the body is never held back.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memchr;
use postrider_providers::contract::Priority;
use postrider_providers::mime::signature::Signature;

use super::census::Oddity;

/// The largest header block.
pub const MAX_HEADER: usize = 256 * 1024;

/// Within so many octets a line has its colon, or it is no field.
const MAX_NAME: usize = 1000;

/// So much is kept of the fields that tell whether the message is signed.
const MAX_KEPT: usize = 16 * 1024;

/// The longest Message-ID that is remembered: as long as a line may be (RFC 5322 section 2.1.1).
const MAX_MESSAGE_ID: usize = 998;

/// In which an application says how urgent a message is.
const PRIORITY: &str = "x-postrider-priority";

/// The field as which the line that begins a message in a mailbox file goes on; Postfix calls it so, too.
const MAILBOX_LINE: &[u8] = b"X-Mailbox-Line: ";

/// The fields that a message gets when it has none of the name (RFC 6409 sections 8.2 and 8.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingFields {
    /// The value of Date.
    pub date: String,
    /// The value of Message-ID, in angle brackets.
    pub message_id: String,
}

/// The filter of one message.
#[derive(Debug, Default)]
pub struct HeaderFilter {
    /// Header octets that are not passed on yet: they begin at a line start.
    held: BytesMut,
    /// It is clear what the line at hand is, and its start has gone where it belongs.
    in_line: bool,
    /// How many octets of the header have passed.
    seen: usize,
    /// Whether the field at hand is being removed, folded lines included.
    removing: bool,
    ended: bool,
    hops: usize,
    /// Whether the field at hand tells about signatures.
    keeping: bool,
    /// Those fields.
    kept: Vec<u8>,
    /// Whether the field at hand is one of which the value is remembered.
    noting: Option<Noted>,
    message_id: Value,
    priority: Value,
    has_date: bool,
    has_message_id: bool,
    /// What to add; taken when the header ends.
    missing: Option<MissingFields>,
    added: Vec<Oddity>,
}

/// A field of which the value is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    MessageId,
    Priority,
}

/// The first field of a name, as far as it is kept; empty if there was none.
#[derive(Debug, Default)]
struct Value(Vec<u8>);

/// The header block is larger than [`MAX_HEADER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderTooLarge;

impl HeaderFilter {
    /// A filter that adds what is missing; by default nothing is added.
    pub fn new(missing: Option<MissingFields>) -> Self {
        Self { missing, ..Self::default() }
    }

    /// Takes decoded data and gives back what may pass on.
    ///
    /// # Errors
    /// [`HeaderTooLarge`] when no end of the header comes in sight.
    pub fn pass(&mut self, data: BytesMut) -> Result<Bytes, HeaderTooLarge> {
        if self.ended {
            return Ok(data.freeze());
        }
        if self.held.is_empty() {
            self.held = data;
        } else {
            self.held.extend_from_slice(&data);
        }
        let mut out = BytesMut::new();
        while !self.ended {
            let end = memchr(b'\n', &self.held).map(|at| at + 1);
            let is_clear = self.in_line || end.is_some() || self.held.len() >= MAX_NAME;
            if self.held.is_empty() || !is_clear {
                return Ok(out.freeze());
            }
            let part = self.held.split_to(end.unwrap_or(self.held.len()));
            match std::mem::replace(&mut self.in_line, end.is_none()) {
                true => self.field(part, &mut out),
                false => self.line(part, &mut out),
            }
            if self.seen > MAX_HEADER {
                return Err(HeaderTooLarge);
            }
        }
        out.unsplit(std::mem::take(&mut self.held));
        Ok(out.freeze())
    }

    /// Gives back what is still to come when the data has ended within the header.
    pub fn finish(&mut self) -> Bytes {
        let (mut out, last) = (BytesMut::new(), std::mem::take(&mut self.held));
        if self.ended {
            return last.freeze();
        }
        let is_open = self.in_line || (!last.is_empty() && !last.ends_with(b"\n"));
        if !last.is_empty() {
            self.line(last, &mut out);
        }
        if !self.ended {
            let mut fields = BytesMut::new();
            self.end(true, &mut fields);
            if is_open && !self.removing && !fields.is_empty() {
                out.put_slice(b"\r\n");
            }
            out.unsplit(fields);
        }
        out.freeze()
    }

    /// What was missing, and has been added.
    pub fn added(&self) -> &[Oddity] {
        &self.added
    }

    /// What is signed about the message, as far as its header has passed.
    pub fn signature(&self) -> Option<Signature> {
        Signature::of(&self.kept)
    }

    /// The Message-ID without its angle brackets, the one that was added included; `None` if it is no text
    /// to be kept and searched for.
    pub fn message_id(&self) -> Option<String> {
        let text = self.message_id.text()?;
        let id = text.find('<').and_then(|open| text[open + 1..].split_once('>')).map_or(&*text, |(id, _)| id).trim();
        let is_kept = !id.is_empty() && id.len() <= MAX_MESSAGE_ID && !id.contains(char::is_control);
        is_kept.then(|| id.to_owned())
    }

    /// What the message says about its priority, if it is one.
    pub fn priority(&self) -> Option<Priority> {
        Priority::parse(self.priority.text()?.trim())
    }

    /// The Received fields met: one for each hop so far (RFC 5321 section 6.3).
    pub fn hops(&self) -> usize {
        self.hops
    }

    /// A line, or as much of its start as tells what it is.
    fn line(&mut self, line: BytesMut, out: &mut BytesMut) {
        let name = field_name(&line);
        let is_first = self.seen == 0;
        if is_first && name.is_none() && is_mailbox_line(&line) {
            // In front of the header it would end it, and all of it would be taken for the body.
            out.put_slice(MAILBOX_LINE);
        } else if is_first && self.missing.is_some() && matches!(line.first(), Some(b' ' | b'\t')) {
            // It continues nothing: this is a body without a header, and would be taken into the trace field.
            self.end(false, out);
            out.unsplit(line);
            return;
        } else if !matches!(line.first(), Some(b' ' | b'\t')) {
            let Some(name) = name else {
                // The empty line, or a line that is no field: the body begins.
                self.end(matches!(&line[..], b"\r\n" | b"\n"), out);
                out.unsplit(line);
                return;
            };
            self.removing = is(name, "bcc") || is(name, "resent-bcc");
            self.keeping = is(name, "content-type") || is(name, "dkim-signature");
            self.noting = self.noted(name);
            self.hops += usize::from(is(name, "received"));
            self.has_date |= is(name, "date");
            self.has_message_id |= is(name, "message-id");
        }
        self.field(line, out);
    }

    /// Whether the value of a field that begins is remembered: of several of a name, the first.
    fn noted(&self, name: &[u8]) -> Option<Noted> {
        if is(name, "message-id") && self.message_id.is_empty() {
            Some(Noted::MessageId)
        } else if is(name, PRIORITY) && self.priority.is_empty() {
            Some(Noted::Priority)
        } else {
            None
        }
    }

    /// Part of a field.
    fn field(&mut self, part: BytesMut, out: &mut BytesMut) {
        self.seen += part.len();
        match self.noting {
            Some(Noted::MessageId) => self.message_id.add(&part),
            Some(Noted::Priority) => self.priority.add(&part),
            None => {}
        }
        if self.keeping {
            let room = MAX_KEPT.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(&part[..part.len().min(room)]);
        }
        if !self.removing {
            out.unsplit(part);
        }
    }

    /// The header ends here: adds what is missing, and the empty line if the body comes without one.
    fn end(&mut self, has_empty_line: bool, out: &mut BytesMut) {
        self.ended = true;
        let Some(missing) = self.missing.take() else { return };
        if !self.has_date {
            out.put_slice(format!("Date: {}\r\n", missing.date).as_bytes());
            self.added.push(Oddity::MissingDate);
        }
        if !self.has_message_id {
            let field = format!("Message-ID: {}\r\n", missing.message_id);
            self.message_id.add(field.as_bytes());
            out.put_slice(field.as_bytes());
            self.added.push(Oddity::MissingMessageId);
        }
        if !has_empty_line && !self.added.is_empty() {
            out.put_slice(b"\r\n");
        }
    }
}

impl Value {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Part of the field, its name included.
    fn add(&mut self, part: &[u8]) {
        // What is longer is no Message-ID that would be kept.
        let room = (2 * MAX_MESSAGE_ID).saturating_sub(self.0.len());
        self.0.extend_from_slice(&part[..part.len().min(room)]);
    }

    /// The value, its lines joined.
    fn text(&self) -> Option<String> {
        let colon = memchr(b':', &self.0)?;
        let text = std::str::from_utf8(&self.0[colon + 1..]).ok()?;
        Some(text.replace("\r\n", ""))
    }
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

/// Whether this is the line that begins a message in a mailbox file, as in `From a@b Thu Jan  1 00:00:00
/// 1970` (RFC 4155). Not every line that begins with this word is.
fn is_mailbox_line(line: &[u8]) -> bool {
    let line = &line[..line.len().min(MAX_NAME)];
    let is_time = |part: &[u8]| matches!(part, [a, b, b':', c, d] if [a, b, c, d].iter().all(|digit| digit.is_ascii_digit()));
    line.strip_prefix(b">").unwrap_or(line).starts_with(b"From ") && line.windows(5).any(is_time)
}

/// The name of the field that a line begins, if it begins one (RFC 5322 section 2.2).
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr(b':', &line[..line.len().min(MAX_NAME)])?;
    let name = line[..colon].trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(input: &[u8], size: usize) -> (Vec<u8>, usize) {
        let (mut filter, mut out) = (HeaderFilter::default(), Vec::new());
        for piece in input.chunks(size) {
            out.extend_from_slice(&filter.pass(BytesMut::from(piece)).unwrap());
        }
        out.extend_from_slice(&filter.finish());
        (out, filter.hops())
    }

    #[test]
    fn bcc_is_removed_with_its_folded_lines_and_nothing_else_is() {
        let input =
            b"Received: a\r\nBcc: x@y,\r\n z@y\r\nSubject: s\r\n t\r\nRESENT-BCC : q@y\r\nreceived:b\r\nXBcc: k\r\n\r\nBcc: body\r\n";
        for size in [1, 2, 3, 7, 1000] {
            let (out, hops) = filter(input, size);
            assert_eq!(out, b"Received: a\r\nSubject: s\r\n t\r\nreceived:b\r\nXBcc: k\r\n\r\nBcc: body\r\n".as_slice(), "by {size}");
            assert_eq!(hops, 2);
        }
    }

    #[test]
    fn a_message_without_a_header_passes_unchanged() {
        for input in [&b""[..], b"\r\n", b"just text\r\nBcc: text\r\n", b"no line end", b"Subject: only a header\r\n"] {
            assert_eq!(filter(input, 4).0, input);
        }
        let long = vec![b'a'; 3_000_000];
        assert_eq!(filter(&long, 65536).0, long);
    }

    #[test]
    fn a_header_without_end_is_refused_before_it_fills_the_memory() {
        let mut filter = HeaderFilter::default();
        let piece = b"X-Field: some text of a field\r\n".repeat(1000);
        let refused = (0..20).any(|_| filter.pass(BytesMut::from(&piece[..])).is_err());
        assert!(refused);
    }

    #[test]
    fn a_line_without_end_is_not_held_back() {
        for (start, passes) in [("Subject: ", true), (" ", true), ("Bcc: ", false), ("", true)] {
            let (mut filter, mut held_back) = (HeaderFilter::default(), start.len());
            let passed = filter.pass(BytesMut::from(start)).unwrap();
            held_back -= passed.len();
            for _ in 0..200 {
                held_back += 1000;
                held_back -= filter.pass(BytesMut::from(&[b'x'; 1000][..])).unwrap().len();
                assert!(filter.held.len() < MAX_NAME, "{start:?}");
            }
            assert_eq!(held_back == 0, passes, "{start:?}");
            // The line end and the next field are still found.
            let rest = filter.pass(BytesMut::from(&b"x\r\nBcc: y\r\n\r\n"[..])).unwrap();
            assert!(rest.ends_with(b"\r\n") && (start.is_empty() || memchr(b'y', &rest).is_none()), "{start:?}");
        }
        assert_eq!(completed("Bcc: ".repeat(900).as_bytes(), 7).0, "Date: D\r\nMessage-ID: <i@h>\r\n");
        let open = format!("Subject: {}", "s".repeat(3000));
        assert_eq!(completed(open.as_bytes(), 7).0, format!("{open}\r\nDate: D\r\nMessage-ID: <i@h>\r\n"));
    }

    #[test]
    fn the_line_that_begins_a_message_in_a_mailbox_file_does_not_end_its_header() {
        let header = "Date: x\r\nMessage-ID: y\r\nBcc: secret@x\r\n\r\ntext\r\n";
        for start in ["From a@b Thu Jan  1 00:00:00 1970\r\n", ">From a@b Thu Jan 01 00:00 1970\r\n"] {
            let expected = format!("X-Mailbox-Line: {start}Date: x\r\nMessage-ID: y\r\n\r\ntext\r\n");
            for size in [1, 5, 1000] {
                assert_eq!(completed(format!("{start}{header}").as_bytes(), size), (expected.clone(), vec![]));
            }
        }
        // Elsewhere, and without a time, it is text.
        for text in ["From now on\r\nall is well\r\n", "Subject: s\r\nFrom a@b Thu Jan  1 00:00:00 1970\r\nBcc: z\r\n"] {
            assert_eq!(filter(text.as_bytes(), 5).0, text.as_bytes());
        }
    }

    #[test]
    fn text_that_begins_with_white_space_is_no_header() {
        for size in [1, 5, 5000] {
            for text in ["  Report\r\nof today\r\n".to_owned(), format!("  {}\r\nof today\r\n", "x".repeat(1200))] {
                assert_eq!(completed(text.as_bytes(), size).0, format!("Date: D\r\nMessage-ID: <i@h>\r\n\r\n{text}"));
            }
        }
    }

    fn completed(input: &[u8], size: usize) -> (String, Vec<Oddity>) {
        let missing = MissingFields { date: "D".to_owned(), message_id: "<i@h>".to_owned() };
        let (mut filter, mut out) = (HeaderFilter::new(Some(missing)), Vec::new());
        for piece in input.chunks(size) {
            out.extend_from_slice(&filter.pass(BytesMut::from(piece)).unwrap());
        }
        out.extend_from_slice(&filter.finish());
        (String::from_utf8(out).unwrap(), filter.added().to_vec())
    }

    #[test]
    fn date_and_message_id_come_behind_the_last_field_where_they_are_missing() {
        let both = [Oddity::MissingDate, Oddity::MissingMessageId];
        for (input, output, added) in [
            ("Subject: s\r\n\r\nDate: body\r\n", "Subject: s\r\nDate: D\r\nMessage-ID: <i@h>\r\n\r\nDate: body\r\n", &both[..]),
            ("DATE : x\r\n\r\nb\r\n", "DATE : x\r\nMessage-ID: <i@h>\r\n\r\nb\r\n", &both[1..]),
            ("message-id: x\r\nDate:\r\n y\r\n\r\n", "message-id: x\r\nDate:\r\n y\r\n\r\n", &[]),
            ("Resent-Date: x\r\n\r\n", "Resent-Date: x\r\nDate: D\r\nMessage-ID: <i@h>\r\n\r\n", &both),
            ("Subject: s\r\n", "Subject: s\r\nDate: D\r\nMessage-ID: <i@h>\r\n", &both),
            ("Subject: s", "Subject: s\r\nDate: D\r\nMessage-ID: <i@h>\r\n", &both),
            ("Bcc: s", "Date: D\r\nMessage-ID: <i@h>\r\n", &both),
            ("", "Date: D\r\nMessage-ID: <i@h>\r\n", &both),
            ("just text\r\n", "Date: D\r\nMessage-ID: <i@h>\r\n\r\njust text\r\n", &both),
            ("Date: x\r\nMessage-ID: y\r\ntext\r\n", "Date: x\r\nMessage-ID: y\r\ntext\r\n", &[]),
        ] {
            for size in [1, 2, 5, 1000] {
                assert_eq!(completed(input.as_bytes(), size), (output.to_owned(), added.to_vec()), "{input:?} by {size}");
            }
        }
    }

    /// What is noticed of a header.
    fn noticed(input: &[u8], size: usize, missing: Option<MissingFields>) -> (Option<String>, Option<Priority>) {
        let mut filter = HeaderFilter::new(missing);
        for piece in input.chunks(size) {
            filter.pass(BytesMut::from(piece)).unwrap();
        }
        filter.finish();
        (filter.message_id(), filter.priority())
    }

    #[test]
    fn the_message_id_and_the_priority_are_noticed_however_the_header_is_cut() {
        let long = format!("Message-ID: <{}@x>\r\n\r\n", "a".repeat(1200));
        let folded_long = format!("Message-ID:\r\n <{}>\r\n\r\n", "a".repeat(998));
        for (input, id, priority) in [
            ("Message-ID: <1@x.example>\r\nX-Postrider-Priority: high\r\n\r\n", Some("1@x.example"), Some(Priority::High)),
            ("MESSAGE-ID :\r\n\t<1@x> (comment)\r\nx-postrider-priority:\r\n BULK \r\nX: y\r\n\r\n", Some("1@x"), Some(Priority::Bulk)),
            ("Message-ID: 1@x\r\nX-Postrider-Priority: urgent\r\n\r\nX-Postrider-Priority: high\r\n", Some("1@x"), None),
            ("Message-ID: <1@x>\r\nMessage-ID: <2@x>\r\nX-Postrider-Priority: normal\r\n", Some("1@x"), Some(Priority::Normal)),
            ("Message-ID: <b\u{fc}cher@x>", Some("b\u{fc}cher@x"), None),
            ("Message-ID: <a\tb@x>\r\n\r\n", None, None),
            ("Message-ID: <>\r\n\r\n", None, None),
            ("Message-ID:\r\n\r\nMessage-ID: <body@x>\r\n", None, None),
            ("Resent-Message-ID: <1@x>\r\n\r\n", None, None),
            (&long, None, None),
            (&folded_long, Some(&folded_long[15..1013]), None),
        ] {
            for size in [1, 3, 10, 5000] {
                assert_eq!(noticed(input.as_bytes(), size, None), (id.map(str::to_owned), priority), "{input:?} by {size}");
            }
        }
        assert_eq!(noticed(b"Message-ID: <\xff@x>\r\n\r\n", 9, None).0, None);
        let missing = MissingFields { date: "D".to_owned(), message_id: "<i@h>".to_owned() };
        assert_eq!(noticed(b"Subject: s\r\n\r\n", 9, Some(missing)).0, Some("i@h".to_owned()), "the one that was added");
    }

    #[test]
    fn a_signature_is_noticed_however_the_header_is_cut() {
        let signed = "Subject: s\r\nContent-Type: multipart/signed;\r\n protocol=\"application/pgp-signature\"\r\nX: y\r\n\r\n";
        for (input, expected) in [
            (signed, Some(Signature::PgpMime)),
            ("DKIM-Signature: v=1;\r\n a=b\r\nContent-Type: text/plain\r\n\r\n", Some(Signature::Dkim)),
            ("Content-Type: text/plain\r\nX-Type: x\r\n\r\nContent-Type: multipart/signed\r\n", None),
            ("Content-Type: application/pkcs7-mime", Some(Signature::Smime)),
        ] {
            for size in [1, 3, 10, 1000] {
                let mut filter = HeaderFilter::default();
                for piece in input.as_bytes().chunks(size) {
                    filter.pass(BytesMut::from(piece)).unwrap();
                }
                filter.finish();
                assert_eq!(filter.signature(), expected, "{input:?} by {size}");
            }
        }
    }

    #[test]
    fn what_is_a_field_does_not_depend_on_how_a_long_line_is_cut() {
        for before in [990, 999, 1000, 1500] {
            let input = format!("{}: x\r\nBcc: y\r\n\r\n", "a".repeat(before));
            let whole = filter(input.as_bytes(), 100_000);
            assert_eq!(filter(input.as_bytes(), 7), whole);
            assert_eq!(whole.0.len() < input.len(), before < 1000, "a name of {before}");
        }
    }
}
