//! From the tables as written to the settings as meant: everything that types alone cannot say.

mod access;
mod applications;
mod certificates;
mod listeners;
mod providers;
mod rewrite;
mod routes;

use std::ops::Range;
use std::time::Duration;

use postrider_providers::settings::Span;

use super::document::{Document, Findings, Step, setting};
use super::domain::to_ascii;
use super::problem::Problem;
use super::reader::File;
use super::settings::{Failover, Log, Queue, SendingDomainLimits, Server};
use super::{Config, Secrets, file};

/// What every check needs.
struct Checker<'a, 'i> {
    document: &'a Document<'i>,
    findings: &'a mut Findings,
}

impl Checker<'_, '_> {
    fn push(&mut self, problem: Problem) {
        self.findings.push(problem);
    }

    fn value(&self, path: &[Step]) -> Range<usize> {
        self.document.value(path)
    }

    /// Refuses a zero where it would stop everything.
    fn at_least_one(&mut self, path: &[Step], key: &str, number: usize, what: &str) {
        if number == 0 {
            let span = self.value(path);
            self.push(
                Problem::error(format!("`{key}` cannot be 0"))
                    .at(span, "expected 1 or more")
                    .help(format!("with 0, {what}; remove the line for the default")),
            );
        }
    }
}

/// Checks the whole file. The config that comes back is only good if no error was found.
pub(super) fn validate(file: &File, document: &Document<'_>, secrets: Secrets, findings: &mut Findings) -> Config {
    let mut checker = Checker { document, findings };
    let providers = checker.providers(&file.providers, secrets);
    checker.proxies(file.listeners.as_deref(), &file.access);
    let server = checker.server(&file.server);
    let listeners = checker.listeners(file.listeners.as_deref(), &server.hostname, secrets);
    checker.logins(&file.applications, &file.access, &listeners);
    Config {
        listeners,
        server,
        access: checker.access(&file.access, secrets),
        applications: checker.applications(&file.applications, &file.access),
        routes: checker.routes(&file.routes, &file.providers),
        providers,
        sending_domain_limits: checker.sending_domain_limits(&file.limits),
        queue: checker.queue(&file.queue),
        failover: checker.failover(&file.failover),
        log: Log { format: file.log.format, level: file.log.level },
        raw_only: checker.raw_only(&file.routes),
        source: None,
    }
}

impl Checker<'_, '_> {
    fn server(&mut self, server: &file::Server) -> Server {
        let span = self.value(&setting!["server", "data_dir"]);
        if server.data_dir.as_os_str().is_empty() {
            self.push(
                Problem::error("`data_dir` cannot be empty")
                    .at(span, "expected the path of a folder")
                    .help("write data_dir = \"/var/lib/postrider\""),
            );
        }
        let system = gethostname::gethostname();
        let system = system.to_string_lossy();
        let written = server.hostname.as_deref();
        let hostname = to_ascii(written.unwrap_or(&system));
        if hostname.is_none() {
            let span = self.value(&setting!["server", "hostname"]);
            let problem = match written {
                Some(written) => Problem::error(format!("`hostname` cannot be \"{written}\"")).at(span, "expected a host name"),
                None => Problem::error(format!("the system's name \"{system}\" is no host name")),
            };
            self.push(problem.help("write the name that this machine has in DNS, as in hostname = \"relay.corp.example\""));
        }
        Server { hostname: hostname.unwrap_or_default().into(), data_dir: server.data_dir.clone() }
    }

    fn sending_domain_limits(&mut self, limits: &file::Limits) -> SendingDomainLimits {
        let mut checked = SendingDomainLimits::default();
        for (written, &rate) in &limits.sending_domain {
            if written == "default" {
                checked.default = Some(rate);
                continue;
            }
            let span = self.document.key(&setting!["limits", "sending_domain", written.as_str()]);
            match to_ascii(written) {
                Some(domain) if !checked.domains.contains_key(&domain) => {
                    checked.domains.insert(domain, rate);
                }
                Some(domain) => self.push(
                    Problem::error(format!("`{domain}` has two limits"))
                        .at(span, "the same domain in other letters")
                        .help("remove one of them"),
                ),
                None => self.push(
                    Problem::error(format!("`{written}` is no domain"))
                        .at(span, "expected a domain such as \"erp.corp.example\", or default")
                        .help("a limit is for one exact domain; `default` is for each of the others"),
                ),
            }
        }
        checked
    }

    fn queue(&mut self, queue: &file::Queue) -> Queue {
        if queue.store == file::Store::Postgres {
            let span = self.value(&setting!["queue", "store"]);
            self.push(
                Problem::error("this version does not store in PostgreSQL yet")
                    .at(span, "expected \"sqlite\"")
                    .help("write store = \"sqlite\", or remove the line"),
            );
        }
        if queue.retry.is_empty() {
            let span = self.value(&setting!["queue", "retry"]);
            self.push(
                Problem::error("`retry` cannot be empty")
                    .at(span, "expected at least one waiting time")
                    .help("write retry = [\"1m\", \"5m\", \"15m\", \"30m\", \"1h\"]; the last repeats"),
            );
        }
        for (index, wait) in queue.retry.iter().enumerate() {
            // Anything shorter is a busy loop against a provider that just said no.
            if wait.0 < Duration::from_secs(1) {
                let span = self.value(&setting!["queue", "retry", index]);
                self.push(
                    Problem::error(format!("a retry after {wait} is too soon"))
                        .at(span, "expected at least \"1s\"")
                        .help("providers block who asks without a pause"),
                );
            }
        }
        if let Some(first) = queue.retry.first()
            && queue.expire_after < *first
        {
            let span = self.value(&setting!["queue", "expire_after"]);
            let problem = Problem::error(format!("mail would expire after {}, before its first retry after {first}", queue.expire_after));
            let problem = if self.document.root.get("queue").and_then(|queue| queue.get_ref().as_table()?.get("retry")).is_some() {
                problem.also(self.value(&setting!["queue", "retry", 0]), "the first retry")
            } else {
                problem
            };
            self.push(problem.at(span, format!("expected more than {first}")).help("mail is usually kept for \"2d\""));
        }
        self.at_least_one(&setting!["queue", "window"], "window", queue.window, "no message would be delivered");
        if queue.inline_max.0 > 16 << 20 {
            let span = self.value(&setting!["queue", "inline_max"]);
            self.push(
                Problem::error(format!("`inline_max` cannot be {}", queue.inline_max))
                    .at(span, "expected at most \"16MiB\"")
                    .help("larger bodies are files beside the database, which is faster"),
            );
        }
        Queue {
            retry: queue.retry.iter().map(|wait| wait.0).collect(),
            expire_after: queue.expire_after.0,
            window: queue.window,
            inline_max: queue.inline_max.0,
        }
    }

    fn failover(&mut self, failover: &file::Failover) -> Failover {
        self.at_least_one(
            &setting!["failover", "trip_after"],
            "trip_after",
            usize::try_from(failover.trip_after).unwrap_or(usize::MAX),
            "a provider would be down before its first fault",
        );
        let Span(probe_after) = failover.probe_after;
        if probe_after.is_zero() {
            let span = self.value(&setting!["failover", "probe_after"]);
            self.push(
                Problem::error("`probe_after` cannot be 0")
                    .at(span, "expected a duration such as \"30s\"")
                    .help("a provider that is down needs a pause"),
            );
        }
        if failover.probe_max < failover.probe_after {
            let both = self.value(&setting!["failover", "probe_max"]);
            self.push(
                Problem::error(format!("`probe_max` ({}) is shorter than `probe_after` ({})", failover.probe_max, failover.probe_after))
                    .at(both, format!("expected {} or more", failover.probe_after))
                    .help("the time between probes grows from `probe_after` to `probe_max`"),
            );
        }
        Failover { trip_after: failover.trip_after, probe_after, probe_max: failover.probe_max.0 }
    }
}
