//! How the answers of a service are read, as the config declares it.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::{CONTENT_TYPE, HeaderName};
use serde_json::Value;

use crate::http::api::{Accepted, Answer, Reading, Refused};
use crate::http::verdict::{Rule, Verdict};
use crate::registry::SettingsError;
use crate::settings::Span;

/// `[provider.http.<name>.success]`: when a message was taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Success {
    /// The statuses of an answer that took a message.
    pub status: Vec<u16>,
    /// A JSON pointer at what its body must have.
    pub pointer: Option<String>,
    /// What must be there.
    pub equals: Option<Value>,
    /// A JSON pointer at the service's id of the message, which must be there.
    pub id: Option<String>,
    /// The header with the service's id of the message, which must be there.
    pub id_header: Option<String>,
    /// A JSON pointer at a list of recipients who do not get it.
    pub refused: Option<String>,
}

/// `[provider.http.<name>.refusal]`: where an answer says why a message was not taken. All of these are
/// JSON pointers.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Refusal {
    /// The service's own code.
    pub code: Option<String>,
    /// Its words.
    pub text: Option<String>,
    /// A list of the recipients at fault.
    pub recipients: Option<String>,
}

/// `[provider.http.<name>.throttle]`: when the service wants to be left alone, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Throttle {
    /// Statuses that say so, beside 429.
    pub status: Vec<u16>,
    /// A JSON pointer at the seconds to wait, beside `Retry-After`.
    pub pause: Option<String>,
    /// A header with the seconds to wait, beside `Retry-After`.
    pub pause_header: Option<String>,
}

/// `[[provider.http.<name>.error]]`: what a refusal means. The first that fits decides.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRule {
    /// The HTTP status; absent: any.
    pub status: Option<u16>,
    /// The service's own code; absent: any.
    pub code: Option<String>,
    /// What its words contain, without regard to case; absent: anything.
    pub says: Option<String>,
    /// What that means.
    pub verdict: Meaning,
    /// How long to wait, with `throttled`.
    pub pause: Option<Span>,
    /// What the administrator must do.
    pub advice: Option<String>,
}

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// The message, for good: it bounces.
    Rejected,
    /// Some of its recipients: those bounce, and the others are asked about again.
    Recipients,
    /// The sender is not allowed there: the route's next provider is asked.
    Sender,
    /// Our credential: the provider is left alone until it is seen to.
    Credential,
    /// Too much: mail waits.
    Throttled,
    /// The service does not work now: the route's next provider is asked.
    Unavailable,
    /// This service cannot carry it: the route's next provider is asked.
    Unsuitable,
    /// It may have been taken.
    InDoubt,
    /// It had been taken before: the idempotency key was recognised.
    Taken,
}

impl Default for Success {
    fn default() -> Self {
        Self { status: vec![200, 201, 202], pointer: None, equals: None, id: None, id_header: None, refused: None }
    }
}

impl Meaning {
    fn verdict(self, pause: Option<Duration>) -> Verdict {
        match self {
            Self::Rejected => Verdict::Rejected,
            Self::Recipients => Verdict::RecipientsRefused,
            Self::Sender => Verdict::SenderRefused,
            Self::Credential => Verdict::Unauthorized,
            Self::Throttled => Verdict::Throttled(pause),
            Self::Unavailable => Verdict::Unavailable,
            Self::Unsuitable => Verdict::Unsuitable,
            Self::InDoubt => Verdict::InDoubt,
            Self::Taken => Verdict::TakenBefore,
        }
    }
}

/// How answers are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    success: Success,
    refusal: Refusal,
    throttle: Throttle,
    /// What refusals mean.
    pub rules: Vec<Rule>,
}

impl Answers {
    /// Checks what was declared.
    ///
    /// # Errors
    /// Names the key.
    pub fn new(success: &Success, refusal: &Refusal, throttle: &Throttle, errors: &[ErrorRule]) -> Result<Self, SettingsError> {
        if success.status.is_empty() {
            return Err(SettingsError::new("success.status", "no status is a success; expected such as [200, 202]"));
        }
        statuses("success.status", &success.status)?;
        if let Some(status) = success.status.iter().find(|status| !(200..300).contains(*status)) {
            return Err(SettingsError::new("success.status", format!("{status} is no success; expected 200 to 299")));
        }
        statuses("throttle.status", &throttle.status)?;
        if success.equals.is_some() && success.pointer.is_none() {
            return Err(SettingsError::new("success.equals", "equal to what? set `success.pointer`, too"));
        }
        for (key, pointer) in [
            ("success.pointer", &success.pointer),
            ("success.id", &success.id),
            ("success.refused", &success.refused),
            ("refusal.code", &refusal.code),
            ("refusal.text", &refusal.text),
            ("refusal.recipients", &refusal.recipients),
            ("throttle.pause", &throttle.pause),
        ] {
            // RFC 6901: `~` stands before 0 or 1 only.
            let is_escaped = |text: &str| text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
            if let Some(pointer) = pointer
                && !(pointer.starts_with('/') && is_escaped(pointer))
            {
                return Err(SettingsError::new(key, format!("{pointer:?} is no JSON pointer; expected such as \"/errors/0/message\"")));
            }
        }
        for (key, name) in [("success.id_header", &success.id_header), ("throttle.pause_header", &throttle.pause_header)] {
            if let Some(name) = name
                && name.parse::<HeaderName>().is_err()
            {
                return Err(SettingsError::new(key, format!("{name:?} is no name of a header")));
            }
        }
        let mut rules = Vec::new();
        for (index, error) in errors.iter().enumerate() {
            rules.push(rule(error, refusal).map_err(|why| SettingsError::new("error", format!("the {}. rule: {why}", index + 1)))?);
        }
        rules.extend(throttle.status.iter().map(|&status| Rule::new(status, "", Verdict::Throttled(None))));
        Ok(Self { success: success.clone(), refusal: refusal.clone(), throttle: throttle.clone(), rules })
    }

    /// What an answer says.
    #[must_use]
    pub fn read(&self, answer: &Answer) -> Reading {
        let refused = self.refused(answer);
        if self.is_declared_refusal(answer.status, &refused) {
            return Reading::Refused(refused);
        }
        self.accepted(answer).map_or(Reading::Refused(refused), Reading::Accepted)
    }

    /// Whether a rule speaks of such an answer, by its status or its code: some services refuse with a
    /// status of success. A rule about words alone may fit those of a success.
    fn is_declared_refusal(&self, status: u16, refused: &Refused) -> bool {
        let text = refused.text.to_lowercase();
        let is_about = |rule: &&Rule| rule.status != 0 || !rule.code.is_empty();
        self.rules.iter().filter(is_about).any(|rule| rule.fits(status, &refused.code, &text))
    }

    /// What a message that was taken is told, if it was.
    fn accepted(&self, answer: &Answer) -> Option<Accepted> {
        let (json, success) = (answer.json(), &self.success);
        if !success.status.contains(&answer.status) {
            return None;
        }
        if let Some(pointer) = &success.pointer {
            let found = json.pointer(pointer).filter(|found| !found.is_null())?;
            if success.equals.as_ref().is_some_and(|wanted| wanted != found) {
                return None;
            }
        }
        let is_declared = success.pointer.is_some() || success.id.is_some() || success.id_header.is_some();
        let is_html = answer.header(CONTENT_TYPE.as_str()).is_some_and(|kind| kind.to_ascii_lowercase().contains("html"));
        let body = answer.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&answer.body).trim_ascii_start();
        if !is_declared && (is_html || body.starts_with(b"<")) {
            // A page for people: of a proxy, or of a login.
            return None;
        }
        let remote_id = match (&success.id, &success.id_header) {
            (Some(pointer), _) => Some(text(json.pointer(pointer)?)?),
            (None, Some(header)) => Some(answer.header(header)?.to_owned()),
            (None, None) => None,
        };
        let refused = listed(&json, success.refused.as_deref());
        Some(Accepted { remote_id, refused: refused.into_iter().map(|address| (address, "refused by the service".to_owned())).collect() })
    }

    /// Why a message was not taken.
    #[must_use]
    pub fn refused(&self, answer: &Answer) -> Refused {
        let json = answer.json();
        let at = |pointer: &Option<String>| json.pointer(pointer.as_deref()?).and_then(text);
        let seconds = at(&self.throttle.pause).or_else(|| answer.header(self.throttle.pause_header.as_deref()?).map(str::to_owned));
        // Longer than a day is taken for a slip.
        let pause = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.trim().parse().ok()?).ok());
        Refused {
            code: at(&self.refusal.code).unwrap_or_default(),
            // Without a place for them, its words are all that it says.
            text: if self.refusal.text.is_some() { at(&self.refusal.text) } else { Some(answer.excerpt()) }.unwrap_or_default(),
            recipients: listed(&json, self.refusal.recipients.as_deref()),
            retry_after: pause.map(|pause| pause.min(Duration::from_secs(86_400))),
        }
    }
}

fn rule(error: &ErrorRule, refusal: &Refusal) -> Result<Rule, String> {
    if error.status.is_none() && error.code.is_none() && error.says.is_none() {
        return Err("it would fit every answer; set `status`, `code` or `says`".to_owned());
    }
    if let Some(status) = error.status.filter(|status| !(100..600).contains(status)) {
        return Err(format!("there is no status {status}; expected 100 to 599"));
    }
    if error.code.is_some() && refusal.code.is_none() {
        return Err("`code` needs `refusal.code`, a JSON pointer at where the service says it".to_owned());
    }
    if error.pause.is_some() && error.verdict != Meaning::Throttled {
        return Err("`pause` goes with `verdict = \"throttled\"`".to_owned());
    }
    let [code, says, advice] = [&error.code, &error.says, &error.advice].map(|text| text.as_deref().unwrap_or_default());
    let verdict = error.verdict.verdict(error.pause.map(|pause| pause.0));
    Ok(Rule::new(error.status.unwrap_or(0), keep(code), verdict).says(keep(&says.to_lowercase())).advice(keep(advice)))
}

/// The texts of rules live as long as the process, as those that are built in. Each is kept once, so that
/// reading the config again adds nothing.
fn keep(text: &str) -> &'static str {
    static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut kept = KEPT.lock();
    if let Some(known) = kept.get(text) {
        return known;
    }
    let text: &'static str = Box::leak(text.into());
    kept.insert(text);
    text
}

fn statuses(key: &'static str, statuses: &[u16]) -> Result<(), SettingsError> {
    match statuses.iter().find(|status| !(100..600).contains(*status)) {
        Some(status) => Err(SettingsError::new(key, format!("there is no status {status}; expected 100 to 599"))),
        None => Ok(()),
    }
}

/// A value as a text; `None` if it is none that could be one.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The addresses in a list, or the one that stands there by itself. Services also list objects with an
/// address in them, or an object with an address for each key; so every text counts that is there.
fn listed(json: &Value, pointer: Option<&str>) -> Vec<String> {
    let mut texts = Vec::new();
    let mut open: Vec<&Value> = pointer.and_then(|pointer| json.pointer(pointer)).into_iter().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Array(list) => open.extend(list),
            Value::Object(object) => {
                texts.extend(object.keys().cloned());
                open.extend(object.values());
            }
            one => texts.extend(text(one)),
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, headers: HeaderMap::new(), body: body.to_owned().into() }
    }

    fn answers(success: Success) -> Answers {
        Answers::new(&success, &Refusal::default(), &Throttle::default(), &[]).unwrap()
    }

    #[test]
    fn a_success_is_only_what_was_declared_as_one() {
        let taken = |success: &Success, status, body| matches!(answers(success.clone()).read(&answer(status, body)), Reading::Accepted(_));
        let plain = Success::default();
        assert!(taken(&plain, 202, "") && taken(&plain, 200, "ok") && !taken(&plain, 204, "") && !taken(&plain, 200, "<html>"));
        let id = Success { id: Some("/id".into()), ..Success::default() };
        assert!(taken(&id, 200, r#"{"id": 7}"#) && !taken(&id, 200, "{}") && !taken(&id, 200, r#"{"id": null}"#));
        let equal = Success { pointer: Some("/a/0".into()), equals: Some("ok".into()), ..Success::default() };
        assert!(taken(&equal, 200, r#"{"a": ["ok"]}"#) && !taken(&equal, 200, r#"{"a": ["no"]}"#) && !taken(&equal, 200, "{}"));
        let header = Success { id_header: Some("X-Id".into()), ..Success::default() };
        assert!(!taken(&header, 200, "ok"));
    }

    #[test]
    fn a_page_for_people_is_no_success_however_it_begins() {
        let plain = answers(Success::default());
        for body in ["<html>", "\r\n <!DOCTYPE html>", "\u{feff}<html>"] {
            assert!(matches!(plain.read(&answer(200, body)), Reading::Refused(_)), "{body:?}");
        }
        let mut xhtml = answer(200, "ok");
        xhtml.headers.insert(CONTENT_TYPE, "application/xhtml+xml".parse().unwrap());
        assert!(matches!(plain.read(&xhtml), Reading::Refused(_)));
    }

    #[test]
    fn a_rule_about_a_status_of_success_or_a_code_comes_before_the_success() {
        let rules = r#"[
            {"status": 200, "says": "over quota", "verdict": "throttled"},
            {"code": "E7", "verdict": "sender"},
            {"says": "limit", "verdict": "throttled"}
        ]"#;
        let refusal = Refusal { code: Some("/code".into()), ..Refusal::default() };
        let rules: Vec<ErrorRule> = serde_json::from_str(rules).unwrap();
        let answers = Answers::new(&Success::default(), &refusal, &Throttle::default(), &rules).unwrap();
        for (body, taken) in [
            (r#"{"message": "Over quota"}"#, false),
            (r#"{"code": "e7"}"#, false),
            (r#"{"code": "OK"}"#, true),
            // Words alone may be those of a success.
            (r#"{"limit": 100}"#, true),
        ] {
            assert_eq!(matches!(answers.read(&answer(200, body)), Reading::Accepted(_)), taken, "{body}");
        }
    }

    #[test]
    fn recipients_are_found_in_each_form_of_a_list() {
        for list in [r#""a@b""#, r#"["a@b"]"#, r#"[{"email": "a@b", "why": "x"}]"#, r#"{"a@b": "x"}"#, r#"[{"to": {"email": "a@b"}}]"#] {
            let json = serde_json::from_str(&format!(r#"{{"refused": {list}}}"#)).unwrap();
            assert!(listed(&json, Some("/refused")).contains(&"a@b".to_owned()), "{list}");
        }
        assert_eq!(listed(&Value::Null, Some("/refused")), Vec::<String>::new());
    }

    #[test]
    fn a_declaration_that_cannot_work_names_its_key() {
        let error = |success: Success, refusal: Refusal, throttle: Throttle, rules: &str| {
            let rules: Vec<ErrorRule> = serde_json::from_str(rules).unwrap();
            Answers::new(&success, &refusal, &throttle, &rules).unwrap_err()
        };
        let (success, refusal, throttle) = (Success::default, Refusal::default, Throttle::default);
        for (error, key, expected) in [
            (error(Success { status: vec![], ..success() }, refusal(), throttle(), "[]"), "success.status", "no status"),
            (error(Success { status: vec![302], ..success() }, refusal(), throttle(), "[]"), "success.status", "302"),
            (error(Success { id: Some("id".into()), ..success() }, refusal(), throttle(), "[]"), "success.id", "no JSON pointer"),
            (error(Success { equals: Some(1.into()), ..success() }, refusal(), throttle(), "[]"), "success.equals", "success.pointer"),
            (error(success(), Refusal { text: Some("/a~b".into()), ..refusal() }, throttle(), "[]"), "refusal.text", "no JSON pointer"),
            (error(success(), refusal(), Throttle { status: vec![42], ..throttle() }, "[]"), "throttle.status", "no status 42"),
            (
                error(success(), refusal(), Throttle { pause_header: Some("a b".into()), ..throttle() }, "[]"),
                "throttle.pause_header",
                "no name",
            ),
            (error(success(), refusal(), throttle(), r#"[{"verdict": "rejected"}]"#), "error", "the 1. rule: it would fit every answer"),
            (error(success(), refusal(), throttle(), r#"[{"status": 999, "verdict": "rejected"}]"#), "error", "no status 999"),
            (error(success(), refusal(), throttle(), r#"[{"code": "x", "verdict": "rejected"}]"#), "error", "`refusal.code`"),
            (error(success(), refusal(), throttle(), r#"[{"status": 400, "pause": "1h", "verdict": "sender"}]"#), "error", "`pause`"),
        ] {
            assert!(error.key == key && error.message.contains(expected), "{key}, {expected}: {error:?}");
        }
    }

    #[test]
    fn texts_are_kept_once() {
        assert!(std::ptr::eq(keep("some text"), keep(&["some", " text"].concat())));
    }
}
