//! The password file: names and hashes in the form of htpasswd.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::password::{PasswordHash, PasswordHashError};

/// The largest file that is read.
pub const MAX_PASSWORD_FILE: u64 = 4 << 20;

/// What a password file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PasswordFile {
    /// Each name with its hash.
    pub hashes: BTreeMap<Arc<str>, PasswordHash>,
}

/// A line that cannot be taken. Shows nothing of it but the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct PasswordFileError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it, and what to do.
    pub what: String,
}

impl PasswordFile {
    /// Reads lines `name:hash`. Empty ones, and those that begin with `#`, say nothing.
    ///
    /// # Errors
    /// Every line that cannot be taken; then none is.
    pub fn parse(text: &str) -> Result<Self, Vec<PasswordFileError>> {
        let mut file = Self::default();
        let mut errors = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match entry(line) {
                Ok((name, _)) if file.hashes.contains_key(name) => {
                    errors
                        .push(PasswordFileError { line: index + 1, what: format!("\"{name}\" stands here again; remove one of the two") });
                }
                Ok((name, hash)) => {
                    file.hashes.insert(name.into(), hash);
                }
                Err(what) => errors.push(PasswordFileError { line: index + 1, what }),
            }
        }
        if errors.is_empty() { Ok(file) } else { Err(errors) }
    }
}

fn entry(line: &str) -> Result<(&str, PasswordHash), String> {
    let (name, rest) = line.split_once(':').ok_or("expected name:hash; make one with `postrider password`")?;
    check_name(name).map_err(|what| format!("the name {what}"))?;
    // Other programs keep more fields after the hash, none of which matters here.
    let hash = rest.split(':').next().unwrap_or(rest);
    match PasswordHash::parse(hash) {
        Ok(hash) => Ok((name, hash)),
        Err(error @ PasswordHashError::TooCostly(_)) => {
            Err(format!("the hash of \"{name}\" cannot be taken: {error}; make another with `postrider password`"))
        }
        // Traditional crypt(3) has no mark: 13 characters of its alphabet.
        Err(PasswordHashError::PlainText) if is_crypt(hash) => Err(format!(
            "the hash of \"{name}\" cannot be taken: it looks like crypt(3), which is not taken; \
             set the password anew with `htpasswd -B` or `postrider password`"
        )),
        Err(error) => Err(format!(
            "the hash of \"{name}\" cannot be taken: {error}; set the password anew with `htpasswd -B` or `postrider password`"
        )),
    }
}

fn is_crypt(hash: &str) -> bool {
    hash.len() == 13 && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/'))
}

/// What may be the name of an application, and so what AUTH may say.
///
/// # Errors
/// What is wrong with it, to follow "the name".
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("is empty");
    }
    if name.len() > 255 {
        return Err("is longer than 255 octets");
    }
    if name.chars().any(char::is_control) {
        return Err("has a control character");
    }
    if name.trim() != name {
        return Err("begins or ends with a space");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

    #[test]
    fn names_comments_and_further_fields_are_read() {
        let hash = PasswordHash::make("x").unwrap();
        let text = format!("# who\n\nscanner:{}\r\nkiosk@corp.example:{}:1000:100::/nowhere\n", hash.as_str(), hash.as_str());
        let file = PasswordFile::parse(&text).unwrap();
        assert_eq!(file.hashes.keys().map(|name| &**name).collect::<Vec<_>>(), ["kiosk@corp.example", "scanner"]);
        assert!(file.hashes["scanner"].verify(b"x"));
    }

    #[test]
    fn every_bad_line_is_named_with_its_number_and_shows_no_hash() {
        let good = PasswordHash::make("x").unwrap();
        let text = format!(
            "a:$apr1$zzzsecret$zzzsecret\nb:{{SHA}}zzzsecret\nc:zzzsecretzzzz\nd\ne:{0}\ne:{0}\n:{0}\ng:zzzsecret\n",
            good.as_str()
        );
        let errors = PasswordFile::parse(&text).unwrap_err();
        assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), [1, 2, 3, 4, 6, 7, 8]);
        let said = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(!said.contains("zzzsecret"), "{said}");
        for part in
            ["line 1: the hash of \"a\" cannot be taken: it is a hash of the kind MD5", "crypt(3)", "htpasswd -B", "stands here again"]
        {
            assert!(said.contains(part), "{part} is not in\n{said}");
        }
    }

    #[test]
    fn a_bcrypt_line_is_taken() {
        assert!(PasswordFile::parse(&format!("a:{HASH}")).is_ok());
    }
}
