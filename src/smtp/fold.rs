//! Breaks text lines that are longer than SMTP allows; pure.
//!
//! A line is broken before its last white space within the limit, which then begins the continuation:
//! in a header that is folding (RFC 5322 section 2.2.3), in a body the words stay apart. Without such
//! white space it is broken at the limit, and a space begins the continuation; a UTF-8 sequence is
//! never cut. No piece consists of white space alone, because some readers take such a line for the
//! end of the header; so a run of white space that crosses the limit is shortened.
//!
//! Lines end with CRLF here already. At most one line of 1000 octets is held back, and the result is
//! the same however the input is cut.

use bytes::{BufMut, BytesMut};
use memchr::memchr;

//= https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.1.6
//# The maximum total length of a text line including the <CRLF> is 1000
//# octets (not counting the leading dot duplicated for transparency).
/// The longest line, with its CRLF.
const MAX_LINE: usize = 1000;

/// The longest line, without its CRLF.
const MAX_TEXT: usize = MAX_LINE - 2;

/// The folding of one message.
#[derive(Debug, Default)]
pub struct LineFolder {
    /// The line at hand as far as it has come; shorter than [`MAX_LINE`], and without LF.
    held: Vec<u8>,
    /// White space that comes next is dropped: as much as fits has passed.
    shortening: bool,
    /// How often a line was broken or shortened.
    folded: u64,
}

impl LineFolder {
    /// Takes content, and gives back what may pass on.
    pub fn pass(&mut self, data: &[u8]) -> BytesMut {
        let mut out = BytesMut::with_capacity(self.held.len() + data.len() + 64);
        let mut rest = data;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            rest = after;
            if self.held.is_empty() && line.len() <= MAX_LINE && line.ends_with(b"\n") && !self.shortening {
                out.put_slice(line);
            } else {
                self.line(line, &mut out);
            }
        }
        out
    }

    /// Gives back what is still held when the content ends without a line end.
    pub fn finish(&mut self) -> BytesMut {
        let text = self.held.len() - usize::from(self.held.ends_with(b"\r"));
        let mut out = BytesMut::new();
        if text > MAX_TEXT {
            self.fold(&mut out);
            // What still crosses the limit is white space.
            self.held.truncate(MAX_TEXT);
        }
        out.put_slice(&std::mem::take(&mut self.held));
        out
    }

    /// How often a line was broken or shortened.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// Part of a line, up to its LF at most.
    fn line(&mut self, mut part: &[u8], out: &mut BytesMut) {
        while !part.is_empty() {
            if self.shortening {
                let text = part.iter().position(|byte| !is_space(*byte)).unwrap_or(part.len());
                part = &part[text..];
                if part.is_empty() {
                    return;
                }
                self.shortening = false;
            }
            let room = MAX_LINE - self.held.len();
            let (now, later) = part.split_at(part.len().min(room));
            self.held.extend_from_slice(now);
            part = later;
            if self.held.ends_with(b"\n") {
                out.put_slice(&self.held);
                self.held.clear();
            } else if self.held.len() == MAX_LINE {
                // Without an LF among so many octets, the line is too long.
                self.fold(out);
            }
        }
    }

    /// Makes the held line shorter: by the piece that can go, or by white space.
    fn fold(&mut self, out: &mut BytesMut) {
        self.folded += 1;
        let is_text = |byte: &u8| !is_space(*byte) && *byte != b'\r';
        let first = self.held.iter().position(is_text);
        let last = self.held.iter().rposition(is_text);
        let (Some(first), Some(last)) = (first, last) else {
            let has_cr = self.held.ends_with(b"\r");
            self.held.truncate(1);
            self.held.extend(has_cr.then_some(b'\r'));
            self.shortening = !has_cr;
            return;
        };
        if first >= MAX_TEXT - 3 {
            self.held.drain(1..first);
            return;
        }
        let limit = MAX_TEXT.min(last.saturating_sub(1));
        let space = (first + 1..=limit).rev().find(|&at| is_space(self.held[at]));
        match space {
            Some(at) => self.emit(at, b"", out),
            None if last < MAX_TEXT => {
                // Nothing but white space crosses the limit.
                if self.held.ends_with(b"\r") {
                    self.held.truncate(MAX_TEXT);
                    self.held.push(b'\r');
                } else {
                    self.held.truncate(MAX_TEXT + 1);
                    self.shortening = true;
                }
            }
            None => {
                let is_inside = |at: usize| self.held[at] & 0b1100_0000 == 0b1000_0000;
                let start = (MAX_TEXT - 3..=MAX_TEXT).rev().find(|&at| !is_inside(at));
                self.emit(start.unwrap_or(MAX_TEXT), b" ", out);
            }
        }
    }

    /// Ends the line at `at`; `before` begins the continuation.
    fn emit(&mut self, at: usize, before: &[u8], out: &mut BytesMut) {
        out.put_slice(&self.held[..at]);
        out.put_slice(b"\r\n");
        let rest = self.held.split_off(at);
        self.held.clear();
        self.held.extend_from_slice(before);
        self.held.extend_from_slice(&rest);
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(input: &[u8], size: usize) -> Vec<u8> {
        let mut folder = LineFolder::default();
        let mut out: Vec<u8> = input.chunks(size).flat_map(|piece| folder.pass(piece)).collect();
        out.extend_from_slice(&folder.finish());
        out
    }

    fn lines(text: &[u8]) -> Vec<String> {
        String::from_utf8(text.to_vec()).unwrap().split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn a_line_is_broken_before_its_last_white_space_within_the_limit() {
        let words = "word ".repeat(300) + "end";
        let out = folded(format!("X: {words}\r\n").as_bytes(), 7);
        let lines = lines(&out);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [997, 509, 0]);
        assert!(lines[1].starts_with(" word"));
        assert_eq!(lines.concat(), format!("X: {words}"), "unfolding gives the line back");
    }

    //= https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.1.6
    //= type=test
    //# The maximum total length of a text line including the <CRLF> is 1000
    //# octets (not counting the leading dot duplicated for transparency).
    #[test]
    fn a_line_of_998_octets_passes_and_one_more_is_broken() {
        let fits = [vec![b'a'; 998], b"\r\n".to_vec()].concat();
        assert_eq!(folded(&fits, 333), fits);
        let over = [vec![b'a'; 999], b"\r\n".to_vec()].concat();
        assert_eq!(folded(&over, 333), [vec![b'a'; 998], b"\r\n a\r\n".to_vec()].concat());
    }

    #[test]
    fn a_utf_8_sequence_is_not_cut() {
        for before in 990..999 {
            let line = "a".repeat(before) + &"\u{1f600}".repeat(200);
            let lines = lines(&folded(format!("{line}\r\n").as_bytes(), 100));
            assert!(lines.iter().all(|line| line.len() <= 998));
            assert_eq!(lines.join("").replace(' ', ""), line);
        }
    }

    #[test]
    fn white_space_that_crosses_the_limit_is_shortened_and_never_stands_alone_in_a_line() {
        let spaces = " ".repeat(3000);
        for line in [
            format!("{}{spaces}", "a".repeat(998)),
            format!("{}{spaces}b", "a".repeat(998)),
            format!("a{spaces}"),
            format!("a{spaces}b"),
            format!("{spaces}b"),
            spaces.clone(),
            format!("{}{spaces}{}", "a ".repeat(400), "b".repeat(1500)),
        ] {
            let out = lines(&folded(format!("{line}\r\n").as_bytes(), 11));
            assert!(out.iter().all(|line| line.len() <= 998), "{:?}", out.iter().map(String::len).collect::<Vec<_>>());
            let alone = out.iter().filter(|line| !line.is_empty() && line.trim().is_empty()).count();
            assert_eq!(alone, usize::from(line.trim().is_empty()));
            assert_eq!(out.concat().replace(' ', ""), line.replace(' ', ""));
        }
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let run =
            (prop_oneof![Just("a"), Just(" "), Just("\t"), Just("\u{fc}"), Just("\r\n"), Just("ab "), Just("\u{1f600}")], 1usize..1200);
        proptest::collection::vec(run, 0..8)
            .prop_map(|runs| runs.iter().map(|(text, count)| text.repeat(*count)).collect::<String>().into_bytes())
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing_and_no_line_is_too_long(input in text(), size in 1usize..1500) {
            let whole = folded(&input, input.len().max(1));
            prop_assert_eq!(&folded(&input, size), &whole);
            prop_assert!(lines(&whole).iter().all(|line| line.len() <= 998));
            let squeezed = |text: &[u8]| text.iter().copied().filter(|byte| !b" \t\r\n".contains(byte)).collect::<Vec<u8>>();
            prop_assert_eq!(squeezed(&whole), squeezed(&input), "only white space may change");
        }

        #[test]
        fn what_fits_passes_unchanged(lines in proptest::collection::vec((prop_oneof![Just("a"), Just(" "), Just("\u{20ac}")], 0usize..332), 0..10), size in 1usize..1500) {
            let input: String = lines.iter().map(|(text, count)| text.repeat(*count) + "\r\n").collect();
            let mut folder = LineFolder::default();
            let mut out: Vec<u8> = input.as_bytes().chunks(size).flat_map(|piece| folder.pass(piece)).collect();
            out.extend_from_slice(&folder.finish());
            prop_assert_eq!(out, input.into_bytes());
            prop_assert_eq!(folder.folded(), 0);
        }

        #[test]
        fn any_octets_at_all_give_the_same_however_they_are_cut(input in proptest::collection::vec(any::<u8>(), 0..4000), size in 1usize..1500) {
            prop_assert_eq!(folded(&input, size), folded(&input, input.len().max(1)));
        }
    }
}
