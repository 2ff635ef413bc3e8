//! The mailboxes in the value of an address field, each with its name as it stands; pure and total.

use postrider_providers::contract::Address;

/// One mailbox (RFC 5322 section 3.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mailbox<'a> {
    /// What stands before the angle brackets; empty without any. It is not decoded.
    pub(super) name: &'a [u8],
    /// The last comment, with its parentheses.
    pub(super) comment: Option<&'a [u8]>,
    address: &'a [u8],
}

impl Mailbox<'_> {
    /// The address, if it is one.
    pub(super) fn parsed(&self) -> Option<Address> {
        let text = std::str::from_utf8(self.address).ok()?;
        // A source route stands before the address (RFC 5322 section 4.4).
        let text = if text.starts_with('@') { text.rsplit(':').next()? } else { text };
        Address::parse(text.trim()).ok()
    }
}

/// Where something begins, and where it has ended.
type Span = (usize, usize);

/// The mailboxes of a list, those in groups included. What is no mailbox is one whose address is none.
pub(super) fn mailboxes(value: &[u8]) -> Vec<Mailbox<'_>> {
    let (mut all, mut start, mut at) = (Vec::new(), 0, 0);
    let (mut angle, mut comment): (Option<Span>, Option<Span>) = (None, None);
    let mut plain_end = None;
    loop {
        let octet = value.get(at).copied();
        match octet {
            Some(b'"') => at = end_of(value, at, b'"'),
            Some(b'[') => at = end_of(value, at, b']'),
            Some(b'(') => {
                let end = end_of_comment(value, at);
                comment = Some((at, end));
                plain_end = plain_end.or(Some(at));
                at = end;
            }
            Some(b'<') if angle.is_none() => {
                let end = end_of_angle(value, at);
                angle = Some((at, end));
                at = end;
            }
            // The name of a group ends.
            Some(b':') if angle.is_none() => {
                at += 1;
                (start, comment, plain_end) = (at, None, None);
            }
            None | Some(b',' | b';') => {
                let stated = comment.map(|(open, close)| &value[open..close]);
                let mailbox = match angle {
                    Some((open, close)) => {
                        let address = value[open + 1..close].strip_suffix(b">").unwrap_or(&value[open + 1..close]);
                        Mailbox { name: value[start..open].trim_ascii(), comment: stated, address: address.trim_ascii() }
                    }
                    None => {
                        let text = value[start..plain_end.unwrap_or(at)].trim_ascii();
                        // A comment may stand before the address as well.
                        let behind = comment.filter(|_| text.is_empty()).map_or(text, |(_, end)| value[end..at].trim_ascii());
                        Mailbox { name: b"", comment: stated, address: behind }
                    }
                };
                if !mailbox.address.is_empty() || angle.is_some() {
                    all.push(mailbox);
                }
                if octet.is_none() {
                    return all;
                }
                at += 1;
                (start, angle, comment, plain_end) = (at, None, None, None);
            }
            Some(_) => at += 1,
        }
    }
}

/// Behind the `close` that ends what begins at `start`; the end of the text if nothing does.
fn end_of(text: &[u8], start: usize, close: u8) -> usize {
    let mut at = start + 1;
    while let Some(&octet) = text.get(at) {
        at += if octet == b'\\' { 2 } else { 1 };
        if octet == close {
            break;
        }
    }
    at.min(text.len())
}

/// Behind a comment, in which others may stand.
fn end_of_comment(text: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while let Some(&octet) = text.get(at) {
        at += if octet == b'\\' { 2 } else { 1 };
        match octet {
            b'(' => depth += 1,
            b')' if depth == 1 => break,
            b')' => depth -= 1,
            _ => {}
        }
    }
    at.min(text.len())
}

/// Behind the angle bracket that closes, which may stand in quotes before.
fn end_of_angle(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&octet) = text.get(at) {
        match octet {
            b'"' => at = end_of(text, at, b'"'),
            b'>' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, address and comment of each.
    fn found(value: &str) -> Vec<(String, String, String)> {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let each = mailboxes(value.as_bytes()).into_iter();
        each.map(|one| (text(one.name), one.parsed().map(|a| a.to_string()).unwrap_or_default(), one.comment.map(text).unwrap_or_default()))
            .collect()
    }

    fn expect(value: &str, expected: &[(&str, &str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(n, a, c)| ((*n).to_owned(), (*a).to_owned(), (*c).to_owned())).collect();
        assert_eq!(found(value), expected, "{value:?}");
    }

    #[test]
    fn mailboxes_are_found_with_their_names_as_they_stand() {
        expect(" a@b", &[("", "a@b", "")]);
        expect(" <a@b>", &[("", "a@b", "")]);
        expect(" Ann <a@b>", &[("Ann", "a@b", "")]);
        expect(" \"B, Ann <x>\" <a@b>, c@d", &[("\"B, Ann <x>\"", "a@b", ""), ("", "c@d", "")]);
        expect(" =?utf-8?q?J=C3=BC?=\r\n =?utf-8?q?rg?= <a@b>", &[("=?utf-8?q?J=C3=BC?=\r\n =?utf-8?q?rg?=", "a@b", "")]);
        expect(" a@b (Ann (old), B)", &[("", "a@b", "(Ann (old), B)")]);
        expect(" (Ann) a@b", &[("", "a@b", "(Ann)")]);
        expect(" \"a,b\"@c.example", &[("", "\"a,b\"@c.example", "")]);
        expect(" x@[IPv6:::1], y@z", &[("", "x@[IPv6:::1]", ""), ("", "y@z", "")]);
        expect(" <@r.example,@s.example:a@b>", &[("", "a@b", "")]);
    }

    #[test]
    fn groups_have_their_members_and_an_empty_one_has_none() {
        expect(" Team: Ann <a@b>, c@d;, e@f", &[("Ann", "a@b", ""), ("", "c@d", ""), ("", "e@f", "")]);
        expect(" undisclosed:;", &[]);
        expect("", &[]);
        expect(" , ,", &[]);
    }

    #[test]
    fn what_is_no_address_is_none() {
        expect(" Ann", &[("", "", "")]);
        expect(" \"open <a@b>", &[("", "", "")]);
        expect(" Ann <a@b", &[("Ann", "a@b", "")]);
        expect(" <>", &[("", "", "")]);
        expect(" (open", &[]);
        expect(" x <\\", &[("x", "", "")]);
    }

    proptest::proptest! {
        #[test]
        fn no_value_causes_a_panic(value in "[ a@b<>\"(),:;\\\\\\[\\]\r\n]{0,40}") {
            mailboxes(value.as_bytes());
        }
    }
}
