//! From the config to the settings of each part.

use std::sync::Arc;

use crate::config::Config;
use crate::queue::{self, RetrySchedule};
use crate::smtp;

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
