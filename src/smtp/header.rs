//! The header of a message while it passes the door: hops are counted, Bcc fields are removed, Date and
//! Message-ID are added if asked for.
//!
//! Bcc would tell every recipient who else got the message (RFC 5322 section 3.6.3). Everything else
//! passes unchanged, octet for octet; what is added comes behind the last field. The header is held back until its end is seen, at most
//! [`MAX_HEADER`] octets of it; the body is never held back.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memchr;

use super::census::Oddity;

/// The largest header block.
pub const MAX_HEADER: usize = 256 * 1024;

/// Within so many octets a line has its colon, or it is no field.
const MAX_NAME: usize = 1000;

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
    /// How many octets of the header have passed.
    seen: usize,
    /// Whether the field at hand is being removed, folded lines included.
    removing: bool,
    ended: bool,
    hops: usize,
    has_date: bool,
    has_message_id: bool,
    /// What to add; taken when the header ends.
    missing: Option<MissingFields>,
    added: Vec<Oddity>,
}

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
            match memchr(b'\n', &self.held) {
                Some(end) => {
                    let line = self.held.split_to(end + 1);
                    self.line(line, &mut out);
                }
                // No field name is this long: this is a body without a header.
                None if self.held.len() >= MAX_NAME && !looks_like_header(&self.held) => self.end(false, &mut out),
                None if self.seen + self.held.len() > MAX_HEADER => return Err(HeaderTooLarge),
                None => return Ok(out.freeze()),
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
        let is_open = !last.is_empty() && !last.ends_with(b"\n");
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

    /// The Received fields met: one for each hop so far (RFC 5321 section 6.3).
    pub fn hops(&self) -> usize {
        self.hops
    }

    fn line(&mut self, line: BytesMut, out: &mut BytesMut) {
        let name = field_name(&line);
        if !matches!(line.first(), Some(b' ' | b'\t')) {
            let Some(name) = name else {
                // The empty line, or a line that is no field: the body begins.
                self.end(matches!(&line[..], b"\r\n" | b"\n"), out);
                out.unsplit(line);
                return;
            };
            self.removing = is(name, "bcc") || is(name, "resent-bcc");
            self.hops += usize::from(is(name, "received"));
            self.has_date |= is(name, "date");
            self.has_message_id |= is(name, "message-id");
        }
        self.seen += line.len();
        if !self.removing {
            out.unsplit(line);
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
            out.put_slice(format!("Message-ID: {}\r\n", missing.message_id).as_bytes());
            self.added.push(Oddity::MissingMessageId);
        }
        if !has_empty_line && !self.added.is_empty() {
            out.put_slice(b"\r\n");
        }
    }
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

/// The name of the field that a line begins, if it begins one (RFC 5322 section 2.2).
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr(b':', &line[..line.len().min(MAX_NAME)])?;
    let name = line[..colon].trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}

fn looks_like_header(start: &[u8]) -> bool {
    matches!(start.first(), Some(b' ' | b'\t')) || field_name(start).is_some()
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
