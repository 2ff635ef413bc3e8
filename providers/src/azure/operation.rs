//! What became of an operation: Azure accepts a message first, and says later whether it will send it.

use std::time::Duration;

use serde_json::Value;

use crate::http::api::{Answer, Refused};

/// The state of an operation. <https://learn.microsoft.com/rest/api/communication/email/email/get-send-result>
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is not at its end.
    Running,
    /// The message is on its way.
    Succeeded,
    /// The message will not be sent, for this reason.
    Failed(Refused),
}

impl State {
    /// The state that an answer tells; `None` when it tells none.
    #[must_use]
    pub fn read(answer: &Answer) -> Option<Self> {
        let json = answer.json();
        Some(match json["status"].as_str()? {
            "Succeeded" => Self::Succeeded,
            status @ ("Failed" | "Canceled") => {
                let mut refused = error(&json).unwrap_or_default();
                if refused.code.is_empty() {
                    refused.code = status.to_owned();
                }
                Self::Failed(refused)
            }
            // Whatever else it is called, it is no end.
            _ => Self::Running,
        })
    }
}

/// The error in an answer, of a call or of an operation.
#[must_use]
pub fn refusal(answer: &Answer) -> Option<Refused> {
    error(&answer.json()).or_else(|| {
        let code = answer.header("x-ms-error-code")?;
        Some(Refused { code: code.to_owned(), ..Refused::default() })
    })
}

fn error(json: &Value) -> Option<Refused> {
    let error = &json["error"];
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    error.is_object().then(|| Refused { code: text("code"), text: text("message"), ..Refused::default() })
}

/// When an operation is asked about again: after what the service says, else after a time that doubles,
/// since asking is rationed (60 a minute, 200 an hour).
#[must_use]
pub fn next_wait(said: Option<Duration>, last: Duration) -> Duration {
    said.unwrap_or(last * 2).max(Duration::from_millis(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_and_an_end_without_a_reason_is_its_own() {
        let read = |body: &'static str| {
            let headers = reqwest::header::HeaderMap::new();
            State::read(&Answer { status: 200, headers, body: body.into() })
        };
        assert_eq!(read(r#"{"id":"x","status":"NotStarted"}"#), Some(State::Running));
        assert_eq!(read(r#"{"id":"x","status":"Succeeded","error":null}"#), Some(State::Succeeded));
        let failed = |code: &str, text: &str| Some(State::Failed(Refused { code: code.into(), text: text.into(), ..Refused::default() }));
        assert_eq!(read(r#"{"status":"Failed","error":{"code":"EmailDropped","message":"m"}}"#), failed("EmailDropped", "m"));
        assert_eq!(read(r#"{"status":"Canceled"}"#), failed("Canceled", ""));
        assert_eq!(read("<html>"), None);
    }
}
