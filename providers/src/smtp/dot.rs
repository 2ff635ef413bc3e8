//! Dot-stuffing (RFC 5321 section 4.5.2) of a body that comes in pieces, safe for any octets.

use bytes::{BufMut, Bytes, BytesMut};

/// Doubles the dot at the start of each line, across the borders of pieces.
///
/// Content has CRLF line ends by contract, and then the result is exactly what RFC 5321 wants. Should
/// a bare CR or LF ever get this far, it becomes CRLF: on the wire there is nothing that a server
/// which reads line ends loosely could take for the end of the message.
#[derive(Debug)]
pub(super) struct DotStuffer {
    /// A line begins with the next octet.
    line_start: bool,
    /// The last octet was a CR, and has been passed on.
    after_cr: bool,
}

/// A piece on its way out: uncopied until something is inserted.
struct Copying<'a> {
    piece: &'a Bytes,
    out: BytesMut,
    copied: usize,
}

impl Copying<'_> {
    fn insert(&mut self, octet: u8, before: usize) {
        self.out.put_slice(&self.piece[self.copied..before]);
        self.out.put_u8(octet);
        self.copied = before;
    }
}

impl DotStuffer {
    /// A stuffer at the start of the content, which is the start of a line.
    pub(super) fn new() -> Self {
        Self { line_start: true, after_cr: false }
    }

    /// The next piece as it goes on the wire: uncopied, unless something must be inserted.
    pub(super) fn stuff(&mut self, piece: Bytes) -> Bytes {
        let mut wire = Copying { piece: &piece, out: BytesMut::new(), copied: 0 };
        let mut next = 0;
        for at in memchr::memchr3_iter(b'.', b'\r', b'\n', &piece) {
            let octet = piece[at];
            self.text(&mut wire, next, at);
            if self.after_cr && octet != b'\n' {
                self.complete(&mut wire, at);
            }
            match octet {
                b'.' => {
                    //= https://www.rfc-editor.org/rfc/rfc5321#section-4.5.2
                    //# Before sending a line of mail text, the SMTP client checks the
                    //# first character of the line.  If it is a period, one additional
                    //# period is inserted at the beginning of the line.
                    if self.line_start {
                        wire.insert(b'.', at);
                    }
                    self.line_start = false;
                }
                b'\r' => (self.line_start, self.after_cr) = (false, true),
                _ => {
                    if !self.after_cr {
                        wire.insert(b'\r', at);
                    }
                    (self.line_start, self.after_cr) = (true, false);
                }
            }
            next = at + 1;
        }
        self.text(&mut wire, next, piece.len());
        let Copying { mut out, copied, .. } = wire;
        if out.is_empty() {
            return piece;
        }
        out.put_slice(&piece[copied..]);
        out.freeze()
    }

    /// What completes the last line, and nothing if it is complete: content then arrives as it is,
    /// without a line more.
    pub(super) fn line_end(&self) -> &'static [u8] {
        match (self.after_cr, self.line_start) {
            (true, _) => b"\n",
            (false, true) => b"",
            (false, false) => b"\r\n",
        }
    }

    /// Octets that are no dot and no line end, if there are any.
    fn text(&mut self, wire: &mut Copying<'_>, from: usize, to: usize) {
        if from < to {
            if self.after_cr {
                self.complete(wire, from);
            }
            self.line_start = false;
        }
    }

    /// The CR that was passed on stood alone: the LF is supplied.
    fn complete(&mut self, wire: &mut Copying<'_>, before: usize) {
        wire.insert(b'\n', before);
        (self.line_start, self.after_cr) = (true, false);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            (b"half end\r", b"half end\r\n"),
            (b"bare\n.\nlf\r\n", b"bare\r\n..\r\nlf\r\n"),
            (b"bare\r.\rcr\r\n", b"bare\r\n..\r\ncr\r\n"),
            (b"\r\r\n.\r\r\n", b"\r\n\r\n..\r\n\r\n"),
            (b"\n\0.\r", b"\r\n\0.\r\n"),
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

    /// The lines that a server reads, up to the dot; it takes CRLF alone for a line end.
    fn read(wire: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        let mut rest = wire;
        while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
            let line = &rest[..end];
            assert_ne!(line, b".", "the content ends here");
            assert!(memchr::memchr2(b'\r', b'\n', line).is_none(), "a CR or LF stands alone");
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            content.extend_from_slice(b"\r\n");
            rest = &rest[end + 2..];
        }
        assert!(rest.is_empty(), "the last line has no end");
        content
    }

    proptest! {
        #[test]
        fn no_octets_however_cut_look_like_the_end_of_the_message(
            content in proptest::collection::vec(prop_oneof![4 => Just(b'.'), 4 => Just(b'\r'), 4 => Just(b'\n'), 1 => any::<u8>()], 0..80),
            size in 1usize..20,
        ) {
            let pieces: Vec<&[u8]> = content.chunks(size).collect();
            let wire = on_the_wire(&pieces);
            prop_assert_eq!(&wire, &on_the_wire(&[&content]), "cutting changes nothing");
            let squeezed = |text: &[u8]| text.iter().copied().filter(|octet| !b"\r\n".contains(octet)).collect::<Vec<u8>>();
            prop_assert_eq!(squeezed(&read(&wire)), squeezed(&content), "everything arrives");
            // CRLF everywhere, as the contract has it: then the content arrives octet for octet.
            let proper = read(&wire);
            prop_assert_eq!(read(&on_the_wire(&[&proper])), proper);
        }
    }
}
