//! Turns every bare CR and LF of content that has no dot-stuffing into CRLF; pure.
//!
//! The counterpart of `decoder` for BDAT, whose content is counted and not marked. The result is the
//! same however the input is cut.

use bytes::{BufMut, BytesMut};
use memchr::memchr2;

/// The state between two pieces.
#[derive(Debug, Default)]
pub struct Newlines {
    /// The last octet was a CR, about which the next one decides.
    after_cr: bool,
    bare: u64,
}

impl Newlines {
    /// Passes `input` on to `out`.
    pub fn pass(&mut self, input: &[u8], out: &mut BytesMut) {
        let mut rest = input;
        while let Some(&first) = rest.first() {
            if self.after_cr {
                self.after_cr = false;
                out.put_slice(b"\r\n");
                if first == b'\n' {
                    rest = &rest[1..];
                } else {
                    self.bare += 1;
                }
                continue;
            }
            let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            out.put_slice(&rest[..end]);
            match rest.get(end) {
                Some(b'\r') => self.after_cr = true,
                Some(_) => {
                    self.bare += 1;
                    out.put_slice(b"\r\n");
                }
                None => return,
            }
            rest = &rest[end + 1..];
        }
    }

    /// The content has ended: a CR at its very end stood alone.
    pub fn finish(&mut self, out: &mut BytesMut) {
        if std::mem::take(&mut self.after_cr) {
            self.bare += 1;
            out.put_slice(b"\r\n");
        }
    }

    /// How many bare CRs and LFs were met.
    #[must_use]
    pub fn bare(&self) -> u64 {
        self.bare
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mended(input: &[u8], size: usize) -> (Vec<u8>, u64) {
        let (mut newlines, mut out) = (Newlines::default(), BytesMut::new());
        for piece in input.chunks(size) {
            newlines.pass(piece, &mut out);
        }
        newlines.finish(&mut out);
        (out.to_vec(), newlines.bare())
    }

    #[test]
    fn a_bare_cr_or_lf_becomes_crlf_and_is_counted() {
        for (input, output, bare) in [
            (&b""[..], &b""[..], 0),
            (b"a\r\nb\r\n", b"a\r\nb\r\n", 0),
            (b"a\nb\rc", b"a\r\nb\r\nc", 2),
            (b"\r\r\n\n", b"\r\n\r\n\r\n", 2),
            (b"end\r", b"end\r\n", 1),
            (b".\r\n.\r\n", b".\r\n.\r\n", 0),
        ] {
            for size in 1..=input.len().max(1) {
                assert_eq!(mended(input, size), (output.to_vec(), bare), "{}", input.escape_ascii());
            }
        }
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing_and_no_cr_or_lf_stands_alone(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a')], 0..60),
            size in 1usize..9,
        ) {
            let (output, bare) = mended(&input, size);
            prop_assert_eq!(&(output.clone(), bare), &mended(&input, 1000));
            let text = String::from_utf8(output).unwrap();
            prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
            prop_assert_eq!(bare == 0, text.as_bytes() == input.as_slice());
        }
    }
}
