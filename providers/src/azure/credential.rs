//! How calls prove who they are from: signed with the resource's access key, or with a token of Entra.
//!
//! <https://learn.microsoft.com/azure/communication-services/tutorials/hmac-header-tutorial>

use std::time::SystemTime;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, Method, RequestBuilder, Url};

use crate::oauth::{Token, Tokens};
use crate::registry::SettingsError;

/// The headers that are signed, in their order.
const SIGNED: &str = "x-ms-date;host;x-ms-content-sha256";

/// What proves who a call is from.
pub enum Credential {
    /// The resource's access key.
    Key(Box<hmac::Key>),
    /// An application in Entra.
    Entra(Tokens),
}

/// The two parts of a connection string.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// The resource's URL.
    pub endpoint: String,
    /// Its access key.
    pub key: String,
}

impl Credential {
    /// An access key as the portal shows it.
    ///
    /// # Errors
    /// Names `setting`, when it is no base64.
    pub fn key(setting: &'static str, text: &str) -> Result<Self, SettingsError> {
        match STANDARD.decode(text.trim()) {
            Ok(key) if !key.is_empty() => Ok(Self::Key(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key)))),
            // What was seen is a secret.
            _ => Err(SettingsError::new(setting, "the access key is no base64; copy the whole key from the resource's Settings > Keys")),
        }
    }

    /// A request with this body; `token` where there is one.
    pub fn request(&self, http: &Client, method: Method, url: Url, body: Vec<u8>, token: Option<&Token>) -> RequestBuilder {
        let request = http.request(method.clone(), url.clone());
        let request = match self {
            Self::Key(key) => {
                let date = httpdate::fmt_http_date(SystemTime::now());
                let hash = STANDARD.encode(digest::digest(&digest::SHA256, &body));
                let text = to_sign(&method, &url, &date, &hash);
                let signature = STANDARD.encode(hmac::sign(key, text.as_bytes()));
                request
                    .header("x-ms-date", date)
                    .header("x-ms-content-sha256", hash)
                    .header(AUTHORIZATION, format!("HMAC-SHA256 SignedHeaders={SIGNED}&Signature={signature}"))
            }
            Self::Entra(_) => request.bearer_auth(token.map_or("", Token::as_str)),
        };
        if body.is_empty() { request } else { request.header(CONTENT_TYPE, "application/json").body(body) }
    }
}

/// The text that is signed.
fn to_sign(method: &Method, url: &Url, date: &str, hash: &str) -> String {
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    // As the client writes it into `Host`: without the port that the scheme has anyway.
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let host = url.host_str().unwrap_or_default();
    format!("{method}\n{}{query}\n{date};{host}{port};{hash}", url.path())
}

impl ConnectionString {
    /// Reads `endpoint=https://…/;accesskey=…`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let part = |wanted: &str| {
            let mut parts = text.split(';').filter_map(|part| part.split_once('='));
            parts.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_owned())
        };
        Some(Self { endpoint: part("endpoint")?, key: part("accesskey")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_are_method_target_date_host_and_hash() {
        let url = Url::parse("https://r.communication.azure.com/emails:send?api-version=2025-09-01").unwrap();
        assert_eq!(
            to_sign(&Method::POST, &url, "Tue, 24 Nov 2026 11:00:00 GMT", "hash"),
            "POST\n/emails:send?api-version=2025-09-01\nTue, 24 Nov 2026 11:00:00 GMT;r.communication.azure.com;hash"
        );
        let local = Url::parse("http://127.0.0.1:8080/x").unwrap();
        assert!(to_sign(&Method::GET, &local, "d", "h").ends_with("\n/x\nd;127.0.0.1:8080;h"));
    }

    #[test]
    fn a_connection_string_has_two_parts_in_any_order() {
        let parsed = ConnectionString::parse("accessKey=a2V5PT0=;Endpoint=https://r.communication.azure.com/;").unwrap();
        assert_eq!((parsed.endpoint.as_str(), parsed.key.as_str()), ("https://r.communication.azure.com/", "a2V5PT0="));
        assert!(ConnectionString::parse("https://r.communication.azure.com/").is_none());
        assert!(Credential::key("access_key", "not base64!").is_err());
    }
}
