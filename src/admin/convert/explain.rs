//! From what the dispatcher foresees to what crosses the API, with a sentence for people.

use std::fmt::Write as _;

use postrider_providers::contract::{Message, RecipientIndex};

use super::super::wire::Moment;
use super::super::wire::explain::{
    ExplainedCandidate, ExplainedEnd, ExplainedPart, ExplainedWait, ExplainedWay, MessageExplanation, PassedOver,
};
use crate::clock::Clock;
use crate::dispatch::explain::{Candidate, Conclusion, Explanation, Part, Verdict, Wait, Way};
use crate::spool::view::Listed;

/// What would become of a message, without what the history knows of it. `listed`: as it stands in the queue.
pub(in crate::admin) fn explanation(explanation: Explanation, listed: Option<&Listed>, clock: Clock) -> MessageExplanation {
    let Explanation { message, attempts, parts } = explanation;
    let part = |part| self::part(part, &message, (attempts, listed), clock);
    MessageExplanation {
        id: listed.map(|listed| listed.id.to_string()),
        kind: if listed.is_some() { "queued" } else { "imagined" }.to_owned(),
        sender: message.envelope.reverse_path.address().map(ToString::to_string).unwrap_or_default(),
        state: listed.map(|listed| listed.state.as_str().to_owned()),
        attempts,
        parts: parts.into_iter().map(part).collect(),
        past: None,
        events: Vec::new(),
    }
}

fn part(part: Part, message: &Message, (attempts, listed): (u32, Option<&Listed>), clock: Clock) -> ExplainedPart {
    let Part { recipients, way, conclusion } = part;
    let position = |index: &RecipientIndex| index.0 as usize;
    let address = |index| message.envelope.recipients.get(position(index)).map(|recipient| recipient.address.to_string());
    let first = recipients.first().map(position);
    let said = listed.zip(first).and_then(|(listed, first)| listed.recipients.get(first)?.diagnostic.clone());
    ExplainedPart {
        recipients: recipients.iter().filter_map(address).collect(),
        conclusion: end(conclusion, attempts, said.as_deref()),
        said,
        way: way.map(|way| self::way(way, clock)),
    }
}

fn way(way: Way, clock: Clock) -> ExplainedWay {
    let passed_over = |(route, condition, value): (std::sync::Arc<str>, crate::route::Condition, String)| PassedOver {
        route: route.to_string(),
        condition: condition.to_string(),
        value,
    };
    ExplainedWay {
        route: way.route.name.to_string(),
        why: if way.rerouted { "rerouted" } else { "first_match" }.to_owned(),
        passed_over: way.passed_over.into_iter().map(passed_over).collect(),
        in_doubt: way.in_doubt.map(|provider| provider.to_string()),
        pinned: way.pinned.map(super::pin),
        spill: way.route.spill,
        waits: way.waits.into_iter().map(wait).collect(),
        limits: way.limits.into_iter().map(|status| super::limit(status, clock)).collect(),
        at_once: way.piece.map(|piece| piece.recipients),
        again_after_seconds: way.piece.map(|piece| piece.again_after.as_secs()),
        candidates: way.candidates.into_iter().map(|one| candidate(one, clock)).collect(),
        expires: way.expires.into(),
    }
}

fn candidate(candidate: Candidate, clock: Clock) -> ExplainedCandidate {
    let Candidate { name, cannot, waits, limits, per_call } = candidate;
    let verdict = match (&cannot, waits.first()) {
        (Some(cannot), _) => cannot.name(),
        (None, Some(wait)) => wait.cause.name(),
        (None, None) => "would_be_asked",
    };
    ExplainedCandidate {
        provider: name.to_string(),
        verdict: verdict.to_owned(),
        why: cannot.map(|cannot| cannot.words().into_owned()),
        waits: waits.into_iter().map(wait).collect(),
        limits: limits.into_iter().map(|status| super::limit(status, clock)).collect(),
        per_call,
    }
}

fn wait(Wait { cause, reason, until }: Wait) -> ExplainedWait {
    ExplainedWait { cause: cause.name().to_owned(), reason: reason.to_string(), until: until.map(Into::into) }
}

fn end(conclusion: Conclusion, attempts: u32, said: Option<&str>) -> ExplainedEnd {
    let sentence = sentence(&conclusion, attempts, said);
    let Conclusion { verdict, at, provider, reason, others } = conclusion;
    ExplainedEnd {
        verdict: verdict.name().to_owned(),
        at: at.map(Into::into),
        provider: provider.map(|provider| provider.to_string()),
        reason,
        others,
        sentence,
    }
}

/// What becomes of them in one sentence; `said` is what was said of them last.
fn sentence(Conclusion { verdict, at, provider, reason, others }: &Conclusion, attempts: u32, said: Option<&str>) -> String {
    let time = at.map(|at| Moment(at).to_text());
    let (at, since) = (time.as_ref().map(|time| format!(" at {time}")), time.as_ref().map(|time| format!(" since {time}")));
    let (at, since) = (at.unwrap_or_default(), since.unwrap_or_default());
    let who = provider.as_ref().map_or_else(|| "a provider".to_owned(), ToString::to_string);
    match verdict {
        Verdict::Now => format!("would go now to {who}"),
        Verdict::Waits => {
            let mut sentence = match (&time, others) {
                (Some(time), 0) => format!("waits until {time} for {reason}"),
                (Some(time), _) => format!("waits until {time} at least for {reason}"),
                (None, _) => format!("waits for {reason}, and nothing tells until when"),
            };
            // Writing to a String does not fail.
            let _ = match others {
                0 => Ok(()),
                1 => write!(sentence, ", as another message does"),
                others => write!(sentence, ", as {others} other messages do"),
            };
            if let Some(provider) = provider {
                let _ = write!(sentence, "; then goes to {provider}");
            }
            sentence
        }
        Verdict::Retry => {
            let to = provider.as_ref().map(|provider| format!(", which goes to {provider}")).unwrap_or_default();
            format!("next attempt{at} by the retry schedule (attempt {}){to}", attempts + 1)
        }
        Verdict::UnderWay => "is in hand: a provider is being asked, or is about to be".to_owned(),
        Verdict::Held => format!("held by a person{since}"),
        Verdict::InDoubt => {
            let begins = if at.is_empty() { "held" } else { "is held" };
            format!("{begins}{at} for a person to decide: {who} may have it already ({reason})")
        }
        Verdict::Dead => format!("dead letter, which waits for a person: {}", said.unwrap_or("nobody could be told")),
        Verdict::Bounces => format!("bounces{at}: {reason}"),
        Verdict::Deferred if at.is_empty() => format!("cannot go now ({reason}); the retry schedule says when that is looked at again"),
        Verdict::Deferred => format!("cannot go ({reason}); that is looked at again{at}"),
        Verdict::Expires => format!("expires{at}: it waits for {reason}, which lasts longer"),
        Verdict::Refused => format!("is refused at the door: {reason}"),
        Verdict::Ended => format!("{reason}: nothing is left to do"),
    }
}
