//! Which envelope senders an application may use: how the entries of `senders` are read and matched.

use std::fmt;
use std::str::FromStr;

use postrider_providers::contract::{Address, ReversePath};

use super::domain::to_ascii;
use super::settings::SenderPattern;

/// Why a text is no entry of `senders`; says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SenderPatternError(String);

impl SenderPattern {
    /// Whether this entry allows the reverse-path.
    #[must_use]
    pub fn matches(&self, from: &ReversePath) -> bool {
        match (self, from) {
            (Self::Null, ReversePath::Null) => true,
            (Self::Address(allowed), ReversePath::Mailbox(from)) => {
                let same_domain = || to_ascii(allowed.domain()).is_some_and(|domain| Some(domain) == to_ascii(from.domain()));
                allowed.local_part() == from.local_part() && (allowed.domain() == from.domain() || same_domain())
            }
            (Self::Domain(pattern), ReversePath::Mailbox(from)) => pattern.matches(from.domain()),
            _ => false,
        }
    }
}

impl FromStr for SenderPattern {
    type Err = SenderPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "<>" {
            return Ok(Self::Null);
        }
        if let Some(domain) = text.strip_prefix('@') {
            return domain
                .parse()
                .map(Self::Domain)
                .map_err(|_| SenderPatternError("write a domain such as \"@x.example\", or \"@*.x.example\" for all below it".to_owned()));
        }
        if !text.contains('@') {
            let help = match to_ascii(text.strip_prefix("*.").unwrap_or(text)) {
                Some(_) => format!("write \"@{text}\" for every address there"),
                None => "write an address, \"@domain\", \"@*.domain\", or \"<>\" for the null reverse-path".to_owned(),
            };
            return Err(SenderPatternError(help));
        }
        let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
        if let Some(domain) = inner.strip_prefix("*@") {
            return Err(SenderPatternError(format!("write \"@{domain}\" for every address there")));
        }
        Address::parse(inner).map(Self::Address).map_err(|error| SenderPatternError(error.to_string()))
    }
}

impl fmt::Display for SenderPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Domain(pattern) => write!(f, "@{pattern}"),
            Self::Null => f.write_str("<>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, from: &str) -> bool {
        let from = if from == "<>" { ReversePath::Null } else { ReversePath::Mailbox(from.parse().unwrap()) };
        pattern.parse::<SenderPattern>().unwrap().matches(&from)
    }

    #[test]
    fn an_entry_allows_what_it_says_and_no_more() {
        for (pattern, from, expected) in [
            ("noreply@corp.example", "noreply@CORP.example", true),
            ("noreply@corp.example", "NoReply@corp.example", false),
            ("noreply@corp.example", "noreply@x.corp.example", false),
            ("info@bücher.example", "info@xn--bcher-kva.example", true),
            ("@corp.example", "anyone@Corp.Example", true),
            ("@corp.example", "anyone@sub.corp.example", false),
            ("@corp.example", "\"x@corp.example\"@evil.example", false),
            ("@*.corp.example", "anyone@a.b.corp.example", true),
            ("@*.corp.example", "anyone@corp.example", false),
            ("@corp.example", "<>", false),
            ("<>", "<>", true),
            ("<>", "a@corp.example", false),
        ] {
            assert_eq!(allows(pattern, from), expected, "{pattern} {from}");
        }
    }

    #[test]
    fn what_is_no_entry_says_what_to_write() {
        for (text, help) in [
            ("corp.example", "write \"@corp.example\""),
            ("*@corp.example", "write \"@corp.example\""),
            ("", "write an address"),
            ("@", "write a domain"),
            ("@*", "write a domain"),
            ("a@b@c", "valid"),
        ] {
            let error = text.parse::<SenderPattern>().unwrap_err().to_string();
            assert!(error.contains(help), "{text}: {error}");
        }
        for text in ["a@b.example", "@b.example", "@*.b.example", "<>"] {
            assert_eq!(text.parse::<SenderPattern>().unwrap().to_string(), text);
        }
    }
}
