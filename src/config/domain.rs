//! Domain names in the config: one exact name, or everything below one.

use std::fmt;
use std::str::FromStr;

/// `x.example` (that name alone) or `*.x.example` (every name below it, at any depth, not itself).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DomainPattern {
    /// Lower-case ASCII, without `*.`.
    name: Box<str>,
    below: bool,
}

/// Why a text is no domain pattern; says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DomainPatternError(&'static str);

impl DomainPattern {
    /// Whether `domain` is meant, in whatever case or script it is written.
    #[must_use]
    pub fn matches(&self, domain: &str) -> bool {
        if domain.is_ascii() {
            return self.matches_ascii(domain);
        }
        to_ascii(domain).is_some_and(|domain| self.matches_ascii(&domain))
    }

    fn matches_ascii(&self, domain: &str) -> bool {
        let (domain, name) = (domain.as_bytes(), self.name.as_bytes());
        if !self.below {
            return domain.eq_ignore_ascii_case(name);
        }
        let Some(dot) = domain.len().checked_sub(name.len() + 1) else { return false };
        dot > 0 && domain[dot] == b'.' && domain[dot + 1..].eq_ignore_ascii_case(name)
    }
}

impl FromStr for DomainPattern {
    type Err = DomainPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Err(DomainPatternError("leave the condition out to match every domain"));
        }
        if text.contains('@') {
            return Err(DomainPatternError("write the domain alone, without `@` and what is before it"));
        }
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        if name.contains('*') {
            return Err(DomainPatternError("a `*` may only stand at the beginning, as in `*.x.example`"));
        }
        match to_ascii(name) {
            Some(name) => Ok(Self { name: name.into(), below }),
            None => Err(DomainPatternError("write a domain such as `x.example`, or `*.x.example` for all below it")),
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

/// `name` in lower-case ASCII (RFC 5891), if it can be a domain: labels of 1 to 63 octets, at most
/// 255 in all. Underscores are let through, because real names have them.
pub(super) fn to_ascii(name: &str) -> Option<String> {
    let name = idna::domain_to_ascii(name).ok()?;
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    (name.len() <= 255 && name.split('.').all(is_label)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_itself_alone() {
        let pattern: DomainPattern = "News.Example".parse().unwrap();
        assert!(pattern.matches("news.example") && pattern.matches("NEWS.EXAMPLE"));
        assert!(!pattern.matches("a.news.example") && !pattern.matches("xnews.example"));
    }

    #[test]
    fn a_star_matches_what_is_below_at_any_depth() {
        let pattern: DomainPattern = "*.news.example".parse().unwrap();
        assert!(pattern.matches("a.news.example") && pattern.matches("a.b.NEWS.example"));
        for other in ["news.example", ".news.example", "anews.example", "example", "", "é.example"] {
            assert!(!pattern.matches(other), "{other}");
        }
        assert_eq!(pattern.to_string(), "*.news.example");
    }

    #[test]
    fn scripts_are_compared_in_their_ascii_form() {
        let pattern: DomainPattern = "bücher.example".parse().unwrap();
        assert!(pattern.matches("Bücher.example") && pattern.matches("xn--bcher-kva.example"));
    }

    #[test]
    fn what_is_no_pattern_says_what_to_write() {
        for text in ["", "*", "*.", "a*.example", "x@news.example", "@news.example", "a b.example", "a..b", "-a.example", "[192.0.2.1]"] {
            assert!(text.parse::<DomainPattern>().is_err(), "{text:?}");
        }
    }
}
