//! One request to a token endpoint (RFC 6749), and what its answer means.

use std::fmt;
use std::time::{Duration, SystemTime};

use reqwest::Url;

use super::Token;
use super::jwt::Assertion;
use super::kept::Kept;
use crate::contract::{Diagnostic, Failure};
use crate::http::api::{self, Answer, Timeouts};
use crate::http::retry_after::retry_after;
use crate::http::verdict::{Rule, Verdict, judge};
use crate::registry::SettingsError;

/// How long a token is taken to last that does not say so (RFC 6749 section 5.1 only recommends it).
const UNSAID: Duration = Duration::from_secs(300);

/// Nothing is believed to last longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A difference between two clocks that may be the reason for a refusal.
const SKEW: Duration = Duration::from_secs(60);

/// How a token is asked for.
pub(super) struct Grant {
    pub(super) http: reqwest::Client,
    pub(super) url: String,
    /// What the request says each time.
    pub(super) form: Vec<(&'static str, String)>,
    /// What is made anew for it.
    pub(super) proof: Proof,
    pub(super) rules: &'static [Rule],
    /// How long the whole request may take.
    pub(super) patience: Duration,
}

pub(super) enum Proof {
    /// A secret, which is in the form.
    Secret,
    /// A signed assertion, under this name.
    Assertion(&'static str, Box<Assertion>),
    /// A refresh token.
    Refresh(Kept),
}

/// A token, and how long it lasts from the time when it was asked for.
pub(super) struct Granted {
    pub(super) token: Token,
    pub(super) lifetime: Duration,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The form has secrets in it.
        f.write_str(&self.url)
    }
}

/// Reads the URL of a token endpoint. A secret goes there, so it is https, or this host.
///
/// # Errors
/// Names `key`.
pub(super) fn token_url(key: &'static str, text: &str) -> Result<String, SettingsError> {
    let url = Url::parse(text).map_err(|error| SettingsError::new(key, format!("{text:?}: {error}")))?;
    let is_here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => Ok(text.trim_end_matches('/').to_owned()),
        "http" if is_here => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err(SettingsError::new(key, format!("{text:?} is no https URL; the credential is sent there, so it must be one"))),
    }
}

impl Grant {
    /// Asks for a token.
    pub(super) async fn request(&self) -> Result<Granted, Failure> {
        let failed = |text: String| Failure::Unavailable(Diagnostic::during("token", text));
        let mut form = self.form.clone();
        match &self.proof {
            Proof::Secret => {}
            Proof::Assertion(name, assertion) => form.push((name, assertion.sign(SystemTime::now()).map_err(failed)?)),
            Proof::Refresh(kept) => form.push(("refresh_token", kept.current().await)),
        }
        let span = crate::settings::Span(self.patience);
        let timeouts = Timeouts { connect: span, answer: span };
        let request = self.http.post(&self.url).header("Accept", "application/json").form(&form);
        let called = tokio::time::timeout(self.patience, api::exchange("token", request, timeouts, None)).await;
        let (answer, _) = match called {
            Ok(Ok(answered)) => answered,
            Ok(Err(unanswered)) => return Err(Failure::Unavailable(unanswered.diagnostic)),
            Err(_) => return Err(failed(format!("no answer for {span}"))),
        };
        let granted = read(&answer, self.rules, SystemTime::now())?;
        if let (Proof::Refresh(kept), Some(next)) = (&self.proof, answer.json()["refresh_token"].as_str().filter(|next| !next.is_empty())) {
            kept.keep(next).await;
        }
        Ok(granted)
    }
}

/// Reads an answer. Nothing that was granted is ever repeated in a diagnostic.
pub(super) fn read(answer: &Answer, rules: &[Rule], now: SystemTime) -> Result<Granted, Failure> {
    let json = answer.json();
    let status = answer.status;
    if (200..300).contains(&status) {
        let Some(token) =
            json["access_token"].as_str().filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
        else {
            let diagnostic = Diagnostic { code: Some(status), ..Diagnostic::during("token", "an answer without a token") };
            return Err(Failure::Unavailable(diagnostic.advised(Some("check the URL of the token service: something else answers there"))));
        };
        // A number, which some services write as a text.
        let said = json["expires_in"].as_u64().or_else(|| json["expires_in"].as_str()?.parse().ok());
        return Ok(Granted { token: Token(token.into()), lifetime: said.map_or(UNSAID, Duration::from_secs).min(LONGEST) });
    }
    let code = json["error"].as_str().unwrap_or_default();
    let description = json["error_description"].as_str().unwrap_or_default();
    let line: String = description.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).take(400).collect();
    let (mut verdict, advice) = judge(rules, status, code, description);
    let mut said = match (code, line.as_str()) {
        ("", _) => answer.excerpt(),
        (code, "") => code.to_owned(),
        (code, line) => format!("{code}: {line}"),
    };
    match &mut verdict {
        Verdict::Throttled(pause) => *pause = retry_after(&answer.headers, now).or(*pause),
        // The service refuses how we ask for a token, whatever the message.
        Verdict::Unsuitable | Verdict::Rejected => verdict = Verdict::Unauthorized,
        _ => {}
    }
    if verdict == Verdict::Unauthorized
        && let Some(skew) = skew(answer, now)
    {
        said.push_str("; ");
        said.push_str(&skew);
    }
    let diagnostic = Diagnostic { code: Some(status), ..Diagnostic::during("token", said) }.advised(advice);
    Err(verdict.failure(diagnostic).unwrap_or_else(Failure::Unavailable))
}

/// Names a clock that is wrong: assertions and tokens are valid for minutes only.
fn skew(answer: &Answer, now: SystemTime) -> Option<String> {
    let theirs = httpdate::parse_http_date(answer.header("date")?).ok()?;
    let (difference, where_to) = match now.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let span = crate::settings::Span(Duration::from_secs(difference.as_secs()));
    (difference > SKEW).then(|| format!("this host's clock is {span} {where_to} that of the token service: correct it"))
}
