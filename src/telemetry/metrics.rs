//! What is counted and timed while mail passes, for Prometheus.
//!
//! One handle for the whole gateway; clones share it. What is only known by looking (depth of the queue,
//! circuits, certificates) is a gauge that whoever answers a scrape sets just before. Labels come from the
//! config alone, a bounded number of each: never an address, a domain or a message.

mod labels;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use labels::{Application, Build, Ended, Handover, Named, Provider, StateOf, Verdict};
pub use labels::{Known, Name};

/// From a tenth of a millisecond to half a minute: what an fsync or an acceptance takes.
fn short() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.5, 14))
}

/// From 5 ms to six minutes: what a provider takes.
fn long() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.2, 15))
}

/// From 10 ms to a week: what a message takes.
fn patient() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 3.3, 16))
}

type Gauges<L> = Family<L, Gauge<f64, AtomicU64>>;

/// The meters of one gateway.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Meters>);

#[derive(Debug)]
struct Meters {
    registry: Mutex<Registry>,
    applications: Known,
    accepted: Family<Application, Counter>,
    accepted_octets: Counter,
    refused: Family<Verdict, Counter>,
    accept: Histogram,
    ended: Family<Ended, Counter>,
    handovers: Family<Handover, Counter>,
    handover: Family<Provider, Histogram, fn() -> Histogram>,
    delivery: Histogram,
    commit: Histogram,
    commit_jobs: Histogram,
    queue: Gauges<Named>,
    queue_oldest: Gauges<Named>,
    lanes: Gauges<Named>,
    window: Gauge,
    circuits: Gauges<StateOf>,
    limits_left: Gauges<Named>,
    certificates: Gauges<Named>,
    credentials: Gauges<Named>,
    journal: Gauge,
    memory: Gauge,
    descriptors: Gauge,
    generation: Gauge,
    reload_successful: Gauge,
    config_taken: Gauge<f64, AtomicU64>,
}

/// What became of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Handed over.
    Relayed,
    /// Waits for another attempt.
    Deferred,
    /// Refused for good.
    Bounced,
    /// Given up for its age.
    Expired,
    /// Handed over without an answer; the provider is asked again.
    InDoubt,
    /// Waits for a person.
    Held,
    /// Undeliverable, and nobody could be told.
    Dead,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Meters that have seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("postrider");
        let r = &mut registry;
        let meters = Meters {
            applications: Known::default(),
            accepted: family(r, "messages_accepted", "Messages that were acknowledged, by the application that handed them in"),
            accepted_octets: plain(r, "accepted_bytes", "Octets of the messages that were acknowledged", Counter::default()),
            refused: family(r, "messages_refused", "Messages that were refused at their end, by the class of the reply"),
            accept: timed(r, "accept", "From the last octet of a message to its acknowledgement", short()),
            ended: family(r, "recipients", "Recipients for whom an attempt ended so; deferred ones are counted each time"),
            handovers: family(r, "handovers", "Calls to providers, by verdict"),
            handover: timed(r, "handover", "How long providers take to answer", Family::new_with_constructor(long as fn() -> Histogram)),
            delivery: timed(r, "delivery", "From the acknowledgement of a message to a handover of it", patient()),
            commit: timed(r, "spool_commit", "How long commits of the spool take, with their fsync", short()),
            commit_jobs: plain(r, "spool_commit_jobs", "Writes in one commit", Histogram::new(exponential_buckets(1.0, 2.0, 9))),
            queue: gauge(r, "queue_messages", "Messages in the queue, by state"),
            queue_oldest: gauge(r, "queue_oldest_seconds", "Age of the oldest message, by state"),
            lanes: gauge(r, "lane_messages", "Messages in the fullest lanes, by priority, route and sending domain's rank"),
            window: plain(r, "window_messages", "Messages in memory", Gauge::default()),
            circuits: gauge(r, "circuit", "1 for the state that a provider's circuit is in"),
            limits_left: gauge(r, "limit_left", "How much a limit would let go now, by the name under which mail waits for it"),
            certificates: gauge(r, "certificate_expires_timestamp_seconds", "When a listener's certificate ends"),
            credentials: gauge(r, "credential_expires_timestamp_seconds", "When a provider's credential ends, where that is known"),
            journal: plain(r, "journal_records", "Records on their way into the history", Gauge::default()),
            memory: plain(r, "resident_memory_bytes", "Resident memory of the process", Gauge::default()),
            descriptors: plain(r, "open_descriptors", "Open file descriptors of the process", Gauge::default()),
            generation: plain(r, "config_generation", "How often a config was taken up since the start", Gauge::default()),
            reload_successful: plain(r, "config_last_reload_successful", "0 if the last reload of the config failed", Gauge::default()),
            config_taken: plain(r, "config_last_reload_success_timestamp_seconds", "When the config in use was taken up", Gauge::default()),
            registry: Mutex::default(),
        };
        let build: Gauges<Build> = gauge(r, "build_info", "1; its version is the label");
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION").into() }).set(1.0);
        *meters.registry.lock() = registry;
        Self(Arc::new(meters))
    }

    /// A message was acknowledged, `took` after its last octet.
    pub fn accepted(&self, application: Option<&Arc<str>>, octets: u64, took: Duration) {
        let application = self.0.applications.name(application);
        self.0.accepted.get_or_create(&Application { application }).inc();
        self.0.accepted_octets.inc_by(octets);
        self.0.accept.observe(took.as_secs_f64());
    }

    /// A message was refused at its end, with a reply of this code.
    pub fn refused(&self, code: u16) {
        let verdict = if code >= 500 { "5yz" } else { "4yz" };
        self.0.refused.get_or_create(&Verdict { class: verdict.into() }).inc();
    }

    /// An attempt came to its end for a recipient.
    pub fn ended(&self, outcome: Outcome, provider: Option<&str>, route: &str, application: Option<&Arc<str>>) {
        let labels = Ended {
            outcome: outcome.as_str().into(),
            provider: provider.unwrap_or("none").into(),
            route: route.into(),
            application: self.0.applications.name(application),
        };
        self.0.ended.get_or_create(&labels).inc();
    }

    /// A message was handed over so long after it was acknowledged.
    pub fn delivered(&self, age: Duration) {
        self.0.delivery.observe(age.as_secs_f64());
    }

    /// A provider answered a call with this verdict after so long.
    pub fn asked(&self, provider: &str, verdict: &str, took: Duration) {
        self.0.handovers.get_or_create(&Handover { provider: provider.into(), verdict: verdict.into() }).inc();
        self.0.handover.get_or_create(&Provider { provider: provider.into() }).observe(took.as_secs_f64());
    }

    /// A commit of the spool carried so many writes and took so long.
    pub fn committed(&self, jobs: usize, took: Duration) {
        self.0.commit.observe(took.as_secs_f64());
        self.0.commit_jobs.observe(jobs as f64);
    }

    /// How many messages of the queue are in a state, and how old the oldest is.
    pub fn set_queue(&self, state: &str, messages: u64, oldest: Option<Duration>) {
        self.0.queue.get_or_create(&Named { name: state.into() }).set(messages as f64);
        self.0.queue_oldest.get_or_create(&Named { name: state.into() }).set(oldest.unwrap_or_default().as_secs_f64());
    }

    /// How many messages are in each of the fullest lanes.
    pub fn set_lanes<'l>(&self, lanes: impl Iterator<Item = (&'l str, u64)>) {
        self.0.lanes.clear();
        for (lane, messages) in lanes {
            self.0.lanes.get_or_create(&Named { name: lane.into() }).set(messages as f64);
        }
    }

    /// How many messages are in memory.
    pub fn set_window(&self, messages: usize) {
        self.0.window.set(i64::try_from(messages).unwrap_or(i64::MAX));
    }

    /// The state of each provider's circuit.
    pub fn set_circuits<'c>(&self, circuits: impl Iterator<Item = (&'c str, String)>) {
        self.0.circuits.clear();
        for (provider, state) in circuits {
            self.0.circuits.get_or_create(&StateOf { provider: provider.into(), state: state.into() }).set(1.0);
        }
    }

    /// How much each limit would let go now.
    pub fn set_limits<'l>(&self, limits: impl Iterator<Item = (&'l str, f64)>) {
        self.0.limits_left.clear();
        for (limit, left) in limits {
            self.0.limits_left.get_or_create(&Named { name: limit.into() }).set(left);
        }
    }

    /// When each certificate ends, in seconds since 1970.
    pub fn set_certificates<'c>(&self, certificates: impl Iterator<Item = (&'c str, f64)>) {
        self.0.certificates.clear();
        for (name, ends) in certificates {
            self.0.certificates.get_or_create(&Named { name: name.into() }).set(ends);
        }
    }

    /// When each provider's credential ends, in seconds since 1970.
    pub fn set_credentials<'c>(&self, credentials: impl Iterator<Item = (&'c str, f64)>) {
        self.0.credentials.clear();
        for (name, ends) in credentials {
            self.0.credentials.get_or_create(&Named { name: name.into() }).set(ends);
        }
    }

    /// How many records wait to enter the history.
    pub fn set_journal(&self, records: u64) {
        self.0.journal.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// What the process takes of the machine.
    pub fn set_process(&self, resident: u64, descriptors: u64) {
        self.0.memory.set(i64::try_from(resident).unwrap_or(i64::MAX));
        self.0.descriptors.set(i64::try_from(descriptors).unwrap_or(i64::MAX));
    }

    /// How often a config was taken up, when the last one was, in seconds since 1970, and whether the last
    /// reload took one up.
    pub fn set_config(&self, generation: u64, taken: f64, successful: bool) {
        self.0.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.0.config_taken.set(taken);
        self.0.reload_successful.set(i64::from(successful));
    }

    /// Everything, in the text format of OpenMetrics 1.0.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.0.registry.lock());
        text
    }
}

impl Outcome {
    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relayed => "relayed",
            Self::Deferred => "deferred",
            Self::Bounced => "bounced",
            Self::Expired => "expired",
            Self::InDoubt => "in_doubt",
            Self::Held => "held",
            Self::Dead => "dead",
        }
    }
}

fn plain<M: prometheus_client::registry::Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn timed<M: prometheus_client::registry::Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

fn family<L: labels::Labels>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Counter> {
    plain(registry, name, help, Family::default())
}

fn gauge<L: labels::Labels>(registry: &mut Registry, name: &str, help: &str) -> Gauges<L> {
    plain(registry, name, help, Family::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_stands_in_the_text() {
        let metrics = Metrics::new();
        let erp: Arc<str> = "erp".into();
        metrics.accepted(Some(&erp), 4096, Duration::from_millis(3));
        metrics.accepted(None, 10, Duration::from_millis(3));
        metrics.ended(Outcome::Relayed, Some("ses.eu"), "default", Some(&erp));
        metrics.asked("ses.eu", "relayed", Duration::from_millis(40));
        metrics.set_circuits([("ses.eu", "open".to_owned())].into_iter());
        metrics.set_circuits([("ses.eu", "closed".to_owned())].into_iter());
        let text = metrics.text();
        for line in [
            "postrider_messages_accepted_total{application=\"erp\"} 1",
            "postrider_messages_accepted_total{application=\"none\"} 1",
            "postrider_accepted_bytes_total 4106",
            "postrider_recipients_total{outcome=\"relayed\",provider=\"ses.eu\",route=\"default\",application=\"erp\"} 1",
            "postrider_handover_seconds_count{provider=\"ses.eu\"} 1",
            "postrider_circuit{provider=\"ses.eu\",state=\"closed\"} 1.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("state=\"open\""), "only the state of now: {text}");
    }

    #[test]
    fn however_many_applications_there_are_the_labels_are_few() {
        let metrics = Metrics::new();
        for number in 0..1000 {
            metrics.accepted(Some(&format!("app{number}").into()), 1, Duration::ZERO);
        }
        let lines = metrics.text().lines().filter(|line| line.starts_with("postrider_messages_accepted_total{")).count();
        assert_eq!(lines, labels::MOST + 1);
        assert!(metrics.text().contains(&format!("{{application=\"other\"}} {}", 1000 - labels::MOST)));
    }
}
