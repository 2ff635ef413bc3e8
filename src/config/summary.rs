//! What a config would run, for `postrider check`: for people, and as JSON. Secrets are in neither.

use std::fmt::Write as _;

use postrider_providers::settings::{Rate, Size, Span};
use serde_json::{Value, json};

use super::{Application, BareNewline, Config, InDoubt, Listener, ListenerTls, LogFormat, ProviderConfig, Rewrite, Route, When};

/// Describes what would run, in lines for people.
#[must_use]
pub fn summary(config: &Config) -> String {
    let access = &config.access;
    let mut text = String::new();
    let mut line = |what: &str, value: String| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{what:<12} {value}");
    };
    line("hostname", config.server.hostname.to_string());
    line("data", config.server.data_dir.display().to_string());
    line("listens on", list(config.listeners.iter().map(listener)));
    line("may relay", if access.trusted_networks.is_empty() { "nobody".to_owned() } else { list(&access.trusted_networks) });
    if !access.trusted_proxies.is_empty() {
        let proxied = list(config.listeners.iter().filter(|listener| listener.proxy_protocol).map(|listener| listener.bind));
        let proxied = if proxied.is_empty() { "no listener" } else { &proxied };
        line("proxies", format!("{}; PROXY header on {proxied}", list(&access.trusted_proxies)));
    }
    let bare_newline = match access.bare_newline {
        BareNewline::Normalize => "becomes CRLF",
        BareNewline::Reject => "is refused",
    };
    line("accepts", format!("{}, {} recipients; a bare CR or LF {bare_newline}", Size(access.max_message_size), access.max_recipients));
    let idle = Span(access.idle_timeout);
    let (all, one) = (access.max_connections, access.max_connections_per_client);
    line("connections", format!("{all}, of them {one} from one client; closed after {idle} of silence"));

    if !config.applications.is_empty() {
        let _ = writeln!(text, "\napplications");
        for application in &config.applications {
            let _ = writeln!(text, "  {}: {}", application.name, described(application));
        }
    }
    if let Some(file) = &access.password_file {
        let _ = writeln!(text, "  and the names in {}", file.display());
    }

    let _ = writeln!(text, "\nproviders");
    let width = config.providers.iter().map(|provider| provider.name.as_str().len()).max().unwrap_or(0);
    for provider in &config.providers {
        let rewrite = provider.rewrite.as_ref().map(|rewrite| format!("; {}", rewritten(rewrite))).unwrap_or_default();
        let _ = writeln!(text, "  {:<width$}  {}; {}{rewrite}", provider.name.as_str(), provider.destination, limits(provider));
    }

    let _ = writeln!(text, "\nroutes, the first match wins");
    for (index, route) in config.routes.iter().enumerate() {
        let _ = writeln!(text, "  {}. {}: {}", index + 1, route.name, conditions(&route.when));
        let _ = writeln!(text, "     {}", path(route));
    }
    if !config.routes.iter().any(|route| route.when.is_always()) {
        let _ = writeln!(text, "  mail that matches none of them is refused");
    }

    let sending = &config.sending_domain_limits;
    if !sending.domains.is_empty() || sending.default.is_some() {
        let _ = writeln!(text, "\nsending domains");
        for (domain, rate) in &sending.domains {
            let _ = writeln!(text, "  {domain}: {rate}");
        }
        let _ = writeln!(text, "  any other: {}", sending.default.map_or_else(|| "no limit".to_owned(), |rate| rate.to_string()));
    }

    let _ = writeln!(text);
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "{what:<12} {value}");
    };
    line("queue", schedule(config));
    let failover = &config.failover.usual;
    let (after, max) = (Span(failover.probe_after), Span(failover.probe_max));
    line("failover", format!("after {} faults in a row; first probe after {after}, then up to {max} apart", failover.trip_after));
    line("log", format!("{}, {}", log_format(config.log.format), config.log.level.as_str()));
    text
}

/// Describes what would run, for machines.
#[must_use]
pub fn summary_json(config: &Config) -> Value {
    let access = &config.access;
    let rate = |rate: &Option<Rate>| rate.map(|rate| rate.to_string());
    json!({
        "server": { "hostname": &*config.server.hostname, "data_dir": config.server.data_dir },
        "listeners": config.listeners.iter().map(|listener| json!({
            "bind": listener.bind.to_string(),
            "tls": tls_name(listener.tls),
            "certificates": listener.certificates.iter().map(|files| &files.certificate).collect::<Vec<_>>(),
            "proxy_protocol": listener.proxy_protocol,
            "xclient": listener.xclient,
        })).collect::<Vec<_>>(),
        "access": {
            "trusted_networks": access.trusted_networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "trusted_proxies": access.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "max_message_size": access.max_message_size,
            "max_recipients": access.max_recipients,
            "max_connections": access.max_connections,
            "max_connections_per_client": access.max_connections_per_client,
            "idle_timeout_seconds": access.idle_timeout.as_secs_f64(),
            "password_file": access.password_file,
            "auth_failures": access.auth_failures,
            "auth_block_seconds": access.auth_block.as_secs_f64(),
            "bare_newline": match access.bare_newline { BareNewline::Normalize => "normalize", BareNewline::Reject => "reject" },
        },
        "applications": config.applications.iter().map(|application| json!({
            "name": &*application.name,
            "passwords": application.passwords.len(),
            "networks": application.networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "senders": application.senders.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "rate": rate(&application.rate),
            "owner": application.owner.as_ref().map(ToString::to_string),
            "max_message_size": application.max_message_size,
            "max_recipients": application.max_recipients,
            "max_connections": application.max_connections,
            "disabled": application.disabled,
        })).collect::<Vec<_>>(),
        "providers": config.providers.iter().map(|provider| json!({
            "name": provider.name.as_str(),
            "destination": provider.destination,
            "limits": {
                "rate": rate(&provider.limits.rate),
                "burst": provider.limits.burst,
                "quota": provider.limits.quota.text(),
                "per_sending_domain": rate(&provider.limits.per_sending_domain),
                "concurrency": provider.limits.concurrency,
                "by_default": {
                    "rate": provider.is_by_default(|limits| limits.rate),
                    "quota": provider.is_by_default(|limits| limits.quota.first().copied()),
                    "concurrency": provider.is_by_default(|limits| limits.concurrency),
                },
            },
            "rewrite": provider.rewrite.as_deref().map(rewrite_json),
        })).collect::<Vec<_>>(),
        "routes": config.routes.iter().map(|route| json!({
            "name": &*route.name,
            "when": {
                "sender_domain": route.when.sender_domains.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "recipient_domain": route.when.recipient_domains.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "null_sender": route.when.null_sender,
                "app": route.when.applications.iter().map(|name| &**name).collect::<Vec<_>>(),
                "client": route.when.clients.iter().map(ToString::to_string).collect::<Vec<_>>(),
            },
            "providers": route.providers.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            "spill": route.spill,
            "in_doubt": match route.in_doubt { InDoubt::Retry => "retry", InDoubt::Hold => "hold" },
            "per_sending_domain": rate(&route.per_sending_domain),
            "raw_only": route.raw_only,
            "break_signatures": route.break_signatures,
            "rewrite": route.rewrite.as_deref().map(rewrite_json),
        })).collect::<Vec<_>>(),
        "sending_domain_limits": {
            "domains": config.sending_domain_limits.domains.iter()
                .map(|(domain, rate)| (domain.clone(), Value::from(rate.to_string())))
                .collect::<serde_json::Map<_, _>>(),
            "default": rate(&config.sending_domain_limits.default),
        },
        "queue": {
            "retry_seconds": config.queue.retry.iter().map(|wait| wait.as_secs_f64()).collect::<Vec<_>>(),
            "expire_after_seconds": config.queue.expire_after.as_secs_f64(),
            "window": config.queue.window,
            "inline_max": config.queue.inline_max,
        },
        "failover": {
            "trip_after": config.failover.usual.trip_after,
            "probe_after_seconds": config.failover.usual.probe_after.as_secs_f64(),
            "probe_max_seconds": config.failover.usual.probe_max.as_secs_f64(),
        },
        "log": { "format": log_format(config.log.format), "level": config.log.level.as_str() },
    })
}

fn listener(listener: &Listener) -> String {
    let tls = match listener.tls {
        ListenerTls::Off => "no TLS",
        ListenerTls::StartTls => "STARTTLS",
        ListenerTls::Required => "STARTTLS required",
        ListenerTls::Implicit => "TLS from the start",
    };
    match listener.certificates.len() {
        0 | 1 => format!("{} ({tls})", listener.bind),
        number => format!("{} ({tls}, {number} certificates)", listener.bind),
    }
}

/// As in the file.
fn tls_name(tls: ListenerTls) -> &'static str {
    match tls {
        ListenerTls::Off => "off",
        ListenerTls::StartTls => "starttls",
        ListenerTls::Required => "required",
        ListenerTls::Implicit => "implicit",
    }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// Who an application is, and what it may do.
fn described(application: &Application) -> String {
    let mut all = Vec::new();
    if application.disabled {
        all.push("DISABLED".to_owned());
    }
    match application.passwords.len() {
        0 => {}
        1 => all.push("logs in".to_owned()),
        number => all.push(format!("logs in with any of {number} passwords")),
    }
    if !application.networks.is_empty() {
        all.push(format!("is in {}", list(&application.networks)));
    }
    all.push(if application.senders.is_empty() { "any sender".to_owned() } else { format!("sends as {}", list(&application.senders)) });
    all.extend(application.rate.map(|rate| format!("at most {rate}")));
    all.extend(application.max_message_size.map(|size| Size(size).to_string()));
    all.extend(application.max_recipients.map(|number| format!("{number} recipients")));
    all.extend(application.max_connections.map(|number| format!("{number} connections")));
    all.extend(application.owner.as_ref().map(|owner| format!("owned by {owner}")));
    all.join("; ")
}

/// The limits; those that nobody has set are marked.
fn limits(provider: &ProviderConfig) -> String {
    let (limits, mark) = (&provider.limits, |is_default: bool| if is_default { " (default)" } else { "" });
    let rate = limits.rate.map(|rate| format!("{rate}{}", mark(provider.is_by_default(|limits| limits.rate))));
    let burst = limits.burst.map(|burst| format!("{burst} at once"));
    let quota_mark = mark(provider.is_by_default(|limits| limits.quota.first().copied()));
    let quotas = limits.quota.iter().map(|rate| format!("{rate}{quota_mark}"));
    let per_domain = limits.per_sending_domain.map(|rate| format!("{rate} for each sending domain"));
    let concurrency =
        limits.concurrency.map(|number| format!("{number} at a time{}", mark(provider.is_by_default(|limits| limits.concurrency))));
    let all: Vec<String> = rate.into_iter().chain(burst).chain(quotas).chain(per_domain).chain(concurrency).collect();
    if all.is_empty() { "no limits set".to_owned() } else { format!("at most {}", all.join(", ")) }
}

/// In whose name mail goes.
fn rewritten(rewrite: &Rewrite) -> String {
    let from = rewrite.from.as_ref().map(|from| format!("From becomes {from}"));
    let envelope = rewrite.envelope.as_ref().map(|envelope| format!("the envelope sender becomes {envelope}"));
    let mut text = from.into_iter().chain(envelope).collect::<Vec<_>>().join(", ");
    if !rewrite.except.is_empty() {
        let _ = write!(text, ", except for {}", list(&rewrite.except));
    }
    text
}

fn rewrite_json(rewrite: &Rewrite) -> Value {
    json!({
        "from": rewrite.from.as_ref().map(ToString::to_string),
        "envelope": rewrite.envelope.as_ref().map(ToString::to_string),
        "except": rewrite.except.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn conditions(when: &When) -> String {
    let mut all = Vec::new();
    if !when.sender_domains.is_empty() {
        all.push(format!("from {}", list(&when.sender_domains)));
    }
    if !when.recipient_domains.is_empty() {
        all.push(format!("to {}", list(&when.recipient_domains)));
    }
    match when.null_sender {
        Some(true) => all.push("from the null sender".to_owned()),
        Some(false) => all.push("not from the null sender".to_owned()),
        None => {}
    }
    if !when.applications.is_empty() {
        all.push(format!("of the application {}", list(&when.applications)));
    }
    if !when.clients.is_empty() {
        all.push(format!("handed in by {}", list(&when.clients)));
    }
    if all.is_empty() { "all mail".to_owned() } else { all.join(", and ") }
}

fn path(route: &Route) -> String {
    let names: Vec<&str> = route.providers.iter().map(|name| name.as_str()).collect();
    let mut text = format!("through {}", names.join(", else "));
    text.push_str(if route.spill { "; a reached limit goes to the next" } else { "; waits at a reached limit" });
    text.push_str(match route.in_doubt {
        InDoubt::Retry => "; in doubt: the same provider again",
        InDoubt::Hold => "; in doubt: held for a person",
    });
    if let Some(rate) = route.per_sending_domain {
        let _ = write!(text, "; {rate} for each sending domain");
    }
    if route.raw_only {
        text.push_str("; only as it is");
    }
    if route.break_signatures {
        text.push_str("; signatures may break");
    }
    if let Some(rewrite) = &route.rewrite {
        let _ = write!(text, "; {}", rewritten(rewrite));
    }
    text
}

fn schedule(config: &Config) -> String {
    let waits: Vec<String> = config.queue.retry.iter().map(|&wait| Span(wait).to_string()).collect();
    let schedule = match waits.split_last() {
        Some((last, [])) => format!("retries every {last}"),
        Some((last, first)) => format!("retries after {}, then every {last}", first.join(", ")),
        None => "never retries".to_owned(),
    };
    format!("{schedule}; gives up after {}", Span(config.queue.expire_after))
}

fn log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}
