//! Tokens of Microsoft Entra: by secret, by certificate, or in the name of a user.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Tokens;
use super::grant::{Grant, Proof, token_url};
use super::jwt::{Algorithm, Assertion, rsa_key};
use super::kept::Kept;
use crate::contract::ProviderName;
use crate::http::verdict::{Rule, Verdict};
use crate::registry::{Context, SettingsError};
use crate::settings::Secret;

/// The token service of the public cloud.
pub const AUTHORITY: &str = "https://login.microsoftonline.com";

/// What its refusals mean. Codes are for people (Microsoft may change them); what nothing here knows is
/// refused for good by its `error`, and is up to a person.
/// <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>
pub const RULES: &[Rule] = &[
    Rule::new(0, "temporarily_unavailable", Verdict::Unavailable),
    Rule::new(0, "server_error", Verdict::Unavailable),
    Rule::new(0, "", Verdict::Unavailable).says("aadsts90006:"),
    Rule::new(0, "", Verdict::Unavailable).says("aadsts90012:"),
    Rule::new(0, "", Verdict::Unavailable).says("aadsts90024:"),
    Rule::new(0, "", Verdict::Unavailable).says("aadsts90033:"),
    Rule::new(0, "", Verdict::Unavailable).says("aadsts90090:"),
    Rule::new(0, "", Verdict::Throttled(None)).says("aadsts90055:"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts7000215:")
        .advice("`client_secret` is wrong: take the secret's Value, not its Secret ID; Entra shows it once, when it is made under App registrations > Certificates & secrets"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts7000222:")
        .advice("the client secret has expired: make a new one in Entra under App registrations > Certificates & secrets, and put it into `client_secret`"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts7000218:")
        .advice("Entra got no credential: set `client_secret`, or `certificate` and `private_key`"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts7000112:")
        .advice("the application is disabled: enable it in Entra under Enterprise applications > Properties > Enabled for users to sign in"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts700016:")
        .advice("`client_id` is not known in `tenant`: compare both with the Overview page of the app registration in Entra"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts700027:")
        .advice("the certificate is not the application's: upload it in Entra under App registrations > Certificates & secrets > Certificates"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts90002:")
        .advice("`tenant` is not known to this cloud: take the Directory (tenant) ID from Entra's Overview page; national clouds need `authority`"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts500011:")
        .advice("the service that the token is for is not in this tenant: grant the application its API permissions in Entra, with admin consent"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts50012:")
        .advice("the signed assertion is refused: check that the certificate is uploaded and has not expired, and that this host's clock is right"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts500133:")
        .advice("the signed assertion is outside of its time: correct this host's clock, for example with NTP"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts700024:")
        .advice("the signed assertion is outside of its time: correct this host's clock, for example with NTP"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts530032:")
        .advice("a Conditional Access policy blocks the application: exclude it there, or use a workload identity policy that lets it pass"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts90094:")
        .advice("an administrator must consent: in Entra under App registrations > API permissions > Grant admin consent"),
    Rule::new(0, "", Verdict::Unauthorized)
        .says("aadsts65001:")
        .advice("nobody has consented yet: in Entra under App registrations > API permissions > Grant admin consent"),
    Rule::new(0, "invalid_grant", Verdict::Unauthorized)
        .advice("the refresh token is no longer valid: sign in with the mailbox again, and put the new one into `refresh_token`"),
    Rule::new(0, "interaction_required", Verdict::Unauthorized)
        .advice("a person must sign in with the mailbox again; put the new refresh token into `refresh_token`"),
];

/// What a provider's table says about its credential.
#[derive(Debug, Clone, Copy)]
pub struct Entra<'a> {
    /// `tenant`: its id, or one of its domains.
    pub tenant: &'a str,
    /// `client_id`: the application.
    pub client_id: &'a str,
    /// `client_secret`.
    pub client_secret: Option<&'a Secret>,
    /// `certificate`: a PEM file.
    pub certificate: Option<&'a Path>,
    /// `private_key`: a PEM file.
    pub private_key: Option<&'a Path>,
    /// `refresh_token`, of a user that has signed in.
    pub refresh_token: Option<&'a Secret>,
    /// `authority`; absent for the public cloud.
    pub authority: Option<&'a str>,
    /// What tokens are for when the application acts in its own name: `https://…/.default`.
    pub app_scope: &'a str,
    /// What they are for in the name of a user; `offline_access` is added.
    pub user_scope: &'a str,
    /// How long a request for a token may take.
    pub patience: Duration,
}

impl Entra<'_> {
    /// Where the provider `name` gets its tokens from. Reads secrets and files.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn tokens(&self, name: &ProviderName, context: &Context) -> Result<Tokens, SettingsError> {
        self.check_tenant()?;
        if self.client_id.trim().is_empty() {
            return Err(SettingsError::new(
                "client_id",
                "it is empty; expected the Application (client) ID of the app registration in Entra",
            ));
        }
        let authority = token_url("authority", self.authority.unwrap_or(AUTHORITY))?;
        let url = format!("{authority}/{}/oauth2/v2.0/token", self.tenant);
        let mut form = vec![("client_id", self.client_id.to_owned())];
        let secret =
            self.client_secret.map(|secret| secret.read().map_err(|error| SettingsError::new("client_secret", error))).transpose()?;
        let proof = match (self.refresh_token, self.certificate, self.private_key) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
                return Err(SettingsError::new(
                    "refresh_token",
                    "set either it or a certificate: one acts for a user, the other for itself",
                ));
            }
            (Some(token), None, None) => {
                let token = token.read().map_err(|error| SettingsError::new("refresh_token", error))?;
                form.push(("grant_type", "refresh_token".to_owned()));
                form.push(("scope", format!("{} offline_access", self.user_scope)));
                // Public clients have none.
                form.extend(secret.map(|secret| ("client_secret", secret)));
                Proof::Refresh(Kept::new(name, token, context.state.as_deref()))
            }
            (None, certificate, key) => {
                form.push(("grant_type", "client_credentials".to_owned()));
                form.push(("scope", self.app_scope.to_owned()));
                match (secret, certificate, key) {
                    (Some(secret), None, None) => {
                        form.push(("client_secret", secret));
                        Proof::Secret
                    }
                    (None, Some(certificate), Some(key)) => {
                        form.push(("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned()));
                        Proof::Assertion("client_assertion", Box::new(self.assertion(certificate, key, &url)?))
                    }
                    (None, Some(_), None) => {
                        return Err(SettingsError::new("private_key", "a certificate needs its key: the path of a PEM file"));
                    }
                    (None, None, Some(_)) => {
                        return Err(SettingsError::new("certificate", "a key needs its certificate: the path of a PEM file"));
                    }
                    (None, None, None) => {
                        return Err(SettingsError::new(
                            "client_secret",
                            "no credential; expected `client_secret`, or `certificate` and `private_key`, or `refresh_token`",
                        ));
                    }
                    (Some(_), _, _) => return Err(SettingsError::new("client_secret", "set either it or a certificate, not both")),
                }
            }
        };
        Ok(Tokens::new(Grant { http: context.http.clone(), url, form, proof, rules: RULES, patience: self.patience }))
    }

    fn check_tenant(&self) -> Result<(), SettingsError> {
        const EXPECTED: &str = "expected the Directory (tenant) ID from Entra's Overview page, or a domain of the tenant";
        let tenant = self.tenant;
        let is_name = !tenant.is_empty() && tenant.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        if !is_name {
            return Err(SettingsError::new("tenant", format!("{tenant:?} names no tenant; {EXPECTED}")));
        }
        // These stand for "whoever signs in", and nobody does.
        if ["common", "organizations", "consumers"].iter().any(|any| any.eq_ignore_ascii_case(tenant)) && self.refresh_token.is_none() {
            return Err(SettingsError::new("tenant", format!("an application cannot sign in to {tenant:?}; {EXPECTED}")));
        }
        Ok(())
    }

    /// Entra wants PS256, and the SHA-256 of the certificate to know it by.
    /// <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>
    fn assertion(&self, certificate: &Path, key: &Path, url: &str) -> Result<Assertion, SettingsError> {
        let unreadable = |what: &'static str, path: &Path, error: rustls_pki_types::pem::Error| {
            let message = match error {
                rustls_pki_types::pem::Error::NoItemsFound => {
                    format!("{} holds no {}; expected a PEM file with one", path.display(), what.replace('_', " "))
                }
                // The text of other errors may quote the file.
                rustls_pki_types::pem::Error::Io(error) => format!("cannot read {}: {error}", path.display()),
                _ => format!("{} is no PEM file that can be read", path.display()),
            };
            SettingsError::new(what, message)
        };
        let chain: CertificateDer<'_> =
            CertificateDer::from_pem_file(certificate).map_err(|error| unreadable("certificate", certificate, error))?;
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("private_key", key, error))?;
        let unusable = |error: String| SettingsError::new("private_key", format!("{}: {error}; Entra takes RSA keys only", key.display()));
        let pair = rsa_key(&key_der).map_err(unusable)?;
        let signing = crate::http::crypto().key_provider.load_private_key(key_der).map_err(|error| unusable(error.to_string()))?;
        if rustls::sign::CertifiedKey::new(vec![chain.clone()], signing).keys_match().is_err() {
            return Err(SettingsError::new("private_key", format!("{} is not the key of {}", key.display(), certificate.display())));
        }
        let thumbprint = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &chain));
        let claims = [("aud", url), ("iss", self.client_id), ("sub", self.client_id)];
        Ok(Assertion::new(Algorithm::Ps256, pair, &[("x5t#S256", &thumbprint)], &claims, Duration::from_secs(300)))
    }
}
