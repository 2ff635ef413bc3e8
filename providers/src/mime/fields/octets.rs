//! From the octets of a part to what they mean: transfer encodings and character sets, forgiving, since
//! nobody can ask the sender for a better message.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use mail_parser::decoders::charsets::map::charset_decoder;

/// Decoders take padding and the last bits as they come.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true),
);

/// What was decoded, and what was wrong with it, in words.
pub type Decoded<T> = (T, Option<&'static str>);

/// Undoes a Content-Transfer-Encoding (RFC 2045 section 6).
pub fn transfer(encoding: &str, body: &[u8]) -> Decoded<Vec<u8>> {
    match encoding.to_ascii_lowercase().as_str() {
        "base64" => base64(body),
        "quoted-printable" => (quoted_printable(body), None),
        "" | "7bit" | "8bit" | "binary" => (body.to_vec(), None),
        _ => (body.to_vec(), Some("an unknown Content-Transfer-Encoding, which was left as it is")),
    }
}

/// Everything outside the alphabet is passed over (RFC 2045 section 6.8), and the data ends at its padding.
fn base64(body: &[u8]) -> Decoded<Vec<u8>> {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let mut digits: Vec<u8> = body.iter().copied().take_while(|&byte| byte != b'=').filter(is_digit).collect();
    let after = body[body.len().min(body.iter().position(|&byte| byte == b'=').unwrap_or(body.len()))..].iter();
    let mut problem = after.clone().any(is_digit).then_some("base64 that goes on after its end, which was cut off");
    if digits.len() % 4 == 1 {
        // One digit is less than an octet.
        digits.pop();
        problem = Some("base64 that ends too early");
    }
    match FORGIVING.decode(&digits) {
        Ok(octets) => (octets, problem),
        Err(_) => (body.to_vec(), Some("base64 that cannot be read, which was left as it is")),
    }
}

/// An equals sign that begins nothing stands for itself.
fn quoted_printable(body: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(body.len());
    for line in body.split_inclusive(|&byte| byte == b'\n') {
        let end = line.len() - line.iter().rev().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        // Blanks at the end were added on the way (RFC 2045 section 6.7 rule 3).
        let mut rest = line[..end].trim_ascii_end();
        let is_soft = rest.last() == Some(&b'=');
        if is_soft {
            rest = &rest[..rest.len() - 1];
        }
        while let Some((&first, tail)) = rest.split_first() {
            let decoded = tail.split_at_checked(2).filter(|_| first == b'=').and_then(|(pair, tail)| Some((hex(pair)?, tail)));
            let (octet, tail) = decoded.unwrap_or((first, tail));
            octets.push(octet);
            rest = tail;
        }
        if !is_soft {
            octets.extend_from_slice(&line[end..]);
        }
    }
    octets
}

fn hex(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()
}

/// A text in UTF-8 with `\n` at the end of its lines, whatever it had been.
pub fn text(octets: &[u8], charset: Option<&str>) -> Decoded<String> {
    let charset = charset.unwrap_or("us-ascii").to_ascii_lowercase();
    let is_utf8 = matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii" | "ascii" | "");
    let (text, mut problem) = match (charset_decoder(charset.as_bytes()).filter(|_| !is_utf8), std::str::from_utf8(octets)) {
        (Some(decoder), _) => (decoder(octets), None),
        (None, Ok(text)) => (text.to_owned(), (!is_utf8).then_some("an unknown charset, read as UTF-8")),
        (None, Err(_)) => (String::from_utf8_lossy(octets).into_owned(), None),
    };
    if text.contains(char::REPLACEMENT_CHARACTER) {
        problem = Some("octets that mean nothing in its charset, which were replaced");
    }
    let mut text = text.replace("\r\n", "\n").replace('\r', "\n");
    if text.contains('\0') {
        text.retain(|c| c != '\0');
        problem = problem.or(Some("NUL, which was left out"));
    }
    (text, problem)
}
