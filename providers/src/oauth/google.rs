//! Tokens of Google: a service account that acts for mailboxes, or a user's refresh token.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::Tokens;
use super::grant::{Grant, Proof, token_url};
use super::jwt::{Algorithm, Assertion, rsa_key};
use super::kept::Kept;
use crate::contract::ProviderName;
use crate::http::verdict::{Rule, Verdict};
use crate::registry::{Context, SettingsError};
use crate::settings::Secret;

/// The token endpoint.
pub const TOKEN_ENDPOINT: &str = "https://oauth2.googleapis.com/token";

/// What its refusals mean.
/// <https://developers.google.com/identity/protocols/oauth2/service-account>
pub const RULES: &[Rule] = &[
    Rule::new(0, "temporarily_unavailable", Verdict::Unavailable),
    Rule::new(0, "internal_failure", Verdict::Unavailable),
    Rule::new(0, "rate_limit_exceeded", Verdict::Throttled(None)),
    Rule::new(0, "unauthorized_client", Verdict::Unauthorized).advice(
        "the service account may not act for this mailbox with this scope: in the Google Admin console under Security > Access and data control > API controls > Domain-wide delegation, add its client ID with the scope",
    ),
    Rule::new(0, "access_denied", Verdict::Unauthorized)
        .advice("allow the scope for the service account's client ID in the Google Admin console under Domain-wide delegation"),
    Rule::new(0, "invalid_scope", Verdict::Unauthorized)
        .advice("allow the scope for the service account's client ID in the Google Admin console under Domain-wide delegation"),
    Rule::new(0, "invalid_grant", Verdict::SenderRefused)
        .says("valid email or user id")
        .advice("there is no such user in the Workspace: set `mailbox` to a user, or let applications send as one"),
    Rule::new(0, "invalid_grant", Verdict::Unauthorized)
        .says("reasonable timeframe")
        .advice("the signed assertion is outside of its time: correct this host's clock, for example with NTP"),
    Rule::new(0, "invalid_grant", Verdict::Unauthorized)
        .says("signature")
        .advice("the service account's key was deleted or replaced: make a new JSON key in the Google Cloud console, and put it into `credentials_file`"),
    Rule::new(0, "invalid_grant", Verdict::Unauthorized)
        .says("account not found")
        .advice("the service account was deleted: make another one in the Google Cloud console, with a new JSON key for `credentials_file`"),
    Rule::new(0, "invalid_grant", Verdict::Unauthorized)
        .says("expired or revoked")
        .advice("the refresh token is no longer valid: sign in with the mailbox again; while the consent screen is in testing, tokens last 7 days only"),
    Rule::new(0, "invalid_client", Verdict::Unauthorized)
        .advice("`client_id` or `client_secret` is wrong: take both from the Google Cloud console under APIs & Services > Credentials"),
];

/// A service account's key file, as the Google Cloud console gives it out.
#[derive(serde::Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: String,
    token_uri: Option<String>,
}

/// A service account that acts for mailboxes. Clones are the same account.
#[derive(Clone)]
pub struct ServiceAccount(Arc<Account>);

struct Account {
    email: String,
    key_id: String,
    key: PrivateKeyDer<'static>,
    url: String,
    scope: String,
    http: reqwest::Client,
    patience: Duration,
}

impl std::fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ServiceAccount").field(&self.0.email).finish()
    }
}

impl ServiceAccount {
    /// Reads the key file at `path`.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn read(
        path: &Path,
        scope: &str,
        token_endpoint: Option<&str>,
        patience: Duration,
        context: &Context,
    ) -> Result<Self, SettingsError> {
        const KEY: &str = "credentials_file";
        let text = std::fs::read(path).map_err(|error| SettingsError::new(KEY, format!("cannot read {}: {error}", path.display())))?;
        // What the parser says may quote the file, and there is a key in it.
        let file: KeyFile = serde_json::from_slice(&text).map_err(|_| {
            let expected =
                "expected the JSON key of a service account, from the Google Cloud console under IAM & Admin > Service Accounts > Keys";
            SettingsError::new(KEY, format!("{} has no client_email and private_key; {expected}", path.display()))
        })?;
        let unusable = || SettingsError::new(KEY, format!("the private_key in {} is no RSA key that can be used", path.display()));
        let key = PrivateKeyDer::from_pem_slice(file.private_key.as_bytes()).map_err(|_| unusable())?;
        rsa_key(&key).map_err(|_| unusable())?;
        let url = match token_endpoint {
            Some(url) => token_url("token_endpoint", url)?,
            None => token_url(KEY, file.token_uri.as_deref().unwrap_or(TOKEN_ENDPOINT))?,
        };
        let (email, key_id, scope) = (file.client_email, file.private_key_id, scope.to_owned());
        Ok(Self(Arc::new(Account { email, key_id, key, url, scope, http: context.http.clone(), patience })))
    }

    /// The account's address.
    #[must_use]
    pub fn email(&self) -> &str {
        &self.0.email
    }

    /// Its tokens in the name of `mailbox`. Keep them: each call has a cache of its own.
    ///
    /// # Errors
    /// Never, in practice: the key was tried when it was read.
    pub fn tokens(&self, mailbox: &str) -> Result<Tokens, SettingsError> {
        let account = &*self.0;
        let key = rsa_key(&account.key).map_err(|error| SettingsError::new("credentials_file", error))?;
        let claims = [("iss", &*account.email), ("scope", &account.scope), ("aud", &account.url), ("sub", mailbox)];
        let assertion = Assertion::new(Algorithm::Rs256, key, &[("kid", &account.key_id)], &claims, Duration::from_secs(3600));
        Ok(Tokens::new(Grant {
            http: account.http.clone(),
            url: account.url.clone(),
            form: vec![("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned())],
            proof: Proof::Assertion("assertion", Box::new(assertion)),
            rules: RULES,
            patience: account.patience,
        }))
    }
}

/// What a provider's table says about a user's refresh token.
#[derive(Debug, Clone, Copy)]
pub struct Refresh<'a> {
    /// `client_id`: the application that the user has signed in to.
    pub client_id: &'a str,
    /// `client_secret`.
    pub client_secret: &'a Secret,
    /// `refresh_token`.
    pub refresh_token: &'a Secret,
    /// `token_endpoint`; absent for Google's.
    pub token_endpoint: Option<&'a str>,
    /// How long a request for a token may take.
    pub patience: Duration,
}

impl Refresh<'_> {
    /// Where the provider `name` gets its tokens from. Reads secrets.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn tokens(&self, name: &ProviderName, context: &Context) -> Result<Tokens, SettingsError> {
        let read = |key: &'static str, secret: &Secret| secret.read().map_err(|error| SettingsError::new(key, error));
        let form = vec![
            ("grant_type", "refresh_token".to_owned()),
            ("client_id", self.client_id.to_owned()),
            ("client_secret", read("client_secret", self.client_secret)?),
        ];
        let token = read("refresh_token", self.refresh_token)?;
        let url = token_url("token_endpoint", self.token_endpoint.unwrap_or(TOKEN_ENDPOINT))?;
        let proof = Proof::Refresh(Kept::new(name, token, context.state.as_deref()));
        Ok(Tokens::new(Grant { http: context.http.clone(), url, form, proof, rules: RULES, patience: self.patience }))
    }
}
