//! The settings of an SES account, and what can be told about them without asking AWS.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_sesv2::config::Credentials;
use aws_sdk_sesv2::types::MessageTag;
use tokio::sync::Mutex;

use super::credentials::{Role, SESSION_NAME, Source};
use super::{CAPABILITIES, Ses, Told};
use crate::contract::{Address, Capabilities, Connected, ProviderName};
use crate::http::api::{Timeouts, endpoint};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite, Secret};

/// How many handovers run at the same time, unless the limits say otherwise.
const DEFAULT_CONCURRENCY: usize = 20;

/// `[provider.ses.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The AWS region, as in `"eu-west-1"`.
    pub region: String,
    /// The access key's id. Absent: `profile`, or the AWS default chain (environment, profile, web
    /// identity token, container, instance).
    pub access_key_id: Option<Secret>,
    /// The access key's secret.
    pub secret_access_key: Option<Secret>,
    /// The token of temporary credentials.
    pub session_token: Option<Secret>,
    /// A profile of `~/.aws/config` and `~/.aws/credentials`, and nothing else of the default chain.
    pub profile: Option<String>,
    /// The ARN of a role that is assumed with those credentials.
    pub role_arn: Option<String>,
    /// What the role's trust policy asks for as `sts:ExternalId`.
    pub external_id: Option<String>,
    /// The session's name in AWS's logs; `"postrider"` by default.
    pub role_session_name: Option<String>,
    /// The configuration set that messages are sent with.
    pub configuration_set: Option<String>,
    /// Tags for each message, names and values: they appear in what SES publishes about it.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Where SES sends bounces and complaints, instead of the envelope's sender.
    pub feedback_address: Option<String>,
    /// The tenant that messages are sent for.
    pub tenant: Option<String>,
    /// The ARN of another account's identity that lets this one send as it (sending authorization).
    pub from_identity_arn: Option<String>,
    /// Another URL than the region's own, for tests and private links.
    pub endpoint: Option<String>,
    /// How long to wait, for each phase.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What the administrator or the account allows.
    #[serde(default)]
    pub limits: LimitSettings,
    /// In whose name mail is handed over.
    pub rewrite: Option<Rewrite>,
}

/// What SES takes as the name or value of a tag, and with other lengths as other names.
/// <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_MessageTag.html>
fn is_name(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl Config {
    fn source(&self) -> Result<Source, SettingsError> {
        let read = |key, secret: &Secret| secret.read().map_err(|error| SettingsError::new(key, error));
        match (&self.access_key_id, &self.secret_access_key) {
            (None, None) if self.session_token.is_some() => {
                Err(SettingsError::new("session_token", "a session token needs `access_key_id` and `secret_access_key` beside it"))
            }
            (None, None) => Ok(match &self.profile {
                Some(profile) => Source::Profile(profile.clone()),
                None => Source::Chain,
            }),
            (Some(_), None) => Err(SettingsError::new("access_key_id", "an access key needs `secret_access_key` beside it")),
            (None, Some(_)) => Err(SettingsError::new("secret_access_key", "a secret access key needs `access_key_id` beside it")),
            (Some(_), Some(_)) if self.profile.is_some() => {
                Err(SettingsError::new("profile", "a profile beside an access key: keep the one that is meant"))
            }
            (Some(id), Some(secret)) => {
                let token = self.session_token.as_ref().map(|token| read("session_token", token)).transpose()?;
                let (id, secret) = (read("access_key_id", id)?, read("secret_access_key", secret)?);
                if is_key_id(&secret) || !may_be_shown(&id) {
                    let message = "it is no id of an access key; expected 20 capital letters and digits that begin with AKIA or ASIA, and the longer \
                                   secret in `secret_access_key`";
                    return Err(SettingsError::new("access_key_id", message));
                }
                Ok(Source::Key(Credentials::new(id, secret, token, None, "postrider")))
            }
        }
    }

    fn role(&self) -> Result<Option<Role>, SettingsError> {
        let Some(arn) = &self.role_arn else {
            return match (&self.external_id, &self.role_session_name) {
                (Some(_), _) => Err(SettingsError::new("external_id", "an external id needs `role_arn` beside it")),
                (_, Some(_)) => Err(SettingsError::new("role_session_name", "a session name needs `role_arn` beside it")),
                (None, None) => Ok(None),
            };
        };
        let session_name = self.role_session_name.clone().unwrap_or_else(|| SESSION_NAME.to_owned());
        let role = Role { arn: arn.clone(), external_id: self.external_id.clone(), session_name };
        role.check()?;
        Ok(Some(role))
    }

    fn check(&self) -> Result<(), SettingsError> {
        if self.region.is_empty() || !self.region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(SettingsError::new("region", format!("{:?} is no AWS region; expected one such as \"eu-west-1\"", self.region)));
        }
        let names = [("configuration_set", &self.configuration_set), ("tenant", &self.tenant)];
        for (key, name) in names.into_iter().filter_map(|(key, name)| Some((key, name.as_ref()?))) {
            if !is_name(name, 64) {
                return Err(SettingsError::new(key, format!("{name:?} is no name in SES; expected up to 64 letters, digits, `_` and `-`")));
            }
        }
        if self.profile.as_ref().is_some_and(|profile| profile.trim().is_empty()) {
            return Err(SettingsError::new("profile", "no profile has an empty name; expected one of ~/.aws/config"));
        }
        if let Some(arn) = self.from_identity_arn.as_ref().filter(|arn| !arn.starts_with("arn:") || !arn.contains(":identity/")) {
            let message =
                format!("{arn:?} is no identity; expected its ARN, as in \"arn:aws:ses:eu-west-1:123456789012:identity/example.com\"");
            return Err(SettingsError::new("from_identity_arn", message));
        }
        if let Some(text) = &self.feedback_address
            && !Address::parse(text).is_ok_and(|address| address.is_ascii())
        {
            return Err(SettingsError::new("feedback_address", format!("{text:?} is no address that SES takes; expected one in ASCII")));
        }
        endpoint(self.endpoint.as_deref(), "https://email.amazonaws.com")?;
        self.timeouts.check()
    }

    fn tags(&self) -> Result<Option<Vec<MessageTag>>, SettingsError> {
        let tag = |(name, value): (&String, &String)| {
            if let Some(text) = [name, value].into_iter().find(|text| !is_name(text, 256)) {
                let message = format!("{text:?} is nothing that SES takes in a tag; expected up to 256 letters, digits, `_` and `-`");
                return Err(SettingsError::new("tags", message));
            }
            MessageTag::builder().name(name).value(value).build().map_err(|error| SettingsError::new("tags", error.to_string()))
        };
        let tags = self.tags.iter().map(tag).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(tags).filter(|tags| !tags.is_empty()))
    }
}

/// Whether this is certainly the id of an access key.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids>
fn is_key_id(text: &str) -> bool {
    text.len() == 20 && (text.starts_with("AKIA") || text.starts_with("ASIA"))
}

/// Whether this can be an id, and not the secret in its place, which has 40 characters: emulators take ids of any form.
fn may_be_shown(text: &str) -> bool {
    is_key_id(text) || (text.len() < 32 && text.bytes().all(|b| b.is_ascii_alphanumeric()))
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
        self.check()?;
        let told = Told {
            configuration_set: self.configuration_set.clone(),
            tags: self.tags()?,
            feedback_address: self.feedback_address.clone(),
            tenant: self.tenant.clone(),
            from_identity_arn: self.from_identity_arn.clone(),
        };
        let ses = Ses {
            region: self.region.clone(),
            endpoint: self.endpoint.clone(),
            source: self.source()?,
            role: self.role()?,
            timeouts: self.timeouts,
            told,
            http: context.http.clone(),
            client: Mutex::new((0, None)),
        };
        Ok(Connected { name, default_concurrency: DEFAULT_CONCURRENCY, provider: Arc::new(ses) })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn kind_capabilities() -> Capabilities {
        CAPABILITIES
    }

    fn destination(&self) -> String {
        let place = self.endpoint.clone().unwrap_or_else(|| format!("https://email.{}.amazonaws.com", self.region));
        let account = match (&self.access_key_id, &self.profile) {
            (None, None) => "default credentials".to_owned(),
            (None, Some(profile)) => format!("profile {profile}"),
            // The id of an access key is a name, no secret.
            (Some(Secret::Literal(id)), _) if may_be_shown(id) => format!("access key {id}"),
            (Some(other), _) => format!("access key {other}"),
        };
        let mut text = format!("{place} ({}, {account}", self.region);
        let more = [("role", &self.role_arn), ("configuration set", &self.configuration_set), ("tenant", &self.tenant)];
        for (what, name) in more.into_iter().filter_map(|(what, name)| Some((what, name.as_ref()?))) {
            text.push_str(&format!(", {what} {name}"));
        }
        text + ")"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_the_place_of_the_id_is_refused_and_not_shown() {
        let context = Context::new("relay.example").unwrap();
        for (id, secret) in [("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "AKIAIOSFODNN7EXAMPLE"), ("test", "AKIAIOSFODNN7EXAMPLE")] {
            let json = format!(r#"{{"region": "eu-west-1", "access_key_id": "{id}", "secret_access_key": "{secret}"}}"#);
            let error = config(&json).connect(ProviderName::new("ses", "x"), &context).unwrap_err();
            assert_eq!(error.key, "access_key_id");
            assert!(!error.message.contains("wJalr"), "{error}");
            assert!(!config(&json).destination().contains("wJalr"));
        }
        let good = config(r#"{"region": "eu-west-1", "access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "s"}"#);
        assert!(good.connect(ProviderName::new("ses", "x"), &context).is_ok());
        assert!(good.destination().contains("access key AKIAIOSFODNN7EXAMPLE"));
    }

    fn config(json: &str) -> Config {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn settings_that_cannot_work_name_their_key() {
        let context = Context::new("relay.example").unwrap();
        for (json, key) in [
            (r#"{"region": ""}"#, "region"),
            (r#"{"region": "eu west"}"#, "region"),
            (r#"{"region": "eu-west-1", "endpoint": "localhost"}"#, "endpoint"),
            (r#"{"region": "eu-west-1", "endpoint": "ftp://x"}"#, "endpoint"),
            (r#"{"region": "eu-west-1", "access_key_id": "a"}"#, "access_key_id"),
            (r#"{"region": "eu-west-1", "secret_access_key": "a"}"#, "secret_access_key"),
            (r#"{"region": "eu-west-1", "session_token": "a"}"#, "session_token"),
            (r#"{"region": "eu-west-1", "access_key_id": "a", "secret_access_key": {"file": "/nonexistent"}}"#, "secret_access_key"),
            (r#"{"region": "eu-west-1", "timeouts": {"answer": "0s"}}"#, "timeouts.answer"),
            (r#"{"region": "eu-west-1", "profile": " "}"#, "profile"),
            (r#"{"region": "eu-west-1", "access_key_id": "a", "secret_access_key": "b", "profile": "p"}"#, "profile"),
            (r#"{"region": "eu-west-1", "role_arn": "postrider"}"#, "role_arn"),
            (r#"{"region": "eu-west-1", "role_arn": "arn:aws:iam::1:user/x"}"#, "role_arn"),
            (r#"{"region": "eu-west-1", "role_arn": "arn:aws:iam::1:role/x", "role_session_name": "a b"}"#, "role_session_name"),
            (r#"{"region": "eu-west-1", "role_arn": "arn:aws:iam::1:role/x", "external_id": "a b"}"#, "external_id"),
            (r#"{"region": "eu-west-1", "external_id": "ab"}"#, "external_id"),
            (r#"{"region": "eu-west-1", "role_session_name": "ab"}"#, "role_session_name"),
            (r#"{"region": "eu-west-1", "tags": {"a b": "c"}}"#, "tags"),
            (r#"{"region": "eu-west-1", "tags": {"a": ""}}"#, "tags"),
            (r#"{"region": "eu-west-1", "feedback_address": "bounces"}"#, "feedback_address"),
            (r#"{"region": "eu-west-1", "feedback_address": "bü@a.example"}"#, "feedback_address"),
            (r#"{"region": "eu-west-1", "tenant": "a b"}"#, "tenant"),
            (r#"{"region": "eu-west-1", "configuration_set": ""}"#, "configuration_set"),
            (r#"{"region": "eu-west-1", "from_identity_arn": "example.com"}"#, "from_identity_arn"),
        ] {
            let error = config(json).connect(ProviderName::new("ses", "x"), &context).unwrap_err();
            assert_eq!(error.key, key, "{json}: {error}");
        }
    }

    #[test]
    fn a_destination_tells_accounts_apart_and_no_secret() {
        let shown = config(r#"{"region": "eu-west-1", "access_key_id": "AKIA1", "secret_access_key": "hush"}"#).destination();
        assert_eq!(shown, "https://email.eu-west-1.amazonaws.com (eu-west-1, access key AKIA1)");
        let shown =
            config(r#"{"region": "eu-west-1", "profile": "mail", "role_arn": "arn:aws:iam::1:role/x", "tenant": "t"}"#).destination();
        assert_eq!(shown, "https://email.eu-west-1.amazonaws.com (eu-west-1, profile mail, role arn:aws:iam::1:role/x, tenant t)");
    }
}
