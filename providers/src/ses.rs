//! Placeholder, replaced by the provider's own commit.
use crate::contract::{Connected, ProviderName};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::LimitSettings;
/// Settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Limits.
    pub limits: LimitSettings,
}
impl Settings for Config {
    fn connect(&self, _: ProviderName, _: &Context) -> Result<Connected, SettingsError> {
        Err(SettingsError::new("", "not built yet"))
    }
    fn limits(&self) -> &LimitSettings {
        &self.limits
    }
    fn destination(&self) -> String {
        String::new()
    }
}
