//! How long an API wants to be left alone.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Longer than any service means: what is beyond it is taken for a slip.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// `Retry-After` (RFC 9110 section 10.2.3): a number of seconds, or a date of which `now` is taken.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(LONGEST))
}

/// A header with the time at which a budget is full again, in seconds since 1970.
#[must_use]
pub fn reset_at(headers: &HeaderMap, name: &str, now: SystemTime) -> Option<Duration> {
    let epoch: u64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(epoch))?;
    Some(at.duration_since(now).unwrap_or_default().min(LONGEST))
}

/// A header with the seconds until a budget is full again.
#[must_use]
pub fn reset_in(headers: &HeaderMap, name: &str) -> Option<Duration> {
    let seconds: f64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::try_from_secs_f64(seconds).ok()?.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(reqwest::header::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn seconds_and_dates_are_read_and_the_rest_says_nothing() {
        let now = httpdate::parse_http_date("Tue, 24 Nov 2026 11:00:00 GMT").unwrap();
        for (value, expected) in [
            ("30", Some(30)),
            (" 0 ", Some(0)),
            ("Tue, 24 Nov 2026 11:02:00 GMT", Some(120)),
            ("Tue, 24 Nov 2026 10:00:00 GMT", Some(0)),
            ("99999999999", Some(24 * 3600)),
            ("-5", None),
            ("soon", None),
            ("NaN", None),
            ("", None),
        ] {
            assert_eq!(retry_after(&headers("retry-after", value), now).map(|wait| wait.as_secs()), expected, "{value:?}");
        }
        let epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(reset_at(&headers("x-reset", &(epoch + 7).to_string()), "x-reset", now), Some(Duration::from_secs(7)));
        assert_eq!(reset_at(&headers("x-reset", &(epoch - 7).to_string()), "x-reset", now), Some(Duration::ZERO));
        assert_eq!(reset_in(&headers("x-reset", "7"), "x-reset"), Some(Duration::from_secs(7)));
        assert_eq!(reset_in(&headers("x-reset", "x"), "x-reset"), None);
    }
}
