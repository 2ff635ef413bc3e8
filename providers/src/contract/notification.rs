//! What the client asked about notifications: the parameters of RFC 3461, as they travel with the
//! envelope.

use std::fmt;
use std::sync::Arc;

use super::Address;
use super::xtext::{self, XtextError};

/// `RET=` of MAIL (RFC 3461 section 4.3): how much of the message a failure notification returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// `FULL`: the whole message.
    Full,
    /// `HDRS`: its header only.
    Headers,
}

impl Returned {
    /// The value as in MAIL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }

    /// Reads a value as in MAIL, in any case.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        [Self::Full, Self::Headers].into_iter().find(|one| value.eq_ignore_ascii_case(one.as_str()))
    }
}

/// `NOTIFY=` of RCPT (RFC 3461 section 4.1): which events the sender hears about. `NEVER` is none of
/// them; a recipient without the parameter is notified about failure, and may be about delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notify {
    /// When the message was delivered, or relayed to where notifications end.
    pub success: bool,
    /// When it bounced or expired.
    pub failure: bool,
    /// When it is late.
    pub delay: bool,
}

impl Notify {
    /// `NOTIFY=NEVER`.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };

    /// Reads a value as in RCPT: `NEVER` alone, or a list of the others, in any case.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let mut notify = Self::NEVER;
        if value.eq_ignore_ascii_case("NEVER") {
            return Some(notify);
        }
        for event in value.split(',') {
            match event.to_ascii_uppercase().as_str() {
                "SUCCESS" => notify.success = true,
                "FAILURE" => notify.failure = true,
                "DELAY" => notify.delay = true,
                _ => return None,
            }
        }
        Some(notify)
    }

    /// What satisfies both of two requests for one recipient. No parameter asks for failure.
    #[must_use]
    pub fn merge(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        if one.is_none() && other.is_none() {
            return None;
        }
        let [one, other] = [one, other].map(|notify| notify.unwrap_or(Self { failure: true, ..Self::NEVER }));
        Some(Self { success: one.success || other.success, failure: one.failure || other.failure, delay: one.delay || other.delay })
    }
}

impl fmt::Display for Notify {
    /// The value as in RCPT: `NEVER`, or a list such as `SUCCESS,DELAY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let asked: Vec<&str> = events.into_iter().filter_map(|(asked, name)| asked.then_some(name)).collect();
        f.write_str(if asked.is_empty() { "NEVER".to_owned() } else { asked.join(",") }.as_str())
    }
}

/// `ORCPT=` of RCPT (RFC 3461 section 4.2): whom the sender had meant, before anybody rewrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalRecipient {
    /// The address type, as in `rfc822` or `utf-8`.
    pub address_type: Arc<str>,
    /// The address, decoded from its xtext.
    pub address: Arc<str>,
}

/// Why a text is no original recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginalRecipientError {
    /// There is no `;`, or what stands before it is no atom.
    #[error("an address type, as in rfc822;, must come first")]
    AddressType,
    /// Nothing follows the type.
    #[error("the address is empty")]
    Empty,
    /// The address is not encoded as it must be.
    #[error(transparent)]
    Address(#[from] XtextError),
}

impl OriginalRecipient {
    /// An address that is not encoded, with its type.
    ///
    /// # Errors
    /// When it could not be written into a command or a header field.
    pub fn new(address_type: &str, address: &str) -> Result<Self, OriginalRecipientError> {
        if address_type.is_empty() || !address_type.bytes().all(is_atom) {
            return Err(OriginalRecipientError::AddressType);
        }
        let original = Self { address_type: address_type.into(), address: address.into() };
        if address.is_empty() {
            return Err(OriginalRecipientError::Empty);
        }
        //= https://www.rfc-editor.org/rfc/rfc3461#section-4.2
        //# Due to limitations in the Delivery Status Notification format, the
        //# value of the original recipient address prior to encoding as "xtext"
        //# MUST consist entirely of printable (graphic and white space)
        //# characters from the US-ASCII [4] repertoire.
        if !xtext::is_printable(address, original.is_utf8()) {
            return Err(XtextError::Unprintable.into());
        }
        Ok(original)
    }

    /// Reads a value as in RCPT: `type;xtext`.
    ///
    /// # Errors
    /// [`OriginalRecipientError`] says what is wrong with it.
    pub fn parse(value: &str) -> Result<Self, OriginalRecipientError> {
        let (address_type, encoded) = value.split_once(';').ok_or(OriginalRecipientError::AddressType)?;
        let address = if is_utf8(address_type) { xtext::decode_utf8(encoded)? } else { xtext::decode_octets(encoded)? };
        // Postfix labels every address so. RFC 6533 section 3 has a type for those outside ASCII.
        let is_mislabeled = address_type.eq_ignore_ascii_case("rfc822") && !address.is_ascii();
        Self::new(if is_mislabeled { "utf-8" } else { address_type }, &address)
    }

    /// The value as in RCPT. `utf8`: the command may hold characters outside ASCII.
    #[must_use]
    pub fn to_parameter(&self, utf8: bool) -> String {
        let encoded = if self.is_utf8() { xtext::encode_utf8(&self.address, utf8) } else { xtext::encode(&self.address) };
        format!("{};{encoded}", self.address_type)
    }

    /// The value as in a field of a notification (RFC 3464 section 2.3.1), which is not xtext. `utf8`:
    /// the field may hold characters outside ASCII.
    #[must_use]
    pub fn to_field(&self, utf8: bool) -> String {
        if self.is_utf8() && !utf8 {
            //= https://www.rfc-editor.org/rfc/rfc6533#section-3
            //# in a 7-bit transport environment including a message/
            //# delivery-status "Original-Recipient:" or "Final-Recipient:"
            //# field, (utf-8-addr-xtext MUST be used instead).
            format!("{}; {}", self.address_type, xtext::encode_utf8(&self.address, false))
        } else {
            format!("{}; {}", self.address_type, self.address)
        }
    }

    fn is_utf8(&self) -> bool {
        is_utf8(&self.address_type)
    }
}

impl From<&Address> for OriginalRecipient {
    /// A mailbox under the type that it has: `rfc822`, or `utf-8` outside ASCII.
    fn from(address: &Address) -> Self {
        let address_type = if address.is_ascii() { "rfc822" } else { "utf-8" };
        Self { address_type: address_type.into(), address: address.as_str().into() }
    }
}

fn is_utf8(address_type: &str) -> bool {
    address_type.eq_ignore_ascii_case("utf-8")
}

/// A character of an `atom` (RFC 822 section 3.3) that a parameter may hold.
fn is_atom(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\".[]=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_is_written() {
        for text in ["NEVER", "SUCCESS", "FAILURE", "DELAY", "SUCCESS,FAILURE", "SUCCESS,FAILURE,DELAY"] {
            assert_eq!(Notify::parse(text).unwrap().to_string(), text);
            assert_eq!(Notify::parse(&text.to_ascii_lowercase()).unwrap().to_string(), text);
        }
        for text in ["", "ALWAYS", "NEVER,SUCCESS", "SUCCESS,", ",", "SUCCESS FAILURE"] {
            assert_eq!(Notify::parse(text), None, "{text:?}");
        }
        assert_eq!((Returned::parse("full"), Returned::parse("HDRS")), (Some(Returned::Full), Some(Returned::Headers)));
        assert_eq!(Returned::parse("BODY"), None);
    }

    #[test]
    fn two_requests_for_one_recipient_are_both_kept() {
        let merge = |one, other| {
            let merged = Notify::merge(Notify::parse(one), Notify::parse(other));
            assert_eq!(merged, Notify::merge(Notify::parse(other), Notify::parse(one)));
            merged.map_or("-".to_owned(), |notify| notify.to_string())
        };
        assert_eq!(merge("-", "-"), "-");
        assert_eq!(merge("SUCCESS", "FAILURE"), "SUCCESS,FAILURE");
        assert_eq!(merge("NEVER", "DELAY"), "DELAY");
        assert_eq!(merge("-", "NEVER"), "FAILURE", "the one without a parameter was promised to hear of failure");
        assert_eq!(merge("-", "SUCCESS"), "SUCCESS,FAILURE");
    }

    #[test]
    fn an_original_recipient_goes_on_as_it_came() {
        let parsed = |text: &str| OriginalRecipient::parse(text).unwrap();
        let bob = parsed("rfc822;Bob+2BTag@Example.COM");
        assert_eq!((&*bob.address_type, &*bob.address), ("rfc822", "Bob+Tag@Example.COM"));
        assert_eq!(
            (bob.to_parameter(false), bob.to_field(false)),
            ("rfc822;Bob+2BTag@Example.COM".into(), "rfc822; Bob+Tag@Example.COM".into())
        );
        let x400 = parsed("x400;/C=".replace('=', "+3D").as_str());
        assert_eq!((x400.to_parameter(true), x400.to_field(true)), ("x400;/C+3D".into(), "x400; /C=".into()));

        for text in ["utf-8;b\\x{FC}cher@x", "utf-8;bücher@x", "UTF-8;b\\x{FC}cher@x"] {
            let utf8 = parsed(text);
            assert_eq!(&*utf8.address, "bücher@x");
            let address_type = &text[..5];
            assert_eq!(utf8.to_parameter(true), format!("{address_type};bücher@x"));
            assert_eq!(utf8.to_parameter(false), format!("{address_type};b\\x{{FC}}cher@x"));
            assert_eq!(utf8.to_field(true), format!("{address_type}; bücher@x"));
            assert_eq!(utf8.to_field(false), format!("{address_type}; b\\x{{FC}}cher@x"));
        }
    }

    #[test]
    fn an_address_outside_ascii_in_the_clothes_of_rfc822_is_recognised() {
        // As Postfix writes it.
        let original = OriginalRecipient::parse("rfc822;b+C3+BCcher@x").unwrap();
        assert_eq!((&*original.address_type, &*original.address), ("utf-8", "b\u{fc}cher@x"));
        assert_eq!(OriginalRecipient::parse("rfc822;b+FCcher@x"), Err(XtextError::Unprintable.into()), "no UTF-8");
        assert_eq!(OriginalRecipient::parse("rfc822;b+C2+85@x"), Err(XtextError::Unprintable.into()), "a control character");
        assert_eq!(OriginalRecipient::parse("x400;b+C3+BC"), Err(XtextError::Unprintable.into()), "of another type");
    }

    #[test]
    fn what_would_break_out_of_a_field_is_no_original_recipient() {
        use OriginalRecipientError::{AddressType, Empty};
        for (text, expected) in [
            ("", AddressType),
            ("bob@x", AddressType),
            (";bob@x", AddressType),
            ("rfc 822;bob@x", AddressType),
            ("rfc822;", Empty),
            ("rfc822;bob+0D+0ABcc:+20x", XtextError::Unprintable.into()),
            ("utf-8;bob\\x{0D}\\x{0A}x", XtextError::Unprintable.into()),
            ("utf-8;bob\\x{85}x", XtextError::Unprintable.into()),
            ("rfc822;bücher@x", XtextError::Character.into()),
            ("rfc822;bob+2b@x", XtextError::Escape.into()),
            ("rfc822;a=b", XtextError::Character.into()),
        ] {
            assert_eq!(OriginalRecipient::parse(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn a_mailbox_has_the_type_that_fits_it() {
        let original = |text: &str| OriginalRecipient::from(&text.parse::<Address>().unwrap()).to_field(true);
        assert_eq!(original("a@b.example"), "rfc822; a@b.example");
        assert_eq!(original("ä@b.example"), "utf-8; ä@b.example");
    }
}
