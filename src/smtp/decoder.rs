//! Message data from the wire: finds its end, removes dot-stuffing, deals with bare CR and LF.
//!
//! Pure; the result is the same however the input is cut into pieces. Data ends at CRLF.CRLF and at
//! nothing else, whatever the policy for bare newlines is (RFC 5321 sections 2.3.8 and 4.1.1.4), so
//! there is no input on which this server and a conforming sender disagree about the end.

use bytes::{BufMut, BytesMut};
use memchr::memchr2;

/// The state of decoding one message's data.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bare CRs and LFs met so far.
    bare: u64,
}

/// Where in a line the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of the data, or just after CRLF.
    LineStart,
    /// After a dot at the start of a line.
    Dot,
    /// After `.` CR at the start of a line.
    DotCr,
    /// Within a line.
    Text,
    /// After a CR within a line.
    Cr,
    /// After the final CRLF.CRLF.
    End,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::LineStart, bare: 0 }
    }
}

impl Decoder {
    /// Decodes from `input` to `out` until the input or the data ends; returns the octets taken.
    /// What follows the end of data stays in `input`: it is the next command.
    pub fn decode(&mut self, input: &[u8], out: &mut BytesMut) -> usize {
        let mut at = 0;
        while at < input.len() && self.state != State::End {
            if self.state == State::Text {
                let line_end = memchr2(b'\r', b'\n', &input[at..]).map_or(input.len(), |offset| at + offset);
                out.put_slice(&input[at..line_end]);
                at = line_end;
                if at == input.len() {
                    break;
                }
            }
            self.step(input[at], out);
            at += 1;
        }
        at
    }

    fn step(&mut self, byte: u8, out: &mut BytesMut) {
        self.state = match (self.state, byte) {
            (State::LineStart, b'.') => State::Dot,
            (State::Dot, b'\r') => State::DotCr,
            (State::DotCr, b'\n') => State::End,
            // The dot was stuffing, and the CR behind it stood alone.
            (State::DotCr, _) => {
                self.bare_newline(out);
                self.in_text(byte, out)
            }
            (State::Cr, b'\n') => {
                out.put_slice(b"\r\n");
                State::LineStart
            }
            (State::Cr, _) => {
                self.bare_newline(out);
                self.in_text(byte, out)
            }
            (State::LineStart | State::Dot | State::Text, _) => self.in_text(byte, out),
            (State::End, _) => State::End,
        };
    }

    fn in_text(&mut self, byte: u8, out: &mut BytesMut) -> State {
        match byte {
            b'\r' => State::Cr,
            b'\n' => {
                // A dot after this is content: the sender saw no line start here, and did not stuff.
                self.bare_newline(out);
                State::Text
            }
            _ => {
                out.put_u8(byte);
                State::Text
            }
        }
    }

    fn bare_newline(&mut self, out: &mut BytesMut) {
        self.bare += 1;
        out.put_slice(b"\r\n");
    }

    /// Whether the end of data was met.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::End
    }

    /// How many bare CRs and LFs were met.
    #[must_use]
    pub fn bare_newlines(&self) -> u64 {
        self.bare
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes in pieces of `size`; gives content, bare newlines, and what was left; `None`: no end.
    fn decode(input: &[u8], size: usize) -> Option<(Vec<u8>, u64, Vec<u8>)> {
        let (mut decoder, mut out, mut taken) = (Decoder::default(), BytesMut::new(), 0);
        for piece in input.chunks(size) {
            taken += decoder.decode(piece, &mut out);
            if decoder.is_done() {
                return Some((out.to_vec(), decoder.bare_newlines(), input[taken..].to_vec()));
            }
        }
        None
    }

    #[test]
    fn data_ends_at_crlf_dot_crlf() {
        for (input, content) in [
            (&b".\r\n"[..], &b""[..]),
            (b"\r\n.\r\n", b"\r\n"),
            (b"a\r\n.\r\n", b"a\r\n"),
            (b"..a\r\n..\r\n.\r\n", b".a\r\n.\r\n"),
            (b".a\r\n.\r\n", b"a\r\n"),
            (b"a\0\xff\r\n.\r\n", b"a\0\xff\r\n"),
        ] {
            for size in 1..=input.len() {
                assert_eq!(decode(input, size), Some((content.to_vec(), 0, vec![])), "{input:?} by {size}");
            }
        }
        assert_eq!(decode(b"a\r\n.\r\nQUIT\r\n", 100).unwrap().2, b"QUIT\r\n");
    }

    #[test]
    fn nothing_else_ends_data() {
        for smuggled in [
            &b"\n.\n"[..],
            b"\n.\r\n",
            b"\r.\r\n",
            b"\r.\r",
            b"\r\n.\r",
            b"\r\n.\n",
            b"\r\r\n.\r\r\n",
            b"\r\n\0.\r\n",
            b"\r\n.\0\r\n",
            b"\r\n. \r\n",
        ] {
            for size in 1..=8 {
                let input = [b"a", smuggled, b"MAIL FROM:<x@y>\r\n"].concat();
                assert_eq!(decode(&input, size), None, "{smuggled:?}");
                let ended = [&input[..], b".\r\n"].concat();
                let (content, _, rest) = decode(&ended, size).unwrap();
                assert!(rest.is_empty());
                assert!(content.windows(4).any(|window| window == b"MAIL"), "the smuggled command is content");
            }
        }
    }

    #[test]
    fn bare_newlines_become_crlf_and_are_counted() {
        let (content, bare, _) = decode(b"a\nb\rc\n.\nd\r\n.\r\n", 3).unwrap();
        assert_eq!((content.as_slice(), bare), (&b"a\r\nb\r\nc\r\n.\r\nd\r\n"[..], 4));
    }

    proptest! {
        #[test]
        fn cutting_the_input_changes_nothing(input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a')], 0..60), size in 1usize..9) {
            let ended = [&input[..], b"\r\n.\r\n"].concat();
            prop_assert_eq!(decode(&ended, size), decode(&ended, ended.len()));
            let (content, _, _) = decode(&ended, size).unwrap();
            // What was decoded has no CR or LF that stands alone.
            let text = String::from_utf8(content).unwrap().replace("\r\n", "");
            prop_assert!(!text.contains(['\r', '\n']));
        }

        #[test]
        fn stuffing_and_decoding_gives_the_content_back(lines in proptest::collection::vec("[.a\\x00-\\x09]{0,5}", 0..20)) {
            let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let stuffed: String = lines.iter().map(|line| if line.starts_with('.') { format!(".{line}\r\n") } else { format!("{line}\r\n") }).collect();
            let (decoded, bare, _) = decode(format!("{stuffed}.\r\n").as_bytes(), 7).unwrap();
            prop_assert_eq!((decoded, bare), (content.into_bytes(), 0));
        }
    }
}
