//! `[queue]`, `[failover]`, `[history]`, `[bounce]`, `[admin]`: what the gateway is operated by.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use postrider_providers::contract::{Address, ProviderName};
use postrider_providers::settings::{Secret, Span};

use super::Checker;
use crate::config::document::{Step, setting};
use crate::config::explain::nearest;
use crate::config::problem::Problem;
use crate::config::reader::Provider;
use crate::config::settings::{Admin, Bounce, CircuitSettings, Failover, History, Notified, ProviderFailover, Queue, Share};
use crate::config::{Secrets, file};

/// The shortest time for which dead letters are kept: a person has to find them.
const SHORTEST_KEEP: Duration = Duration::from_secs(86_400);

/// A history that is smaller than this would be pruned all the time.
const SMALLEST_HISTORY: u64 = 1 << 20;

impl Checker<'_, '_> {
    pub(super) fn queue(&mut self, queue: &file::Queue) -> Queue {
        if queue.store == file::Store::Postgres {
            let span = self.value(&setting!["queue", "store"]);
            self.push(
                Problem::error("this version does not store in PostgreSQL yet")
                    .at(span, "expected \"sqlite\"")
                    .help("write store = \"sqlite\", or remove the line"),
            );
        }
        self.retry(&setting!["queue", "retry"], &queue.retry);
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
            delay_warning_after: Some(queue.delay_warning_after.0).filter(|after| !after.is_zero()),
            window: queue.window,
            inline_max: queue.inline_max.0,
        }
    }

    /// Checks the waiting times at `path`.
    pub(super) fn retry(&mut self, path: &[Step], retry: &[Span]) -> Vec<Duration> {
        if retry.is_empty() {
            let span = self.value(path);
            self.push(
                Problem::error("`retry` cannot be empty")
                    .at(span, "expected at least one waiting time")
                    .help("write retry = [\"1m\", \"5m\", \"15m\", \"30m\", \"1h\"]; the last repeats"),
            );
        }
        for (index, wait) in retry.iter().enumerate() {
            // Anything shorter is a busy loop against a provider that just said no.
            if wait.0 < Duration::from_secs(1) {
                let place: Vec<Step> = path.iter().cloned().chain([Step::from(index)]).collect();
                let span = self.value(&place);
                self.push(
                    Problem::error(format!("a retry after {wait} is too soon"))
                        .at(span, "expected at least \"1s\"")
                        .help("providers block who asks without a pause"),
                );
            }
        }
        retry.iter().map(|wait| wait.0).collect()
    }

    pub(super) fn failover(&mut self, written: &file::Failover, providers: &[Provider]) -> Failover {
        let settings = (written.trip_after, written.trip_share, written.probe_after, written.probe_max, written.recover_over);
        let usual = self.circuit(&setting!["failover"], settings, CircuitSettings::default());
        let known: Vec<String> = providers.iter().map(|provider| format!("{}.{}", provider.kind, provider.key)).collect();
        let mut all = BTreeMap::new();
        for (name, own) in &written.provider {
            if !known.contains(name) {
                let span = self.document.key(&setting!["failover", "provider", name.as_str()]);
                let problem = Problem::error(format!("there is no provider `{name}`")).at(span, "not in this file");
                self.push(match nearest(name, known.iter().map(String::as_str)) {
                    Some(near) => problem.help(format!("did you mean `[failover.provider.\"{near}\"]`?")),
                    None if known.is_empty() => problem.help("add the provider, or remove the table"),
                    None => problem.help(format!("the name stands in quotes, as in [failover.provider.\"{}\"]", known[0])),
                });
            }
            let path = setting!["failover", "provider", name.as_str()];
            let settings = (own.trip_after, own.trip_share, own.probe_after, own.probe_max, own.recover_over);
            let circuit = self.circuit(&path, settings, usual);
            let retry = own.retry.as_ref().map(|retry| self.retry(&setting!["failover", "provider", name.as_str(), "retry"], retry));
            all.insert(ProviderName::from(name.as_str()), ProviderFailover { circuit, retry });
        }
        Failover { usual, providers: all }
    }

    /// Checks the settings of circuits in the table at `path`.
    fn circuit(&mut self, path: &[Step], written: Circuit, usual: CircuitSettings) -> CircuitSettings {
        let at = |key: &str| -> Vec<Step> { path.iter().cloned().chain([Step::from(key)]).collect() };
        let (trip_after, trip_share, probe_after, probe_max, recover_over) = written;
        let trip_after = trip_after.unwrap_or(usual.trip_after);
        self.at_least_one(
            &at("trip_after"),
            "trip_after",
            usize::try_from(trip_after).unwrap_or(usize::MAX),
            "a provider would be down before its first fault",
        );
        let after = probe_after.map_or(usual.probe_after, |span| span.0);
        if after.is_zero() {
            let span = self.value(&at("probe_after"));
            self.push(
                Problem::error("`probe_after` cannot be 0")
                    .at(span, "expected a duration such as \"30s\"")
                    .help("a provider that is down needs a pause"),
            );
        }
        // A long first pause alone moves the longest with it.
        let max = probe_max.map_or(usual.probe_max.max(after), |span| span.0);
        if max < after {
            let both = self.value(&at("probe_max"));
            self.push(
                Problem::error(format!("`probe_max` ({}) is shorter than `probe_after` ({})", Span(max), Span(after)))
                    .at(both, format!("expected {} or more", Span(after)))
                    .help("the time between probes grows from `probe_after` to `probe_max`"),
            );
        }
        CircuitSettings {
            trip_after,
            trip_share: trip_share.or(usual.trip_share),
            probe_after: after,
            probe_max: max,
            recover_over: recover_over.map_or(usual.recover_over, |span| span.0),
        }
    }

    pub(super) fn history(&mut self, history: &file::History) -> History {
        if history.max_size.0 < SMALLEST_HISTORY {
            let span = self.value(&setting!["history", "max_size"]);
            self.push(
                Problem::error(format!("a history of at most {} holds next to nothing", history.max_size))
                    .at(span, "expected at least \"1MiB\"")
                    .help("for no history at all write keep = \"0s\""),
            );
        }
        History { keep: Some(history.keep.0).filter(|keep| !keep.is_zero()), max_size: history.max_size.0 }
    }

    pub(super) fn bounce(&mut self, bounce: &file::Bounce) -> Bounce {
        let usual = Bounce::default();
        let mut address = |key: &str, written: &Option<String>| {
            let written = written.as_deref()?;
            let parsed = written.parse::<Address>();
            let span = self.value(&setting!["bounce", key]);
            match &parsed {
                Err(error) => self.push(
                    Problem::error(format!("`{key}` cannot be \"{written}\": {error}"))
                        .at(span, "expected a mail address")
                        .help(format!("write {key} = \"mail-ops@corp.example\"")),
                ),
                // It stands in for the null sender, which every host takes.
                Ok(address) if key == "sender" && !address.is_ascii() => self.push(
                    Problem::error(format!("`sender` cannot be \"{written}\": it is not ASCII"))
                        .at(span, "expected an address that needs no SMTPUTF8")
                        .help("write the domain as `xn--…`, and the rest in ASCII"),
                ),
                Ok(_) => {}
            }
            parsed.ok()
        };
        let (operator, sender) = (address("operator", &bounce.operator), address("sender", &bounce.sender));
        let notify = bounce.notify.clone().unwrap_or_else(|| usual.notify.clone());
        if notify.contains(&Notified::Operator) && bounce.operator.is_none() {
            let span = self.value(&setting!["bounce", "notify"]);
            self.push(
                Problem::error("`notify` has the operator, and nobody knows who that is")
                    .at(span, "needs `operator`")
                    .help("add operator = \"mail-ops@corp.example\""),
            );
        }
        let digest_after = bounce.digest_after.unwrap_or(usual.digest_after);
        let counted = usize::try_from(digest_after).unwrap_or(usize::MAX);
        self.at_least_one(&setting!["bounce", "digest_after"], "digest_after", counted, "nobody would be told of anything at once");
        let digest_every = bounce.digest_every.map_or(usual.digest_every, |every| every.0);
        if digest_every < Duration::from_secs(60) {
            let span = self.value(&setting!["bounce", "digest_every"]);
            self.push(
                Problem::error(format!("`digest_every` cannot be {}", Span(digest_every)))
                    .at(span, "expected at least \"1m\"")
                    .help("digests are there to be few; usual is \"1h\""),
            );
        }
        let keep_dead_letters = bounce.keep_dead_letters.map_or(usual.keep_dead_letters, |keep| keep.0);
        if keep_dead_letters < SHORTEST_KEEP {
            let span = self.value(&setting!["bounce", "keep_dead_letters"]);
            self.push(
                Problem::error(format!("`keep_dead_letters` cannot be {}", Span(keep_dead_letters)))
                    .at(span, "expected at least \"1d\"")
                    .help("it is mail that nobody else has any more; usual is \"30d\""),
            );
        }
        Bounce { notify, operator, sender, digest_after, digest_every, keep_dead_letters }
    }

    pub(super) fn admin(&mut self, admin: &file::Admin, secrets: Secrets) -> Option<Admin> {
        let Ok(bind) = admin.bind.parse::<SocketAddr>() else {
            let span = self.value(&setting!["admin", "bind"]);
            self.push(
                Problem::error(format!("cannot bind to \"{}\"", admin.bind))
                    .at(span, "expected an IP address and a port")
                    .help("write bind = \"127.0.0.1:8025\", or \"[::1]:8025\""),
            );
            return None;
        };
        if admin.token.is_none() && !bind.ip().to_canonical().is_loopback() {
            let span = self.value(&setting!["admin", "bind"]);
            self.push(
                Problem::error("whoever reaches this address could read and remove mail")
                    .at(span, "not loopback, and there is no `token`")
                    .help("add token = { file = \"/etc/postrider/admin-token\" }, or bind to 127.0.0.1"),
            );
        }
        if let Some(token) = &admin.token {
            let span = self.value(&setting!["admin", "token"]);
            let read = match (token, secrets) {
                (Secret::Literal(_), _) | (_, Secrets::Read) => token.read(),
                (_, Secrets::Skip) => return Some(Admin { bind, token: admin.token.clone() }),
            };
            match read {
                Err(error) => self.push(Problem::error(format!("`token` cannot be had: {error}")).at(span, "the token of the admin API")),
                Ok(token) if token.len() < 16 || token.chars().any(|c| !c.is_ascii_graphic()) => self.push(
                    Problem::error("`token` is too short, or has characters that a header cannot carry")
                        .at(span, "expected 16 ASCII characters or more, without spaces")
                        .help("make one with `openssl rand -hex 32`"),
                ),
                Ok(_) => {}
            }
        }
        Some(Admin { bind, token: admin.token.clone() })
    }
}

/// The settings of a circuit, as written.
type Circuit = (Option<u32>, Option<Share>, Option<Span>, Option<Span>, Option<Span>);
