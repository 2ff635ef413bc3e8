//! What is different between two configs, in words: one line for each thing. Secrets are never shown, only
//! that they changed.

use std::fmt::Debug;

use postrider_providers::contract::ProviderName;
use postrider_providers::settings::{LimitSettings, Rate};

use crate::config::{Application, Config, Listener, Route};

/// The differences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    lines: Vec<String>,
    after_restart: Vec<String>,
}

/// The parts of one thing that are different.
#[derive(Default)]
struct Parts(Vec<String>);

impl Changes {
    /// From `before` to `after`. Of providers, only who builds them knows whether they are others.
    pub(super) fn between(before: &Config, after: &Config, is_rebuilt: impl Fn(&ProviderName) -> bool) -> Self {
        let mut changes = Self::default();
        changes.of_server(before, after);
        changes.of_each(
            "listener",
            (&before.listeners, &after.listeners),
            |listener| listener.bind.to_string(),
            |listener| format!(" (tls {})", word(&listener.tls)),
            of_listener,
        );
        changes.of_access(before, after);
        changes.of_each(
            "application",
            (&before.applications, &after.applications),
            |application| application.name.to_string(),
            |_| String::new(),
            |one, other| of_application(one, other),
        );
        changes.of_each(
            "provider",
            (&before.providers, &after.providers),
            |provider| provider.name.to_string(),
            |provider| format!(" ({})", provider.destination),
            |one, other| {
                let mut parts = Parts::default();
                parts.shown("destination", &one.destination, &other.destination);
                parts.0.extend(of_limits(&one.limits, &other.limits));
                parts.other("rewrite", &one.rewrite, &other.rewrite);
                if is_rebuilt(&one.name) && parts.0.is_empty() {
                    parts.0.push("settings or secrets".to_owned());
                }
                parts
            },
        );
        changes.of_each("route", (&before.routes, &after.routes), |route| route.name.to_string(), candidates, of_route);
        let names = |config: &Config| config.routes.iter().map(|route| route.name.clone()).collect::<Vec<_>>();
        let (mut old, mut new) = (names(before), names(after));
        old.retain(|name| names(after).contains(name));
        new.retain(|name| names(before).contains(name));
        if old != new {
            changes.lines.push(format!("the order of the routes changed: {}", names(after).join(", ")));
        }
        changes.of_limits_and_rest(before, after);
        changes
    }

    /// What is different now.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// What will be different after a restart.
    #[must_use]
    pub fn after_restart(&self) -> &[String] {
        &self.after_restart
    }

    /// Both, line by line.
    #[must_use]
    pub fn in_words(&self) -> Vec<String> {
        let later = self.after_restart.iter().map(|line| format!("{line}, which takes a restart"));
        self.lines.iter().cloned().chain(later).collect()
    }

    fn of_server(&mut self, before: &Config, after: &Config) {
        let mut parts = Parts::default();
        parts.shown("hostname", &*before.server.hostname, &*after.server.hostname);
        parts.flag("watch_config", before.server.watch_config, after.server.watch_config);
        self.changed("server", parts);
        for (what, is_different) in [
            ("server.data_dir", before.server.data_dir != after.server.data_dir),
            ("queue.window", before.queue.window != after.queue.window),
            ("queue.inline_max", before.queue.inline_max != after.queue.inline_max),
            ("[history]", before.history != after.history),
            ("[admin]", before.admin != after.admin),
            ("[log]", before.log != after.log),
        ] {
            if is_different {
                self.after_restart.push(format!("{what} changed"));
            }
        }
    }

    fn of_access(&mut self, before: &Config, after: &Config) {
        let (one, other) = (&before.access, &after.access);
        let mut parts = Parts::default();
        parts.list("trusted_networks", &one.trusted_networks, &other.trusted_networks);
        parts.list("trusted_proxies", &one.trusted_proxies, &other.trusted_proxies);
        parts.other("password_file", &one.password_file, &other.password_file);
        parts.shown("auth_failures", &one.auth_failures, &other.auth_failures);
        parts.other("auth_block", &one.auth_block, &other.auth_block);
        parts.shown("max_message_size", &one.max_message_size, &other.max_message_size);
        parts.shown("max_recipients", &one.max_recipients, &other.max_recipients);
        parts.shown("max_connections", &one.max_connections, &other.max_connections);
        parts.shown("max_connections_per_client", &one.max_connections_per_client, &other.max_connections_per_client);
        parts.other("idle_timeout", &one.idle_timeout, &other.idle_timeout);
        parts.other("bare_newline", &one.bare_newline, &other.bare_newline);
        self.changed("access", parts);
    }

    fn of_limits_and_rest(&mut self, before: &Config, after: &Config) {
        let (one, other) = (&before.sending_domain_limits, &after.sending_domain_limits);
        let mut parts = Parts::default();
        parts.rate("default", one.default, other.default);
        for domain in one.domains.keys().chain(other.domains.keys().filter(|domain| !one.domains.contains_key(*domain))) {
            parts.rate(domain, one.domains.get(domain).copied(), other.domains.get(domain).copied());
        }
        self.changed("limits of sending domains", parts);
        let (one, other) = (&before.queue, &after.queue);
        let mut parts = Parts::default();
        parts.other("retry", &one.retry, &other.retry);
        parts.other("expire_after", &one.expire_after, &other.expire_after);
        parts.other("delay_warning_after", &one.delay_warning_after, &other.delay_warning_after);
        self.changed("queue", parts);
        let mut parts = Parts::default();
        parts.other("the usual circuit", &before.failover.usual, &after.failover.usual);
        parts.other("that of single providers", &before.failover.providers, &after.failover.providers);
        self.changed("failover", parts);
        let mut parts = Parts::default();
        parts.other("notify", &before.bounce.notify, &after.bounce.notify);
        parts.other("all but notify", &(&before.bounce.operator, &before.bounce.sender), &(&after.bounce.operator, &after.bounce.sender));
        let digest = |config: &Config| (config.bounce.digest_after, config.bounce.digest_every);
        parts.other("digest", &digest(before), &digest(after));
        self.changed("bounce", parts);
    }

    /// Compares two lists of named things.
    fn of_each<T>(
        &mut self,
        what: &str,
        (before, after): (&[T], &[T]),
        name: impl Fn(&T) -> String,
        detail: impl Fn(&T) -> String,
        compare: impl Fn(&T, &T) -> Parts,
    ) {
        for one in before.iter().filter(|one| !after.iter().any(|other| name(other) == name(one))) {
            self.lines.push(format!("{what} {} removed", name(one)));
        }
        for other in after {
            match before.iter().find(|one| name(one) == name(other)) {
                Some(one) => self.changed(&format!("{what} {}", name(other)), compare(one, other)),
                None => self.lines.push(format!("{what} {} added{}", name(other), detail(other))),
            }
        }
    }

    fn changed(&mut self, what: &str, parts: Parts) {
        if !parts.0.is_empty() {
            self.lines.push(format!("{what} changed: {}", parts.0.join(", ")));
        }
    }
}

impl Parts {
    /// Something whose values may be shown.
    fn shown<T: ToString + PartialEq + ?Sized>(&mut self, what: &str, before: &T, after: &T) {
        if before != after {
            self.0.push(format!("{what} {} -> {}", before.to_string(), after.to_string()));
        }
    }

    fn flag(&mut self, what: &str, before: bool, after: bool) {
        self.shown(what, &before, &after);
    }

    fn rate(&mut self, what: &str, before: Option<Rate>, after: Option<Rate>) {
        let text = |rate: Option<Rate>| rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string());
        self.shown(what, &text(before), &text(after));
    }

    fn list<T: ToString + PartialEq>(&mut self, what: &str, before: &[T], after: &[T]) {
        let text = |list: &[T]| format!("[{}]", list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        self.shown(what, &text(before), &text(after));
    }

    /// Something of which it is enough to say that it is different, or better not to say more.
    fn other<T: PartialEq + ?Sized>(&mut self, what: &str, before: &T, after: &T) {
        if before != after {
            self.0.push(what.to_owned());
        }
    }
}

fn of_listener(one: &Listener, other: &Listener) -> Parts {
    let mut parts = Parts::default();
    parts.shown("tls", &word(&one.tls), &word(&other.tls));
    parts.other("certificates", &one.certificates, &other.certificates);
    parts.flag("proxy_protocol", one.proxy_protocol, other.proxy_protocol);
    parts.flag("xclient", one.xclient, other.xclient);
    parts.flag("auth_without_tls", one.auth_without_tls, other.auth_without_tls);
    parts.other("tolerance", &one.tolerance, &other.tolerance);
    parts
}

fn of_application(one: &Application, other: &Application) -> Parts {
    let mut parts = Parts::default();
    parts.other("password", &one.passwords, &other.passwords);
    parts.list("networks", &one.networks, &other.networks);
    parts.other("senders", &one.senders, &other.senders);
    parts.rate("rate", one.rate, other.rate);
    parts.other("owner", &one.owner, &other.owner);
    parts.flag("may set priority", one.may_set_priority, other.may_set_priority);
    parts.other("max_message_size", &one.max_message_size, &other.max_message_size);
    parts.other("max_recipients", &one.max_recipients, &other.max_recipients);
    parts.other("max_connections", &one.max_connections, &other.max_connections);
    parts.flag("disabled", one.disabled, other.disabled);
    parts.other("tolerance", &one.tolerance, &other.tolerance);
    parts
}

fn of_route(one: &Route, other: &Route) -> Parts {
    let mut parts = Parts::default();
    parts.other("when", &one.when, &other.when);
    parts.list("providers", &one.providers, &other.providers);
    parts.flag("spill", one.spill, other.spill);
    parts.shown("in_doubt", &word(&one.in_doubt), &word(&other.in_doubt));
    parts.rate("per_sending_domain", one.per_sending_domain, other.per_sending_domain);
    parts.flag("raw_only", one.raw_only, other.raw_only);
    parts.flag("break_signatures", one.break_signatures, other.break_signatures);
    parts.other("rewrite", &one.rewrite, &other.rewrite);
    parts.shown("priority", &word(&one.priority), &word(&other.priority));
    parts.other("retry", &one.retry, &other.retry);
    parts.other("expire_after", &one.expire_after, &other.expire_after);
    parts.other("reserve", &one.reserve, &other.reserve);
    parts
}

fn of_limits(one: &LimitSettings, other: &LimitSettings) -> Vec<String> {
    let count = |count: Option<u32>| count.map_or_else(|| "as usual".to_owned(), |count| count.to_string());
    let mut parts = Parts::default();
    parts.rate("rate", one.rate, other.rate);
    parts.shown("burst", &count(one.burst), &count(other.burst));
    parts.list("quota", &one.quota, &other.quota);
    parts.rate("per_sending_domain", one.per_sending_domain, other.per_sending_domain);
    parts.shown("concurrency", &count(one.concurrency), &count(other.concurrency));
    parts.0
}

fn candidates(route: &Route) -> String {
    format!(" ({})", route.providers.iter().map(ProviderName::as_str).collect::<Vec<_>>().join(", "))
}

/// The name of a choice.
fn word(choice: &impl Debug) -> String {
    format!("{choice:?}").to_lowercase()
}
