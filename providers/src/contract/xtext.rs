//! How values are written into parameters that cannot hold every character: xtext (RFC 3461 section 4),
//! and its counterpart for addresses outside ASCII (RFC 6533 section 3). Pure.

use std::fmt::Write as _;

/// Why a text is no xtext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XtextError {
    /// A character that has to be encoded.
    #[error("only printable ASCII may stand there, without = and +; write anything else as +XX")]
    Character,
    /// A `+` that encodes nothing.
    #[error("+ must be followed by two hexadecimal digits, A to F in upper case")]
    Escape,
    /// An encoded character that no header field could hold.
    #[error("it holds characters that are not printable")]
    Unprintable,
}

/// Whether the value can be written into a header field: graphic characters and white space, and
/// with `utf8` also those outside ASCII.
#[must_use]
pub fn is_printable(value: &str, utf8: bool) -> bool {
    value.chars().all(|c| matches!(c, ' '..='~' | '\t') || (utf8 && !c.is_ascii() && !is_format(c)))
}

/// Characters outside ASCII that end or hide a line: C1 controls and the separators of Unicode.
fn is_format(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The value of an xtext.
///
/// # Errors
/// When it is none, or its value is not printable.
pub fn decode(text: &str) -> Result<String, XtextError> {
    let value = unescape(text, false)?;
    if is_printable(&value, false) { Ok(value) } else { Err(XtextError::Unprintable) }
}

/// The value of an xtext that may hold UTF-8 as well: servers that do not know the type `utf-8` write
/// addresses outside ASCII so, under the type `rfc822`.
///
/// # Errors
/// When it is none, or its value is not printable.
pub fn decode_octets(text: &str) -> Result<String, XtextError> {
    let value = unescape(text, false)?;
    if is_printable(&value, true) { Ok(value) } else { Err(XtextError::Unprintable) }
}

/// The xtext of a value.
#[must_use]
pub fn encode(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        //= https://www.rfc-editor.org/rfc/rfc3461#section-4
        //# Any ASCII CHAR between "!" and "~" inclusive, except for "+" and
        //# "=", MAY be encoded as itself.
        if matches!(byte, b'!'..=b'~') && !matches!(byte, b'+' | b'=') {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "+{byte:02X}");
        }
    }
    text
}

/// The value of an address of type `utf-8`, in any of its three forms.
///
/// # Errors
/// When it holds what no parameter may hold, or its value is not printable.
pub fn decode_utf8(text: &str) -> Result<String, XtextError> {
    let text = unescape(text, true)?;
    //= https://www.rfc-editor.org/rfc/rfc6533#section-3
    //# However, if an address is labeled with the UTF-8
    //# address type but does not conform to utf-8 syntax, then it MUST be
    //# copied into the message/global-delivery-status field without
    //# alteration.
    let value = unembed(&text).unwrap_or(text);
    if is_printable(&value, true) { Ok(value) } else { Err(XtextError::Unprintable) }
}

/// An address of type `utf-8`; with `utf8` characters outside ASCII stand for themselves.
#[must_use]
pub fn encode_utf8(value: &str, utf8: bool) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        //= https://www.rfc-editor.org/rfc/rfc6533#section-3
        //# When used in the ORCPT parameter, the UTF-8 address type requires
        //# that ASCII CTLs, SP, '\', '+', and '=' be encoded using 'unitext'
        //# encoding
        if (matches!(c, '!'..='~') && !matches!(c, '\\' | '+' | '=')) || (utf8 && !c.is_ascii()) {
            text.push(c);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{{{:02X}}}", u32::from(c));
        }
    }
    text
}

/// Undoes `+XX`.
fn unescape(text: &str, utf8: bool) -> Result<String, XtextError> {
    let mut value = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            //= https://www.rfc-editor.org/rfc/rfc3461#section-4
            //# hexchar = ASCII "+" immediately followed by two upper case
            //# hexadecimal digits
            '+' => {
                let digits = rest.as_str().get(..2).filter(|digits| digits.bytes().all(is_upper_hex)).ok_or(XtextError::Escape)?;
                value.push(u8::from_str_radix(digits, 16).map_err(|_| XtextError::Escape)?);
                rest = rest.as_str()[2..].chars();
            }
            '=' => return Err(XtextError::Character),
            '!'..='~' => value.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            _ if utf8 && !c.is_ascii() => value.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            _ => return Err(XtextError::Character),
        }
    }
    String::from_utf8(value).map_err(|_| XtextError::Unprintable)
}

/// Undoes `\x{HEX}`; `None` when a backslash begins anything else.
fn unembed(text: &str) -> Option<String> {
    let mut value = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        value.push_str(before);
        let (digits, after) = after.strip_prefix("x{")?.split_once('}')?;
        if !(2..=6).contains(&digits.len()) || !digits.bytes().all(is_upper_hex) {
            return None;
        }
        value.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        rest = after;
    }
    value.push_str(rest);
    Some(value)
}

fn is_upper_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'F')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn xtext_is_read_as_rfc_3461_has_it() {
        for (text, value) in [("QQ314159", "QQ314159"), ("a+2Bb+3Dc", "a+b=c"), ("one+20two+09", "one two\t"), ("+41", "A"), ("", "")] {
            assert_eq!(decode(text).as_deref(), Ok(value), "{text}");
        }
        for (text, error) in [
            ("a=b", XtextError::Character),
            ("a b", XtextError::Character),
            ("ü", XtextError::Character),
            ("+", XtextError::Escape),
            ("a+4", XtextError::Escape),
            ("+4g", XtextError::Escape),
            ("+4a", XtextError::Escape),
            ("+ü1", XtextError::Escape),
            ("a+0D+0Ab", XtextError::Unprintable),
            ("+7F", XtextError::Unprintable),
            ("+C3+BC", XtextError::Unprintable),
        ] {
            assert_eq!(decode(text), Err(error), "{text}");
        }
    }

    #[test]
    fn what_does_not_conform_to_the_utf_8_type_is_kept_as_it_is() {
        for (text, value) in [
            ("\\x{FC}", "ü"),
            ("\\x{1F600}\\x{5C}", "😀\\"),
            ("\\x{2B}41", "+41"),
            ("\\x{fc}", "\\x{fc}"),
            ("\\x{D800}", "\\x{D800}"),
            ("\\x{}", "\\x{}"),
            ("a\\b", "a\\b"),
            ("a+40b", "a@b"),
        ] {
            assert_eq!(decode_utf8(text).as_deref(), Ok(value), "{text}");
        }
        assert_eq!(decode_utf8("a\u{2028}b"), Err(XtextError::Unprintable));
    }

    proptest! {
        #[test]
        fn every_value_comes_back_from_its_xtext(value in "[ -~\t]{0,60}") {
            let text = encode(&value);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'='));
            prop_assert_eq!(decode(&text), Ok(value));
        }

        #[test]
        fn every_address_comes_back_from_both_forms(value in "\\PC{0,30}") {
            for utf8 in [false, true] {
                let text = encode_utf8(&value, utf8);
                prop_assert!(utf8 || text.is_ascii());
                prop_assert!(!text.contains([' ', '=', '+']));
                if is_printable(&value, true) {
                    prop_assert_eq!(decode_utf8(&text), Ok(value.clone()));
                }
            }
        }

        #[test]
        fn no_text_makes_a_decoder_panic_or_gives_a_control_character(text in "\\PC{0,40}|[+x{}\\\\0-9A-F]{0,40}") {
            for value in [decode(&text), decode_utf8(&text)].into_iter().flatten() {
                prop_assert!(!value.contains(|c: char| c.is_control() && c != '\t'));
            }
        }
    }
}
