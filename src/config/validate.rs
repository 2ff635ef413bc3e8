//! From the tables as written to the settings as meant: everything that types alone cannot say.

mod access;
mod applications;
mod certificates;
mod listeners;
mod operations;
mod providers;
mod rewrite;
mod routes;

use std::ops::Range;

use super::document::{Document, Findings, Step, setting};
use super::domain::to_ascii;
use super::problem::Problem;
use super::reader::File;
use super::settings::{Log, SendingDomainLimits, Server};
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
        failover: checker.failover(&file.failover, &file.providers),
        bounce: checker.bounce(&file.bounce),
        history: checker.history(&file.history),
        admin: file.admin.as_ref().and_then(|admin| checker.admin(admin, secrets)),
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
        Server { hostname: hostname.unwrap_or_default().into(), data_dir: server.data_dir.clone(), watch_config: server.watch_config }
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
}
