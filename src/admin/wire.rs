//! What crosses the API, as JSON: times are RFC 3339 texts, durations are seconds, states are names.
//!
//! The command line reads the same types, so that both sides agree by construction. Fields are added over
//! time; none changes its meaning.

pub mod explain;
pub mod history;
pub mod providers;
pub mod queue;
pub mod system;

use std::borrow::Cow;
use std::time::SystemTime;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A moment, in UTC and to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub SystemTime);

impl Moment {
    /// As RFC 3339 writes it.
    #[must_use]
    pub fn to_text(self) -> String {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = i128::try_from(since.as_millis()).unwrap_or(i128::MAX);
        let moment = OffsetDateTime::from_unix_timestamp_nanos(millis.saturating_mul(1_000_000)).ok();
        // A year of five digits is not to be had, and cannot be written.
        moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned())
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        Self(time)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let moment = OffsetDateTime::parse(&text, &Rfc3339)
            .map_err(|_| D::Error::custom(format!("\"{text}\" is no time as RFC 3339 writes it, such as 2026-03-01T12:00:00Z")))?;
        Ok(Self(moment.into()))
    }
}

impl PartialSchema for Moment {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))).into()
    }
}

impl ToSchema for Moment {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Moment")
    }
}

/// Who has decided something, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decided {
    /// Who.
    pub by: String,
    /// When.
    pub at: Moment,
}

/// Why a request was not followed, in the form of RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemBody {
    /// Always `about:blank`: the status says which kind of problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem, in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is the matter with this request: what was seen, and what was expected.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_moment_is_written_to_the_millisecond_and_read_back() {
        let moment = Moment(SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_120));
        let text = serde_json::to_string(&moment).unwrap();
        assert_eq!(text, "\"2026-01-01T00:00:00.12Z\"");
        assert_eq!(serde_json::from_str::<Moment>(&text).unwrap(), moment);
        assert!(serde_json::from_str::<Moment>("\"yesterday\"").is_err());
    }
}
