//! Dot-stuffing (RFC 5321 section 4.5.2) of a body that comes in pieces.

use bytes::{BufMut, Bytes, BytesMut};

/// Doubles the dot at the start of each line, across the borders of pieces.
///
/// Content has CRLF line ends by contract, and then the result is exactly what RFC 5321 wants. A
/// bare CR or LF starts a line here, too: should one ever get this far, a dot behind it must not
/// look like the end of the message to a server that reads line ends loosely.
#[derive(Debug)]
pub(super) struct DotStuffer {
    /// The last two octets that passed.
    tail: [u8; 2],
}

impl DotStuffer {
    /// A stuffer at the start of the content, which is the start of a line.
    pub(super) fn new() -> Self {
        Self { tail: *b"\r\n" }
    }

    /// The next piece as it goes on the wire: uncopied, unless a dot must be doubled.
    pub(super) fn stuff(&mut self, piece: Bytes) -> Bytes {
        let mut before = self.tail[1];
        let mut stuffed: Option<BytesMut> = None;
        let mut copied = 0;
        for at in memchr::memchr_iter(b'.', &piece) {
            if at > 0 {
                before = piece[at - 1];
            }
            if matches!(before, b'\r' | b'\n') {
                let out = stuffed.get_or_insert_with(|| BytesMut::with_capacity(piece.len() + 64));
                out.put_slice(&piece[copied..at]);
                out.put_u8(b'.');
                copied = at;
            }
        }
        match piece[..] {
            [] => {}
            [only] => self.tail = [self.tail[1], only],
            [.., last_but_one, last] => self.tail = [last_but_one, last],
        }
        match stuffed {
            None => piece,
            Some(mut out) => {
                out.put_slice(&piece[copied..]);
                out.freeze()
            }
        }
    }

    /// What completes the last line, and nothing if it is complete: content then arrives as it is,
    /// without a line more.
    pub(super) fn line_end(&self) -> &'static [u8] {
        if self.tail == *b"\r\n" { b"" } else { b"\r\n" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_the_wire(pieces: &[&[u8]]) -> Vec<u8> {
        let mut stuffer = DotStuffer::new();
        let mut wire: Vec<u8> = pieces.iter().flat_map(|piece| stuffer.stuff(Bytes::copy_from_slice(piece))).collect();
        wire.extend_from_slice(stuffer.line_end());
        wire
    }

    #[test]
    fn dots_are_doubled_at_line_starts_wherever_the_pieces_are_cut() {
        for (content, expected) in [
            (&b""[..], &b""[..]),
            (b".", b"..\r\n"),
            (b".\r\n", b"..\r\n"),
            (b"a\r\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n"),
            (b"a\r\n..x.y\r\n\r\n", b"a\r\n...x.y\r\n\r\n"),
            (b"a.b.\r\n.", b"a.b.\r\n..\r\n"),
            (b"no end", b"no end\r\n"),
            (b"half end\r", b"half end\r\r\n"),
            (b"bare\n.\nlf\r\n", b"bare\n..\nlf\r\n"),
            (b"bare\r.\rcr\r\n", b"bare\r..\rcr\r\n"),
        ] {
            assert_eq!(on_the_wire(&[content]), expected);
            for cut in 0..=content.len() {
                let (left, right) = content.split_at(cut);
                assert_eq!(on_the_wire(&[left, b"", right]), expected, "cut at {cut} of {}", content.escape_ascii());
            }
            let octets: Vec<&[u8]> = content.chunks(1).collect();
            assert_eq!(on_the_wire(&octets), expected);
        }
    }

    #[test]
    fn a_piece_without_such_a_dot_is_not_copied() {
        let piece = Bytes::from_static(b"a.b\r\nc.\r\n");
        assert_eq!(DotStuffer::new().stuff(piece.clone()).as_ptr(), piece.as_ptr());
    }
}
