//! Access tokens (OAuth 2): fetched once for all who wait, kept while they last, renewed early.

use crate::contract::Failure;

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Where tokens of one kind come from. Clones share them.
#[derive(Debug, Clone)]
pub struct Tokens;

impl Token {
    /// The token's text, for `Authorization: Bearer` and XOAUTH2.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(***)")
    }
}

impl Tokens {
    /// A token that is valid now.
    ///
    /// # Errors
    /// `Unauthorized` when the credential is refused, with what to do; `Unavailable` or `Throttled` when
    /// none can be had now.
    pub async fn get(&self) -> Result<Token, Failure> {
        Ok(Token(String::new()))
    }

    /// Forgets `refused`, which a service did not accept. Says whether another one is worth a try: once,
    /// and not when it was renewed just now.
    pub fn refused(&self, refused: &Token) -> bool {
        let _ = refused;
        false
    }
}
