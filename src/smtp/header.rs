//! The header of a message while it passes the door: hops are counted, Bcc fields are removed.
//!
//! Bcc would tell every recipient who else got the message (RFC 5322 section 3.6.3). Everything else
//! passes unchanged, octet for octet. The header is held back until its end is seen, at most
//! [`MAX_HEADER`] octets of it; the body is never held back.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

/// The largest header block.
pub const MAX_HEADER: usize = 256 * 1024;

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
}

/// The header block is larger than [`MAX_HEADER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderTooLarge;

impl HeaderFilter {
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
                None if self.held.len() > 1000 && !self.removing && !looks_like_header(&self.held) => self.ended = true,
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

    /// Gives back what is still held when the data has ended within the header.
    pub fn finish(&mut self) -> Bytes {
        self.ended = true;
        std::mem::take(&mut self.held).freeze()
    }

    /// The Received fields met: one for each hop so far (RFC 5321 section 6.3).
    pub fn hops(&self) -> usize {
        self.hops
    }

    fn line(&mut self, line: BytesMut, out: &mut BytesMut) {
        self.seen += line.len();
        if matches!(line.first(), Some(b' ' | b'\t')) {
            if !self.removing {
                out.unsplit(line);
            }
            return;
        }
        self.removing = false;
        match field_name(&line) {
            // The empty line, or a line that is no field: the body begins.
            None => {
                self.ended = true;
                out.unsplit(line);
            }
            Some(name) if name.eq_ignore_ascii_case(b"bcc") || name.eq_ignore_ascii_case(b"resent-bcc") => self.removing = true,
            Some(name) => {
                self.hops += usize::from(name.eq_ignore_ascii_case(b"received"));
                out.unsplit(line);
            }
        }
    }
}

/// The name of the field that a line begins, if it begins one (RFC 5322 section 2.2).
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr(b':', line)?;
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
}
