//! `[provider.<kind>.<name>]`: what can be told about a provider without connecting to it.

use std::collections::BTreeMap;

use postrider_providers::contract::ProviderName;
use postrider_providers::settings::{LimitSettings, Secret, WRITTEN_OUT};
use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::Checker;
use crate::config::document::{Step, setting};
use crate::config::problem::Problem;
use crate::config::reader::{Provider, provider_path};
use crate::config::{ProviderConfig, Secrets};

impl Checker<'_, '_> {
    pub(super) fn providers(&mut self, providers: &[Provider], secrets: Secrets) -> Vec<ProviderConfig> {
        let mut checked: Vec<(&Provider, ProviderConfig)> = Vec::new();
        for provider in providers {
            self.name(provider);
            let Some(settings) = &provider.settings else { continue };
            let walk = settings.iter();
            let [(kind, key, only)] = walk.as_slice() else { continue };
            let rewrite = only.rewrite().and_then(|written| self.rewrite(&setting!["provider", *kind, *key, "rewrite"], written));
            let config = ProviderConfig {
                name: ProviderName::new(kind, key),
                destination: only.destination(),
                limits: only.limits().or(&only.default_limits()),
                own_limits: only.limits().clone(),
                rewrite,
                settings: settings.clone(),
                places: self.places(provider),
            };
            self.limits(provider, &config.limits);
            self.alike(provider, &config, &checked);
            if secrets == Secrets::Read {
                self.secrets(provider);
            }
            checked.push((provider, config));
        }
        // A provider that could not be read was reported already.
        if providers.is_empty() && self.findings.problems.iter().all(|problem| problem.is_warning) {
            self.push(
                Problem::error("there is no provider, so mail could go nowhere")
                    .help("add one, as in\n[provider.smarthost.office]\nhost = \"smtp.example.net\""),
            );
        }
        checked.into_iter().map(|(_, config)| config).collect()
    }

    /// Names stand in routes, logs and metrics, so they are kept simple.
    fn name(&mut self, provider: &Provider) {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if provider.key.is_empty() || !provider.key.bytes().all(is_plain) {
            let span = self.document.key(&provider_path(provider));
            self.push(
                Problem::error(format!("a provider cannot be named \"{}\"", provider.key))
                    .at(span, "expected letters, digits, `-` and `_`")
                    .help("choose a short name, as in `[provider.smarthost.office]`"),
            );
        }
    }

    fn limits(&mut self, provider: &Provider, limits: &LimitSettings) {
        if limits.concurrency == Some(0) {
            let [provider_key, kind, key] = provider_path(provider);
            self.at_least_one(
                &[provider_key, kind, key, "limits".into(), "concurrency".into()],
                "concurrency",
                0,
                "nothing would ever be sent",
            );
        }
        let [provider_key, kind, key] = provider_path(provider);
        let at = |setting: &'static str| [provider_key.clone(), kind.clone(), key.clone(), "limits".into(), setting.into()];
        if let Some(burst) = limits.burst {
            let most = limits.rate.map_or(0, |rate| rate.count);
            if burst == 0 || burst > most {
                let span = self.value(&at("burst"));
                let expected = if limits.rate.is_some() { format!("expected 1 to {most}") } else { "there is no `rate`".to_owned() };
                self.push(
                    Problem::error("`burst` does not fit its `rate`")
                        .at(span, expected)
                        .help("`burst` is how many of the rate go at once after a pause"),
                );
            }
        }
        let twice = limits.quota.iter().enumerate().any(|(position, quota)| {
            limits.quota[..position].iter().any(|other| (other.period, other.counted) == (quota.period, quota.counted))
        });
        if twice {
            let span = self.value(&at("quota"));
            self.push(
                Problem::error("two quotas are for the same period").at(span, "expected one for each period").help("keep the smaller one"),
            );
        }
    }

    /// Two names for one account would double its limits, and failover between them helps nobody.
    fn alike(&mut self, provider: &Provider, config: &ProviderConfig, before: &[(&Provider, ProviderConfig)]) {
        let twin = before.iter().find(|(other, earlier)| {
            other.kind == provider.kind
                && earlier.destination == config.destination
                // A destination shows no secret, so those that stand in the file itself are looked at here.
                && (!config.destination.contains(WRITTEN_OUT) || self.account(provider) == self.account(other))
        });
        if let Some((other, earlier)) = twin {
            let (span, also) = (self.document.key(&provider_path(provider)), self.document.key(&provider_path(other)));
            self.push(
                Problem::error(format!("`{}` and `{}` are the same provider", earlier.name, config.name))
                    .at(span, format!("this hands mail to {}", config.destination))
                    .also(also, "and so does this")
                    .help("remove one of them: each would keep limits of its own, and both are down together"),
            );
        }
    }

    /// What a provider's table says of the account: all but how mail is handed over.
    fn account(&self, provider: &Provider) -> BTreeMap<String, toml::Value> {
        let Some(DeValue::Table(table)) = self.table(provider).map(Spanned::get_ref) else { return BTreeMap::new() };
        let of_account = table.iter().filter(|(key, _)| !["limits", "rewrite", "timeouts"].contains(&key.get_ref().as_ref()));
        let plain = |value: &Spanned<DeValue<'_>>| toml::Value::deserialize(ValueDeserializer::from(value.clone())).ok();
        of_account.filter_map(|(key, value)| Some((key.get_ref().to_string(), plain(value)?))).collect()
    }

    /// Reads every `{ env = … }` and `{ file = … }` of the table, and forgets what was in it.
    fn secrets(&mut self, provider: &Provider) {
        let Some(DeValue::Table(table)) = self.table(provider).map(Spanned::get_ref) else { return };
        let sources = table
            .iter()
            .filter(|(_, value)| value.get_ref().as_table().is_some_and(|table| table.contains_key("env") || table.contains_key("file")));
        let unreadable: Vec<Problem> = sources
            .filter_map(|(key, value)| {
                let secret = Secret::deserialize(ValueDeserializer::from(value.clone())).ok()?;
                let error = secret.read().err()?;
                let help = match secret {
                    Secret::Env(name) => format!("set {name} in the environment of the service, or use {{ file = \"/run/secrets/…\" }}"),
                    _ => "correct the path, or let the service's user read the file".to_owned(),
                };
                Some(
                    Problem::error(format!("`{}` cannot be read: {error}", key.get_ref()))
                        .at(value.span(), "the secret comes from here")
                        .help(help),
                )
            })
            .collect();
        for problem in unreadable {
            self.push(problem);
        }
    }

    /// Where the table and each of its settings are (`timeouts.connect` in a table of its own), for errors that show up when it is connected.
    fn places(&self, provider: &Provider) -> Vec<(String, std::ops::Range<usize>)> {
        let mut places = vec![(String::new(), self.document.key(&provider_path(provider)))];
        if let Some(DeValue::Table(table)) = self.table(provider).map(Spanned::get_ref) {
            for (key, value) in table {
                places.push((key.get_ref().to_string(), value.span()));
                let inner = value.get_ref().as_table().into_iter().flatten();
                places.extend(inner.map(|(inner, value)| (format!("{}.{}", key.get_ref(), inner.get_ref()), value.span())));
            }
        }
        places
    }

    fn table(&self, provider: &Provider) -> Option<&Spanned<DeValue<'_>>> {
        let [_, Step::Key(kind), Step::Key(key)] = setting!["provider", provider.kind.as_str(), provider.key.as_str()] else { return None };
        self.document.root.get("provider")?.get_ref().as_table()?.get(kind.as_str())?.get_ref().as_table()?.get(key.as_str())
    }
}
