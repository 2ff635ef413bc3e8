//! Stored passwords: the hashes that are taken, what they may cost, and how one is made.

use std::fmt;
use std::sync::Arc;

use argon2::password_hash::phc::{Output, PasswordHash as PhcHash};
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _};
use base64::Engine as _;

/// The most memory that one verification may take, in KiB. Several run at the same time.
const MAX_MEMORY: u32 = 256 << 10;

/// The most passes over it.
const MAX_PASSES: u32 = 16;

/// The most memory times passes, in KiB: about a second of work.
const MAX_WORK: u64 = 1 << 20;

/// The most lanes.
const MAX_LANES: u32 = 16;

/// bcrypt's cost doubles the work with each step; 14 is about a second.
const MAX_COST: u32 = 14;

/// Alphabets of base64 in which hashes are written down, by its first letters.
const BCRYPT_BASE64: base64::engine::GeneralPurpose =
    base64::engine::GeneralPurpose::new(&base64::alphabet::BCRYPT, base64::engine::general_purpose::NO_PAD);

/// The hash of one password. `Debug` does not show it: who has it can try passwords at leisure.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PasswordHash {
    text: Arc<str>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Argon2id,
    Bcrypt,
}

/// Why a text is no hash that passwords are verified against. None of it shows the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordHashError {
    /// It is no hash at all: the password itself, most likely.
    #[error("it is a password in plain text, or no hash that is known")]
    PlainText,
    /// A hash that is too weak to be taken, or that cannot be verified.
    #[error("it is a hash of the kind {0}, which is not taken")]
    Unsupported(&'static str),
    /// It begins as a hash, and does not go on as one.
    #[error("it is no whole hash: {0}")]
    Malformed(&'static str),
    /// Verifying it would take too much memory or time.
    #[error("it asks for too much: {0}")]
    TooCostly(String),
}

impl PasswordHash {
    /// Takes a PHC string of Argon2id, or a hash of bcrypt (`$2y$`, `$2b$`, `$2a$`).
    ///
    /// # Errors
    /// Says why it is none, without showing it.
    pub fn parse(text: &str) -> Result<Self, PasswordHashError> {
        let kind = match text.strip_prefix('$').and_then(|rest| rest.split_once('$')) {
            Some(("argon2id", _)) => check_argon2id(text).map(|()| Kind::Argon2id),
            Some(("2y" | "2b" | "2a", rest)) => check_bcrypt(rest).map(|()| Kind::Bcrypt),
            Some((name, _)) => Err(unsupported(name)),
            None if text.starts_with("{SHA}") => Err(PasswordHashError::Unsupported("SHA-1")),
            None if text.starts_with("{SSHA}") => Err(PasswordHashError::Unsupported("salted SHA-1")),
            None => Err(PasswordHashError::PlainText),
        }?;
        Ok(Self { text: text.into(), kind })
    }

    /// Hashes a password with Argon2id and a random salt.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn make(password: &str) -> Result<Self, argon2::password_hash::Error> {
        let hash = Argon2::default().hash_password(password.as_bytes())?;
        Ok(Self { text: hash.to_string().into(), kind: Kind::Argon2id })
    }

    /// Whether it is the hash of this password. Takes tens of milliseconds and some 20 MiB by intent:
    /// never call it on a thread that others wait for.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        match self.kind {
            Kind::Argon2id => PhcHash::new(&self.text).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
            Kind::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
        }
    }

    /// A hash that takes as long to verify and fits no password.
    #[must_use]
    pub fn decoy(&self) -> Self {
        let text = match self.kind {
            Kind::Argon2id => self.text.rfind('$').map(|at| {
                // A digest of zeros; nobody has found a password for it.
                let length = PhcHash::new(&self.text).ok().and_then(|hash| hash.hash).map_or(32, |output| output.len());
                let zeros = base64::engine::general_purpose::STANDARD_NO_PAD.encode(vec![0; length]);
                format!("{}${zeros}", &self.text[..at])
            }),
            // `$2y$12$`, 22 characters of salt, 31 of digest.
            Kind::Bcrypt => self.text.get(..29).map(|head| format!("{head}{}", BCRYPT_BASE64.encode([0; 23]))),
        };
        Self { text: text.map_or_else(|| Arc::clone(&self.text), Arc::from), kind: self.kind }
    }

    /// The hash as it is written down.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({:?}, ***)", self.kind)
    }
}

fn check_argon2id(text: &str) -> Result<(), PasswordHashError> {
    let malformed = || PasswordHashError::Malformed("expected $argon2id$v=19$m=…,t=…,p=…$SALT$HASH");
    let hash = PhcHash::new(text).map_err(|_| malformed())?;
    let params = Params::try_from(&hash).map_err(|_| malformed())?;
    if hash.salt.is_none() {
        return Err(PasswordHashError::Malformed("its salt is missing"));
    }
    if hash.hash.as_ref().map_or(0, Output::len) < 16 {
        return Err(PasswordHashError::Malformed("its digest is missing or shorter than 16 octets"));
    }
    if Algorithm::try_from(hash.algorithm.as_str()) != Ok(Algorithm::Argon2id) {
        return Err(PasswordHashError::Unsupported("Argon2i or Argon2d"));
    }
    let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    let work = u64::from(memory) * u64::from(passes);
    if memory > MAX_MEMORY || passes > MAX_PASSES || lanes > MAX_LANES || work > MAX_WORK {
        return Err(PasswordHashError::TooCostly(format!(
            "m={memory},t={passes},p={lanes}; at most m={MAX_MEMORY}, t={MAX_PASSES}, p={MAX_LANES}, and m times t {MAX_WORK}"
        )));
    }
    Ok(())
}

/// `rest` is what follows `$2y$`.
fn check_bcrypt(rest: &str) -> Result<(), PasswordHashError> {
    let malformed = PasswordHashError::Malformed("expected $2y$COST$ and 53 characters");
    let Some((cost, digest)) = rest.split_once('$') else { return Err(malformed) };
    let cost = if cost.len() == 2 { cost.parse::<u32>().ok() } else { None };
    let Some(cost) = cost.filter(|cost| *cost >= 4) else { return Err(malformed) };
    let decodes = |range: std::ops::Range<usize>| digest.get(range).is_some_and(|part| BCRYPT_BASE64.decode(part).is_ok());
    if digest.len() != 53 || !decodes(0..22) || !decodes(22..53) {
        return Err(malformed);
    }
    if cost > MAX_COST {
        return Err(PasswordHashError::TooCostly(format!("cost {cost}; at most {MAX_COST}")));
    }
    Ok(())
}

fn unsupported(name: &str) -> PasswordHashError {
    match name {
        "argon2i" | "argon2d" => PasswordHashError::Unsupported("Argon2i or Argon2d"),
        "2x" | "2" => PasswordHashError::Unsupported("bcrypt before 2011"),
        "apr1" | "1" => PasswordHashError::Unsupported("MD5"),
        "5" | "6" => PasswordHashError::Unsupported("SHA-crypt"),
        "y" | "7" | "scrypt" => PasswordHashError::Unsupported("scrypt"),
        "pbkdf2" | "pbkdf2-sha256" | "pbkdf2-sha512" => PasswordHashError::Unsupported("PBKDF2"),
        _ => PasswordHashError::PlainText,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `hunter2`, as crypt(3) hashes it.
    const BCRYPT: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

    #[test]
    fn a_hash_fits_its_password_alone() {
        let made = PasswordHash::make("hunter2").unwrap();
        let read = PasswordHash::parse(made.as_str()).unwrap();
        assert!(read.verify(b"hunter2") && !read.verify(b"hunter3") && !read.verify(b""));
        assert!(made.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", made.as_str());
        let imported = PasswordHash::parse(BCRYPT).unwrap();
        assert!(imported.verify(b"hunter2") && !imported.verify(b"hunter3"));
    }

    #[test]
    fn a_decoy_costs_the_same_and_fits_nothing() {
        for hash in [PasswordHash::make("hunter2").unwrap(), PasswordHash::parse(BCRYPT).unwrap()] {
            let decoy = hash.decoy();
            assert_eq!(PasswordHash::parse(decoy.as_str()).unwrap(), decoy);
            assert_eq!(decoy.as_str()[..14], hash.as_str()[..14]);
            assert!(!decoy.verify(b"hunter2"));
        }
    }

    #[test]
    fn a_hash_that_asks_for_too_much_is_refused() {
        let tail = "$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for params in ["m=4194304,t=1,p=1", "m=19456,t=1000,p=1", "m=262144,t=16,p=1", "m=19456,t=2,p=64"] {
            let found = PasswordHash::parse(&format!("$argon2id$v=19${params}{tail}"));
            assert!(matches!(found, Err(PasswordHashError::TooCostly(_))), "{params}: {found:?}");
        }
        assert!(PasswordHash::parse(&format!("$argon2id$v=19$m=65536,t=3,p=4{tail}")).is_ok());
        let costly = BCRYPT.replacen("$04$", "$31$", 1);
        assert!(matches!(PasswordHash::parse(&costly), Err(PasswordHashError::TooCostly(_))));
    }

    #[test]
    fn what_is_no_hash_is_named_without_being_shown() {
        for (text, expected) in [
            ("hunter2", PasswordHashError::PlainText),
            ("$hunter2$", PasswordHashError::PlainText),
            ("", PasswordHashError::PlainText),
            ("$apr1$abc$def", PasswordHashError::Unsupported("MD5")),
            ("$6$abc$def", PasswordHashError::Unsupported("SHA-crypt")),
            ("{SHA}2fd4e1c67a2d28fced849ee1bb76e7391b93eb12", PasswordHashError::Unsupported("SHA-1")),
            ("$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$AAAA", PasswordHashError::Unsupported("Argon2i or Argon2d")),
        ] {
            assert_eq!(PasswordHash::parse(text), Err(expected), "{text}");
        }
        for text in ["$argon2id$", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ", "$2y$10$short", "$2y$1$x", "$2y$zz$x"] {
            assert!(matches!(PasswordHash::parse(text), Err(PasswordHashError::Malformed(_))), "{text}");
        }
        let shown = format!("{:?}", PasswordHash::make("hunter2").unwrap());
        assert_eq!(shown, "PasswordHash(Argon2id, ***)");
    }
}
