//! Texts in which `*` stands for anything.

use std::fmt;

/// A text that is compared whole; `*` in it stands for any text, also for none. ASCII letters are the
/// same in either case. There is no other special character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern written like this.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` is meant.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut next) = (0, 0);
        // Where to take up again with one octet more for the last `*`; earlier ones need no second thought.
        let mut star: Option<(usize, usize)> = None;
        while next < text.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at + 1, next));
                    at += 1;
                }
                Some(octet) if octet.eq_ignore_ascii_case(&text[next]) => {
                    at += 1;
                    next += 1;
                }
                _ => {
                    let Some((behind, covered)) = star else { return false };
                    star = Some((behind, covered + 1));
                    (at, next) = (behind, covered + 1);
                }
            }
        }
        pattern[at..].iter().all(|octet| *octet == b'*')
    }

    /// The pattern of addresses in a domain that is meant.
    #[must_use]
    pub fn behind_at(&self) -> Self {
        Self(format!("*@{}", self.0))
    }

    /// The same for SQL: `text LIKE ? ESCAPE '\'`.
    pub(in crate::spool) fn to_like(&self) -> String {
        let mut like = String::with_capacity(self.0.len() + 4);
        for letter in self.0.chars() {
            match letter {
                '*' => like.push('%'),
                '%' | '_' | '\\' => like.extend(['\\', letter]),
                _ => like.push(letter),
            }
        }
        like
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
