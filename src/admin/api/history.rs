//! The history: what became of messages, and what people did.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use postrider_providers::contract::MessageId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::problem::{Asked, Problem};
use super::super::wire::Moment;
use super::super::wire::history::{ActionLog, HistoryPage, MessageTrace, PastEvent, PastMessage, PastRecipient, SearchQuery};
use super::super::{Office, convert};
use super::Problems;
use crate::history::{Event, HistoryError, Past, PastState, Place, Query, query};

/// How long a part is, if nobody says.
const USUAL_PAGE: usize = 50;

/// The longest part in one answer.
const LONGEST_PAGE: usize = 500;

/// How many of people's actions are listed.
const ACTIONS: usize = 200;

pub(super) fn routes() -> OpenApiRouter<Office> {
    OpenApiRouter::new().routes(routes!(search)).routes(routes!(actions)).routes(routes!(trace))
}

/// Finds messages that are or were here, the newest first.
#[utoipa::path(get, path = "/api/v1/history", params(SearchQuery), responses((status = 200, body = HistoryPage), Problems))]
async fn search(State(office): State<Office>, Asked(asked): Asked<SearchQuery>) -> Result<Json<HistoryPage>, Problem> {
    let limit = asked.limit.unwrap_or(USUAL_PAGE);
    if !(1..=LONGEST_PAGE).contains(&limit) {
        return Err(Problem::bad(format!("`limit` is {limit}, expected 1 to {LONGEST_PAGE}")));
    }
    // One more than is shown says whether there is more.
    let mut found = office.operations.search(&meant(asked, limit + 1)?).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| place_text(last.place()));
    Ok(Json(HistoryPage { messages: found.into_iter().map(|past| message(past, convert::FEW_RECIPIENTS)).collect(), next }))
}

/// What people did to the gateway itself: providers, routes, its config.
#[utoipa::path(get, path = "/api/v1/history/actions", responses((status = 200, body = ActionLog), Problems))]
async fn actions(State(office): State<Office>) -> Result<Json<ActionLog>, Problem> {
    let found = office.operations.actions(ACTIONS).await?;
    Ok(Json(ActionLog { events: found.into_iter().map(|moment| event(moment, &[])).collect() }))
}

/// All that is known of one message: where it stands, and what happened to it.
#[utoipa::path(
    get, path = "/api/v1/messages/{id}/trace",
    params(("id" = String, Path, description = "32 hexadecimal digits.")),
    responses((status = 200, body = MessageTrace), Problems)
)]
async fn trace(State(office): State<Office>, Path(text): Path<String>) -> Result<Json<MessageTrace>, Problem> {
    let id: MessageId = text.parse().map_err(|error| Problem::bad(format!("\"{text}\" is no id: {error}")))?;
    let found = office.operations.find(id).await?;
    let known = known(&office, id, found.is_some()).await?;
    let (waits_for, queued) = match found {
        Some(found) => (found.waits_for.map(|reason| reason.to_string()), Some(convert::message(found.listed, usize::MAX))),
        None => (None, None),
    };
    let (past, events) = known.unzip();
    Ok(Json(MessageTrace { queued, waits_for, past, events: events.unwrap_or_default() }))
}

/// What the history knows of a message: how it stands, and what happened.
///
/// # Errors
/// When neither it nor the queue knows it, or it cannot be read.
pub(super) async fn known(office: &Office, id: MessageId, is_queued: bool) -> Result<Option<(PastMessage, Vec<PastEvent>)>, Problem> {
    let known = match office.operations.trace(id).await {
        // The queue knows it, at least.
        Err(HistoryError::Off) if is_queued => None,
        known => known?,
    };
    if known.is_none() && !is_queued {
        let problem = Problem::missing(format!("message {id} is not in the queue, and the history does not know it"));
        return Err(problem.help("it was never accepted here, or so long ago that it was forgotten (history.keep)"));
    }
    Ok(known.map(|known| {
        let addresses = known.past.about.recipients.clone();
        (message(known.past, usize::MAX), known.events.into_iter().map(|moment| event(moment, &addresses)).collect())
    }))
}

impl From<HistoryError> for Problem {
    fn from(error: HistoryError) -> Self {
        let (status, help) = match error {
            HistoryError::Off => (StatusCode::NOT_FOUND, "set history.keep to how long it is to be kept"),
            HistoryError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "look into the gateway's log"),
            HistoryError::TooLong(_) => (StatusCode::UNPROCESSABLE_ENTITY, "give a time, an id, or a whole address"),
        };
        Self::new(status, error.to_string()).help(help)
    }
}

fn meant(asked: SearchQuery, limit: usize) -> Result<Query, Problem> {
    let state = |name: String| {
        let names: Vec<&str> = PastState::ALL.iter().map(|state| state.as_str()).collect();
        PastState::parse(&name).ok_or_else(|| Problem::bad(format!("`state` is \"{name}\", expected one of {}", names.join(", "))))
    };
    let id = |text: String| text.parse().map_err(|error| Problem::bad(format!("`id` is \"{text}\": {error}")));
    Ok(Query {
        id: asked.id.map(id).transpose()?,
        message_id: asked.message_id,
        remote_id: asked.remote_id,
        sender: asked.sender,
        recipient: asked.recipient,
        provider: asked.provider,
        route: asked.route,
        application: asked.application,
        client: asked.client,
        state: asked.state.map(state).transpose()?,
        since: asked.since.map(|moment| moment.0),
        until: asked.until.map(|moment| moment.0),
        limit,
        before: asked.before.map(|text| place(&text)).transpose()?,
    })
}

/// The place as a client gets it, and gives it back.
fn place_text(Place { received, id }: Place) -> String {
    format!("{received}-{id}")
}

fn place(text: &str) -> Result<Place, Problem> {
    let parts = text.split_once('-').and_then(|(received, id)| Some(Place { received: received.parse().ok()?, id: id.parse().ok()? }));
    parts.ok_or_else(|| Problem::bad(format!("`before` is \"{text}\", which no answer has said")).help("give what `next` says"))
}

fn moment(millis: u64) -> Moment {
    // Within what the clock can tell, whatever a damaged record says.
    Moment(SystemTime::UNIX_EPOCH + Duration::from_millis(millis.min(253_402_300_799_000)))
}

fn message(past: Past, most: usize) -> PastMessage {
    let Past { id, about, state, last, ended, recipients } = past;
    let recipient_count = recipients.len();
    let recipient = |recipient: query::PastRecipient| PastRecipient {
        address: recipient.address,
        state: recipient.state.as_str().to_owned(),
        provider: recipient.provider.map(|name| name.to_string()),
        route: recipient.route.map(|name| name.to_string()),
        remote_id: recipient.remote_id,
        words: recipient.words,
    };
    PastMessage {
        id: id.to_string(),
        state: state.as_str().to_owned(),
        received: moment(about.received),
        last: moment(last),
        ended: ended.map(moment),
        sender: about.sender,
        recipients: recipients.into_iter().take(most).map(recipient).collect(),
        recipient_count,
        message_id: about.message_id.map(|id| id.to_string()),
        size: about.size,
        application: about.application.map(|name| name.to_string()),
        client: about.client,
    }
}

fn event(query::Moment { at, event }: query::Moment, addresses: &[String]) -> PastEvent {
    let named = |recipients: Vec<u32>| -> Vec<String> {
        let address = |index: u32| addresses.get(index as usize).cloned().unwrap_or_else(|| format!("recipient {}", u64::from(index) + 1));
        recipients.into_iter().map(address).collect()
    };
    let base = PastEvent { at: Some(moment(at)), ..PastEvent::default() };
    let ended = |what: &str, recipients, words| PastEvent { what: what.to_owned(), recipients: named(recipients), words, ..base.clone() };
    match event {
        Event::Attempt { number, provider, route, recipients, verdict, words, elapsed_ms } => PastEvent {
            provider: Some(provider),
            route: Some(route),
            attempt: Some(number),
            verdict: Some(verdict),
            elapsed_ms: Some(elapsed_ms),
            ..ended("attempt", recipients, words)
        },
        Event::Relayed { recipients, provider, remote_id, words } => {
            PastEvent { provider: Some(provider), remote_id, ..ended("relayed", recipients, words) }
        }
        Event::Deferred { recipients, words, due } => PastEvent { due: Some(moment(due)), ..ended("deferred", recipients, words) },
        Event::InDoubt { recipients, provider, words, held } => {
            PastEvent { provider: Some(provider), ..ended(if held { "held" } else { "in_doubt" }, recipients, words) }
        }
        Event::Bounced { recipients, words } => ended("bounced", recipients, words),
        Event::Expired { recipients, words } => ended("expired", recipients, words),
        Event::Dead { recipients, words } => ended("dead", recipients, words),
        Event::Notified { who, to, notification, what } => {
            PastEvent { told: Some(format!("{who} <{to}>")), notification: Some(notification), ..ended("notified", Vec::new(), what) }
        }
        Event::Action { action, words, by } => PastEvent { action: Some(action), by: Some(by), ..ended("action", Vec::new(), words) },
    }
}
