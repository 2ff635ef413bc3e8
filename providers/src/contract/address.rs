//! A mailbox address of the envelope, kept exactly as the client wrote it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// A mailbox as it stands between `<` and `>` in MAIL or RCPT, without a source route.
///
/// The text is kept as received (quoting, case and all), because the local part belongs to the
/// receiving host alone (RFC 5321 section 2.3.11). Only the domain is also offered in lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    text: Arc<str>,
    /// Byte position of the `@` that separates local part and domain.
    at: usize,
    /// The domain in lower case, for matching.
    domain: Arc<str>,
}

/// Why a text is no mailbox address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@` outside quotes.
    #[error("an address needs a domain: local-part@domain")]
    NoDomain,
    /// The local part is empty, badly quoted, or longer than 64 octets (RFC 5321 section 4.5.3.1.1).
    #[error("the local part is not valid (RFC 5321 section 4.1.2)")]
    LocalPart,
    /// The domain is empty, badly formed, or longer than 255 octets (RFC 5321 section 4.5.3.1.2).
    #[error("the domain is not valid (RFC 5321 section 4.1.2)")]
    Domain,
}

impl Address {
    /// Parses `local-part@domain`, where the local part may be quoted and the domain may be an
    /// address literal.
    ///
    /// # Errors
    /// [`AddressError`] says which part is not as RFC 5321 section 4.1.2 (or RFC 6531 for non-ASCII
    /// text) has it.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let at = find_at(text)?;
        let (local, domain) = (&text[..at], &text[at + 1..]);
        if local.is_empty() || local.len() > 64 || !(local.starts_with('"') || is_dot_string(local)) {
            return Err(AddressError::LocalPart);
        }
        if domain.is_empty() || domain.len() > 255 || !is_domain(domain) {
            return Err(AddressError::Domain);
        }
        let domain: Arc<str> = domain.to_lowercase().into();
        Ok(Self { text: text.into(), at, domain })
    }

    /// The address as received.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before the `@`, as received.
    #[must_use]
    pub fn local_part(&self) -> &str {
        &self.text[..self.at]
    }

    /// The domain in lower case.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Whether handing this address on needs SMTPUTF8 (RFC 6531).
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }
}

/// Finds the separating `@`: the one after the quoted string, or the only one there is.
fn find_at(text: &str) -> Result<usize, AddressError> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'"') {
        return text.find('@').ok_or(AddressError::NoDomain);
    }
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if matches!(bytes.get(at + 1), Some(32..=126)) => at += 2,
            b'"' if bytes.get(at + 1) == Some(&b'@') => return Ok(at + 1),
            b'"' if at + 1 == bytes.len() => return Err(AddressError::NoDomain),
            b'"' | b'\\' => return Err(AddressError::LocalPart),
            byte if byte < 32 || byte == 127 => return Err(AddressError::LocalPart),
            _ => at += 1,
        }
    }
    Err(AddressError::LocalPart)
}

fn is_dot_string(local: &str) -> bool {
    local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

/// `atext` of RFC 5322 section 3.2.3, with every non-ASCII octet as RFC 6531 section 3.3 adds.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte) || byte >= 0x80
}

fn is_domain(domain: &str) -> bool {
    if let Some(literal) = domain.strip_prefix('[') {
        return literal.strip_suffix(']').is_some_and(is_address_literal);
    }
    // Underscores are not legal in host names, and occur in real ones all the same.
    domain.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b >= 0x80)
    })
}

/// An address as it stands in brackets (RFC 5321 section 4.1.3). The third form, with a tag of its own,
/// has never been given a tag.
fn is_address_literal(literal: &str) -> bool {
    match literal.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => address.parse::<Ipv6Addr>().is_ok(),
        _ => literal.parse::<Ipv4Addr>().is_ok(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

impl std::str::FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_kept_as_it_was_received() {
        for text in ["A.b+c@Example.COM", "\"a b\"@x", "\"a@b\"@x", "\"\\\"\"@x", "a@[127.0.0.1]", "a@[IPv6:::1]", "bücher@bücher.example"]
        {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.as_str(), text);
        }
        assert_eq!(Address::parse("a@Example.COM").unwrap().domain(), "example.com");
        assert_eq!(Address::parse("\"a@b\"@x").unwrap().local_part(), "\"a@b\"");
    }

    #[test]
    fn what_is_no_address_says_which_part_is_wrong() {
        use AddressError::{Domain, LocalPart, NoDomain};
        for (text, expected) in [
            ("", NoDomain),
            ("a", NoDomain),
            ("@b", LocalPart),
            ("a..b@c", LocalPart),
            ("a b@c", LocalPart),
            ("\"x> NOTIFY=NEVER", LocalPart),
            ("\"a\"b@c", LocalPart),
            ("\"a\"", NoDomain),
            ("a@", Domain),
            ("a@b@c", Domain),
            ("a@b\r.org", Domain),
            ("a@-b", Domain),
            ("a@b..c", Domain),
            ("a@[", Domain),
            ("a@[1.2.3.4", Domain),
            ("a@[1.2.3]", Domain),
            ("a@[::1]", Domain),
            ("a@[IPv6:1.2.3.4]", Domain),
            ("a@[host]", Domain),
        ] {
            assert_eq!(Address::parse(text), Err(expected), "{text:?}");
        }
    }
}
