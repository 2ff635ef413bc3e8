//! Mailboxes as text, for APIs that take them so.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Mailbox;
use crate::contract::Address;

impl Mailbox {
    pub(super) fn is_valid(&self) -> bool {
        Address::parse(&self.address).is_ok()
    }

    /// As in a header, in ASCII: a name that is more than plain words becomes encoded words (RFC 2047),
    /// never a quoted string.
    #[must_use]
    pub fn encoded(&self) -> String {
        let is_atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=^_`{|}~".contains(c);
        match &self.name {
            None => self.address.clone(),
            Some(name) if name.split(' ').all(|word| !word.is_empty() && word.chars().all(is_atom)) => format!("{name} <{}>", self.address),
            Some(name) => format!("{} <{}>", encoded_words(name), self.address),
        }
    }
}

impl fmt::Display for Mailbox {
    /// As in a header (RFC 5322 section 3.4), with the name in quotes and without encoded words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "\"{}\" <{}>", name.replace('\\', "\\\\").replace('"', "\\\""), self.address),
            None => f.write_str(&self.address),
        }
    }
}

/// Each of at most 75 characters (RFC 2047 section 2), and of whole characters of the text.
pub(in crate::mime) fn encoded_words(text: &str) -> String {
    const LONGEST: usize = 45;
    let mut words = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        if word.len() + c.len_utf8() > LONGEST {
            words.push(std::mem::take(&mut word));
        }
        word.push(c);
    }
    words.push(word);
    let encoded: Vec<String> = words.iter().map(|word| format!("=?utf-8?b?{}?=", STANDARD.encode(word))).collect();
    encoded.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_words_or_encoded_ones() {
        for (name, expected) in [
            (None, "a@b.example"),
            (Some("Jane O'Hara"), "Jane O'Hara <a@b.example>"),
            (Some("Doe, Jane"), "=?utf-8?b?RG9lLCBKYW5l?= <a@b.example>"),
            (Some("J\u{f6}rg"), "=?utf-8?b?SsO2cmc=?= <a@b.example>"),
            (Some("=?x?"), "=?utf-8?b?PT94Pw==?= <a@b.example>"),
        ] {
            let mailbox = Mailbox { name: name.map(str::to_owned), address: "a@b.example".to_owned() };
            assert_eq!(mailbox.encoded(), expected);
        }
        let long = Mailbox { name: Some("\u{20ac}".repeat(20)), address: "a@b.example".to_owned() };
        assert!(long.encoded().split(' ').all(|word| word.len() <= 75));
    }
}
