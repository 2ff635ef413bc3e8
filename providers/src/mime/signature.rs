//! Whether a message is signed in a way that no mapping into fields keeps; pure.

use super::block::Fields;

/// What is signed or sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// S/MIME, signed or encrypted (RFC 8551).
    Smime,
    /// PGP/MIME, signed or encrypted (RFC 3156).
    PgpMime,
    /// DKIM (RFC 6376): a change of the body breaks it.
    Dkim,
}

impl Signature {
    /// How much of a message is looked at: more than any header needs to say what the message is.
    pub const WITHIN: usize = 64 * 1024;

    /// Finds one in the header at the start of `message`, folded fields included. The parts of a message
    /// are not looked into: a signature of a part that was attached is that part's own. What a person
    /// signed counts before what a host did.
    #[must_use]
    pub fn of(message: &[u8]) -> Option<Self> {
        let mut dkim = None;
        for field in Fields::of(message) {
            if field.is("Content-Type")
                && let Some(signed) = Self::by_type(&field.unfolded().to_ascii_lowercase())
            {
                return Some(signed);
            }
            if field.is("DKIM-Signature") {
                dkim = Some(Self::Dkim);
            }
        }
        dkim
    }

    /// What a Content-Type in lower case stands for.
    fn by_type(value: &str) -> Option<Self> {
        // Comments may stand anywhere in it (RFC 2045 section 5.1); they are rare enough to be left aside.
        let (media_type, parameters) = value.split_once(';').unwrap_or((value, ""));
        match media_type.trim() {
            "multipart/signed" if parameters.contains("pgp-signature") => Some(Self::PgpMime),
            "multipart/signed" => Some(Self::Smime),
            "multipart/encrypted" => Some(Self::PgpMime),
            "application/pkcs7-mime" | "application/x-pkcs7-mime" => Some(Self::Smime),
            // RFC 8551 section 3.2.1: from agents that lost the type and kept the file's name.
            "application/octet-stream" if parameters.contains(".p7m") => Some(Self::Smime),
            _ => None,
        }
    }

    /// Its name, as people say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Smime => "S/MIME",
            Self::PgpMime => "PGP/MIME",
            Self::Dkim => "DKIM",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mapping_would_break_is_recognised_by_the_header() {
        use Signature::{Dkim, PgpMime, Smime};
        for (header, expected) in [
            ("Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; micalg=sha-256", Some(Smime)),
            ("content-type:\r\n Multipart/Signed;\r\n\tprotocol=\"application/PGP-signature\"", Some(PgpMime)),
            ("Content-Type: multipart/signed", Some(Smime)),
            ("Content-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"", Some(PgpMime)),
            ("Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m", Some(Smime)),
            ("Content-Type: application/x-pkcs7-mime", Some(Smime)),
            ("Content-Type: application/octet-stream; name=\"smime.p7m\"", Some(Smime)),
            ("DKIM-Signature: v=1; a=rsa-sha256;\r\n d=x.example", Some(Dkim)),
            ("DKIM-Signature: v=1\r\nContent-Type: multipart/signed", Some(Smime)),
            ("Content-Type: multipart/mixed; boundary=\"multipart/signed\"", None),
            ("Subject: multipart/signed\r\nX-DKIM-Signature: v=1", None),
            ("Subject: s\r\n\r\nDKIM-Signature: in the body", None),
            ("", None),
        ] {
            assert_eq!(Signature::of(format!("Received: x\r\n{header}\r\n\r\nbody\r\n").as_bytes()), expected, "{header}");
        }
    }
}
