//! Signed assertions (RFC 7515, RFC 7523): proof that we hold a key, made anew for each request.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{self, RsaEncoding};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Map, Value, json};

/// How it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

/// What is signed, and with what.
pub(super) struct Assertion {
    algorithm: Algorithm,
    key: KeyPair,
    /// Beside `alg` and `typ`.
    header: Map<String, Value>,
    /// Beside times and id.
    claims: Map<String, Value>,
    lifetime: Duration,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
        }
    }

    fn encoding(self) -> &'static dyn RsaEncoding {
        match self {
            Self::Ps256 => &signature::RSA_PSS_SHA256,
            Self::Rs256 => &signature::RSA_PKCS1_SHA256,
        }
    }
}

/// An RSA key from its DER, in either form that PEM files have.
///
/// # Errors
/// When it is of another kind, or too short.
pub(super) fn rsa_key(key: &PrivateKeyDer<'_>) -> Result<KeyPair, String> {
    let read = match key {
        PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(key) => KeyPair::from_der(key.secret_pkcs1_der()),
        _ => return Err("it is no RSA key".to_owned()),
    };
    read.map_err(|error| format!("it is no RSA key that can be used ({error})"))
}

impl Assertion {
    pub(super) fn new(algorithm: Algorithm, key: KeyPair, header: &[(&str, &str)], claims: &[(&str, &str)], lifetime: Duration) -> Self {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
        Self { algorithm, key, header: map(header), claims: map(claims), lifetime }
    }

    /// The assertion as it is sent, issued at `now`.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub(super) fn sign(&self, now: SystemTime) -> Result<String, String> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut header = self.header.clone();
        header.insert("typ".to_owned(), json!("JWT"));
        header.insert("alg".to_owned(), json!(self.algorithm.name()));
        let mut claims = self.claims.clone();
        claims.insert("iat".to_owned(), json!(now.as_secs()));
        claims.insert("exp".to_owned(), json!((now + self.lifetime).as_secs()));
        if self.algorithm == Algorithm::Ps256 {
            // What Entra asks for beyond that; Google knows neither.
            claims.insert("nbf".to_owned(), json!(now.as_secs()));
            claims.insert("jti".to_owned(), json!(uuid::Uuid::now_v7().to_string()));
        }
        let part = |map: Map<String, Value>| URL_SAFE_NO_PAD.encode(Value::Object(map).to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(self.algorithm.encoding(), &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| "the private key cannot sign".to_owned())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
