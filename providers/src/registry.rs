//! How a `[provider.<kind>.<name>]` table becomes a provider.

use std::path::PathBuf;
use std::sync::Arc;

use crate::contract::{Capabilities, Connected, ProviderName};
use crate::settings::{LimitSettings, Rewrite};

/// What the gateway gives every provider: one TLS configuration, one HTTP client, its own name.
#[derive(Debug, Clone)]
pub struct Context {
    /// The gateway's host name, for EHLO.
    pub hostname: Arc<str>,
    /// The one TLS client configuration.
    pub tls: Arc<rustls::ClientConfig>,
    /// The one HTTP client.
    pub http: reqwest::Client,
    /// A directory for what a provider must know again after a restart, such as a refresh token that
    /// replaced the one in the config. Made when it is needed; `None`: such things are forgotten.
    pub state: Option<PathBuf>,
}

/// One kind's settings, as they stand in the config file.
pub trait Settings {
    /// Builds the provider. Reads secrets and files, but opens no connection.
    ///
    /// # Errors
    /// Names the setting at fault and says what to do.
    fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError>;

    /// The `limits` table.
    fn limits(&self) -> &LimitSettings;

    /// The limits that hold where `limits` does not say otherwise, as the service documents them.
    fn default_limits(&self) -> LimitSettings {
        LimitSettings::default()
    }

    /// The `rewrite` table.
    fn rewrite(&self) -> Option<&Rewrite>;

    /// What providers of this kind can carry, before any setting and before they were asked.
    fn kind_capabilities() -> Capabilities
    where
        Self: Sized;

    /// The file of the certificate by which the provider knows us. It ends one day, and nobody renews it but
    /// the administrator.
    fn certificate(&self) -> Option<&std::path::Path> {
        None
    }

    /// Where mail goes, in words, for `postrider check`. Two providers with the same text are alike.
    fn destination(&self) -> String;
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SettingsError {
    /// The key at fault within the provider's table; empty for the table as a whole.
    pub key: &'static str,
    /// What was seen, what was expected, and what to do.
    pub message: String,
}

impl SettingsError {
    /// An error about `key`.
    pub fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self { key, message: message.into() }
    }
}

/// Declares the kinds of provider in this build: the struct that `[provider]` deserialises to, and
/// the walk over everything that was configured. A kind has the name of its module, or `module as kind`.
macro_rules! registry {
    // Each entry in turn, until all have a module and a kind.
    (@each [$($done:tt)*] $(#[$attribute:meta])* $module:ident as $kind:ident, $($rest:tt)*) => {
        registry::registry!(@each [$($done)* { [$(#[$attribute])*] $module $kind }] $($rest)*);
    };
    (@each [$($done:tt)*] $(#[$attribute:meta])* $module:ident, $($rest:tt)*) => {
        registry::registry!(@each [$($done)* { [$(#[$attribute])*] $module $module }] $($rest)*);
    };
    (@each [$({ [$(#[$attribute:meta])*] $module:ident $kind:ident })+]) => {
        /// The `[provider]` table: for each kind, its providers by name.
        #[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Providers {
            $(
                $(#[$attribute])*
                #[doc = concat!("`[provider.", stringify!($kind), ".<name>]`")]
                pub $kind: std::collections::BTreeMap<String, $module::Config>,
            )+
        }

        impl Providers {
            /// The kinds in this build.
            pub const KINDS: &'static [&'static str] = &[$( $(#[$attribute])* stringify!($kind) ),+];

            /// What each kind can carry, before any setting.
            #[must_use]
            pub fn capabilities() -> Vec<(&'static str, contract::Capabilities)> {
                vec![$( $(#[$attribute])* (stringify!($kind), <$module::Config as registry::Settings>::kind_capabilities()) ),+]
            }

            /// Every configured provider: kind, key, settings.
            #[must_use]
            pub fn iter(&self) -> Vec<(&'static str, &str, &dyn registry::Settings)> {
                let mut all: Vec<(&'static str, &str, &dyn registry::Settings)> = Vec::new();
                $(
                    $(#[$attribute])*
                    all.extend(self.$kind.iter().map(|(key, config)| (stringify!($kind), key.as_str(), config as &dyn registry::Settings)));
                )+
                all
            }
        }
    };
    ($($entries:tt)+) => {
        registry::registry!(@each [] $($entries)+);
    };
}
pub(crate) use registry;
