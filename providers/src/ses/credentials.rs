//! Where the AWS credentials come from: the config, a profile, or AWS's default chain; and a role that is
//! assumed with them. All of it speaks through the gateway's one HTTP client.
//!
//! The chain is environment, profile, web identity token (as in Kubernetes), container, instance:
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>. A sign-in by a person
//! (IAM Identity Center) is not part of it: a relay runs without one.

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sesv2::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::error::ErrorMetadata;

use super::transport::Transport;
use crate::http::verdict::Verdict;
use crate::registry::SettingsError;

/// Where they come from.
#[derive(Clone)]
pub(super) enum Source {
    /// The config.
    Key(Credentials),
    /// This profile of AWS's own files.
    Profile(String),
    /// The default chain.
    Chain,
}

/// A role that is assumed with them.
#[derive(Debug, Clone)]
pub(super) struct Role {
    pub(super) arn: String,
    pub(super) external_id: Option<String>,
    pub(super) session_name: String,
}

/// The name that a session gets in AWS's logs, unless the config says otherwise.
pub(super) const SESSION_NAME: &str = "postrider";

impl Role {
    /// Refuses what STS would refuse.
    /// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let is_arn = self.arn.starts_with("arn:") && self.arn.contains(":iam::") && self.arn.contains(":role/");
        if !is_arn {
            let message = format!("{:?} is no role; expected its ARN, as in \"arn:aws:iam::123456789012:role/postrider\"", self.arn);
            return Err(SettingsError::new("role_arn", message));
        }
        let is_word = |text: &str, also: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c) || also.contains(c));
        if !(2..=64).contains(&self.session_name.len()) || !is_word(&self.session_name, "") {
            let message = format!("{:?} is no session name; expected 2 to 64 letters, digits and `_+=,.@-`", self.session_name);
            return Err(SettingsError::new("role_session_name", message));
        }
        match &self.external_id {
            Some(id) if !(2..=1224).contains(&id.len()) || !is_word(id, ":/") => {
                Err(SettingsError::new("external_id", "no external id; expected 2 to 1224 letters, digits and `_+=,.@:/-`"))
            }
            _ => Ok(()),
        }
    }
}

/// What gives credentials whenever they are needed; it asks nobody yet. The loader gives none only where it
/// was told so, which is never done here.
pub(super) async fn provider(
    source: &Source,
    role: Option<&Role>,
    region: &str,
    transport: Transport,
) -> Option<SharedCredentialsProvider> {
    let region = Region::new(region.to_owned());
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(transport.clone())
        .region(region.clone())
        // The queue comes again; nothing else has to.
        .retry_config(RetryConfig::disabled());
    match source {
        Source::Key(credentials) => loader = loader.credentials_provider(credentials.clone()),
        Source::Profile(name) => {
            let config = ProviderConfig::without_region()
                .with_behavior_version(Some(BehaviorVersion::latest()))
                .with_region(Some(region))
                .with_http_client(transport);
            // Alone: a key in the environment must not win over a profile that somebody has named.
            loader = loader
                .profile_name(name)
                .credentials_provider(ProfileFileCredentialsProvider::builder().configure(&config).profile_name(name).build());
        }
        Source::Chain => {}
    }
    let shared = loader.load().await;
    let base = shared.credentials_provider()?;
    let Some(role) = role else { return Some(base) };
    let mut assumed = AssumeRoleProvider::builder(&role.arn).configure(&shared).session_name(&role.session_name);
    if let Some(id) = &role.external_id {
        assumed = assumed.external_id(id);
    }
    Some(SharedCredentialsProvider::new(assumed.build_from_provider(base).await))
}

/// What it means that no credentials could be had; `None` when the error is about something else.
pub(super) fn verdict(error: &(dyn std::error::Error + 'static)) -> Option<Verdict> {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let verdict = match causes.by_ref().find_map(|error| error.downcast_ref::<CredentialsError>())? {
        CredentialsError::ProviderTimedOut(_) => Verdict::Unavailable,
        // STS or a metadata service was not reached, or it does not work now.
        CredentialsError::ProviderError(_) if causes.any(is_for_now) => Verdict::Unavailable,
        _ => Verdict::Unauthorized,
    };
    Some(verdict)
}

/// Whether a cause says nothing against whoever asks for credentials.
/// <https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html>
fn is_for_now(cause: &(dyn std::error::Error + 'static)) -> bool {
    const FOR_NOW: &[&str] =
        &["IDPCommunicationError", "InternalError", "InternalFailure", "ServiceUnavailable", "Throttling", "ThrottlingException"];
    // Whoever refuses says why, in a code: an answer without one is that of a broken service.
    let said = |error: &ErrorMetadata| error.code().is_none_or(|code| FOR_NOW.contains(&code));
    cause.is::<ConnectorError>() || cause.downcast_ref::<ErrorMetadata>().is_some_and(said)
}

/// What to do when there are none.
pub(super) const ADVICE: &str = "set `access_key_id` and `secret_access_key`, or `profile`, or give this machine a role; \
     `role_arn` must trust whoever assumes it (sts:AssumeRole)";
