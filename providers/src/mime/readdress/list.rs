//! Reads an address list (RFC 5322 section 3.4), strictly, and keeps each entry's own text; pure.

use crate::contract::Address;

/// One entry of a list.
pub(super) enum Entry<'a> {
    Mailbox(Mailbox<'a>),
    Group {
        /// The text before the colon.
        name: &'a [u8],
        members: Vec<Mailbox<'a>>,
    },
}

/// What stands between two commas.
pub(super) struct Mailbox<'a> {
    /// Without white space around it.
    pub(super) text: &'a [u8],
    /// `None` when it is no mailbox, or could be read in two ways.
    pub(super) address: Option<Address>,
}

impl<'a> Mailbox<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, address: address(text) }
    }
}

/// What an octet is a part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Plain,
    Quotes,
    Comment,
    Angle,
    Literal,
}

/// Goes through a text and knows what each octet is a part of.
struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    within: Within,
    /// How deep comments are nested.
    depth: usize,
    /// Whether the quotes, the comment or the literal at hand stand in angle brackets.
    in_angle: bool,
}

impl<'a> Walk<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, within: Within::Plain, depth: 0, in_angle: false }
    }

    /// The next octet, where it is, and what it is a part of; delimiters are part of what they delimit.
    fn step(&mut self) -> Option<(usize, u8, Within)> {
        let at = self.at;
        let byte = *self.text.get(at)?;
        self.at += 1;
        let outside = if self.in_angle { Within::Angle } else { Within::Plain };
        let part = match (self.within, byte) {
            (Within::Quotes | Within::Comment | Within::Literal, b'\\') => {
                // With the octet that it is for.
                self.at += 1;
                self.within
            }
            (Within::Quotes, b'"') | (Within::Literal, b']') => std::mem::replace(&mut self.within, outside),
            (Within::Comment, b'(') => {
                self.depth += 1;
                Within::Comment
            }
            (Within::Comment, b')') => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.within = outside;
                }
                Within::Comment
            }
            (Within::Plain | Within::Angle, b'"') => self.enter(Within::Quotes),
            (Within::Plain | Within::Angle, b'[') => self.enter(Within::Literal),
            (Within::Plain | Within::Angle, b'(') => {
                self.depth = 1;
                self.enter(Within::Comment)
            }
            (Within::Plain, b'<') => {
                self.in_angle = true;
                self.enter(Within::Angle)
            }
            (Within::Angle, b'>') => {
                self.in_angle = false;
                std::mem::replace(&mut self.within, Within::Plain)
            }
            (within, _) => within,
        };
        Some((at, byte, part))
    }

    fn enter(&mut self, part: Within) -> Within {
        self.within = part;
        part
    }

    /// Whether everything that was opened has been closed.
    fn is_closed(&self) -> bool {
        self.within == Within::Plain && self.at == self.text.len()
    }
}

/// The entries of a list, empty ones left out; `None` when quotes, a comment, brackets or a group do not
/// end, or a group has no name that is one.
pub(super) fn entries(text: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut walk = Walk::new(text);
    let (mut entries, mut start) = (Vec::new(), 0);
    let mut group: Option<(&[u8], Vec<Mailbox<'_>>)> = None;
    while let Some((at, byte, within)) = walk.step() {
        if within != Within::Plain || !matches!(byte, b',' | b':' | b';') {
            continue;
        }
        let piece = text[start..at].trim_ascii();
        start = at + 1;
        match (byte, &mut group) {
            (b':', None) if !piece.is_empty() && is_phrase(piece) => group = Some((piece, Vec::new())),
            (b':', _) | (b';', None) => return None,
            (_, Some((_, members))) => {
                if !piece.is_empty() {
                    members.push(Mailbox::new(piece));
                }
                if byte == b';' {
                    entries.extend(group.take().map(|(name, members)| Entry::Group { name, members }));
                }
            }
            _ if piece.is_empty() => {}
            // Between the end of a group and the next comma.
            _ => entries.push(Entry::Mailbox(Mailbox::new(piece))),
        }
    }
    let last = text[start..].trim_ascii();
    if !last.is_empty() {
        entries.push(Entry::Mailbox(Mailbox::new(last)));
    }
    (walk.is_closed() && group.is_none()).then_some(entries)
}

/// The address of a mailbox: alone, or in angle brackets behind a name. Comments may stand around it.
fn address(text: &[u8]) -> Option<Address> {
    let mut walk = Walk::new(text);
    // What stands in angle brackets, and what does not, without comments.
    let (mut named, mut bare, mut has_angle) = (Vec::new(), Vec::new(), false);
    while let Some((at, byte, within)) = walk.step() {
        let piece = &text[at..walk.at.min(text.len())];
        if piece.iter().any(|byte| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r' | b'\n')) {
            return None;
        }
        match (within, byte) {
            // A space in its place, so that what it parts stays apart.
            (Within::Comment, _) => {
                if walk.in_angle {
                    named.push(b' ');
                } else {
                    bare.push(b' ');
                }
            }
            (Within::Angle, b'<') if !walk.in_angle || has_angle => return None,
            (Within::Angle, b'<') => has_angle = true,
            (Within::Angle, b'>') => {}
            _ if walk.in_angle => named.extend_from_slice(piece),
            // Behind the angle brackets there is nothing more.
            _ if has_angle && !byte.is_ascii_whitespace() => return None,
            _ => bare.extend_from_slice(piece),
        }
    }
    if !walk.is_closed() {
        return None;
    }
    let spec = match has_angle {
        // A name without quotes in which one could see an address, or more than one name.
        true if !is_phrase(&bare) => return None,
        true => named,
        false => bare,
    };
    Address::parse(std::str::from_utf8(spec.trim_ascii()).ok()?).ok()
}

/// Whether this is a display name: words and quoted strings, dots among them (RFC 5322 section 4.1).
fn is_phrase(text: &[u8]) -> bool {
    let mut walk = Walk::new(text);
    while let Some((_, byte, within)) = walk.step() {
        if matches!(within, Within::Literal | Within::Angle)
            || (byte.is_ascii_control() && !byte.is_ascii_whitespace())
            || (within == Within::Plain && b"@<>[]:;,\\".contains(&byte))
        {
            return false;
        }
    }
    walk.is_closed()
}
