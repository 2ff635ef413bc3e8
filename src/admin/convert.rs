//! From what the parts of the gateway say to what crosses the API.

pub(super) mod explain;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use postrider_providers::contract::{Address, ProviderName};
use postrider_providers::settings::Counted;

use super::operations::LastReload;
use super::problem::Problem;
use super::wire::Decided;
use super::wire::providers::{Circuit, ControlName, ControlRequest, Limit, Pause, Pin, Provider, ProviderError, RefusedSender};
use super::wire::queue::{ActionName, ActionRequest, Job, Lane, QueueSummary, QueuedMessage, QueuedRecipient};
use super::wire::system::{ConfigState, ReloadFailure};
use crate::clock::Clock;
use crate::dispatch::control::{self, By};
use crate::dispatch::rate::LimitStatus;
use crate::dispatch::{Command, ProviderStatus, Subject};
use crate::queue::{JobState, Progress};
use crate::spool::RecipientState;
use crate::spool::action::Action;
use crate::spool::view::{LaneSummary, Listed, ListedRecipient, QueueState, Summary};

/// The most lanes that a summary lists: there is one for each sending domain, which strangers may make up.
const MOST_LANES: usize = 500;

/// The most recipients that a list shows of each message.
pub(super) const FEW_RECIPIENTS: usize = 20;

/// A name or a sentence for a request that lacks one.
fn needed(value: Option<String>, what: &str) -> Result<String, Problem> {
    value.filter(|value| !value.trim().is_empty()).ok_or_else(|| Problem::bad(format!("`{what}` is missing or empty")))
}

fn refused_unless_absent(action: &str, fields: &[(&str, bool)]) -> Result<(), Problem> {
    match fields.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(Problem::bad(format!("`{field}` means nothing to {action}")).help(format!("leave `{field}` out"))),
        None => Ok(()),
    }
}

impl ActionRequest {
    /// The action, if all that it needs is there and nothing else.
    pub(super) fn action(self) -> Result<Action, Problem> {
        let Self { action, reason, route, from, to } = self;
        let given = [("reason", reason.is_some()), ("route", route.is_some()), ("from", from.is_some()), ("to", to.is_some())];
        let takes: &[&str] = match action {
            ActionName::Bounce => &["reason"],
            ActionName::Reroute => &["route"],
            ActionName::Readdress => &["from", "to"],
            _ => &[],
        };
        let others: Vec<_> = given.into_iter().filter(|(field, _)| !takes.contains(field)).collect();
        refused_unless_absent(action.name(), &others)?;
        let address = |text: String| Address::parse(&text).map_err(|error| Problem::bad(format!("\"{text}\" is no address: {error}")));
        Ok(match action {
            ActionName::Retry => Action::Retry,
            ActionName::Hold => Action::Hold,
            ActionName::Release => Action::Release,
            ActionName::Remove => Action::Remove,
            // It becomes part of a notification: one line, and not without end.
            ActionName::Bounce => {
                let reason = needed(reason, "reason")?;
                if reason.len() > 500 || reason.chars().any(char::is_control) {
                    return Err(Problem::bad("`reason` is longer than 500 octets, or not one line"));
                }
                Action::Bounce(reason)
            }
            ActionName::Reroute => Action::Reroute(needed(route, "route")?.into()),
            ActionName::Readdress => Action::Readdress { from: address(needed(from, "from")?)?, to: address(needed(to, "to")?)? },
        })
    }
}

impl ActionName {
    /// The name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Remove => "remove",
            Self::Bounce => "bounce",
            Self::Reroute => "reroute",
            Self::Readdress => "readdress",
        }
    }
}

impl ControlRequest {
    /// The command, if all that it needs is there and nothing else.
    pub(super) fn command(self) -> Result<Command, Problem> {
        let Self { action, provider, route, domain, application } = self;
        let provider = provider.map(|name| ProviderName::from(name.as_str()));
        let given = [("route", route.is_some()), ("domain", domain.is_some()), ("application", application.is_some())];
        let name = |provider: Option<ProviderName>| provider.ok_or_else(|| Problem::bad("`provider` is missing"));
        let subject = |provider: Option<ProviderName>, route: Option<String>| {
            let mut subjects: Vec<Subject> = Vec::new();
            subjects.extend(provider.map(Subject::Provider));
            subjects.extend(route.map(|name| Subject::Route(name.into())));
            subjects.extend(domain.map(|name| Subject::Domain(name.to_lowercase().into())));
            subjects.extend(application.map(|name| Subject::Application(name.into())));
            match (subjects.pop(), subjects.pop()) {
                (Some(subject), None) => Ok(subject),
                _ => Err(Problem::bad("expected exactly one of `provider`, `route`, `domain` and `application`")),
            }
        };
        match action {
            ControlName::Trip | ControlName::Reset | ControlName::Drain => {
                refused_unless_absent("this", &given)?;
                let provider = name(provider)?;
                Ok(match action {
                    ControlName::Trip => Command::Trip(provider),
                    ControlName::Reset => Command::Reset(provider),
                    _ => Command::Drain(provider),
                })
            }
            ControlName::Pause => Ok(Command::Pause(subject(provider, route)?)),
            ControlName::Resume => Ok(Command::Resume(subject(provider, route)?)),
            ControlName::Pin => {
                refused_unless_absent("pin", &given[1..])?;
                Ok(Command::Pin { route: needed(route, "route")?.into(), provider: name(provider)? })
            }
            ControlName::Unpin => {
                refused_unless_absent("unpin", &given[1..])?;
                Ok(Command::Unpin(needed(route, "route")?.into()))
            }
        }
    }
}

pub(super) fn states(summary: &Summary) -> BTreeMap<String, u64> {
    QueueState::ALL.iter().map(|state| (state.as_str().to_owned(), summary.count(*state))).collect()
}

pub(super) fn oldest_seconds(summary: &Summary, now: SystemTime) -> Option<u64> {
    summary.oldest_age(now).map(|age| age.as_secs())
}

pub(super) fn summary(mut summary: Summary, now: SystemTime) -> QueueSummary {
    let (states, oldest_seconds) = (states(&summary), oldest_seconds(&summary, now));
    let next_due = summary.lanes.iter().filter_map(|lane| lane.next_due).min();
    let messages = summary.lanes.iter().map(|lane| lane.messages).sum();
    summary.lanes.sort_by_key(|lane| std::cmp::Reverse(lane.messages));
    let lanes_left_out = summary.lanes.len().saturating_sub(MOST_LANES) as u64;
    QueueSummary {
        messages,
        states,
        oldest_seconds,
        next_due: next_due.map(Into::into),
        set_aside: summary.set_aside,
        lanes: summary.lanes.into_iter().take(MOST_LANES).map(lane).collect(),
        lanes_left_out,
    }
}

fn lane(LaneSummary { lane, state, messages, octets, oldest, next_due }: LaneSummary) -> Lane {
    Lane {
        priority: lane.priority.as_str().to_owned(),
        route: lane.route.to_string(),
        domain: lane.domain.to_string(),
        state: state.as_str().to_owned(),
        messages,
        octets,
        oldest: oldest.into(),
        next_due: next_due.map(Into::into),
    }
}

/// A message with up to `most` of its recipients.
pub(super) fn message(listed: Listed, most: usize) -> QueuedMessage {
    QueuedMessage {
        id: listed.id.to_string(),
        state: listed.state.as_str().to_owned(),
        priority: listed.lane.priority.as_str().to_owned(),
        route: listed.lane.route.to_string(),
        sender: listed.sender.unwrap_or_default(),
        recipient_count: listed.recipients.len(),
        recipients: listed.recipients.into_iter().take(most).map(recipient).collect(),
        received: listed.received.into(),
        due: listed.due.map(Into::into),
        held_at: listed.held_at.map(Into::into),
        attempts: listed.attempts,
        size: listed.size,
        application: text(listed.application),
        client: listed.client.map(|client| client.to_string()),
        message_id: text(listed.message_id),
        rerouted: text(listed.rerouted),
    }
}

fn recipient(ListedRecipient { address, state, last_provider, diagnostic }: ListedRecipient) -> QueuedRecipient {
    let (state, holder) = match state {
        RecipientState::Pending => ("pending", None),
        RecipientState::InDoubt(provider) => ("in_doubt", Some(provider)),
        RecipientState::Held(provider) => ("held", Some(provider)),
        RecipientState::Relayed => ("relayed", None),
        RecipientState::Bounced => ("bounced", None),
        RecipientState::Expired => ("expired", None),
        RecipientState::Dead => ("dead", None),
    };
    let provider = last_provider.or(holder).map(|name| name.to_string());
    QueuedRecipient { address, state: state.to_owned(), provider, diagnostic }
}

pub(super) fn job(progress: Progress) -> Job {
    let Progress { id, state, action, filter, by, started, ended, expected, matched, done, busy, refused, gone, first_refusal } = progress;
    let name = state.as_str().to_owned();
    Job {
        id: id.0,
        state: name,
        failure: if let JobState::Failed(why) = state { Some(why) } else { None },
        action: action.to_owned(),
        filter: filter.to_string(),
        by: by.to_string(),
        started: started.into(),
        ended: ended.map(Into::into),
        expected,
        matched,
        done,
        busy,
        refused,
        gone,
        first_refusal,
    }
}

pub(super) fn config(last: &LastReload) -> ConfigState {
    let failure = last.failure.as_ref().map(|(at, why)| ReloadFailure { at: (*at).into(), why: why.to_string() });
    ConfigState { generation: last.generation, taken: last.taken.into(), failure }
}

pub(super) fn provider(status: ProviderStatus, clock: Clock) -> Provider {
    let circuit = status.circuit;
    Provider {
        name: status.name.to_string(),
        kind: status.kind,
        circuit: Circuit {
            state: circuit.state.to_owned(),
            since: circuit.since.map(Into::into),
            until: circuit.until.map(Into::into),
            why: circuit.why,
            at_once: circuit.at_once,
        },
        tripped: status.tripped.map(decided),
        drained: status.drained.map(decided),
        paused: status.paused.map(decided),
        in_flight: status.in_flight,
        concurrency: status.concurrency,
        last_success: status.last_success.map(Into::into),
        last_errors: status.last_errors.into_iter().map(error).collect(),
        throttled_until: status.throttled_until.map(Into::into),
        in_doubt: status.in_doubt,
        refused_senders: status.refused_senders.into_iter().map(refused_sender).collect(),
        limits: status.limits.into_iter().map(|status| limit(status, clock)).collect(),
    }
}

fn limit(status: LimitStatus, clock: Clock) -> Limit {
    let counted = match status.counted {
        Counted::Messages => "messages",
        Counted::Recipients => "recipients",
    };
    Limit {
        name: status.reason.to_string(),
        setting: status.setting,
        key: text(status.key),
        counted: counted.to_owned(),
        count: status.count,
        period_seconds: status.period.as_secs(),
        burst: status.burst,
        used: status.used,
        left: status.left,
        next: status.next_free.map(|free| clock.time_of(free).into()),
    }
}

fn error(control::ProviderError { at, verdict, words, advice }: control::ProviderError) -> ProviderError {
    ProviderError { at: at.into(), verdict: verdict.to_owned(), words, advice }
}

fn refused_sender(control::RefusedSender { sender, since, until, words }: control::RefusedSender) -> RefusedSender {
    RefusedSender { sender: sender.to_string(), since: since.into(), until: until.into(), words }
}

pub(super) fn pause(control::Pause { subject, by }: control::Pause) -> Pause {
    let (what, name) = match subject {
        Subject::Provider(name) => ("provider", name.to_string()),
        Subject::Route(name) => ("route", name.to_string()),
        Subject::Domain(name) => ("domain", name.to_string()),
        Subject::Application(name) => ("application", name.to_string()),
    };
    Pause { what: what.to_owned(), name, decided: decided(by) }
}

pub(super) fn pin(control::Pin { route, provider, by }: control::Pin) -> Pin {
    Pin { route: route.to_string(), provider: provider.to_string(), decided: decided(by) }
}

fn decided(By { who, at }: By) -> Decided {
    Decided { by: who.to_string(), at: at.into() }
}

fn text(text: Option<Arc<str>>) -> Option<String> {
    text.map(|text| text.to_string())
}
