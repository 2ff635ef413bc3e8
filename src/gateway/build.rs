//! From the config to the settings of each part.

use std::sync::Arc;
use std::time::SystemTime;

use tracing::warn;

use crate::config::{Certificate, Config};
use crate::queue::{self, RetrySchedule};
use crate::smtp;
use crate::telemetry::metrics::Metrics;

pub(super) fn queue_settings(config: &Config) -> queue::Settings {
    queue::Settings {
        retry: RetrySchedule { waits: config.queue.retry.clone(), expire_after: config.queue.expire_after },
        window_messages: config.queue.window,
        hostname: config.server.hostname.to_string(),
        bounce: config.bounce.clone(),
        owners: config.applications.iter().filter_map(|app| Some((Arc::clone(&app.name), app.owner.clone()?))).collect(),
        delay_warning_after: config.queue.delay_warning_after,
        jitter: 10,
        record: config.history.keep.is_some(),
        ..queue::Settings::default()
    }
}

pub(super) fn smtp_settings(config: &Config) -> smtp::Settings {
    smtp::Settings {
        hostname: config.server.hostname.to_string(),
        max_connections: config.access.max_connections,
        max_connections_per_client: config.access.max_connections_per_client,
        timeout: config.access.idle_timeout,
        ..smtp::Settings::default()
    }
}

/// Tells the meters when the certificates end that providers know us by. Other credentials say nothing of
/// that, or are renewed by whoever uses them.
pub(super) fn tell_credentials(config: &Config, metrics: &Metrics) {
    let mut ends = Vec::new();
    for provider in &config.providers {
        match provider.certificate().map(Certificate::end_of) {
            Some(Ok(end)) => ends.push((provider.name.as_str(), seconds(end))),
            Some(Err(error)) => warn!(provider = %provider.name, %error, "it is not known when the certificate ends"),
            None => {}
        }
    }
    metrics.set_credentials(ends.into_iter());
}

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
