//! A credential as the value of a header, which no log shows.

use reqwest::header::HeaderValue;

use crate::registry::SettingsError;
use crate::settings::Secret;

/// Reads the secret under `key`, and writes it as a header's value after `prefix`, as in `Bearer `.
///
/// # Errors
/// When it cannot be read, or holds what no header may hold; never with the secret.
pub fn credential(key: &'static str, secret: &Secret, prefix: &str) -> Result<HeaderValue, SettingsError> {
    let text = secret.read().map_err(|error| SettingsError::new(key, error))?;
    let Ok(mut value) = HeaderValue::from_str(&format!("{prefix}{text}")) else {
        return Err(SettingsError::new(key, "it has characters that no HTTP header may have; is it the whole key and nothing else?"));
    };
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_not_shown_and_a_broken_one_neither() {
        let value = credential("token", &Secret::Literal("hunter2".into()), "Bearer ").unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer hunter2");
        assert!(!format!("{value:?}").contains("hunter2"));
        let error = credential("token", &Secret::Literal("hunter2\n".into()), "").unwrap_err();
        assert!(error.key == "token" && !error.message.contains("hunter2"), "{error}");
    }
}
