//! The header of a message as it stands: its fields, octet for octet, and where it ends; pure.

use memchr::memchr;

/// One field, with its folded lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// All of its octets, the last line end included.
    pub raw: &'a [u8],
    /// Its name, as written.
    pub name: &'a [u8],
    /// What follows the colon, up to the last line end; line ends within it are of folded lines.
    pub value: &'a [u8],
}

/// The fields at the start of a message, in order. Ends at the empty line, at a line that is no field, or
/// with the input.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
    /// How many octets the fields had so far.
    seen: usize,
}

impl Field<'_> {
    /// Whether this is its name.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Its value in one line, without white space around it; for reading, not for writing.
    #[must_use]
    pub fn unfolded(&self) -> String {
        String::from_utf8_lossy(self.value).replace(['\r', '\n'], "").trim().to_owned()
    }
}

impl<'a> Fields<'a> {
    /// The fields of this message, or of its start.
    #[must_use]
    pub fn of(message: &'a [u8]) -> Self {
        Self { rest: message, seen: 0 }
    }

    /// How many octets were fields, up to the last one that was given.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.seen
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let first = line(self.rest);
        let colon = memchr(b':', first)?;
        let name = first[..colon].trim_ascii_end();
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let mut end = first.len();
        while matches!(self.rest.get(end), Some(b' ' | b'\t')) {
            end += line(&self.rest[end..]).len();
        }
        let (raw, rest) = self.rest.split_at(end);
        (self.rest, self.seen) = (rest, self.seen + end);
        let value = &raw[colon + 1..];
        let value = value.strip_suffix(b"\n").unwrap_or(value);
        Some(Field { raw, name, value: value.strip_suffix(b"\r").unwrap_or(value) })
    }
}

/// The first line, with its end.
fn line(text: &[u8]) -> &[u8] {
    &text[..memchr(b'\n', text).map_or(text.len(), |at| at + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_with_their_folded_lines_and_nothing_behind_the_header_is() {
        let message = b"From: a@b\r\nSUBJECT : s\r\n t\r\n\tu\r\nX:\r\n\r\nBcc: body\r\n";
        let mut fields = Fields::of(message);
        let found: Vec<(&[u8], &[u8])> = fields.by_ref().map(|field| (field.name, field.value)).collect();
        assert_eq!(found, [(&b"From"[..], &b" a@b"[..]), (b"SUBJECT", b" s\r\n t\r\n\tu"), (b"X", b"")]);
        assert_eq!(&message[fields.octets()..], b"\r\nBcc: body\r\n");
        assert_eq!(Fields::of(message).nth(1).unwrap().unfolded(), "s t\tu");
        assert!(Fields::of(message).nth(1).unwrap().is("Subject"));
    }

    #[test]
    fn what_is_no_field_ends_the_header() {
        for (message, count) in [
            (&b""[..], 0),
            (b"\r\n", 0),
            (b"just text\r\nFrom: x\r\n", 0),
            (b" folded: nothing\r\n", 0),
            (b"A: b\r\ntext: of it\r\nno field\r\nC: d\r\n", 2),
            (b"two words: x\r\n", 0),
            (b"A: without a line end", 1),
            (b"A: b\n c\nB: d\n", 2),
        ] {
            assert_eq!(Fields::of(message).count(), count, "{message:?}");
        }
    }
}
