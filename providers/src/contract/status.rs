//! Enhanced status codes and the words that go into logs and notifications.

use std::fmt;
use std::sync::Arc;

/// An enhanced mail system status code (RFC 3463): class, subject, detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnhancedStatus(pub u8, pub u16, pub u16);

impl EnhancedStatus {
    /// The code at the start of an SMTP reply's text, if there is one (RFC 2034 section 4).
    #[must_use]
    pub fn parse_prefix(text: &str) -> Option<Self> {
        let word = text.split_ascii_whitespace().next()?;
        let mut parts = word.split('.');
        let class = parts.next().filter(|class| matches!(*class, "2" | "4" | "5"))?.parse().ok()?;
        let mut number =
            || parts.next().filter(|part| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))?.parse().ok();
        let status = Self(class, number()?, number()?);
        parts.next().is_none().then_some(status)
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What was said, by whom, in answer to what: for the log, the queue and the notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The SMTP reply code or HTTP status, when a server answered.
    pub code: Option<u16>,
    /// The enhanced status, when known.
    pub status: Option<EnhancedStatus>,
    /// The SMTP host whose reply this is; `None` when it is no reply of SMTP.
    pub remote: Option<Arc<str>>,
    /// What was being done: an SMTP verb, `connect`, `SendEmail`; empty when that adds nothing.
    pub during: &'static str,
    /// The server's own words, or ours.
    pub text: String,
    /// What the administrator must do, where that is known; not for the sender's eyes.
    pub advice: Option<&'static str>,
}

impl Diagnostic {
    /// Something this side noticed.
    #[must_use]
    pub fn local(text: impl Into<String>) -> Self {
        Self { code: None, status: None, remote: None, during: "", text: text.into(), advice: None }
    }

    /// Something this side noticed while doing `during`.
    #[must_use]
    pub fn during(during: &'static str, text: impl Into<String>) -> Self {
        Self { code: None, status: None, remote: None, during, text: text.into(), advice: None }
    }

    /// The same, with what the administrator must do.
    #[must_use]
    pub fn advised(self, advice: Option<&'static str>) -> Self {
        Self { advice: advice.filter(|advice| !advice.is_empty()), ..self }
    }

    /// A server's answer.
    #[must_use]
    pub fn reply(during: &'static str, code: u16, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code: Some(code), status: EnhancedStatus::parse_prefix(&text), remote: None, during, text, advice: None }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.during.is_empty() {
            write!(f, "{}: ", self.during)?;
        }
        if let Some(code) = self.code {
            write!(f, "{code} ")?;
        }
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enhanced_status_is_read_only_where_it_is_one() {
        assert_eq!(EnhancedStatus::parse_prefix("5.1.1 no such user"), Some(EnhancedStatus(5, 1, 1)));
        assert_eq!(EnhancedStatus::parse_prefix("4.7.500 busy"), Some(EnhancedStatus(4, 7, 500)));
        for text in ["", "no", "1.2.3", "5.1", "5.1.1.1 x", "5.a.1", "5..1", "5.1.1234"] {
            assert_eq!(EnhancedStatus::parse_prefix(text), None, "{text}");
        }
    }
}
