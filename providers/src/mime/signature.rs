//! Whether a message is signed in a way that no mapping into fields keeps.

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
