//! What a running gateway says: of an imagined message, of one in its queue, of one that has left it.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use postrider_providers::contract::ReversePath;
use postrider_providers::mime::signature::Signature;
use serde_json::json;

use super::super::api::{Gateway, Reach, Trouble};
use super::super::history::event;
use super::super::providers;
use super::super::table::{clean, span, when};
use super::super::{Exit, print};
use super::Options;
use crate::admin::wire::Moment;
use crate::admin::wire::explain::{
    ExplainRequest, ExplainedCandidate, ExplainedPart, ExplainedWait, ExplainedWay, MessageExplanation, SignedWith,
};
use crate::admin::wire::providers::Limit;

/// How many recipients of a part are named.
const NAMED: usize = 5;

/// A message that is or was in the queue.
pub(super) async fn of_id(reach: &Reach, id: &str) -> Exit {
    let asked = async { Gateway::find(reach)?.get(&["messages", id, "explain"], &[]).await };
    told(asked.await, reach.json)
}

/// A message that somebody would hand in.
pub(super) async fn imagined(options: &Options, from: &ReversePath) -> Exit {
    let request = ExplainRequest {
        from: from.address().map(ToString::to_string).unwrap_or_default(),
        to: options.to.iter().map(ToString::to_string).collect(),
        application: options.app.clone(),
        client: Some(options.client.to_string()),
        size: options.size,
        signed: options.signed.map(|signature| match signature {
            Signature::Smime => SignedWith::Smime,
            Signature::PgpMime => SignedWith::Pgp,
            Signature::Dkim => SignedWith::Dkim,
        }),
    };
    let asked = async { Gateway::find(&options.reach)?.post(&["explain"], &request).await };
    told(asked.await, options.reach.json)
}

fn told(answer: Result<MessageExplanation, Trouble>, json: bool) -> Exit {
    let explanation = match answer {
        Ok(explanation) => explanation,
        Err(trouble) => return trouble.report(),
    };
    if json {
        print(&json!(explanation).to_string());
    } else {
        print(text(&explanation, SystemTime::now()).trim_end());
    }
    // As where the config alone is asked.
    if explanation.parts.iter().any(|part| part.conclusion.verdict == "refused") { Exit::Unavailable } else { Exit::Ok }
}

fn text(explanation: &MessageExplanation, now: SystemTime) -> String {
    let MessageExplanation { id, kind, sender, state, attempts, parts, past, events } = explanation;
    let mut text = String::new();
    if let Some(id) = id {
        line(&mut text, "message", &format!("{id} from <{sender}>"));
    } else {
        line(&mut text, "message", &format!("imagined, from <{sender}>"));
    }
    if let Some(state) = state {
        let place = if kind == "past" { "not in the queue any more" } else { "in the queue" };
        let attempts = if *attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
        line(&mut text, "state", &format!("{state}, {place}, {attempts}"));
    }
    for part in parts {
        text.push('\n');
        write_part(&mut text, part, now);
    }
    if kind == "past"
        && let Some(past) = past
    {
        text.push('\n');
        for recipient in &past.recipients {
            let at = recipient.provider.as_ref().map(|provider| format!(" at {provider}")).unwrap_or_default();
            let by = recipient.route.as_ref().map(|route| format!(", by route {route}")).unwrap_or_default();
            let words = if recipient.words.is_empty() { String::new() } else { format!(": {}", recipient.words) };
            line(&mut text, &format!("<{}>", recipient.address), &format!("{}{at}{by}{words}", recipient.state));
        }
    }
    if !events.is_empty() {
        text.push_str("\nwhat happened\n");
        for one in events {
            // Writing to a String does not fail.
            let _ = writeln!(text, "  {}", event(one));
        }
    }
    text
}

fn write_part(text: &mut String, part: &ExplainedPart, now: SystemTime) {
    let ExplainedPart { recipients, said, conclusion, way } = part;
    let named: Vec<String> = recipients.iter().take(NAMED).map(|address| format!("<{address}>")).collect();
    let more = recipients.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let _ = writeln!(text, "{}{more}", clean(&named.join(", ")));
    let distance = conclusion.at.map(|at| format!(" ({})", when(at, now))).unwrap_or_default();
    line(text, "result", &format!("{}{distance}", conclusion.sentence));
    if let Some(said) = said.as_ref().filter(|_| conclusion.verdict != "dead") {
        line(text, "last words", said);
    }
    if let Some(way) = way {
        write_way(text, way, now);
    }
}

fn write_way(text: &mut String, way: &ExplainedWay, now: SystemTime) {
    for passed in &way.passed_over {
        line(text, "passed over", &format!("{}: {} is {}", passed.route, passed.condition, passed.value));
    }
    let why = if way.why == "rerouted" { "chosen by a person" } else { "the first that matches" };
    let at_limit = if way.spill { "goes on to the next" } else { "waits" };
    line(text, "route", &format!("{}, {why}; {at_limit} where a provider's limit is reached", way.route));
    if let Some(pin) = &way.pinned {
        line(text, "pinned", &format!("to {} by {}, {}", pin.provider, pin.decided.by, when(pin.decided.at, now)));
    }
    if let Some(provider) = &way.in_doubt {
        line(text, "in doubt", &format!("{provider} may have it already, so nobody else is asked"));
    }
    for waits in &way.waits {
        line(text, "waits for", &wait(waits, now));
    }
    if let Some(at_once) = way.at_once {
        let after = way.again_after_seconds.map(|seconds| format!(", as many again after {}", span(Duration::from_secs(seconds))));
        line(text, "at once", &format!("{at_once} recipients{}", after.unwrap_or_default()));
    }
    for one in &way.limits {
        line(text, "limit", &limit(one, now));
    }
    let width = way.candidates.iter().map(|candidate| candidate.provider.len()).max().unwrap_or(0);
    for (number, candidate) in way.candidates.iter().enumerate() {
        line(text, "", &format!("{}. {:<width$}  {}", number + 1, candidate.provider, verdict(candidate, now)));
        for one in &candidate.limits {
            line(text, "", &format!("   {:<width$}  limit {}", "", limit(one, now)));
        }
    }
    line(text, "given up", &format!("{} ({})", way.expires.to_text(), when(way.expires, now)));
}

fn verdict(candidate: &ExplainedCandidate, now: SystemTime) -> String {
    let waits: Vec<String> = candidate.waits.iter().map(|waits| wait(waits, now)).collect();
    let mut words = match (&candidate.why, candidate.verdict.as_str()) {
        (Some(why), "cannot_carry") => format!("CANNOT: {why}"),
        (Some(why), _) => format!("NOT ASKED: {why}"),
        (None, _) if waits.is_empty() => "would be asked".to_owned(),
        (None, _) => format!("WAITS for {}", waits.join("; and for ")),
    };
    if let Some(per_call) = candidate.per_call {
        let _ = write!(words, "; {per_call} recipients in a call");
    }
    words
}

fn wait(ExplainedWait { reason, until, .. }: &ExplainedWait, now: SystemTime) -> String {
    let until = until.map(|until: Moment| format!(", until {} ({})", until.to_text(), when(until, now)));
    format!("{reason}{}", until.unwrap_or_default())
}

fn limit(one: &Limit, now: SystemTime) -> String {
    format!("{} ({})", providers::live::limit(one, now), one.setting)
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<12} {}", clean(&value.replace('\n', " ")));
}
